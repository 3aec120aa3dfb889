//! Settings of the process: flags, then `GATEWAY_*` environment variables, then the YAML file named by `--config`,
//! then defaults. `--help` shows all three names of each.
//!
//! Only settings that do something are here. Invariant: a [`Config`] that came out of [`Config::load`] names exactly
//! one source of configuration, and sends or shows nothing in clear text off loopback unless `insecure` says so.

mod parse;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, ValueEnum};
use serde::Deserialize;

pub use parse::{AccessLog, BootstrapSnapshot, ControlPlane};
use parse::{Label, Span};

/// Where the admin port listens when nothing is said.
pub const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9002);
/// Largest settings file taken, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// What a data plane is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where its configuration comes from.
    pub source: Source,
    /// Its name; none: host name and four hex digits, kept in the state directory.
    pub node: Option<String>,
    /// Decides which listeners it takes.
    pub group: String,
    /// Shown in `nodes`.
    pub labels: BTreeMap<String, String>,
    /// Where it runs; empty: not said.
    pub zone: String,
    /// Address of the admin port; port 0 takes a free one.
    pub admin_listen: SocketAddr,
    /// Folder of this process alone: made with mode 0700 and locked.
    pub state_dir: PathBuf,
    /// 32 bytes that encrypt the last good snapshot; none: a key of its own in the state directory.
    pub snapshot_key_file: Option<PathBuf>,
    /// Where the first configuration comes from while no control plane answers; sealed with the key of the file above.
    pub bootstrap_snapshot: Option<BootstrapSnapshot>,
    /// Worker threads; none: one per core.
    pub workers: Option<NonZeroUsize>,
    /// How long to serve on after the signal to stop, so that load balancers notice.
    pub drain_delay: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// Where the request log goes.
    pub access_log: AccessLog,
    /// Times the phases of requests, for `/metrics`.
    pub phase_timing: bool,
    /// Certificates (PEM) that a control plane's is checked against; none: what the join token leads to, or else those
    /// of the system.
    pub tls_ca: Option<PathBuf>,
    /// Certificate chain and private key (PEM) that are shown to a control plane.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What the control plane's CA gives a certificate for.
    pub join_token_file: Option<PathBuf>,
    /// Allows clear text and an open admin port off loopback.
    pub insecure: bool,
}

/// Where the configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Streamed by one of these, tried in turn.
    ControlPlane(Vec<ControlPlane>),
    /// A file, or a folder of them, loaded again when they change.
    Manifests(PathBuf),
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

impl From<LogLevel> for tracing::level_filters::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::ERROR,
            LogLevel::Warn => Self::WARN,
            LogLevel::Info => Self::INFO,
            LogLevel::Debug => Self::DEBUG,
            LogLevel::Trace => Self::TRACE,
        }
    }
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
    /// No source of configuration, or two.
    #[error("give exactly one of --control-plane and --manifests: where shall the configuration come from?")]
    Source,
    /// Half a key pair.
    #[error("--tls-cert and --tls-key go together: give both or none")]
    HalfKeyPair,
    /// Two certificates.
    #[error("give --join-token-file, or --tls-cert and --tls-key: a data plane shows one certificate")]
    TwoIdentities,
    /// A certificate without a connection that it could be shown on.
    #[error("{0} needs a control plane with https://, {1} is none")]
    NeedsTls(&'static str, ControlPlane),
    /// A setting of the stream without a stream.
    #[error("{0} has no effect with --manifests: leave it out, or give --control-plane")]
    OnlyStreamed(&'static str),
    /// Nobody could open it.
    #[error(
        "--bootstrap-snapshot needs --snapshot-key-file: it is sealed with the key that the data plane it comes from was given"
    )]
    NoSnapshotKey,
    /// It would come in clear text over the network.
    #[error(
        "the bootstrap snapshot {0} is off loopback without TLS: give an https:// URL, or allow it with --insecure"
    )]
    OpenSnapshot(BootstrapSnapshot),
    /// No place for the state.
    #[error("no state directory: give --state-dir (neither STATE_DIRECTORY, XDG_STATE_HOME nor HOME is set)")]
    NoStateDir,
    /// The admin port would be open to the network.
    #[error(
        "the admin port on {0} is off loopback: allow it with --insecure; it then serves /livez, /readyz and /metrics only"
    )]
    OpenAdmin(SocketAddr),
    /// The configuration would cross the network in clear text.
    #[error(
        "the control plane {0} is off loopback without TLS: give an https:// URL, or allow it with --insecure"
    )]
    OpenStream(ControlPlane),
}

