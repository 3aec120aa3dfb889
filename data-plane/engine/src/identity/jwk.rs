//! JWK: the keys of a token issuer, parsed and pinned to one algorithm each (RFC 8725 §3.1): a token says which
//! algorithm it uses, a key which one it is for, and both must be the same. An RSA key can therefore never be taken for
//! the secret of an HMAC. A set holds public keys only; texts of keys are never quoted in messages.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    self, ED25519, EcdsaVerificationAlgorithm, ParsedPublicKey, RsaParameters, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

/// Longest JSON text of a key set.
pub const MAX_JWKS_BYTES: usize = 256 * 1024;
/// Most keys of a set.
pub const MAX_KEYS: usize = 100;
/// Bits of an RSA modulus that are taken (RFC 7518 §3.3).
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// A signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1). `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    EdDsa,
}

/// What kind of key an algorithm takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Secret,
    Rsa,
    /// A curve's name in a JWK.
    Ec(&'static str),
    Ed25519,
}

impl Algorithm {
    const ALL: [Algorithm; 13] = [
        Algorithm::Hs256,
        Algorithm::Hs384,
        Algorithm::Hs512,
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Ps384,
        Algorithm::Ps512,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::Es512,
        Algorithm::EdDsa,
    ];

    /// As it stands in `alg`.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Algorithm::Hs256 => "HS256",
            Algorithm::Hs384 => "HS384",
            Algorithm::Hs512 => "HS512",
            Algorithm::Rs256 => "RS256",
            Algorithm::Rs384 => "RS384",
            Algorithm::Rs512 => "RS512",
            Algorithm::Ps256 => "PS256",
            Algorithm::Ps384 => "PS384",
            Algorithm::Ps512 => "PS512",
            Algorithm::Es256 => "ES256",
            Algorithm::Es384 => "ES384",
            Algorithm::Es512 => "ES512",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    /// By its exact name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Algorithm::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// It signs with a shared secret.
    pub(super) const fn is_symmetric(self) -> bool {
        matches!(self, Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512)
    }

    const fn family(self) -> Family {
        match self {
            Algorithm::Hs256 | Algorithm::Hs384 | Algorithm::Hs512 => Family::Secret,
            Algorithm::Es256 => Family::Ec("P-256"),
            Algorithm::Es384 => Family::Ec("P-384"),
            Algorithm::Es512 => Family::Ec("P-521"),
            Algorithm::EdDsa => Family::Ed25519,
            _ => Family::Rsa,
        }
    }

    fn hmac(self) -> Option<hmac::Algorithm> {
        match self {
            Algorithm::Hs256 => Some(hmac::HMAC_SHA256),
            Algorithm::Hs384 => Some(hmac::HMAC_SHA384),
            Algorithm::Hs512 => Some(hmac::HMAC_SHA512),
            _ => None,
        }
    }

    const fn rsa(self) -> Option<&'static RsaParameters> {
        match self {
            Algorithm::Rs256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
            Algorithm::Rs384 => Some(&signature::RSA_PKCS1_2048_8192_SHA384),
            Algorithm::Rs512 => Some(&signature::RSA_PKCS1_2048_8192_SHA512),
            Algorithm::Ps256 => Some(&signature::RSA_PSS_2048_8192_SHA256),
            Algorithm::Ps384 => Some(&signature::RSA_PSS_2048_8192_SHA384),
            Algorithm::Ps512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            _ => None,
        }
    }

    const fn ecdsa(self) -> Option<(&'static EcdsaVerificationAlgorithm, usize)> {
        match self {
            Algorithm::Es256 => Some((&signature::ECDSA_P256_SHA256_FIXED, 32)),
            Algorithm::Es384 => Some((&signature::ECDSA_P384_SHA384_FIXED, 48)),
            Algorithm::Es512 => Some((&signature::ECDSA_P521_SHA512_FIXED, 66)),
            _ => None,
        }
    }
}

/// A key and the one algorithm it is for.
#[derive(Debug)]
pub(super) struct Key {
    /// Its name in the set.
    pub(super) id: Option<Box<str>>,
    /// What it is for.
    pub(super) algorithm: Algorithm,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl Key {
    /// A shared secret.
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Option<Key> {
        let key = hmac::Key::new(algorithm.hmac()?, secret);
        Some(Key { id: None, algorithm, material: Material::Secret(Box::new(key)) })
    }

    /// The signature is this key's. The time does not tell how much of a wrong one is right.
    pub(super) fn verifies(&self, signed: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, signed, signature).is_ok(),
            Material::Public(key) => key.verify_sig(signed, signature).is_ok(),
        }
    }
}

/// The members of a JWK that matter here (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    /// Private: the value of a symmetric key.
    k: Option<serde::de::IgnoredAny>,
    /// Private: of all asymmetric keys.
    d: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Set<'a> {
    #[serde(borrow)]
    keys: Vec<&'a serde_json::value::RawValue>,
}

