//! Settings of the process: flags, then `GATEWAY_*` environment variables, then the YAML file named by `--config`,
//! then defaults. `--help` shows all three names of each.
//!
//! Only settings that do something are here. Invariant: a [`Config`] that came out of [`Config::checked`] never
//! opens an unprotected port off loopback unless `insecure` says so.

use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

use crate::identity::{DEFAULT_LIFETIME, LIFETIMES};

/// Where the admin API listens when nothing is said.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
/// Where the stream listens when nothing is said.
pub const DEFAULT_STREAM: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9001);
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
    /// How long certificates of data planes live.
    pub node_certificate_ttl: Duration,
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
struct Args {
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
    /// How long a certificate lives that a data plane gets; it is renewed at half of that [file: nodeCertificateTtl]
    /// [default: 24h]
    #[arg(long, env = "GATEWAY_NODE_CERTIFICATE_TTL", hide_env_values = true, value_name = "DURATION")]
    node_certificate_ttl: Option<String>,
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
    node_certificate_ttl: Option<String>,
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
            node_certificate_ttl: DEFAULT_LIFETIME,
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
        let args = Args::try_parse_from(command_line)?;
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        args.over(file)
    }

    /// Refuses what would be unsafe.
    ///
    /// # Errors
    /// `OpenAdmin`, naming the way out. The stream needs no such check: off loopback it takes nobody without a
    /// certificate or a join token.
    pub fn checked(self) -> Result<Self, ConfigError> {
        if !self.insecure && self.tls.is_none() && !self.admin_listen.ip().is_loopback() {
            return Err(ConfigError::OpenAdmin(self.admin_listen));
        }
        Ok(self)
    }
}

impl Args {
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
        let config = Config {
            admin_listen: self.admin_listen.or(file.admin_listen).unwrap_or(DEFAULT_ADMIN),
            stream_listen: self.stream_listen.or(file.stream_listen).unwrap_or(DEFAULT_STREAM),
            database_url: self.database_url.or(file.database_url),
            state_dir,
            master_key_file: self.master_key_file.or(file.master_key_file),
            admin_token_file: self.admin_token_file.or(file.admin_token_file),
            tls,
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            node_certificate_ttl: self
                .node_certificate_ttl
                .or(file.node_certificate_ttl)
                .map_or(Ok(DEFAULT_LIFETIME), lifetime)?,
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
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<(Config, Log), ConfigError> {
        Config::load(["gateway-control-plane", "--state-dir=/tmp/s"].iter().chain(args))
    }

    #[test]
    fn every_setting_has_a_flag_and_its_effect() {
        let (config, log) = load(&[
            "--admin-listen=127.0.0.1:1",
            "--stream-listen=[::1]:2",
            "--database-url=sqlite:///x.db",
            "--master-key-file=/m",
            "--admin-token-file=/t",
            "--tls-cert=/c",
            "--tls-key=/k",
            "--tls-client-ca=/ca",
            "--node-certificate-ttl=90m",
            "--log-level=debug",
            "--log-format=json",
        ])
        .expect("all valid");
        assert_eq!(config.admin_listen.to_string(), "127.0.0.1:1");
        assert_eq!(config.stream_listen.to_string(), "[::1]:2");
        assert_eq!(config.database_url.as_deref(), Some("sqlite:///x.db"));
        assert_eq!(config.state_dir, Path::new("/tmp/s"));
        assert_eq!(config.master_key_file.as_deref(), Some(Path::new("/m")));
        assert_eq!(config.admin_token_file.as_deref(), Some(Path::new("/t")));
        assert_eq!(config.tls, Some(TlsFiles { cert: "/c".into(), key: "/k".into() }));
        assert_eq!(config.tls_client_ca.as_deref(), Some(Path::new("/ca")));
        assert_eq!(config.node_certificate_ttl, Duration::from_secs(5_400));
        assert_eq!(log, Log { level: LogLevel::Debug, format: LogFormat::Json });
    }

    #[test]
    fn a_life_of_certificates_that_is_too_short_or_too_long_is_refused() {
        for text in ["1s", "0s", "2161h", "-1h", "day", ""] {
            let error = load(&[&format!("--node-certificate-ttl={text}")]).expect_err(text).to_string();
            assert!(error.contains("expected 2s to 2160h"), "{error}");
        }
        let (config, _) = load(&[]).expect("defaults");
        assert_eq!(config.node_certificate_ttl, Duration::from_secs(86_400));
    }

    #[test]
    fn defaults_are_those_of_the_contract() {
        let (config, log) = load(&[]).expect("defaults");
        assert_eq!((config.admin_listen, config.stream_listen), (DEFAULT_ADMIN, DEFAULT_STREAM));
        assert_eq!(log, Log { level: LogLevel::Info, format: LogFormat::Text });
        assert!(config.tls.is_none() && config.database_url.is_none() && !config.insecure);
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("settings.yaml");
        std::fs::write(&path, "adminListen: 127.0.0.1:7\nstreamListen: 127.0.0.1:8\nlogFormat: json\n")
            .expect("written");
        let file = format!("--config={}", path.display());
        let (config, log) = load(&[&file, "--admin-listen=127.0.0.1:9"]).expect("valid");
        assert_eq!((config.admin_listen.port(), config.stream_listen.port()), (9, 8));
        assert_eq!(log.format, LogFormat::Json);
    }

    #[test]
    fn a_wrong_file_is_refused_by_name_and_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("settings.yaml");
        for (text, words) in [("adminListen: nowhere\n", "line 1"), ("adminPort: 1\n", "adminPort")] {
            std::fs::write(&path, text).expect("written");
            let error = load(&[&format!("--config={}", path.display())]).expect_err(text).to_string();
            assert!(error.contains(words) && error.contains("settings.yaml"), "{error}");
        }
        assert!(matches!(load(&["--config=/nowhere/x.yaml"]), Err(ConfigError::File { .. })));
        let endless = load(&["--config=/dev/zero"]).expect_err("never ends").to_string();
        assert!(endless.contains("over 1048576 bytes"), "{endless}");
    }

