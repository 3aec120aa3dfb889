//! Tests of `jwt.rs`: what is believed and what is not.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::issuer::tests::{SECRET, Signer, compiled, hmac_of, issuer, jwks, random};
use super::*;
use crate::policy::testing::NOW;

fn check(token: &[u8], issuer: &TokenIssuer, now: u64) -> Result<(), Unsound> {
    let (mut header, mut payload) = (Vec::new(), Vec::new());
    Token::parse(token, &mut header, &mut payload)?.verify(issuer, now)
}

fn claims() -> Value {
    json!({ "iss": "https://issuer.example", "exp": NOW + 60, "sub": "alice" })
}

/// A signer and the issuer that has its key.
fn pair(algorithm: &'static str) -> (Signer, TokenIssuer) {
    let signer = Signer::of(algorithm);
    let spec = match algorithm.starts_with("HS") {
        true => issuer(json!({ "secret": SECRET, "algorithms": [algorithm] })),
        false => issuer(json!({ "jwks": jwks(&[signer.jwk(Some("one"))]), "algorithms": [algorithm] })),
    };
    let issuer = compiled(&spec).expect("sound");
    (signer, issuer)
}

const ALGORITHMS: [&str; 13] = [
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384",
    "ES512", "EdDSA",
];

#[test]
fn every_algorithm_is_believed_and_no_other_signature_or_text() {
    for algorithm in ALGORITHMS {
        let (signer, issuer) = pair(algorithm);
        let token = signer.token(&claims());
        assert_eq!(check(token.as_bytes(), &issuer, NOW), Ok(()), "{algorithm}");
        let (stranger, _) = pair(algorithm);
        if !algorithm.starts_with("HS") {
            let forged = stranger.token(&claims());
            assert_eq!(check(forged.as_bytes(), &issuer, NOW), Err(Unsound::Invalid), "{algorithm}");
        }
        let (head, _) = token.rsplit_once('.').expect("three parts");
        let mut other = claims();
        other["sub"] = "mallory".into();
        let other = signer.token(&other);
        let (_, signature) = other.rsplit_once('.').expect("three parts");
        let mixed = format!("{head}.{signature}");
        assert_eq!(check(mixed.as_bytes(), &issuer, NOW), Err(Unsound::Invalid), "{algorithm}");
        let bare = format!("{head}.");
        assert_eq!(check(bare.as_bytes(), &issuer, NOW), Err(Unsound::Invalid), "{algorithm}");
    }
}

#[test]
fn the_token_of_rfc_7515_is_believed_until_its_end() {
    // RFC 7515, appendix A.3.
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let token = b"eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9\
        pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let spec = json!({ "issuer": "joe", "jwks": jwks(&[jwk]), "leeway": "0s" });
    let issuer = compiled(&spec).expect("sound");
    assert_eq!(check(token, &issuer, 1_300_819_379), Ok(()));
    assert_eq!(check(token, &issuer, 1_300_819_380), Err(Unsound::Expired));
}

#[test]
fn the_algorithm_is_that_of_the_key_whatever_the_token_says() {
    let (signer, issuer) = pair("RS256");
    let public = serde_json::to_vec(&signer.jwk(None)).expect("JSON");
    for said in ["none", "None", "", "HS256", "RS384", "PS256", "ES256", "rs256"] {
        let header = json!({ "alg": said });
        let token = signer.token_with(&header, &claims());
        assert_eq!(check(token.as_bytes(), &issuer, NOW), Err(Unsound::Invalid), "{said}");
        // What only knows the public key signs with it as a secret.
        let (signed, _) = token.rsplit_once('.').expect("three parts");
        let forged = URL_SAFE_NO_PAD.encode(hmac_of("HS256", &public, signed.as_bytes()));
        let token = format!("{signed}.{forged}");
        assert_eq!(check(token.as_bytes(), &issuer, NOW), Err(Unsound::Invalid), "{said}");
    }
    // A key that the token brings along is not looked at.
    let stranger = Signer::of("RS256");
    let header = json!({ "alg": "RS256", "jwk": stranger.jwk(None), "jku": "https://evil.example" });
    let token = stranger.token_with(&header, &claims());
    assert_eq!(check(token.as_bytes(), &issuer, NOW), Err(Unsound::Invalid));
}

#[test]
fn a_key_id_chooses_among_the_keys_and_without_one_all_that_fit_are_tried() {
    let signers: Vec<Signer> = (0..3).map(|_| Signer::of("ES256")).collect();
    let keys = [signers[0].jwk(Some("a")), signers[1].jwk(Some("b")), signers[2].jwk(None)];
    let issuer = compiled(&issuer(json!({ "jwks": jwks(&keys) }))).expect("sound");
    for (signer, id, believed) in [
        (0, Some("a"), true),
        (0, Some("b"), false),
        (0, None, true),
        (1, Some("b"), true),
        (1, None, true),
        (2, Some("c"), true),
        (2, None, true),
        (1, Some("c"), false),
    ] {
        let mut header = json!({ "alg": "ES256" });
        if let Some(id) = id {
            header["kid"] = id.into();
        }
        let token = signers[signer].token_with(&header, &claims());
        assert_eq!(check(token.as_bytes(), &issuer, NOW).is_ok(), believed, "{signer} {id:?}");
    }
}

