//! Settings of the process: flags, then `GATEWAY_*` environment variables, then the YAML file named by `--config`,
//! then defaults. `--help` shows all three names of each.
//!
//! Only settings that do something are here. Invariant: a [`Config`] that came out of [`Config::checked`] never
//! opens an unprotected port off loopback unless `insecure` says so.

mod span;

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Deserialize;

use crate::identity::{DEFAULT_LIFETIME, LIFETIMES};
use crate::leader::Chores;
use crate::store::{MIN_REVISIONS, Retention};
use span::Span;

/// Where the admin API listens when nothing is said.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
/// Where the stream listens when nothing is said.
pub const DEFAULT_STREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);
/// Which history is kept, and for how long data planes are remembered, when nothing is said.
pub const DEFAULT_CHORES: Chores = Chores {
    history: Retention { revisions: 10_000, age: Some(Duration::from_secs(90 * 24 * 3600)) },
    forget_nodes: Duration::from_secs(7 * 24 * 3600),
};
/// Credentials that are kept when nothing is said, and the most that may be said: what data planes have memory for.
pub const DEFAULT_CREDENTIALS: u64 = 2_000_000;
const MAX_CREDENTIALS: u64 = 50_000_000;
/// Most revisions that history may be told to keep.
const MAX_REVISIONS: u64 = 10_000_000;
/// Shortest time after which a data plane may be forgotten: one that is connected is heard of more often.
const MIN_FORGET: Duration = Duration::from_secs(60);
/// Largest settings file taken, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a control plane is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address of the admin API; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// Address of the snapshot stream; port 0 takes a free one.
    pub stream_listen: SocketAddr,
    /// `sqlite:///path` or `postgres://...`; none: a SQLite file in the state directory.
    pub database_url: Option<String>,
    /// Folder of this process alone: made with mode 0700 and locked.
    pub state_dir: PathBuf,
    /// File with the key that seals secrets; none: one in the state directory, made when missing (SQLite only).
    pub master_key_file: Option<PathBuf>,
    /// File whose content is made an admin token at each start: the way back in.
    pub admin_token_file: Option<PathBuf>,
    /// Certificate and key of both servers; none: clear text on the admin API, the control plane's own CA on the stream.
    pub tls: Option<TlsFiles>,
    /// CAs (PEM) whose certificates data planes may show beside those of the control plane's own.
    pub tls_client_ca: Option<PathBuf>,
    /// Folder of the files that discovery sources name; none: there are no file sources.
    pub discovery_file_dir: Option<PathBuf>,
    /// How long certificates of data planes live.
    pub node_certificate_ttl: Duration,
    /// What is done now and then.
    pub chores: Chores,
    /// Most credentials that are kept.
    pub max_credentials: u64,
    /// Allows unprotected ports off loopback.
    pub insecure: bool,
}

/// PEM files of a server certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate chain, leaf first.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// How the process logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// What is worth a line.
    pub level: LogLevel,
    /// What a line looks like.
    pub format: LogFormat,
}

/// Least severe line that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// Form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Why settings are not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--help`, `--version` or a wrong command line: print it and leave with its exit code.
    #[error("{0}")]
    Usage(#[from] clap::Error),
    /// The settings file cannot be read.
    #[error("cannot read the settings file {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Half a key pair.
    #[error("--tls-cert and --tls-key go together: give both or none")]
    HalfKeyPair,
    /// Data planes that serve would be forgotten.
    #[error(
        "--forget-nodes-after {0:?} is too short: data planes that are connected would be forgotten, give 1m or more"
    )]
    Forgetful(Duration),
    /// No place for the state.
    #[error("no state directory: give --state-dir (neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set)")]
    NoStateDir,
    /// The admin API would be open to the network.
    #[error(
        "the admin API on {0} is off loopback without TLS: give --tls-cert and --tls-key, or allow it with --insecure"
    )]
    OpenAdmin(SocketAddr),
    /// A life that is no good.
    #[error("--node-certificate-ttl is {0}, expected {min}s to {max}h", min = LIFETIMES.0.as_secs(), max = LIFETIMES.1.as_secs() / 3600)]
    NodeCertificateTtl(String),
}

