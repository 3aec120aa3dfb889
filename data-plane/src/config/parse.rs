//! The forms that settings are written in; the same for flag, environment and file.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use gateway_proto::identity::{MAX_NAME, is_name};
use http::Uri;
use serde::Deserialize;

/// More threads than any machine has cores: a slip of the keyboard.
const MAX_WORKERS: usize = 1024;

/// Where the request log goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

impl FromStr for AccessLog {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("expected off, stdout or the name of a file".to_owned()),
            "off" => Ok(AccessLog::Off),
            "stdout" => Ok(AccessLog::Stdout),
            path => Ok(AccessLog::File(path.into())),
        }
    }
}

/// URL of a control plane's stream: scheme, host and port.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ControlPlane(Uri);

impl ControlPlane {
    /// The URL.
    pub const fn uri(&self) -> &Uri {
        &self.0
    }

    /// Whether TLS protects it.
    pub fn is_tls(&self) -> bool {
        self.0.scheme_str() == Some("https")
    }

    /// In clear text over a network.
    pub(super) fn is_open(&self) -> bool {
        is_open(&self.0)
    }
}

impl fmt::Display for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_string().trim_end_matches('/'))
    }
}

impl FromStr for ControlPlane {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        let plain = matches!(uri.path(), "" | "/") && uri.query().is_none();
        if matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && plain
        {
            Ok(ControlPlane(uri))
        } else {
            Err("expected http://host:port or https://host:port".to_owned())
        }
    }
}

fn is_open(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    uri.scheme_str() != Some("https")
        && host != "localhost"
        && !address.is_ok_and(|address| address.is_loopback())
}

/// A sealed configuration to begin with.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum BootstrapSnapshot {
    /// In a file.
    File(PathBuf),
    /// To be fetched.
    Url(Uri),
}

impl BootstrapSnapshot {
    /// In clear text over a network.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, BootstrapSnapshot::Url(uri) if is_open(uri))
    }
}

impl fmt::Display for BootstrapSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BootstrapSnapshot::File(path) => path.display().fmt(f),
            // What follows may be a signature that lets anybody fetch it.
            BootstrapSnapshot::Url(uri) => {
                let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
                let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "{scheme}://{host}{port}{}", uri.path())
            }
        }
    }
}

impl FromStr for BootstrapSnapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((scheme, _)) = text.split_once("://") else {
            return match text {
                "" => Err("expected the name of a file, or an https:// URL".to_owned()),
                path => Ok(BootstrapSnapshot::File(path.into())),
            };
        };
        let uri: Uri = text.parse().map_err(|error| format!("{error}"))?;
        let user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        match scheme {
            "https" | "http" if !user => Ok(BootstrapSnapshot::Url(uri)),
            "https" | "http" => Err("the URL must not hold a user or password".to_owned()),
            _ => Err("expected the name of a file, or an https:// URL".to_owned()),
        }
    }
}

/// `k=v`.
#[derive(Clone, Debug)]
pub(super) struct Label(pub(super) String, pub(super) String);

impl FromStr for Label {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok(Label(key.to_owned(), value.to_owned())),
            _ => Err("expected key=value".to_owned()),
        }
    }
}

/// A Go-style duration: `250ms`, `30s`, `1m30s`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        gateway_engine::value::duration(text).map(Span)
    }
}

/// Name of a node, group or zone.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Word(pub(super) String);

impl FromStr for Word {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        node(text).map(Word)
    }
}

/// Number of worker threads.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "usize")]
pub(super) struct Workers(pub(super) NonZeroUsize);

impl TryFrom<usize> for Workers {
    type Error = String;

    fn try_from(count: usize) -> Result<Self, String> {
        NonZeroUsize::new(count)
            .filter(|count| count.get() <= MAX_WORKERS)
            .map(Workers)
            .ok_or_else(|| format!("expected 1 to {MAX_WORKERS}"))
    }
}

/// serde's side of `FromStr`.
macro_rules! from_string {
    ($($type:ty),+) => { $(
        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
    )+ };
}

from_string!(AccessLog, BootstrapSnapshot, ControlPlane, Span, Word);

/// Checks the name of a node, group or zone.
pub(super) fn node(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err(format!("expected 1 to {MAX_NAME} of a-z, A-Z, 0-9, '-', '.' and '_'"))
    }
}

/// Reads a number of worker threads.
pub(super) fn workers(text: &str) -> Result<NonZeroUsize, String> {
    let count: usize = text.parse().map_err(|_| format!("expected 1 to {MAX_WORKERS}"))?;
    Workers::try_from(count).map(|workers| workers.0)
}