/// The keys of a set, each pinned to the algorithms among `allowed` that it is for (empty: its `alg`, else the usual
/// one of its type). Keys of unknown types and for other uses are passed over (RFC 7517 §5).
///
/// # Errors
/// Everything that is wrong with it, without a word of it.
pub(super) fn keys(text: &str, allowed: &[Algorithm]) -> Result<Vec<Key>, Vec<String>> {
    let set: Set<'_> = serde_json::from_str(text).map_err(|error| {
        vec![format!(
            "no JWK Set: expected {{\"keys\": [...]}}, it leaves the form at line {} column {}",
            error.line(),
            error.column()
        )]
    })?;
    if set.keys.len() > MAX_KEYS {
        return Err(vec![format!("{} keys are too many, at most {MAX_KEYS} are allowed", set.keys.len())]);
    }
    let (mut keys, mut faults) = (Vec::new(), Vec::new());
    for (index, raw) in set.keys.iter().enumerate() {
        match read(raw.get(), allowed) {
            Ok(found) => keys.extend(found),
            Err(why) => faults.push(format!("keys[{index}]: {why}")),
        }
    }
    if faults.is_empty() && keys.is_empty() {
        faults.push("no key in it is for signatures with these algorithms".to_owned());
    }
    if faults.is_empty() { Ok(keys) } else { Err(faults) }
}

fn read(text: &str, allowed: &[Algorithm]) -> Result<Vec<Key>, &'static str> {
    let jwk: Jwk = serde_json::from_str(text).map_err(|_| "it is no JSON Web Key")?;
    if jwk.k.is_some() || jwk.d.is_some() {
        return Err("it is private: a set holds public keys, a shared secret belongs in spec.secret");
    }
    let for_signatures = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    let family = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("RSA", _) => Family::Rsa,
        ("EC", Some("P-256")) => Family::Ec("P-256"),
        ("EC", Some("P-384")) => Family::Ec("P-384"),
        ("EC", Some("P-521")) => Family::Ec("P-521"),
        ("OKP", Some("Ed25519")) => Family::Ed25519,
        _ => return Ok(Vec::new()),
    };
    let said = match jwk.alg.as_deref() {
        None => None,
        // It is for something else, such as encryption.
        Some(name) => match Algorithm::from_name(name) {
            None => return Ok(Vec::new()),
            Some(algorithm) if algorithm.family() != family => return Err("its alg is not one of its kty"),
            said => said,
        },
    };
    if !for_signatures {
        return Ok(Vec::new());
    }
    let fits =
        |algorithm: &Algorithm| algorithm.family() == family && said.is_none_or(|said| said == *algorithm);
    let pinned: Vec<Algorithm> = match (allowed, said) {
        ([], Some(said)) => vec![said],
        ([], None) => Algorithm::ALL.into_iter().filter(fits).take(1).collect(),
        _ => allowed.iter().copied().filter(fits).collect(),
    };
    let key = |algorithm| {
        let material = Material::Public(public(&jwk, algorithm)?);
        Ok(Key { id: jwk.kid.as_deref().map(Into::into), algorithm, material })
    };
    pinned.into_iter().map(key).collect()
}

fn public(jwk: &Jwk, algorithm: Algorithm) -> Result<ParsedPublicKey, &'static str> {
    const BAD: &str = "it is no sound key";
    if let Some(parameters) = algorithm.rsa() {
        let (n, e) = (number(jwk.n.as_deref())?, number(jwk.e.as_deref())?);
        let bits = n.len() * 8 - n.first().map_or(0, |first| first.leading_zeros() as usize);
        if !RSA_BITS.contains(&bits) {
            return Err("an RSA key has 2048 to 8192 bits");
        }
        return RsaPublicKeyComponents { n, e }.to_parsed_public_key(parameters).map_err(|_| BAD);
    }
    if let Some((parameters, length)) = algorithm.ecdsa() {
        let (x, y) = (bytes(jwk.x.as_deref())?, bytes(jwk.y.as_deref())?);
        if x.len() != length || y.len() != length {
            return Err("its coordinates do not have the length of its curve");
        }
        // Uncompressed point (SEC 1 §2.3.3); whether it is on the curve is checked by what parses it.
        let point = [&[4][..], &x, &y].concat();
        return ParsedPublicKey::new(parameters, point).map_err(|_| BAD);
    }
    let x = bytes(jwk.x.as_deref())?;
    if x.len() != 32 {
        return Err("an Ed25519 key has 32 bytes");
    }
    ParsedPublicKey::new(&ED25519, x).map_err(|_| BAD)
}

fn bytes(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let text = text.ok_or("a member of its public key is missing")?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| "a member of its public key is not base64url")
}

/// A number without leading zeros.
fn number(text: Option<&str>) -> Result<Vec<u8>, &'static str> {
    let bytes = bytes(text)?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    if zeros == bytes.len() { Err("a number of its public key is zero") } else { Ok(bytes[zeros..].to_vec()) }
}