/// The gateway's data plane: the proxy.
#[derive(Debug, Parser)]
#[command(name = "gateway-data-plane", version, max_term_width = 110)]
struct Args {
    /// YAML file with any of these settings, under the names given as [file: ...]
    #[arg(long, env = "GATEWAY_CONFIG", hide_env_values = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Control planes to take the configuration from, tried in turn [file: controlPlane, a list]
    #[arg(
        long,
        env = "GATEWAY_CONTROL_PLANE",
        hide_env_values = true,
        value_name = "URL[,URL]",
        value_delimiter = ','
    )]
    control_plane: Option<Vec<ControlPlane>>,
    /// Standalone: take the configuration from these files, again on change and on SIGHUP [file: manifests]
    #[arg(long, env = "GATEWAY_MANIFESTS", hide_env_values = true, value_name = "FILE|DIR")]
    manifests: Option<PathBuf>,
    /// Name of this data plane [file: node] [default: host name and 4 hex digits, kept in the state directory]
    #[arg(long, env = "GATEWAY_NODE", hide_env_values = true, value_name = "NAME", value_parser = parse::node)]
    node: Option<String>,
    /// Group of data planes that it belongs to: decides which listeners it takes [file: group] [default: default]
    #[arg(long, env = "GATEWAY_GROUP", hide_env_values = true, value_name = "NAME", value_parser = parse::node)]
    group: Option<String>,
    /// Label of this data plane, may be repeated [file: labels, a map]
    #[arg(long, env = "GATEWAY_LABEL", hide_env_values = true, value_name = "K=V", value_delimiter = ',')]
    label: Option<Vec<Label>>,
    /// Where it runs [file: zone]
    #[arg(long, env = "GATEWAY_ZONE", hide_env_values = true, value_name = "ZONE", value_parser = parse::node)]
    zone: Option<String>,
    /// Address of the admin port: health, metrics, configuration [file: adminListen] [default: 127.0.0.1:9002]
    #[arg(long, env = "GATEWAY_ADMIN_LISTEN", hide_env_values = true, value_name = "IP:PORT")]
    admin_listen: Option<SocketAddr>,
    /// Folder of this process alone, made with mode 0700 and locked [file: stateDir] [default: $STATE_DIRECTORY, else
    /// $XDG_STATE_HOME/gateway/gateway-data-plane]
    #[arg(long, env = "GATEWAY_STATE_DIR", hide_env_values = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// File of 32 bytes (raw or hex) that encrypts the last good snapshot [file: snapshotKeyFile] [default:
    /// snapshot-key in the state directory, made when missing]
    #[arg(long, env = "GATEWAY_SNAPSHOT_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    snapshot_key_file: Option<PathBuf>,
    /// What to serve when there is nothing on disk and no control plane answers: the /snapshot of another data plane's admin
    /// port, or last-good of its state directory; needs its --snapshot-key-file [file: bootstrapSnapshot]
    #[arg(long, env = "GATEWAY_BOOTSTRAP_SNAPSHOT", hide_env_values = true, value_name = "FILE|URL")]
    bootstrap_snapshot: Option<BootstrapSnapshot>,
    /// Worker threads, 1 to 1024 [file: workers] [default: the number of cores]
    #[arg(long, env = "GATEWAY_WORKERS", hide_env_values = true, value_name = "N", value_parser = parse::workers)]
    workers: Option<NonZeroUsize>,
    /// After the signal to stop, serve on for this long so that load balancers notice [file: drainDelay] [default: 0s]
    #[arg(long, env = "GATEWAY_DRAIN_DELAY", hide_env_values = true, value_name = "DURATION")]
    drain_delay: Option<Span>,
    /// Then give requests in flight this long to end [file: drainTimeout] [default: 30s]
    #[arg(long, env = "GATEWAY_DRAIN_TIMEOUT", hide_env_values = true, value_name = "DURATION")]
    drain_timeout: Option<Span>,
    /// Request log, a JSON object per line; a file is opened anew on SIGHUP [file: accessLog] [default: off]
    #[arg(long, env = "GATEWAY_ACCESS_LOG", hide_env_values = true, value_name = "off|stdout|FILE")]
    access_log: Option<AccessLog>,
    /// Time the phases of each request: gateway_phase_duration_seconds in /metrics [file: phaseTiming] [default: false]
    #[arg(long, env = "GATEWAY_PHASE_TIMING", hide_env_values = true, value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    phase_timing: Option<bool>,
    /// File with a join token (`gatewayctl join-token create`): the control plane's CA gives a certificate for it, which
    /// is kept in the state directory and renewed by itself [file: joinTokenFile]
    #[arg(long, env = "GATEWAY_JOIN_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    /// PEM certificate chain that is shown to control planes instead, read at every connection; it names this data plane
    /// as the URI spiffe://DOMAIN/group/GROUP/node/NODE [file: tlsCert]
    #[arg(long, env = "GATEWAY_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// PEM private key of that certificate [file: tlsKey]
    #[arg(long, env = "GATEWAY_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// PEM certificates that an https control plane's is checked against [file: tlsCa] [default: the control plane's own
    /// CA with --join-token-file, else the system's]
    #[arg(long, env = "GATEWAY_TLS_CA", hide_env_values = true, value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// Least severe log line that is written [file: logLevel] [default: info]
    #[arg(long, env = "GATEWAY_LOG_LEVEL", hide_env_values = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Form of a log line [file: logFormat] [default: text]
    #[arg(long, env = "GATEWAY_LOG_FORMAT", hide_env_values = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Allow clear text to a control plane and an open admin port off loopback [file: insecure] [default: false]
    #[arg(long, env = "GATEWAY_INSECURE", hide_env_values = true, value_name = "BOOL", num_args = 0..=1,
          require_equals = true, default_missing_value = "true")]
    insecure: Option<bool>,
}

