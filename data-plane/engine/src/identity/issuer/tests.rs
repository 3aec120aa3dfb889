//! Tests of `issuer.rs` and `jwk.rs`, and the signers that tests of tokens share.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeySize, PublicKeyComponents};
use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway_proto::kind;
use serde_json::{Value, json};

use super::super::{MAX_KEYS, Token, Unsound};
use super::*;
use crate::policy::testing::NOW;

/// The shared secret of [`Signer::Secret`].
pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Signs tokens.
pub(crate) enum Signer {
    Secret(&'static str),
    Rsa(Box<RsaKeyPair>, &'static str),
    Ec(EcdsaKeyPair, &'static str),
    Ed(Ed25519KeyPair),
}

impl Signer {
    /// A new one for an algorithm.
    pub(crate) fn of(algorithm: &'static str) -> Self {
        let ec = |parameters| Signer::Ec(EcdsaKeyPair::generate(parameters).expect("randomness"), algorithm);
        match algorithm {
            "EdDSA" => Signer::Ed(Ed25519KeyPair::generate().expect("randomness")),
            "ES256" => ec(&signature::ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => ec(&signature::ECDSA_P384_SHA384_FIXED_SIGNING),
            "ES512" => ec(&signature::ECDSA_P521_SHA512_FIXED_SIGNING),
            _ if algorithm.starts_with("HS") => Signer::Secret(algorithm),
            _ => {
                Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("randomness")), algorithm)
            }
        }
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Signer::Secret(algorithm) | Signer::Rsa(_, algorithm) | Signer::Ec(_, algorithm) => algorithm,
            Signer::Ed(_) => "EdDSA",
        }
    }

    /// The public key.
    pub(crate) fn jwk(&self, id: Option<&str>) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = match self {
            Signer::Secret(_) => json!({ "kty": "oct", "k": text(SECRET.as_bytes()) }),
            Signer::Rsa(pair, _) => {
                let PublicKeyComponents { n, e } = PublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                json!({ "kty": "RSA", "n": text(&n), "e": text(&e) })
            }
            Signer::Ec(pair, algorithm) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let crv = match *algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                json!({ "kty": "EC", "crv": crv, "x": text(x), "y": text(y) })
            }
            Signer::Ed(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": text(pair.public_key().as_ref()) })
            }
        };
        if let Some(id) = id {
            jwk["kid"] = id.into();
        }
        jwk
    }

    fn sign(&self, text: &[u8]) -> Vec<u8> {
        match self {
            Signer::Secret(algorithm) => hmac_of(algorithm, SECRET.as_bytes(), text),
            Signer::Rsa(pair, algorithm) => {
                let encoding: &'static dyn RsaEncoding = match *algorithm {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    _ => &signature::RSA_PSS_SHA512,
                };
                let mut out = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), text, &mut out).expect("a sound key");
                out
            }
            Signer::Ec(pair, _) => {
                pair.sign(&SystemRandom::new(), text).expect("a sound key").as_ref().to_vec()
            }
            Signer::Ed(pair) => pair.sign(text).as_ref().to_vec(),
        }
    }

    /// A token with any header.
    pub(crate) fn token_with(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.sign(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// A token as the issuer makes it.
    pub(crate) fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({ "alg": self.algorithm(), "typ": "JWT" }), claims)
    }
}

pub(crate) fn hmac_of(algorithm: &str, secret: &[u8], text: &[u8]) -> Vec<u8> {
    let algorithm = match algorithm {
        "HS256" => hmac::HMAC_SHA256,
        "HS384" => hmac::HMAC_SHA384,
        _ => hmac::HMAC_SHA512,
    };
    hmac::sign(&hmac::Key::new(algorithm, secret), text).as_ref().to_vec()
}

