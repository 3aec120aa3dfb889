//! TokenIssuer: whose tokens are believed, with its keys ready to check signatures. What it says is checked against the
//! token's claims only after the signature.

use std::sync::Arc;
use std::time::Duration;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::secret::{MASK, SEALED};
use gateway_proto::wire;

use super::jwk::{self, Algorithm, Key, MAX_JWKS_BYTES};
use super::remote::{self, RemoteKeys};
use super::{IssuerSlot, MAX_CLAIM_NAME};
use crate::value;
use crate::violations::Violations;

/// How far clocks may be said to differ.
pub const MAX_LEEWAY: Duration = Duration::from_secs(3600);
const DEFAULT_LEEWAY: Duration = Duration::from_secs(60);
/// Longest issuer and audience.
const MAX_TEXT: usize = 2048;
/// Most audiences.
const MAX_AUDIENCES: usize = 64;

/// A checked token issuer.
#[derive(Debug)]
pub struct TokenIssuer {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Its number.
    pub slot: IssuerSlot,
    /// The `iss` of its tokens.
    pub(super) issuer: Box<str>,
    /// One of these must be in `aud`; empty: not looked at.
    pub(super) audiences: Box<[Box<str>]>,
    /// How far clocks may differ, in seconds.
    pub(super) leeway: f64,
    /// The claim that names a consumer.
    pub(crate) consumer_claim: Option<Box<str>>,
    /// The keys; each for one algorithm.
    pub(super) keys: Keys,
}

/// Where an issuer's keys are.
#[derive(Debug)]
pub(super) enum Keys {
    /// Here.
    Given(Vec<Key>),
    /// At an address.
    Remote(Arc<RemoteKeys>),
}

