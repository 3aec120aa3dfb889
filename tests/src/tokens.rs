//! A token issuer of a test's own: a key pair, its JWK Set, and the tokens it signs (ES256).

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An issuer with one key.
#[derive(Debug)]
pub struct Accounts {
    issuer: String,
    key: EcdsaKeyPair,
}

impl Accounts {
    /// A new key.
    ///
    /// # Panics
    /// When there is no randomness.
    pub fn new(issuer: &str) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("there is randomness");
        Accounts { issuer: issuer.to_owned(), key }
    }

    /// The public key as a JWK Set.
    pub fn jwks(&self) -> String {
        // An uncompressed point: 4, x, y.
        let (x, y) = self.key.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        json!({ "keys": [{ "kty": "EC", "crv": "P-256", "kid": "test", "x": x, "y": y }] }).to_string()
    }

    /// A token that ends so many seconds from now.
    ///
    /// # Panics
    /// When there is no randomness.
    pub fn token(&self, subject: &str, audience: &str, seconds: i64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let end = now.saturating_add_signed(seconds);
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let claims = json!({ "iss": self.issuer, "sub": subject, "aud": audience, "exp": end });
        let signed = format!("{}.{}", part(json!({ "alg": "ES256", "kid": "test" })), part(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("there is randomness");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