/// The gateway's control plane: admin API, store and the snapshot stream.
#[derive(Debug, Parser)]
#[command(name = "gateway-control-plane", version, max_term_width = 110, hide_possible_values = false)]
#[command(args_conflicts_with_subcommands = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Offline>,
    /// YAML file with any of these settings, under the names given as [file: ...]
    #[arg(long, env = "GATEWAY_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address of the admin API; port 0 takes a free one [file: adminListen] [default: 127.0.0.1:9000]
    #[arg(long, env = "GATEWAY_ADMIN_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Address of the stream to the data planes; port 0 takes a free one [file: streamListen] [default: 127.0.0.1:9001]
    #[arg(long, env = "GATEWAY_STREAM_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    stream_listen: Option<SocketAddr>,
    /// sqlite:///path/gateway.db or postgres://user@host/db [file: databaseUrl] [default: gateway.db in the state directory]
    #[arg(long, env = "GATEWAY_DATABASE_URL", hide_env_values = true, value_name = "URL")]
    database_url: Option<String>,
    /// Folder of this process alone, made with mode 0700 and locked [file: stateDir] [default: $STATE_DIRECTORY, else
    /// $XDG_STATE_HOME/gateway/gateway-control-plane]
    #[arg(long, env = "GATEWAY_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// File with the key that seals secrets in the store, 64 hex digits; to replace it, the new key in the first line
    /// and the old one below, then `gatewayctl secrets rewrap`. PostgreSQL needs one, the same for every replica [file: masterKeyFile] [default on SQLite: master-key in the state directory, made when missing]
    #[arg(long, env = "GATEWAY_MASTER_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    master_key_file: Option<PathBuf>,
    /// File whose content is made an admin token at each start: the way back in [file: adminTokenFile]
    #[arg(long, env = "GATEWAY_ADMIN_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// PEM certificate chain of both servers [file: tlsCert]
    #[arg(long, env = "GATEWAY_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM private key of both servers [file: tlsKey]
    #[arg(long, env = "GATEWAY_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// PEM certificates of CAs whose certificates data planes may show on the stream, beside those that join with a
    /// token [file: tlsClientCa]
    #[arg(long, env = "GATEWAY_TLS_CLIENT_CA", hide_env_values = true, value_name = "FILE")]
    tls_client_ca: Option<PathBuf>,
    /// Folder of the files that a DiscoverySource may name; nothing outside of it is read [file: discoveryFileDir]
    /// [default: none, such sources are refused]
    #[arg(long, env = "GATEWAY_DISCOVERY_FILE_DIR", hide_env_values = true, value_name = "DIR")]
    discovery_file_dir: Option<PathBuf>,
    /// How long a certificate lives that a data plane gets; it is renewed at half of that [file: nodeCertificateTtl]
    /// [default: 24h]
    #[arg(long, env = "GATEWAY_NODE_CERTIFICATE_TTL", hide_env_values = true, value_name = "DURATION")]
    node_certificate_ttl: Option<String>,
    /// Revisions that history keeps, the newest, 10 to 10000000 [file: historyRevisions] [default: 10000]
    #[arg(long, env = "GATEWAY_HISTORY_REVISIONS", hide_env_values = true, value_name = "N")]
    history_revisions: Option<Revisions>,
    /// History keeps no revision that is older, but always the newest 10; 0s: of any age [file: historyAge] [default: 2160h]
    #[arg(long, env = "GATEWAY_HISTORY_AGE", hide_env_values = true, value_name = "TIME")]
    history_age: Option<Span>,
    /// Data planes that were not seen for so long are forgotten [file: forgetNodesAfter] [default: 168h]
    #[arg(long, env = "GATEWAY_FORGET_NODES_AFTER", hide_env_values = true, value_name = "TIME")]
    forget_nodes_after: Option<Span>,
    /// Most credentials that are kept; more are refused [file: maxCredentials] [default: 2000000]
    #[arg(long, env = "GATEWAY_MAX_CREDENTIALS", hide_env_values = true, value_name = "N")]
    max_credentials: Option<Amount>,
    /// Least severe log line that is written [file: logLevel] [default: info]
    #[arg(long, env = "GATEWAY_LOG_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Form of a log line [file: logFormat] [default: text]
    #[arg(long, env = "GATEWAY_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Allow unprotected ports off loopback [file: insecure] [default: false]
    #[arg(long, env = "GATEWAY_INSECURE", hide_env_values = true, value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    insecure: Option<bool>,
}

