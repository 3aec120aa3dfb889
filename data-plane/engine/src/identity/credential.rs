//! Credential: checked apart from [`compile`](crate::compile::compile), because it is no part of a configuration: keys
//! come and go by themselves, and there may be a million of them. The same function answers in `gatewayctl validate`, in
//! the control plane before anything is stored, and in a data plane that reads manifests.

use std::collections::HashSet;

use gateway_proto::credential::{self, Grant, KeyDigest};
use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::MASK;
use gateway_proto::wire;
use jiff::Timestamp;

use crate::compile::object::check_metadata;
use crate::engine::Engine;
use crate::value;
use crate::violations::Violations;

/// Checks a credential against the consumers of a configuration. Returns the keys that are good by it: none, if it
/// leaves the key to what is stored.
///
/// # Errors
/// Every violation found.
pub fn check_credential(
    engine: &Engine,
    credential: &wire::Credential,
) -> Result<Vec<Grant>, Vec<Violation>> {
    let resource = Resource::from(credential.clone());
    let key = resource.key();
    let mut out = Violations::of(key.clone());
    check_metadata(&resource, &mut out);
    let root = FieldPath::root();
    let at = root.field("spec");
    let nothing = wire::CredentialSpec::default();
    let spec = credential.spec.as_ref().unwrap_or(&nothing);
    let consumer = consumer(engine, &key.namespace, &spec.consumer, &at.field("consumer"), &mut out);
    let expires = spec.expires.as_deref().and_then(|text| seconds(text, &at.field("expires"), &mut out));
    let digests = match &spec.api_key {
        None => {
            out.push(&at, ViolationCode::Required, "name what it is: apiKey");
            Vec::new()
        }
        Some(key) => digests(key, expires.unwrap_or(0), &at.field("apiKey"), &mut out),
    };
    match consumer.filter(|_| out.is_empty()) {
        None => Err(out.into_vec()),
        Some(consumer) => {
            let grant = |(digest, expires)| Grant { digest, consumer: consumer.clone(), expires };
            Ok(digests.into_iter().map(grant).collect())
        }
    }
}

/// Checks all credentials that there are, as a set of manifests has them: no key may be good by two of them.
///
/// # Errors
/// Every violation found.
pub fn check_credentials<'c>(
    engine: &Engine,
    credentials: impl Iterator<Item = &'c wire::Credential>,
) -> Result<Vec<Grant>, Vec<Violation>> {
    let (mut grants, mut violations) = (Vec::new(), Vec::new());
    let mut seen = HashSet::new();
    for credential in credentials {
        match check_credential(engine, credential) {
            Err(found) => violations.extend(found),
            Ok(found) => {
                if found.iter().any(|grant| !seen.insert(grant.digest)) {
                    let mut out = Violations::of(Resource::from(credential.clone()).key());
                    let root = FieldPath::root();
                    let spec = root.field("spec");
                    let message =
                        "this key is good by another credential already: every credential has its own";
                    out.push(&spec.field("apiKey"), ViolationCode::Duplicate, message);
                    violations.extend(out.into_vec());
                }
                grants.extend(found);
            }
        }
    }
    if violations.is_empty() { Ok(grants) } else { Err(violations) }
}

/// The digest that a key stands for, if it says one.
pub fn digest_of(key: &wire::ApiKey) -> Option<KeyDigest> {
    match (&*key.key, &*key.sha256) {
        ("" | MASK, digest) => KeyDigest::from_hex(digest),
        (text, _) => Some(KeyDigest::of(text.as_bytes())),
    }
}

