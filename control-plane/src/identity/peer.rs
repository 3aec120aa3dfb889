//! Who is at the other end of a stream, and whether he is taken for what he says he is. The signature was checked by
//! the handshake; this is what the certificate says, against Hello, the clock, and what was revoked since.

use gateway_proto::identity::{BadCertificate, Certificate, RootId, Subject};
use jiff::Timestamp;

use super::trust::Trust;

/// A data plane's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whom it names.
    pub subject: Option<Subject>,
    /// Which of our roots signed it; `None`: one of `--tls-client-ca`.
    pub root: Option<RootId>,
    /// From when it is good.
    pub valid_from: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
}

/// Why a data plane is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unwelcome {
    /// It shows no certificate where one is needed.
    #[error(
        "data planes need a certificate here: make a token with `gatewayctl join-token create`, and give its file to the data plane as --join-token-file"
    )]
    NoCertificate,
    /// Its certificate names no data plane.
    #[error("the certificate names no data plane: expected the URI spiffe://DOMAIN/group/GROUP/node/NODE")]
    Nobody,
    /// It says that it is another one than its certificate does.
    #[error("the certificate is for the {what} {certified:?}, the data plane says that it is {said:?}")]
    Other {
        /// `node` or `group`.
        what: &'static str,
        /// In the certificate.
        certified: String,
        /// In Hello.
        said: String,
    },
    /// Its certificate has ended.
    #[error("the certificate expired at {0}: give the data plane a new join token")]
    Expired(Timestamp),
    /// Its certificate was revoked.
    #[error("the certificate was revoked at {0}: give the data plane a new join token")]
    Revoked(Timestamp),
    /// It was signed by a root that is gone.
    #[error("the certificate is of a CA that is not used any more: give the data plane a new join token")]
    RootGone,
}

impl Unwelcome {
    /// Whether another certificate would help; otherwise the data plane is misconfigured, or somebody else.
    pub const fn is_about_the_certificate(&self) -> bool {
        !matches!(self, Unwelcome::Nobody | Unwelcome::Other { .. })
    }
}

impl Peer {
    /// Of a certificate whose signature was checked.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(certificate: &[u8], trust: &Trust) -> Result<Self, BadCertificate> {
        let read = Certificate::read(certificate)?;
        let at = |second| Timestamp::from_second(second).map_err(|_| BadCertificate);
        Ok(Peer {
            root: trust.root_named(&read.issuer),
            valid_from: at(read.not_before)?,
            expires: at(read.not_after)?,
            subject: read.subject,
        })
    }

    /// Whether it may go on, or begin, at that time.
    ///
    /// # Errors
    /// [`Unwelcome`], saying what to do.
    pub fn check(&self, trust: &Trust, now: Timestamp) -> Result<(), Unwelcome> {
        let Some(Subject::DataPlane { node, .. }) = &self.subject else { return Err(Unwelcome::Nobody) };
        if self.expires <= now {
            return Err(Unwelcome::Expired(self.expires));
        }
        if !trust.trusts(self.root.as_ref()) {
            return Err(Unwelcome::RootGone);
        }
        match trust.revoked(node) {
            Some(revoked) if self.valid_from <= revoked => Err(Unwelcome::Revoked(revoked)),
            _ => Ok(()),
        }
    }

    /// Whether it is the one that it says it is.
    ///
    /// # Errors
    /// [`Unwelcome::Other`]
    pub fn is(&self, said_node: &str, said_group: &str) -> Result<(), Unwelcome> {
        let Some(Subject::DataPlane { group, node }) = &self.subject else { return Err(Unwelcome::Nobody) };
        for (what, certified, said) in [("node", node, said_node), ("group", group, said_group)] {
            if certified != said {
                let (certified, said) = (certified.clone(), said.to_owned());
                return Err(Unwelcome::Other { what, certified, said });
            }
        }
        Ok(())
    }

    /// A name for logs and the audit log.
    pub fn name(&self) -> &str {
        match &self.subject {
            Some(Subject::DataPlane { node, .. }) => node,
            Some(Subject::ControlPlane) => "control-plane",
            None => "unnamed",
        }
    }
}