/// What else it can do.
#[derive(Debug, Subcommand)]
enum Offline {
    /// Move a store from SQLite to PostgreSQL, whole: revisions, history, tokens, sealed secrets, data planes. No control
    /// plane may run on either
    Migrate(Migrate),
}

/// Which store is moved where.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub struct Migrate {
    /// The store: sqlite:///path/gateway.db; it stays as it is
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// An empty database: postgres://user@host/db
    #[arg(long, value_name = "URL")]
    pub to: String,
}

/// What the program is to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve until a signal.
    Serve(Box<Config>, Log),
    /// Move a store, then end.
    Migrate(Migrate),
}

impl Command {
    /// From a command line (first item: the program), the environment, and the settings file.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load<I, T>(command_line: I) -> Result<Self, ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        let args = Args::try_parse_from(command_line)?;
        match args.command {
            Some(Offline::Migrate(migrate)) => Ok(Command::Migrate(migrate)),
            None => args.load().map(|(config, log)| Command::Serve(Box::new(config), log)),
        }
    }
}

/// The settings file: the same settings under camelCase names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    admin_listen: Option<SocketAddr>,
    stream_listen: Option<SocketAddr>,
    database_url: Option<String>,
    state_dir: Option<PathBuf>,
    master_key_file: Option<PathBuf>,
    admin_token_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
    discovery_file_dir: Option<PathBuf>,
    node_certificate_ttl: Option<String>,
    history_revisions: Option<Revisions>,
    history_age: Option<Span>,
    forget_nodes_after: Option<Span>,
    max_credentials: Option<Amount>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    insecure: Option<bool>,
}

impl Config {
    /// Defaults with everything kept in one folder; ports as by default.
    pub fn in_dir(state_dir: impl Into<PathBuf>) -> Self {
        Config {
            admin_listen: DEFAULT_ADMIN,
            stream_listen: DEFAULT_STREAM,
            database_url: None,
            state_dir: state_dir.into(),
            master_key_file: None,
            admin_token_file: None,
            tls: None,
            tls_client_ca: None,
            discovery_file_dir: None,
            node_certificate_ttl: DEFAULT_LIFETIME,
            chores: DEFAULT_CHORES,
            max_credentials: DEFAULT_CREDENTIALS,
            insecure: false,
        }
    }

    /// Settings of a process: its command line (first item: the program), the environment, the file.
    ///
    /// # Errors
    /// [`ConfigError`]; `Usage` also carries `--help` and `--version`.
    pub fn load<I, T>(command_line: I) -> Result<(Self, Log), ConfigError>
    where
        I: IntoIterator<Item = T>,
        T: Into<std::ffi::OsString> + Clone,
    {
        Args::try_parse_from(command_line)?.load()
    }

    /// Refuses what would be unsafe.
    ///
    /// # Errors
    /// `OpenAdmin` or `Forgetful`, naming the way out. The stream needs no such check: off loopback it takes nobody
    /// without a certificate or a join token.
    pub fn checked(self) -> Result<Self, ConfigError> {
        if self.chores.forget_nodes < MIN_FORGET {
            return Err(ConfigError::Forgetful(self.chores.forget_nodes));
        }
        if !self.insecure && self.tls.is_none() && !self.admin_listen.ip().is_loopback() {
            return Err(ConfigError::OpenAdmin(self.admin_listen));
        }
        Ok(self)
    }
}

/// A number of revisions to keep.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
struct Revisions(u64);

impl TryFrom<u64> for Revisions {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        match count {
            MIN_REVISIONS..=MAX_REVISIONS => Ok(Revisions(count)),
            _ => Err(format!("expected {MIN_REVISIONS} to {MAX_REVISIONS} revisions, not {count}")),
        }
    }
}