/// Compiles a spec written as JSON; faults as `field: code: message`.
pub(crate) fn compiled(spec: &Value) -> Result<TokenIssuer, Vec<String>> {
    let spec: wire::TokenIssuerSpec = serde_json::from_value(spec.clone()).expect("the shape is right");
    let mut out = Violations::of(kind::Key::new(kind::Kind::TokenIssuer, "shop", "main"));
    let root = FieldPath::root();
    let made = check(("shop/main".into(), IssuerSlot(0)), &spec, &root.field("spec"), &mut out);
    made.ok_or_else(|| {
        let faults = out.into_vec();
        faults.iter().map(|it| format!("{}: {}: {}", it.field, it.code.as_str(), it.message)).collect()
    })
}

/// An issuer `https://issuer.example` with these members more.
pub(crate) fn issuer(more: Value) -> Value {
    let mut spec = json!({ "issuer": "https://issuer.example" });
    spec.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    spec
}

pub(crate) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

fn pinned(spec: Value) -> Vec<(Option<String>, &'static str)> {
    let made = compiled(&spec).expect("sound");
    let Keys::Given(keys) = &made.keys else { panic!("they are here") };
    keys.iter().map(|key| (key.id.as_deref().map(str::to_owned), key.algorithm.name())).collect()
}

#[test]
fn each_key_is_pinned_to_the_algorithms_it_is_for() {
    let (rsa, ec, ed) = (Signer::of("RS256"), Signer::of("ES384"), Signer::of("EdDSA"));
    let set = jwks(&[rsa.jwk(Some("r")), ec.jwk(Some("e")), ed.jwk(None)]);
    let id = |id: &str| Some(id.to_owned());
    assert_eq!(
        pinned(issuer(json!({ "jwks": set }))),
        [(id("r"), "RS256"), (id("e"), "ES384"), (None, "EdDSA")]
    );
    let some = issuer(json!({ "jwks": set, "algorithms": ["PS256", "RS512", "EdDSA"] }));
    assert_eq!(pinned(some), [(id("r"), "PS256"), (id("r"), "RS512"), (None, "EdDSA")]);
    let mut said = rsa.jwk(None);
    said["alg"] = "PS384".into();
    assert_eq!(pinned(issuer(json!({ "jwks": jwks(&[said]) }))), [(None, "PS384")]);
    assert_eq!(pinned(issuer(json!({ "secret": SECRET }))), [(None, "HS256")]);
    let both = issuer(json!({ "secret": SECRET, "algorithms": ["HS512", "HS384"] }));
    assert_eq!(pinned(both), [(None, "HS512"), (None, "HS384")]);
}

#[test]
fn keys_for_something_else_are_passed_over() {
    let ec = Signer::of("ES256");
    let with = |name: &str, value: Value| {
        let mut jwk = ec.jwk(Some("other"));
        jwk[name] = value;
        jwk
    };
    let others = [
        with("use", "enc".into()),
        with("key_ops", json!(["encrypt"])),
        with("alg", "ECDH-ES".into()),
        with("kty", "AKP".into()),
        with("crv", "secp256k1".into()),
        ec.jwk(Some("mine")),
    ];
    assert_eq!(pinned(issuer(json!({ "jwks": jwks(&others) }))), [(Some("mine".to_owned()), "ES256")]);
    let none = compiled(&issuer(json!({ "jwks": jwks(&others[..5]) }))).expect_err("no key is left");
    assert_eq!(none, ["spec.jwks: invalid: no key in it is for signatures with these algorithms"]);
}

