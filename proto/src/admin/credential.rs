//! Bodies about credentials that are not the objects themselves.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::kind::Key;

/// `POST /v1/credentials/{name}/rotate`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RotateCredential {
    /// How long the old key is taken beside the new one, e.g. `24h`, at most `2160h`; default: it is refused at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace: Option<String>,
}

/// A credential with its new key.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RotatedCredential {
    /// The credential.
    #[serde(flatten)]
    pub object: Key,
    /// Name of its consumer.
    pub consumer: String,
    /// What the key is known by in `gatewayctl key list` and to upstreams (`X-Credential-Identifier`).
    pub id: String,
    /// The key itself, this once.
    pub key: String,
    /// The end of its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Until when the key before is taken; absent: it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring_until: Option<String>,
}

impl fmt::Debug for RotatedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RotatedCredential")
            .field("object", &self.object)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}
