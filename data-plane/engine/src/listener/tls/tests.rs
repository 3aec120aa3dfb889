//! Which certificate a client gets, and what is wrong with a listener's `tls`.

use serde_json::json;

use super::*;
use crate::certificate::tests::pair;
use crate::compile::{Change, Compiled, compile};
use crate::engine::Engine;
use gateway_proto::field::Violation;
use gateway_proto::kind::{Key, Resource};

const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];

fn certificate(name: &str, dns_names: &[&str]) -> Change {
    let metadata = Some(wire::Metadata { name: name.into(), ..Default::default() });
    let spec = Some(pair(dns_names));
    Change::Upsert(Resource::from(wire::Certificate { metadata, spec, ..Default::default() }))
}

fn listener(spec: serde_json::Value) -> Change {
    let document = json!({ "metadata": { "name": "l" }, "spec": spec });
    Change::Upsert(Resource::deserialize(Kind::Listener, document).expect("the shape is right"))
}

fn https(tls: serde_json::Value) -> Change {
    listener(json!({ "port": 443, "protocol": "https", "tls": tls }))
}

fn lines(found: &[Violation]) -> Vec<String> {
    found.iter().map(|it| format!("{} {}: {}", it.field, it.code.as_str(), it.message)).collect()
}

fn made(changes: Vec<Change>) -> Compiled {
    compile(&Engine::default(), changes).unwrap_or_else(|found| panic!("sound, but {:#?}", lines(&found)))
}

fn faults(changes: Vec<Change>) -> Vec<String> {
    lines(&compile(&Engine::default(), changes).map(|compiled| compiled.changed).expect_err("faulty"))
}

fn tls(compiled: &Compiled) -> &Arc<Tls> {
    compiled.engine.listener("default/l").and_then(|listener| listener.tls.as_ref()).expect("there")
}

#[test]
fn the_name_asked_for_chooses_exact_before_wildcard_before_the_first() {
    let compiled = made(vec![
        certificate("first", &["first.example"]),
        certificate("wild", &["*.example.com"]),
        certificate("exact", &["api.example.com"]),
        https(json!({ "certificates": ["first", "wild", "exact"] })),
    ]);
    let tls = tls(&compiled);
    assert_eq!(tls.min_version, TlsVersion::Tls12);
    for (name, expected) in [
        (Some("api.example.com"), "default/exact"),
        (Some("www.example.com"), "default/wild"),
        (Some("a.b.example.com"), "default/first"),
        (Some("example.com"), "default/first"),
        (Some("nobody"), "default/first"),
        (None, "default/first"),
    ] {
        let chosen = tls.choose(name, ECDSA).expect("one");
        assert_eq!(&*chosen.name, expected, "{name:?}");
    }
    assert!(tls.choose(None, &[SignatureScheme::RSA_PSS_SHA256]).is_none(), "no key for these");
}

#[test]
fn a_changed_certificate_reaches_the_listener_that_names_it() {
    let before = made(vec![
        certificate("c", &["old.example"]),
        https(json!({ "certificates": ["c"], "minVersion": "1.3" })),
    ]);
    let after = compile(&before.engine, vec![certificate("c", &["new.example"])]).expect("sound");
    assert_eq!(after.changed.affected, [Key::new(Kind::Listener, "default", "l")]);
    assert_eq!(&*tls(&after).certificates[0].dns_names[0], "new.example");
    assert_eq!(tls(&after).min_version, TlsVersion::Tls13);
    assert_eq!(&*tls(&before).certificates[0].dns_names[0], "old.example", "the engine before holds on");
    let gone = vec![Change::Delete(Key::new(Kind::Certificate, "default", "c"))];
    let found = compile(&after.engine, gone).expect_err("in use");
    assert_eq!(
        lines(&found),
        [
            " in_use: Certificate default/c is in use by Listener default/l; change or delete them in the same batch"
        ]
    );
}

#[test]
fn every_fault_is_named_with_its_place() {
    let one = || certificate("c", &["a.example"]);
    for (changes, expected) in [
        (
            vec![listener(json!({ "port": 1, "protocol": "https" }))],
            vec![
                "spec.tls.certificates required: protocol https needs a certificate, name one in tls.certificates",
            ],
        ),
        (vec![https(json!({}))], vec!["spec.tls.certificates required: name at least one certificate"]),
        (
            vec![one(), listener(json!({ "port": 1, "tls": { "certificates": ["c"] } }))],
            vec!["spec.tls conflict: tls has a meaning only with protocol: https"],
        ),
        (
            vec![one(), https(json!({ "certificates": ["c", "gone", "other/c", "c"], "minVersion": "1.1" }))],
            vec![
                "spec.tls.minVersion invalid: unknown TLS version \"1.1\", expected \"1.2\" or \"1.3\"",
                "spec.tls.certificates[1] dangling_reference: there is no Certificate default/gone",
                "spec.tls.certificates[2] invalid: invalid reference \"other/c\", certificates are referred to within \
             their own namespace",
                "spec.tls.certificates[3] duplicate: \"c\" is already in this list",
            ],
        ),
    ] {
        assert_eq!(faults(changes), expected);
    }
    let many = vec!["c"; MAX_CERTIFICATES + 1];
    assert_eq!(
        faults(vec![one(), https(json!({ "certificates": many }))]),
        ["spec.tls.certificates out_of_range: 4097 certificates are too many, at most 4096 are allowed"]
    );
}

#[test]
fn a_faulty_certificate_is_not_called_missing_by_its_listener() {
    let bad = wire::Certificate {
        metadata: Some(wire::Metadata { name: "c".into(), ..Default::default() }),
        ..Default::default()
    };
    let found = faults(vec![Change::Upsert(bad.into()), https(json!({ "certificates": ["c"] }))]);
    assert_eq!(
        found,
        [
            "spec.cert required: give the certificate chain as PEM text",
            "spec.key required: give the private key as PEM text",
        ]
    );
}

#[test]
fn certificates_that_no_client_gets_are_warned_of() {
    let compiled = made(vec![
        certificate("a", &["a.example", "b.example"]),
        certificate("b", &["b.example"]),
        certificate("alone", &["c.example"]),
        https(json!({ "certificates": ["a", "b"] })),
    ]);
    assert_eq!(
        lines(&compiled.warnings),
        [
            "spec.tls.certificates[1] no_effect: no client gets it: certificates before it have all of its names",
            "spec no_effect: no listener refers to it",
        ]
    );
}