#[test]
fn faults_of_a_key_set_are_named_without_a_word_of_it() {
    let rsa = Signer::of("RS256");
    let with = |name: &str, value: &str| {
        let mut jwk = rsa.jwk(None);
        jwk[name] = value.into();
        jwk
    };
    let mut ec = Signer::of("ES256").jwk(None);
    ec["y"] = ec["x"].clone();
    let mut short = Signer::of("ES256").jwk(None);
    short["x"] = "AAAA".into();
    let small = URL_SAFE_NO_PAD.encode([0xff_u8; 128]);
    for (key, expected) in [
        (Signer::of("HS256").jwk(None), "it is private"),
        (with("d", "AAAA"), "it is private"),
        (with("n", "not base64!"), "not base64url"),
        (with("n", "AAAA"), "is zero"),
        (with("n", &small), "2048 to 8192 bits"),
        (with("alg", "ES256"), "its alg is not one of its kty"),
        (json!({ "kty": "RSA", "n": "AQAB" }), "missing"),
        (json!({ "kid": "secret-name" }), "it is no JSON Web Key"),
        (ec, "it is no sound key"),
        (short, "the length of its curve"),
        (json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }), "has 32 bytes"),
    ] {
        let found =
            compiled(&issuer(json!({ "jwks": jwks(std::slice::from_ref(&key)) }))).expect_err("faulty");
        assert_eq!(found.len(), 1, "{key}: {found:?}");
        assert!(found[0].starts_with("spec.jwks: invalid: keys[0]: "), "{found:?}");
        assert!(found[0].contains(expected), "{key}: {found:?}");
    }
    let broken = compiled(&issuer(json!({ "jwks": "{\"keys\":[\n{\"n\": \"secret" }))).expect_err("faulty");
    assert!(broken[0].contains("at line 2 column") && !broken[0].contains("secret"), "{broken:?}");
    let many = jwks(&vec![json!({ "kty": "x" }); MAX_KEYS + 1]);
    let found = compiled(&issuer(json!({ "jwks": many }))).expect_err("too many");
    assert!(found[0].starts_with("spec.jwks: invalid: 101 keys are too many"), "{found:?}");
}

#[test]
fn every_bad_field_is_named_at_once() {
    let long = "x".repeat(MAX_TEXT + 1);
    let spec = json!({
        "issuer": "", "audiences": ["a", "", long], "leeway": "2h", "secret": "short",
        "algorithms": ["HS512", "RS256", "none", "HS512", "hs256"],
        "consumerClaim": "c".repeat(MAX_CLAIM_NAME + 1),
    });
    let found = compiled(&spec).expect_err("faulty");
    let expected = [
        "spec.issuer: required: give the iss claim of its tokens",
        "spec.audiences[1]: required: give an audience",
        "spec.audiences[2]: out_of_range: 2049 bytes are too long, at most 2048 are allowed",
        "spec.leeway: out_of_range: leeway \"2h\" is over the longest allowed, 1h",
        "spec.consumerClaim: out_of_range: a claim's name has at most 256 bytes",
        "spec.algorithms[1]: conflict: RS256 goes with public keys (jwks), not with a secret",
        "spec.algorithms[2]: unknown: unknown algorithm \"none\", expected RS, PS, ES or HS with 256, 384 or 512, or \
         EdDSA",
        "spec.algorithms[3]: duplicate: HS512 is already in this list",
        "spec.algorithms[4]: unknown: unknown algorithm \"hs256\", expected RS, PS, ES or HS with 256, 384 or 512, \
         or EdDSA",
        "spec.secret: out_of_range: HS512 needs a secret of at least 64 bytes, this has 5",
    ];
    assert_eq!(found, expected);
}

#[test]
fn there_is_one_source_of_keys() {
    let both = compiled(&issuer(json!({ "jwks": "{}", "secret": SECRET }))).expect_err("both");
    assert!(both[0].starts_with("spec.secret: conflict: "), "{both:?}");
    let none = compiled(&issuer(json!({}))).expect_err("none");
    assert_eq!(none, ["spec: required: give the keys of its tokens: jwks, jwksUri or secret"]);
    let masked = compiled(&issuer(json!({ "secret": MASK }))).expect_err("masked");
    assert!(masked[0].starts_with("spec.secret: invalid: *** stands for the secret"), "{masked:?}");
    let reference = format!("{SEALED}12:{}", "ab".repeat(32));
    let sealed = compiled(&issuer(json!({ "secret": reference }))).expect_err("a reference is no key");
    assert!(sealed[0].starts_with("spec.secret: invalid: sealed: begins what a store keeps"), "{sealed:?}");
    let symmetric = compiled(&issuer(json!({ "jwks": "{}", "algorithms": ["HS256"] }))).expect_err("mixed");
    assert!(
        symmetric[0].starts_with("spec.algorithms[0]: conflict: HS256 goes with a secret"),
        "{symmetric:?}"
    );
}