fn consumer(
    engine: &Engine,
    namespace: &str,
    name: &str,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Option<Box<str>> {
    if name.is_empty() {
        out.push(at, ViolationCode::Required, "name the consumer that it stands for");
        return None;
    }
    if value::name(name).is_err() {
        let message =
            format!("invalid reference {name:?}, expected the name of a Consumer of its own namespace");
        out.push(at, ViolationCode::Invalid, message);
        return None;
    }
    let key = Key::new(Kind::Consumer, namespace, name);
    if !engine.contains(&key) {
        out.push(at, ViolationCode::DanglingReference, format!("there is no {key}"));
        return None;
    }
    Some(key.qualified().into())
}

/// The keys of one credential and when each ends.
fn digests(
    key: &wire::ApiKey,
    expires: u32,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Vec<(KeyDigest, u32)> {
    let given = !key.key.is_empty() && key.key != MASK;
    if given && !credential::is_key(key.key.as_bytes()) {
        let message = "this is no key, expected one that `gatewayctl key generate` or a control plane made";
        out.push(&at.field("key"), ViolationCode::Invalid, message);
    }
    if given && !key.sha256.is_empty() && digest_of(key) != KeyDigest::from_hex(&key.sha256) {
        out.push(at, ViolationCode::Conflict, "sha256 is not that of key, drop one");
    }
    let mut hex = |text: &str, name: &str| {
        let digest = KeyDigest::from_hex(text);
        if digest.is_none() && !text.is_empty() {
            out.push(&at.field(name), ViolationCode::Invalid, "expected a SHA-256 as 64 hex digits");
        }
        digest
    };
    let _checked = hex(&key.sha256, "sha256");
    let retiring = hex(&key.retiring_sha256, "retiringSha256");
    let until = match &*key.retiring_until {
        "" => None,
        text => seconds(text, &at.field("retiringUntil"), out),
    };
    let current = digest_of(key).map(|digest| (digest, expires));
    let earlier = |until: u32| if expires == 0 { until } else { until.min(expires) };
    let retiring = retiring.zip(until.map(earlier));
    current.into_iter().chain(retiring).collect()
}

/// A time in whole seconds since 1970; those after 2106 are none.
fn seconds(text: &str, at: &FieldPath<'_>, out: &mut Violations) -> Option<u32> {
    let time: Timestamp = match text.parse() {
        Ok(time) => time,
        Err(_) => {
            let message = format!("{text:?} is no RFC 3339 time such as 2027-01-31T00:00:00Z");
            out.push(at, ViolationCode::Invalid, message);
            return None;
        }
    };
    let seconds = u32::try_from(time.as_second()).ok().filter(|seconds| *seconds > 0);
    if seconds.is_none() {
        out.push(at, ViolationCode::OutOfRange, format!("{text:?} is not between 1970 and 2106"));
    }
    seconds
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::compile::{Change, compile};

    const KEY: &str = "gwk_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    fn check(spec: Value) -> Result<Vec<Grant>, Vec<String>> {
        let alice = json!({ "metadata": { "name": "alice" } });
        let alice = Resource::deserialize(Kind::Consumer, alice).expect("a consumer");
        let engine = compile(&Engine::default(), vec![Change::Upsert(alice)]).expect("sound").engine;
        let json = json!({ "metadata": { "name": "k" }, "spec": spec });
        let credential: wire::Credential = serde_json::from_value(json).expect("the shape is right");
        let told = |it: &Violation| format!("{}: {}: {}", it.field, it.code.as_str(), it.message);
        check_credential(&engine, &credential).map_err(|found| found.iter().map(told).collect())
    }

    fn key() -> String {
        credential::key(&KEY[4..])
    }

    #[test]
    fn a_key_is_known_by_its_digest_however_it_is_given() {
        let digest = KeyDigest::of(key().as_bytes());
        let grant = |expires| Grant { digest, consumer: "default/alice".into(), expires };
        for (api_key, found) in [
            (json!({ "key": key() }), vec![grant(0)]),
            (json!({ "sha256": digest.to_string() }), vec![grant(0)]),
            (json!({ "key": key(), "sha256": digest.to_string() }), vec![grant(0)]),
            (json!({ "key": MASK, "sha256": digest.to_string() }), vec![grant(0)]),
            (json!({}), vec![]),
        ] {
            assert_eq!(check(json!({ "consumer": "alice", "apiKey": api_key })), Ok(found));
        }
        let ends =
            json!({ "consumer": "alice", "apiKey": { "key": key() }, "expires": "2027-01-15T08:00:00Z" });
        assert_eq!(check(ends), Ok(vec![grant(1_800_000_000)]));
    }

    #[test]
    fn the_key_before_ends_with_its_grace_and_never_after_the_credential() {
        let old = KeyDigest::of(b"old");
        for (expires, end) in [(None, 1_800_000_000), (Some("2027-01-15T07:00:00Z"), 1_799_996_400)] {
            let api_key = json!({
                "key": key(), "retiringSha256": old.to_string(), "retiringUntil": "2027-01-15T08:00:00Z",
            });
            let spec = json!({ "consumer": "alice", "apiKey": api_key, "expires": expires });
            let grants = check(spec).expect("sound");
            assert_eq!((grants[1].digest, grants[1].expires), (old, end));
        }
    }

    #[test]
    fn bad_values_are_named_with_their_place() {
        let sound = json!({ "key": key() });
        for (spec, expected) in [
            (json!({ "apiKey": sound }), "spec.consumer: required: name the consumer"),
            (
                json!({ "consumer": "bob", "apiKey": sound }),
                "spec.consumer: dangling_reference: there is no Consumer default/bob",
            ),
            (json!({ "consumer": "x/alice", "apiKey": sound }), "spec.consumer: invalid: "),
            (json!({ "consumer": "alice" }), "spec: required: name what it is: apiKey"),
            (
                json!({ "consumer": "alice", "apiKey": { "key": "secret" } }),
                "spec.apiKey.key: invalid: this is no key",
            ),
            (json!({ "consumer": "alice", "apiKey": { "sha256": "abc" } }), "spec.apiKey.sha256: invalid: "),
            (
                json!({ "consumer": "alice", "apiKey": { "key": key(), "sha256": "0".repeat(64) } }),
                "spec.apiKey: conflict: sha256 is not that of key",
            ),
            (
                json!({ "consumer": "alice", "apiKey": sound, "expires": "soon" }),
                "spec.expires: invalid: \"soon\"",
            ),
            (
                json!({ "consumer": "alice", "apiKey": sound, "expires": "2200-01-01T00:00:00Z" }),
                "spec.expires: out_of_range: ",
            ),
        ] {
            let found = check(spec).expect_err(expected);
            assert!(found.len() == 1 && found[0].starts_with(expected), "{expected}: {found:?}");
        }
    }
}