    #[test]
    fn a_bad_value_of_a_flag_is_a_usage_error() {
        for flag in [
            "--admin-listen=localhost",
            "--stream-listen=1",
            "--log-level=loud",
            "--log-format=xml",
            "--insecure=perhaps",
            "--no-such-flag",
        ] {
            assert!(matches!(load(&[flag]), Err(ConfigError::Usage(_))), "{flag}");
        }
        assert!(matches!(load(&["--tls-cert=/c"]), Err(ConfigError::HalfKeyPair)));
    }

    #[test]
    fn nothing_unprotected_listens_off_loopback_unless_it_is_said_aloud() {
        let open = "--admin-listen=0.0.0.0:9000";
        assert!(matches!(load(&[open]), Err(ConfigError::OpenAdmin(_))));
        assert!(load(&[open, "--tls-cert=/c", "--tls-key=/k"]).is_ok());
        assert!(load(&[open, "--insecure"]).expect("said aloud").0.insecure);
        assert!(
            load(&["--stream-listen=10.0.0.1:9001"]).is_ok(),
            "it takes nobody without a certificate there"
        );
    }

    #[test]
    fn help_shows_all_three_names_of_each_setting() {
        let Err(ConfigError::Usage(help)) = load(&["--help"]) else { panic!("help is an early leave") };
        let help = help.to_string();
        for (flag, variable, file) in [
            ("--admin-listen", "GATEWAY_ADMIN_LISTEN", "adminListen"),
            ("--stream-listen", "GATEWAY_STREAM_LISTEN", "streamListen"),
            ("--database-url", "GATEWAY_DATABASE_URL", "databaseUrl"),
            ("--state-dir", "GATEWAY_STATE_DIR", "stateDir"),
            ("--master-key-file", "GATEWAY_MASTER_KEY_FILE", "masterKeyFile"),
            ("--admin-token-file", "GATEWAY_ADMIN_TOKEN_FILE", "adminTokenFile"),
            ("--tls-cert", "GATEWAY_TLS_CERT", "tlsCert"),
            ("--tls-key", "GATEWAY_TLS_KEY", "tlsKey"),
            ("--tls-client-ca", "GATEWAY_TLS_CLIENT_CA", "tlsClientCa"),
            ("--node-certificate-ttl", "GATEWAY_NODE_CERTIFICATE_TTL", "nodeCertificateTtl"),
            ("--log-level", "GATEWAY_LOG_LEVEL", "logLevel"),
            ("--log-format", "GATEWAY_LOG_FORMAT", "logFormat"),
            ("--insecure", "GATEWAY_INSECURE", "insecure"),
        ] {
            for name in [flag, variable, file] {
                assert!(help.contains(name), "{name} is missing in\n{help}");
            }
        }
    }

    #[test]
    fn the_state_directory_follows_systemd_then_xdg_then_home() {
        let with = |set: &'static [(&'static str, &'static str)]| {
            default_state_dir(move |name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        let dir = |text: &str| Some(PathBuf::from(text));
        assert_eq!(with(&[("STATE_DIRECTORY", "/var/lib/g:/x"), ("HOME", "/h")]), dir("/var/lib/g"));
        assert_eq!(
            with(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")]),
            dir("/s/gateway/gateway-control-plane")
        );
        assert_eq!(with(&[("HOME", "/h")]), dir("/h/.local/state/gateway/gateway-control-plane"));
        assert_eq!(with(&[]), None);
    }
}