#[test]
fn keys_elsewhere_are_fetched_by_https_off_this_machine() {
    for good in [
        "https://issuer.example/.well-known/jwks.json",
        "https://issuer.example:8443/keys?tenant=a",
        "http://localhost:9/keys",
        "http://127.0.0.1/keys",
        "http://[::1]:8080/",
    ] {
        let made = compiled(&issuer(json!({ "jwksUri": good, "algorithms": ["RS256"] }))).expect(good);
        assert_eq!(made.remote_keys().expect("they are elsewhere").uri(), good);
    }
    for bad in [
        "http://issuer.example/keys",
        "http://localhost.example/keys",
        "http://10.0.0.1/keys",
        "ftp://issuer.example/keys",
        "/keys",
        "https://",
        "https://user:secret@issuer.example/keys",
        "not a uri",
    ] {
        let found = compiled(&issuer(json!({ "jwksUri": bad }))).map(|_| bad).expect_err(bad);
        assert!(found.len() == 1 && found[0].starts_with("spec.jwksUri: invalid: "), "{bad}: {found:?}");
        assert!(!found[0].contains("secret"), "{found:?}");
    }
    let long = format!("https://a.example/{}", "x".repeat(2048));
    assert!(compiled(&issuer(json!({ "jwksUri": long }))).is_err());
    for (other, value) in [("jwks", "{\"keys\":[]}"), ("secret", SECRET)] {
        let both = issuer(json!({ "jwksUri": "https://a.example/", other: value }));
        let found = compiled(&both).expect_err("both");
        assert!(found[0].starts_with("spec.jwksUri: conflict: "), "{found:?}");
    }
}

#[test]
fn the_last_good_set_is_kept_and_an_unknown_key_asks_for_another() {
    let (one, two) = (Signer::of("ES256"), Signer::of("ES256"));
    let made = compiled(&issuer(json!({ "jwksUri": "https://a.example/" }))).expect("sound");
    let remote = made.remote_keys().expect("they are elsewhere");
    let check = |signer: &Signer| {
        let claims = json!({ "iss": "https://issuer.example", "exp": NOW + 60 });
        let (token, mut header, mut payload) = (signer.token(&claims), Vec::new(), Vec::new());
        let token = Token::parse(token.as_bytes(), &mut header, &mut payload)?;
        token.verify(&made, NOW)
    };
    assert!(!remote.take_wanted());
    assert_eq!(check(&one), Err(Unsound::NoKeys));
    assert!(remote.take_wanted() && !remote.take_wanted());
    remote.store(&jwks(&[one.jwk(Some("one"))])).expect("a sound set");
    assert_eq!(check(&one), Ok(()));
    assert!(!remote.take_wanted());
    assert_eq!(check(&two), Err(Unsound::Invalid));
    assert!(remote.take_wanted());
    for bad in ["", "{}", &jwks(&[]), &jwks(&[json!({ "kty": "RSA", "n": "AAAA" })])] {
        assert!(remote.store(bad).is_err(), "{bad}");
    }
    assert_eq!(check(&one), Ok(()), "the last good ones stay");
    remote.store(&jwks(&[two.jwk(None)])).expect("a sound set");
    assert_eq!((check(&one), check(&two)), (Err(Unsound::Invalid), Ok(())));
}

/// Random bytes, for tokens that are none.
pub(crate) fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rand::fill(&mut bytes).expect("randomness");
    bytes
}
