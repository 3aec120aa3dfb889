//! Every list and text has a bound, and what is over it is named.

use serde_json::{Value, json};

use super::*;

fn many(n: usize, make: impl Fn(usize) -> Value) -> Value {
    (0..n).map(make).collect()
}

#[test]
fn lists_are_bounded() {
    let text = |at: usize| Value::from(format!("h{at}"));
    let value = |at: usize| json!({ "name": format!("x{at}"), "present": true });
    let prefix = |at: usize| json!({ "path": { "prefix": format!("/{at}") } });
    let source = |at: usize| Value::from(format!("10.{}.{}.1", at / 250, at % 250));
    for (place, spec) in [
        ("spec.hosts", json!({ "hosts": many(257, text) })),
        ("spec.matches", json!({ "matches": many(257, prefix) })),
        ("spec.listeners", json!({ "listeners": many(65, text) })),
        ("spec.policyRefs", json!({ "policyRefs": many(65, text) })),
        ("spec.matches[0].methods", json!({ "matches": [{ "methods": many(65, text) }] })),
        ("spec.matches[0].headers", json!({ "matches": [{ "headers": many(65, value) }] })),
        ("spec.matches[0].query", json!({ "matches": [{ "query": many(65, value) }] })),
        ("spec.matches[0].sources", json!({ "matches": [{ "sources": many(1_025, source) }] })),
    ] {
        let mut route = spec;
        route["kind"] = "Route".into();
        route["name"] = "r".into();
        route["respond"] = json!({});
        let found = faults(&Engine::default(), upserts(json!([route])));
        assert_eq!(found.len(), 1, "{place}: {found:?}");
        assert!(found[0].starts_with(&format!("Route default/r: {place}: out_of_range: ")), "{found:?}");
    }
    let target = |at: usize| json!({ "address": format!("h{at}:1") });
    let upstream = json!([{ "kind": "Upstream", "name": "u", "targets": many(4_097, target) }]);
    assert!(faults(&Engine::default(), upserts(upstream))[0].contains("spec.targets: out_of_range"));
    let listener = json!([{ "kind": "Listener", "name": "l", "port": 1,
        "http": { "trustedProxies": many(1_025, source) } }]);
    assert!(
        faults(&Engine::default(), upserts(listener))[0].contains("spec.http.trustedProxies: out_of_range")
    );
}

#[test]
fn texts_are_bounded() {
    let long = "a".repeat(4_097);
    for (place, entry) in [
        ("path.exact", json!({ "path": { "exact": format!("/{long}") } })),
        ("path.regex", json!({ "path": { "regex": long } })),
        ("path.regex", json!({ "path": { "regex": "(\\w{500}){500}" } })),
        ("headers[0].exact", json!({ "headers": [{ "name": "x", "exact": long }] })),
        ("headers[0].regex", json!({ "headers": [{ "name": "x", "regex": long }] })),
        ("query[0].name", json!({ "query": [{ "name": long, "present": true }] })),
    ] {
        let route = json!([{ "kind": "Route", "name": "r", "respond": {}, "matches": [entry] }]);
        let found = faults(&Engine::default(), upserts(route));
        assert!(
            found[0].starts_with(&format!("Route default/r: spec.matches[0].{place}: invalid: ")),
            "{found:?}"
        );
    }
}

#[test]
fn metadata_is_bounded() {
    let mut route = resource(json!({ "kind": "Route", "name": "r", "respond": {} }));
    let metadata = route.metadata_mut();
    metadata.labels = (0..65).map(|at| (format!("l{at}"), String::new())).collect();
    metadata.annotations.insert("note".to_owned(), "x".repeat(super::super::MAX_ANNOTATION_BYTES));
    let found = faults(&Engine::default(), vec![Change::Upsert(route)]);
    assert!(found[0].contains("metadata.labels: out_of_range"), "{found:?}");
    assert!(found[1].contains("metadata.annotations: out_of_range"), "{found:?}");
}