impl FromStr for Revisions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count: u64 = text.parse().map_err(|_| format!("{text:?} is no number of revisions"))?;
        Revisions::try_from(count)
    }
}

/// A number of credentials to keep.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "u64")]
struct Amount(u64);

impl TryFrom<u64> for Amount {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        match count {
            0..=MAX_CREDENTIALS => Ok(Amount(count)),
            _ => Err(format!("expected at most {MAX_CREDENTIALS} credentials, not {count}")),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count: u64 = text.parse().map_err(|_| format!("{text:?} is no number of credentials"))?;
        Amount::try_from(count)
    }
}

impl Args {
    fn load(self) -> Result<(Config, Log), ConfigError> {
        let file = self.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        self.over(file)
    }

    fn over(self, file: File) -> Result<(Config, Log), ConfigError> {
        let tls = match (self.tls_cert.or(file.tls_cert), self.tls_key.or(file.tls_key)) {
            (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfKeyPair),
        };
        let state_dir = match self.state_dir.or(file.state_dir) {
            Some(dir) => dir,
            None => default_state_dir(|name| std::env::var_os(name)).ok_or(ConfigError::NoStateDir)?,
        };
        let history = Retention {
            revisions: self
                .history_revisions
                .or(file.history_revisions)
                .map_or(DEFAULT_CHORES.history.revisions, |given| given.0),
            age: match self.history_age.or(file.history_age) {
                None => DEFAULT_CHORES.history.age,
                Some(Span(age)) => Some(age).filter(|age| !age.is_zero()),
            },
        };
        let forget_nodes = self
            .forget_nodes_after
            .or(file.forget_nodes_after)
            .map_or(DEFAULT_CHORES.forget_nodes, |it| it.0);
        let config = Config {
            admin_listen: self.admin_listen.or(file.admin_listen).unwrap_or(DEFAULT_ADMIN),
            stream_listen: self.stream_listen.or(file.stream_listen).unwrap_or(DEFAULT_STREAM),
            database_url: self.database_url.or(file.database_url),
            state_dir,
            master_key_file: self.master_key_file.or(file.master_key_file),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            tls,
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            discovery_file_dir: self.discovery_file_dir.or(file.discovery_file_dir),
            node_certificate_ttl: self
                .node_certificate_ttl
                .or(file.node_certificate_ttl)
                .map_or(Ok(DEFAULT_LIFETIME), lifetime)?,
            chores: Chores { history, forget_nodes },
            max_credentials: self
                .max_credentials
                .or(file.max_credentials)
                .map_or(DEFAULT_CREDENTIALS, |given| given.0),
            insecure: self.insecure.or(file.insecure).unwrap_or(false),
        };
        let log = Log {
            level: self.log_level.or(file.log_level).unwrap_or(LogLevel::Info),
            format: self.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        };
        Ok((config.checked()?, log))
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let fault = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        // Its size is what it gives, not what it says: a pipe or a device says nothing.
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text))
            .map_err(|error| fault(error.to_string()))?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(fault(format!("it is over {MAX_FILE_BYTES} bytes long, no more are taken")));
        }
        serde_saphyr::from_str(&text).map_err(|error| fault(error.to_string()))
    }
}

fn lifetime(text: String) -> Result<Duration, ConfigError> {
    let wanted = gateway_engine::value::duration(&text).ok();
    wanted
        .filter(|wanted| (LIFETIMES.0..=LIFETIMES.1).contains(wanted))
        .ok_or(ConfigError::NodeCertificateTtl(text))
}

/// `$STATE_DIRECTORY` (systemd; the first of a list), else below `$XDG_STATE_HOME`, else below `$HOME/.local/state`.
fn default_state_dir(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    let set = |name| variable(name).filter(|value| !value.is_empty());
    if let Some(list) = set("STATE_DIRECTORY") {
        return std::env::split_paths(&list).next();
    }
    let base = set("XDG_STATE_HOME")
        .map(PathBuf::from)
        .or_else(|| set("HOME").map(|home| Path::new(&home).join(".local/state")))?;
    Some(base.join("gateway/gateway-control-plane"))
}

#[cfg(test)]
mod tests;