/// The settings file: the same settings under camelCase names.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    control_plane: Option<Vec<ControlPlane>>,
    manifests: Option<PathBuf>,
    node: Option<parse::Word>,
    group: Option<parse::Word>,
    labels: Option<BTreeMap<String, String>>,
    zone: Option<parse::Word>,
    admin_listen: Option<SocketAddr>,
    state_dir: Option<PathBuf>,
    snapshot_key_file: Option<PathBuf>,
    bootstrap_snapshot: Option<BootstrapSnapshot>,
    workers: Option<parse::Workers>,
    drain_delay: Option<Span>,
    drain_timeout: Option<Span>,
    access_log: Option<AccessLog>,
    phase_timing: Option<bool>,
    join_token_file: Option<PathBuf>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_ca: Option<PathBuf>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    insecure: Option<bool>,
}

impl Config {
    /// Defaults with a source and a state directory; the admin port is any free one on loopback.
    pub fn new(source: Source, state_dir: impl Into<PathBuf>) -> Self {
        Config {
            source,
            node: None,
            group: "default".to_owned(),
            labels: BTreeMap::new(),
            zone: String::new(),
            admin_listen: SocketAddr::new(DEFAULT_ADMIN.ip(), 0),
            state_dir: state_dir.into(),
            snapshot_key_file: None,
            bootstrap_snapshot: None,
            workers: None,
            drain_delay: Duration::ZERO,
            drain_timeout: Duration::from_secs(30),
            access_log: AccessLog::Off,
            phase_timing: false,
            tls_ca: None,
            tls: None,
            join_token_file: None,
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
        let log = Log {
            level: args.log_level.or(file.log_level).unwrap_or(LogLevel::Info),
            format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        };
        Ok((args.over(file)?.checked()?, log))
    }

    /// Refuses what would be unsafe, or could have no effect.
    fn checked(self) -> Result<Self, ConfigError> {
        let shown = match (&self.tls, &self.join_token_file) {
            (Some(_), Some(_)) => return Err(ConfigError::TwoIdentities),
            (Some(_), None) => Some("--tls-cert"),
            (None, Some(_)) => Some("--join-token-file"),
            (None, None) => None,
        };
        if let (Some(shown), Source::ControlPlane(urls)) = (shown, &self.source)
            && let Some(clear) = urls.iter().find(|url| !url.is_tls())
        {
            return Err(ConfigError::NeedsTls(shown, clear.clone()));
        }
        if self.bootstrap_snapshot.is_some() && self.snapshot_key_file.is_none() {
            return Err(ConfigError::NoSnapshotKey);
        }
        if !self.insecure {
            if let Some(open) = self.bootstrap_snapshot.as_ref().filter(|it| it.is_open()) {
                return Err(ConfigError::OpenSnapshot(open.clone()));
            }
            if !self.admin_listen.ip().is_loopback() {
                return Err(ConfigError::OpenAdmin(self.admin_listen));
            }
            if let Source::ControlPlane(urls) = &self.source
                && let Some(open) = urls.iter().find(|url| url.is_open())
            {
                return Err(ConfigError::OpenStream(open.clone()));
            }
        }
        Ok(self)
    }
}

impl Args {
    fn over(self, file: File) -> Result<Config, ConfigError> {
        let source = match (self.control_plane.or(file.control_plane), self.manifests.or(file.manifests)) {
            (Some(urls), None) if !urls.is_empty() => Source::ControlPlane(urls),
            (None, Some(path)) => Source::Manifests(path),
            _ => return Err(ConfigError::Source),
        };
        let tls_ca = self.tls_ca.or(file.tls_ca);
        let join_token_file = self.join_token_file.or(file.join_token_file);
        let tls = match (self.tls_cert.or(file.tls_cert), self.tls_key.or(file.tls_key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(ConfigError::HalfKeyPair),
        };
        let snapshot_key_file = self.snapshot_key_file.or(file.snapshot_key_file);
        let bootstrap_snapshot = self.bootstrap_snapshot.or(file.bootstrap_snapshot);
        if let Source::Manifests(_) = source {
            let idle = [
                ("--tls-ca", tls_ca.is_some()),
                ("--tls-cert", tls.is_some()),
                ("--join-token-file", join_token_file.is_some()),
                ("--snapshot-key-file", snapshot_key_file.is_some()),
                ("--bootstrap-snapshot", bootstrap_snapshot.is_some()),
            ];
            if let Some((name, _)) = idle.into_iter().find(|(_, is_given)| *is_given) {
                return Err(ConfigError::OnlyStreamed(name));
            }
        }
        let state_dir = match self.state_dir.or(file.state_dir) {
            Some(dir) => dir,
            None => default_state_dir(|name| std::env::var_os(name)).ok_or(ConfigError::NoStateDir)?,
        };
        let base = Config::new(source, state_dir);
        let labels =
            self.label.map(|labels| labels.into_iter().map(|Label(key, value)| (key, value)).collect());
        Ok(Config {
            node: self.node.or(file.node.map(|word| word.0)),
            group: self.group.or(file.group.map(|word| word.0)).unwrap_or(base.group),
            labels: labels.or(file.labels).unwrap_or_default(),
            zone: self.zone.or(file.zone.map(|word| word.0)).unwrap_or_default(),
            admin_listen: self.admin_listen.or(file.admin_listen).unwrap_or(DEFAULT_ADMIN),
            snapshot_key_file,
            bootstrap_snapshot,
            workers: self.workers.or(file.workers.map(|workers| workers.0)),
            drain_delay: self.drain_delay.or(file.drain_delay).map_or(base.drain_delay, |span| span.0),
            drain_timeout: self
                .drain_timeout
                .or(file.drain_timeout)
                .map_or(base.drain_timeout, |span| span.0),
            access_log: self.access_log.or(file.access_log).unwrap_or(base.access_log),
            phase_timing: self.phase_timing.or(file.phase_timing).unwrap_or(false),
            tls_ca,
            tls,
            join_token_file,
            insecure: self.insecure.or(file.insecure).unwrap_or(false),
            source: base.source,
            state_dir: base.state_dir,
        })
    }
}

impl File {
    fn read(path: &Path) -> Result<Self, ConfigError> {
        let fault = |reason: String| ConfigError::File { path: path.to_owned(), reason };
        let size = std::fs::metadata(path).map_err(|error| fault(error.to_string()))?.len();
        if size > MAX_FILE_BYTES {
            return Err(fault(format!("it is {size} bytes long, at most {MAX_FILE_BYTES} are taken")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
        serde_saphyr::from_str(&text).map_err(|error| fault(error.to_string()))
    }
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
    Some(base.join("gateway/gateway-data-plane"))
}

#[cfg(test)]
mod tests;
