//! TLS of a listener: its certificates, and which of them a client gets. The handshake is the data plane's business.
//!
//! Invariant: there is at least one certificate, and none twice.

use std::collections::HashMap;
use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::Kind;
use gateway_proto::wire;
use rustls::SignatureScheme;
use smallvec::SmallVec;

use crate::certificate::Certificate;
use crate::compile::object::Checked;
use crate::compile::reference::References;
use crate::violations::Violations;

/// Most certificates of a listener.
pub const MAX_CERTIFICATES: usize = 4_096;

/// How a listener speaks TLS.
#[derive(Debug)]
pub struct Tls {
    /// In the order of the listener's list; the first is the default.
    pub certificates: Box<[Arc<Certificate>]>,
    /// Lowest version that is spoken.
    pub min_version: TlsVersion,
    /// By DNS name, wildcards with their `*.`: who has it, in order.
    names: HashMap<Box<str>, SmallVec<[u16; 4]>, foldhash::fast::RandomState>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

impl Tls {
    fn new(certificates: Vec<Arc<Certificate>>, min_version: TlsVersion) -> Self {
        let mut names: HashMap<Box<str>, SmallVec<[u16; 4]>, _> = HashMap::default();
        for (index, certificate) in (0_u16..).zip(&certificates) {
            for name in &*certificate.dns_names {
                names.entry(name.clone()).or_default().push(index);
            }
        }
        Tls { certificates: certificates.into(), min_version, names }
    }

    /// The certificate for a client that asks for a name (in lower case) and takes these signatures: one for exactly
    /// this name, else one for its wildcard, else the first of all; of several the first whose key the client takes.
    pub fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<&Arc<Certificate>> {
        let fitting = |indices: &SmallVec<[u16; 4]>| {
            let mut certificates =
                indices.iter().filter_map(|&index| self.certificates.get(usize::from(index)));
            certificates.find(|certificate| certificate.signs(schemes))
        };
        let named = name.and_then(|name| {
            self.names.get(name).and_then(fitting).or_else(|| {
                let (_, parent) = name.split_once('.')?;
                self.names.get(format!("*.{parent}").as_str()).and_then(fitting)
            })
        });
        named.or_else(|| self.certificates.iter().find(|certificate| certificate.signs(schemes)))
    }

    /// Who has a name, in order.
    pub(crate) fn holders(&self, name: &str) -> impl Iterator<Item = &Arc<Certificate>> {
        let indices = self.names.get(name).map_or(&[][..], |indices| indices);
        indices.iter().filter_map(|&index| self.certificates.get(usize::from(index)))
    }
}

/// What a listener says about TLS. `None`: nothing, or not without a violation.
pub(crate) fn check(
    spec: &wire::ListenerSpec,
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Option<Arc<Tls>> {
    let is_https = spec.protocol == wire::listener_protocol::Value::Https as i32;
    let tls_at = at.field("tls");
    let Some(tls) = &spec.tls else {
        if is_https {
            let message = "protocol https needs a certificate, name one in tls.certificates";
            out.push(&tls_at.field("certificates"), ViolationCode::Required, message);
        }
        return None;
    };
    if !is_https {
        let message = "tls has a meaning only with protocol: https";
        out.push(&tls_at, ViolationCode::Conflict, message);
    }
    let min_version = match tls.min_version.as_deref() {
        None | Some("1.2") => TlsVersion::Tls12,
        Some("1.3") => TlsVersion::Tls13,
        Some(other) => {
            let message = format!("unknown TLS version {other:?}, expected \"1.2\" or \"1.3\"");
            out.push(&tls_at.field("minVersion"), ViolationCode::Invalid, message);
            TlsVersion::Tls12
        }
    };
    let certificates = certificates(&tls.certificates, &tls_at.field("certificates"), references, out);
    (!certificates.is_empty()).then(|| Arc::new(Tls::new(certificates, min_version)))
}

fn certificates(
    names: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Vec<Arc<Certificate>> {
    if names.is_empty() {
        out.push(at, ViolationCode::Required, "name at least one certificate");
    }
    if names.len() > MAX_CERTIFICATES {
        let message =
            format!("{} certificates are too many, at most {MAX_CERTIFICATES} are allowed", names.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return Vec::new();
    }
    let mut certificates: Vec<Arc<Certificate>> = Vec::with_capacity(names.len());
    for (index, text) in names.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = references.resolve(Kind::Certificate, text, &at, out) else { continue };
        if names[..index].contains(text) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
        } else if let Checked::Certificate(certificate) = &object.checked {
            // One that is faulty has its own violations.
            certificates.extend(certificate.clone());
        }
    }
    certificates
}

#[cfg(test)]
mod tests;