#[test]
fn the_key_that_is_named_is_tried_however_many_have_no_name() {
    let last = Signer::of("ES256");
    let mut keys: Vec<Value> = (0..MAX_TRIES).map(|_| Signer::of("ES256").jwk(None)).collect();
    keys.push(last.jwk(Some("last")));
    let issuer = compiled(&issuer(json!({ "jwks": jwks(&keys) }))).expect("sound");
    let named = last.token_with(&json!({ "alg": "ES256", "kid": "last" }), &claims());
    assert_eq!(check(named.as_bytes(), &issuer, NOW), Ok(()));
    // There is a bound on what a token without a name may cost.
    let unnamed = last.token_with(&json!({ "alg": "ES256" }), &claims());
    assert_eq!(check(unnamed.as_bytes(), &issuer, NOW), Err(Unsound::Invalid));
}

#[test]
fn claims_are_checked_with_leeway() {
    let signer = Signer::of("HS256");
    let issuer = compiled(&issuer(json!({ "secret": SECRET, "audiences": ["api", "web"], "leeway": "30s" })))
        .expect("sound");
    let (ok, invalid, expired, malformed) =
        (Ok(()), Err(Unsound::Invalid), Err(Unsound::Expired), Err(Unsound::Malformed));
    let iss = "https://issuer.example";
    for (claims, expected) in [
        (json!({ "iss": iss, "aud": "api", "exp": NOW + 1 }), ok),
        (json!({ "iss": iss, "aud": ["x", "web"], "exp": NOW + 1 }), ok),
        (json!({ "iss": iss, "aud": "other", "exp": NOW + 1 }), invalid),
        (json!({ "iss": iss, "aud": ["x", 1], "exp": NOW + 1 }), invalid),
        (json!({ "iss": iss, "aud": [], "exp": NOW + 1 }), invalid),
        (json!({ "iss": iss, "aud": null, "exp": NOW + 1 }), invalid),
        (json!({ "iss": iss, "exp": NOW + 1 }), invalid),
        (json!({ "iss": iss, "aud": "api", "exp": NOW - 29 }), ok),
        (json!({ "iss": iss, "aud": "api", "exp": NOW - 30 }), expired),
        (json!({ "iss": iss, "aud": "api", "exp": NOW as f64 - 29.5 }), ok),
        (json!({ "iss": iss, "aud": "api" }), invalid),
        (json!({ "iss": iss, "aud": "api", "exp": "tomorrow" }), malformed),
        (json!({ "iss": iss, "aud": "api", "exp": NOW + 1, "nbf": NOW + 30 }), ok),
        (json!({ "iss": iss, "aud": "api", "exp": NOW + 1, "nbf": NOW + 31 }), invalid),
        (json!({ "iss": "https://issuer.example/", "aud": "api", "exp": NOW + 1 }), invalid),
        (json!({ "aud": "api", "exp": NOW + 1 }), invalid),
        (json!({ "iss": 7, "aud": "api", "exp": NOW + 1 }), malformed),
    ] {
        assert_eq!(check(signer.token(&claims).as_bytes(), &issuer, NOW), expected, "{claims}");
    }
}

#[test]
fn what_does_not_have_the_form_is_no_token() {
    let (signer, issuer) = pair("HS256");
    let sign = |header: &str, payload: &str| {
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
        let signature = hmac_of("HS256", SECRET.as_bytes(), signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    };
    let (header, payload) = (json!({ "alg": "HS256" }).to_string(), claims().to_string());
    let sound = sign(&header, &payload);
    assert_eq!(check(sound.as_bytes(), &issuer, NOW), Ok(()));
    let twice = payload.replacen('{', "{\"exp\":1,", 1);
    for token in [
        String::new(),
        "..".to_owned(),
        "a.b".to_owned(),
        format!("{sound}."),
        format!("{sound}.x.y"),
        format!("{sound}=").replacen('.', "=.", 1),
        sound.replacen('.', " .", 1),
        sign("[\"HS256\"]", &payload),
        sign("{\"alg\":\"none\",\"alg\":\"HS256\"}", &payload),
        sign("{\"alg\":\"HS256\",\"crit\":[\"exp\"]}", &payload),
        sign("{\"alg\":\"HS256\",\"crit\":null}", &payload),
        sign("{}", &payload),
        sign(&header, &twice),
        sign(&header, "[]"),
        sign(&header, "\u{feff}{}"),
        sign(&header, ""),
        signer.token(&json!({ "exp": NOW, "pad": "x".repeat(MAX_TOKEN_BYTES) })),
    ] {
        assert_eq!(check(token.as_bytes(), &issuer, NOW), Err(Unsound::Malformed), "{token}");
    }
    let padded = format!("{sound}=");
    assert_eq!(check(padded.as_bytes(), &issuer, NOW), Err(Unsound::Invalid));
}

proptest! {
    #[test]
    fn no_other_text_is_taken_for_a_token(
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let (signer, issuer) = pair("HS256");
        let sound = signer.token(&claims()).into_bytes();
        let mut other = sound.clone();
        let at = at.index(other.len());
        other[at] = byte;
        prop_assert_eq!(check(&other, &issuer, NOW).is_ok(), other == sound);
        let cut = cut.index(sound.len());
        prop_assert!(check(&sound[..cut], &issuer, NOW).is_err());
        let mut inserted = sound;
        inserted.insert(cut, byte);
        prop_assert!(check(&inserted, &issuer, NOW).is_err());
    }

    #[test]
    fn no_bytes_break_the_reader(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        header in "\\PC{0,40}",
        payload in "\\PC{0,80}",
    ) {
        let (_, issuer) = pair("HS256");
        prop_assert!(check(&bytes, &issuer, NOW).is_err());
        let token =
            format!("{}.{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload), URL_SAFE_NO_PAD.encode(random(32)));
        prop_assert!(check(token.as_bytes(), &issuer, NOW).is_err());
    }
}