impl TokenIssuer {
    /// Its keys, if they are elsewhere.
    pub(crate) fn remote_keys(&self) -> Option<&Arc<RemoteKeys>> {
        match &self.keys {
            Keys::Given(_) => None,
            Keys::Remote(keys) => Some(keys),
        }
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> &str {
        self.name.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// Checks all of it. `None` after a violation.
pub(crate) fn check(
    (name, slot): (Arc<str>, IssuerSlot),
    spec: &wire::TokenIssuerSpec,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Option<TokenIssuer> {
    let faults = out.len();
    text(&spec.issuer, "the iss claim of its tokens", &at.field("issuer"), out);
    let audiences_at = at.field("audiences");
    if spec.audiences.len() > MAX_AUDIENCES {
        let count = spec.audiences.len();
        let message = format!("{count} audiences are too many, at most {MAX_AUDIENCES} are allowed");
        out.push(&audiences_at, ViolationCode::OutOfRange, message);
    }
    for (index, audience) in spec.audiences.iter().take(MAX_AUDIENCES).enumerate() {
        text(audience, "an audience", &audiences_at.index(index), out);
    }
    let leeway = leeway(spec.leeway.as_deref(), &at.field("leeway"), out);
    if spec.consumer_claim.len() > MAX_CLAIM_NAME {
        let message = format!("a claim's name has at most {MAX_CLAIM_NAME} bytes");
        out.push(&at.field("consumerClaim"), ViolationCode::OutOfRange, message);
    }
    let algorithms = algorithms(spec, &at.field("algorithms"), out);
    let keys = keys(spec, algorithms, at, out);
    (out.len() == faults).then(|| TokenIssuer {
        name,
        slot,
        issuer: spec.issuer.as_str().into(),
        audiences: spec.audiences.iter().map(|audience| audience.as_str().into()).collect(),
        leeway: leeway.as_secs_f64(),
        consumer_claim: (!spec.consumer_claim.is_empty()).then(|| spec.consumer_claim.as_str().into()),
        keys,
    })
}

fn text(text: &str, what: &str, at: &FieldPath<'_>, out: &mut Violations) {
    if text.is_empty() {
        out.push(at, ViolationCode::Required, format!("give {what}"));
    } else if text.len() > MAX_TEXT {
        let message = format!("{} bytes are too long, at most {MAX_TEXT} are allowed", text.len());
        out.push(at, ViolationCode::OutOfRange, message);
    }
}

fn leeway(text: Option<&str>, at: &FieldPath<'_>, out: &mut Violations) -> Duration {
    let Some(text) = text else { return DEFAULT_LEEWAY };
    let leeway = out.ok(at, value::duration(text)).unwrap_or_default();
    if leeway > MAX_LEEWAY {
        out.push(at, ViolationCode::OutOfRange, format!("leeway {text:?} is over the longest allowed, 1h"));
    }
    leeway
}

/// The algorithms that are named; those of an HMAC go with a secret, the others with public keys.
fn algorithms(spec: &wire::TokenIssuerSpec, at: &FieldPath<'_>, out: &mut Violations) -> Vec<Algorithm> {
    let mut algorithms = Vec::new();
    let symmetric = !spec.secret.is_empty();
    for (index, name) in spec.algorithms.iter().enumerate() {
        let at = at.index(index);
        match Algorithm::from_name(name) {
            None => {
                let message = format!(
                    "unknown algorithm {name:?}, expected RS, PS, ES or HS with 256, 384 or 512, or EdDSA"
                );
                out.push(&at, ViolationCode::Unknown, message);
            }
            Some(algorithm) if algorithms.contains(&algorithm) => {
                out.push(&at, ViolationCode::Duplicate, format!("{name} is already in this list"));
            }
            Some(algorithm) if algorithm.is_symmetric() != symmetric => {
                let message = match symmetric {
                    true => format!("{name} goes with public keys (jwks), not with a secret"),
                    false => format!("{name} goes with a secret, not with public keys"),
                };
                out.push(&at, ViolationCode::Conflict, message);
            }
            Some(algorithm) => algorithms.push(algorithm),
        }
    }
    algorithms
}

fn keys(
    spec: &wire::TokenIssuerSpec,
    algorithms: Vec<Algorithm>,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Keys {
    let uri_at = at.field("jwksUri");
    if spec.jwks_uri.is_empty() {
        return Keys::Given(given_keys(spec, &algorithms, at, out));
    }
    if !spec.jwks.trim().is_empty() || !spec.secret.is_empty() {
        let message = "the keys are at one place, drop jwksUri or what else is given";
        out.push(&uri_at, ViolationCode::Conflict, message);
    }
    out.ok(&uri_at, remote::check(&spec.jwks_uri));
    Keys::Remote(Arc::new(RemoteKeys::new(&spec.jwks_uri, algorithms)))
}

fn given_keys(
    spec: &wire::TokenIssuerSpec,
    algorithms: &[Algorithm],
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Vec<Key> {
    let (jwks_at, secret_at) = (at.field("jwks"), at.field("secret"));
    match (spec.jwks.trim().is_empty(), spec.secret.is_empty()) {
        (true, true) => {
            out.push(at, ViolationCode::Required, "give the keys of its tokens: jwks, jwksUri or secret");
            Vec::new()
        }
        (false, false) => {
            let message = "an issuer signs with public keys or with a secret, drop jwks or secret";
            out.push(&secret_at, ViolationCode::Conflict, message);
            Vec::new()
        }
        (false, true) if spec.jwks.len() > MAX_JWKS_BYTES => {
            let length = spec.jwks.len();
            let message = format!("{length} bytes are too long, at most {MAX_JWKS_BYTES} are allowed");
            out.push(&jwks_at, ViolationCode::OutOfRange, message);
            Vec::new()
        }
        (false, true) => match jwk::keys(&spec.jwks, algorithms) {
            Ok(keys) => keys,
            Err(faults) => {
                faults.into_iter().for_each(|fault| out.push(&jwks_at, ViolationCode::Invalid, fault));
                Vec::new()
            }
        },
        (true, false) => secret_keys(&spec.secret, algorithms, &secret_at, out),
    }
}

fn secret_keys(secret: &str, algorithms: &[Algorithm], at: &FieldPath<'_>, out: &mut Violations) -> Vec<Key> {
    if secret == MASK {
        let message = format!(
            "{MASK} stands for the secret that a control plane keeps, which is not known here: give the secret itself"
        );
        out.push(at, ViolationCode::Invalid, message);
        return Vec::new();
    }
    if secret.starts_with(SEALED) {
        let message = format!(
            "{SEALED} begins what a store keeps in the place of a secret: the secret itself did not get here"
        );
        out.push(at, ViolationCode::Invalid, message);
        return Vec::new();
    }
    let algorithms = if algorithms.is_empty() { &[Algorithm::Hs256] } else { algorithms };
    // A key of at least the size of the hash (RFC 7518 §3.2).
    let least = |algorithm: &Algorithm| match algorithm {
        Algorithm::Hs512 => 64,
        Algorithm::Hs384 => 48,
        _ => 32,
    };
    if let Some(algorithm) =
        algorithms.iter().filter(|it| least(it) > secret.len()).max_by_key(|it| least(it))
    {
        let message = format!(
            "{} needs a secret of at least {} bytes, this has {}",
            algorithm.name(),
            least(algorithm),
            secret.len()
        );
        out.push(at, ViolationCode::OutOfRange, message);
        return Vec::new();
    }
    algorithms.iter().filter_map(|algorithm| Key::secret(*algorithm, secret.as_bytes())).collect()
}

#[cfg(test)]
pub(crate) mod tests;
