//! JWT: a JSON Web Token in compact form (RFC 7515 §3.1, RFC 7519), taken apart strictly and believed only after its
//! signature. It works in buffers it is lent (only texts with escapes and lists of audiences are copied), and
//! judges by the advice of RFC 8725:
//! - exactly three parts of unpadded base64url without stray bits; header and payload are JSON objects without
//!   members said twice, as far as they are read; an encrypted token (five parts) is none;
//! - `alg` must be the one algorithm of the key (§3.1); `none` is the algorithm of no key (§3.2); keys and addresses of
//!   keys in the header (`jwk`, `jku`, `x5u`, `x5c`) are never looked at (§3.10);
//! - `crit` names extensions that must be understood, and none is (RFC 7515 §4.1.11).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::claims::Text;
use super::issuer::{Keys, TokenIssuer};
use super::jwk::Key;

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Longest signature: that of an RSA key of 8192 bits.
const MAX_SIGNATURE: usize = 1024;
/// Most keys that are tried for one token, those that it names first: it need not say which it was signed with, and
/// each costs a check of a signature.
const MAX_TRIES: usize = 8;

/// Why a token is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unsound {
    /// It is no token.
    Malformed,
    /// Issuer, key, signature or audience are not right, or it is not in force yet.
    Invalid,
    /// It was right once.
    Expired,
    /// The keys of its issuer are not here yet.
    NoKeys,
}

/// A token taken apart; nothing in it is to be believed yet.
#[derive(Debug)]
pub(crate) struct Token<'t> {
    /// What is signed: header and payload as they came.
    signed: &'t [u8],
    signature: &'t [u8],
    header: Header<'t>,
    claims: Claims<'t>,
}

#[derive(Debug, Deserialize)]
struct Header<'t> {
    #[serde(borrow)]
    alg: Text<'t>,
    #[serde(borrow)]
    kid: Option<Text<'t>>,
    #[serde(default)]
    crit: Present,
}

/// The registered claims that are checked (RFC 7519 §4.1).
#[derive(Debug, Deserialize)]
struct Claims<'t> {
    #[serde(borrow)]
    iss: Option<Text<'t>>,
    #[serde(borrow)]
    aud: Option<&'t RawValue>,
    /// Seconds since 1970, possibly with a fraction (RFC 7519 §2).
    exp: Option<f64>,
    nbf: Option<f64>,
}

/// A member that is there, whatever it holds.
#[derive(Debug, Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(from).map(|_| Present(true))
    }
}

impl<'t> Token<'t> {
    /// Takes a token apart; `header` and `payload` are lent for its two texts.
    pub(crate) fn parse(
        token: &'t [u8],
        header: &'t mut Vec<u8>,
        payload: &'t mut Vec<u8>,
    ) -> Result<Token<'t>, Unsound> {
        let parts = Self::parts(token).ok_or(Unsound::Malformed)?;
        let [signed, head, body, signature] = parts;
        let header: Header<'_> = object(decode(head, header)?)?;
        let claims: Claims<'_> = object(decode(body, payload)?)?;
        if header.crit.0 {
            return Err(Unsound::Malformed);
        }
        Ok(Token { signed, signature, header, claims })
    }

    /// What is signed, header, payload, signature.
    fn parts(token: &[u8]) -> Option<[&[u8]; 4]> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let mut dots = memchr::memchr_iter(b'.', token);
        let (first, second) = (dots.next()?, dots.next()?);
        if dots.next().is_some() {
            return None;
        }
        Some([&token[..second], &token[..first], &token[first + 1..second], &token[second + 1..]])
    }

    /// It says that it is of this issuer.
    pub(crate) fn is_of(&self, issuer: &TokenIssuer) -> bool {
        self.claims.iss.as_ref().is_some_and(|Text(said)| *said == *issuer.issuer)
    }

    /// Checks signature and claims; `now` is in seconds since 1970.
    pub(crate) fn verify(&self, issuer: &TokenIssuer, now: u64) -> Result<(), Unsound> {
        if !self.is_of(issuer) {
            return Err(Unsound::Invalid);
        }
        match &issuer.keys {
            Keys::Given(keys) => self.find_key(keys)?,
            Keys::Remote(remote) => remote.with(|keys| self.find_key(keys.ok_or(Unsound::NoKeys)?))?,
        }
        let now = now as f64;
        // One without an end would be good for ever, also stolen.
        let expires = self.claims.exp.ok_or(Unsound::Invalid)?;
        if now >= expires + issuer.leeway {
            return Err(Unsound::Expired);
        }
        let in_force = self.claims.nbf.is_none_or(|from| now + issuer.leeway >= from);
        if in_force && self.is_for(&issuer.audiences) { Ok(()) } else { Err(Unsound::Invalid) }
    }

    /// One of the keys signed it.
    fn find_key(&self, keys: &[Key]) -> Result<(), Unsound> {
        let mut bytes = [0; MAX_SIGNATURE];
        let length =
            URL_SAFE_NO_PAD.decode_slice(self.signature, &mut bytes).map_err(|_| Unsound::Invalid)?;
        let signature = &bytes[..length];
        let Text(algorithm) = &self.header.alg;
        let named = self.header.kid.as_ref().map(|Text(id)| &**id);
        let fitting = || keys.iter().filter(|key| key.algorithm.name() == *algorithm);
        // The key that is named comes before those that may be it because they have no name.
        let exact = fitting().filter(|key| named.is_some() && key.id.as_deref() == named);
        let others = fitting().filter(|key| named.is_none() || key.id.is_none());
        let signed = exact.chain(others).take(MAX_TRIES).any(|key| key.verifies(self.signed, signature));
        if signed { Ok(()) } else { Err(Unsound::Invalid) }
    }

    /// `aud` is one text or a list of them (RFC 7519 §4.1.3).
    fn is_for(&self, audiences: &[Box<str>]) -> bool {
        if audiences.is_empty() {
            return true;
        }
        let Some(aud) = self.claims.aud.map(RawValue::get) else { return false };
        let ours = |said: &Cow<'_, str>| audiences.iter().any(|ours| **ours == **said);
        match serde_json::from_str::<Text<'_>>(aud) {
            Ok(Text(said)) => ours(&said),
            Err(_) => serde_json::from_str::<Vec<Text<'_>>>(aud)
                .is_ok_and(|all| all.iter().any(|Text(said)| ours(said))),
        }
    }
}

/// Base64url without padding and without stray bits (RFC 7515 §2); into a lent buffer.
fn decode<'t>(part: &[u8], out: &'t mut Vec<u8>) -> Result<&'t [u8], Unsound> {
    out.clear();
    URL_SAFE_NO_PAD.decode_vec(part, out).map_err(|_| Unsound::Malformed)?;
    Ok(out)
}

/// Reads a JSON object, and no array in its place.
fn object<'t, T: Deserialize<'t>>(text: &'t [u8]) -> Result<T, Unsound> {
    if !text.trim_ascii_start().starts_with(b"{") {
        return Err(Unsound::Malformed);
    }
    serde_json::from_slice(text).map_err(|_| Unsound::Malformed)
}

#[cfg(test)]
mod tests;
