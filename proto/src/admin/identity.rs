//! Bodies about who data planes are: join tokens, the control plane's CA, certificates.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /v1/join-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateJoinToken {
    /// Its name, for lists and the audit log.
    pub name: String,
    /// Group of the data planes that may join with it.
    pub group: String,
    /// How many data planes may; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
    /// How long it is good for, as a Go-style duration; default `1h`, at most `8760h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A join token; `token` itself is shown once, on creation.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinToken {
    /// Its name.
    pub name: String,
    /// Group of the data planes that may join with it.
    pub group: String,
    /// How many data planes may.
    pub uses: u32,
    /// How many have.
    pub used: u32,
    /// When it was made.
    pub created_at: String,
    /// When it ends.
    pub expires: String,
    /// SHA-256 of the CA that it carries, hexadecimal.
    pub ca: String,
    /// The secret, in the answer to its creation only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.name)
    }
}

/// `GET /v1/join-tokens`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JoinTokenList {
    /// The tokens, by name.
    pub items: Vec<JoinToken>,
}

/// `GET /v1/ca`: the control plane's own CA, two while one takes the place of the other.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaStatus {
    /// The roots: `next`, `active`, `old`.
    pub roots: Vec<CaRoot>,
    /// What a replacement waits for; left out: nothing, or there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub waits_for: String,
}

/// A root.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaRoot {
    /// SHA-256 of its certificate, hexadecimal.
    pub sha256: String,
    /// `next` (trusted, signs nothing yet), `active` (signs) or `old` (trusted for what it has signed).
    pub state: String,
    /// When it came to this state.
    pub since: String,
    /// When it ends.
    pub expires: String,
    /// The same, in seconds from now.
    pub expires_in_seconds: i64,
}

/// The certificate that a data plane's stream was opened with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeCertificate {
    /// When it ends.
    pub expires: String,
    /// The same, in seconds from now.
    pub expires_in_seconds: i64,
    /// SHA-256 of the root of the control plane's CA that signed it, hexadecimal; empty: one of `--tls-client-ca`.
    pub ca: String,
}
