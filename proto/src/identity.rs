//! Who a process of the gateway is: the names in its certificate, and the token that a data plane gets its first one
//! with. Both planes, and nobody else, read and write these forms.
//!
//! A certificate names its holder as a URI (a SPIFFE ID): `spiffe://gateway/group/GROUP/node/NODE`, or
//! `spiffe://gateway/control-plane`. The trust domain says nothing: what counts is which root signed.

mod certificate;
mod join_token;

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

pub use certificate::{BadCertificate, Certificate};
pub use join_token::{JoinToken, JoinTokenFault};

/// Trust domain of the certificates that the control plane's own CA issues.
const TRUST_DOMAIN: &str = "gateway";
/// Longest name of a group or node, in bytes.
pub const MAX_NAME: usize = 128;

/// SHA-256 of a CA's certificate (DER): tells roots apart.
pub type RootId = [u8; 32];

/// Tells a root from others.
pub fn root_id(certificate: &[u8]) -> RootId {
    Sha256::digest(certificate).into()
}

/// Who a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// A control plane.
    ControlPlane,
    /// A data plane.
    DataPlane {
        /// Its `--group`.
        group: String,
        /// Its `--node`.
        node: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::ControlPlane => write!(f, "spiffe://{TRUST_DOMAIN}/control-plane"),
            Subject::DataPlane { group, node } => {
                write!(f, "spiffe://{TRUST_DOMAIN}/group/{group}/node/{node}")
            }
        }
    }
}

/// A URI that names no part of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected spiffe://DOMAIN/group/GROUP/node/NODE or spiffe://DOMAIN/control-plane")]
pub struct NoSubject;

impl FromStr for Subject {
    type Err = NoSubject;

    fn from_str(uri: &str) -> Result<Self, NoSubject> {
        let rest = uri.strip_prefix("spiffe://").ok_or(NoSubject)?;
        let mut parts = rest.split('/');
        let domain = parts.next().filter(|domain| is_name(domain));
        match (domain, parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(_), Some("control-plane"), None, ..) => Ok(Subject::ControlPlane),
            (Some(_), Some("group"), Some(group), Some("node"), Some(node), None)
                if is_name(group) && is_name(node) =>
            {
                Ok(Subject::DataPlane { group: group.to_owned(), node: node.to_owned() })
            }
            _ => Err(NoSubject),
        }
    }
}

/// Whether a text may be the name of a node or group.
pub fn is_name(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(sound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_is_written_and_read_back_and_nothing_else_is_one() {
        let edge = Subject::DataPlane { group: "edge".into(), node: "dp-0.a_B".into() };
        for subject in [edge.clone(), Subject::ControlPlane] {
            assert_eq!(subject.to_string().parse(), Ok(subject));
        }
        let longest = Subject::DataPlane { group: "g".repeat(MAX_NAME), node: "n".repeat(MAX_NAME) };
        assert_eq!(longest.to_string().parse(), Ok(longest));
        assert_eq!("spiffe://corp.example/group/edge/node/dp-0.a_B".parse(), Ok(edge), "an own PKI");
        let long = format!("spiffe://gateway/group/edge/node/{}", "x".repeat(MAX_NAME + 1));
        for none in [
            "",
            "spiffe://gateway",
            "spiffe:///control-plane",
            "spiffe://gateway/control-plane/",
            "https://gateway/control-plane",
            "spiffe://gateway/group/edge/node/",
            "spiffe://gateway/group//node/a",
            "spiffe://gateway/group/edge/node/a/b",
            "spiffe://gateway/node/a/group/edge",
            "spiffe://gateway/group/edge/node/a%2Fb",
            "spiffe://gateway/group/edge/node/a?b",
            &long,
        ] {
            assert_eq!(none.parse::<Subject>(), Err(NoSubject), "{none}");
        }
    }
}
