//! One case for each class of fault.

use serde_json::json;

use super::*;

/// Every fault of one object on an empty configuration with a listener `public` and an upstream `users`.
fn of(json: serde_json::Value) -> Vec<String> {
    faults(&base(), upserts(json))
}

#[test]
fn references_must_lead_somewhere() {
    assert_eq!(
        of(json!([
            { "kind": "Route", "name": "r", "listeners": ["nope", "team/public", "a/b/c"], "policyRefs": ["gone"],
              "forward": { "backends": [{ "upstream": "nope" }, { "upstream": "team/users" }] } },
            { "kind": "Listener", "name": "l", "port": 1, "policyRefs": ["team/gone"] },
        ])),
        [
            "Listener default/l: spec.policyRefs[0]: dangling_reference: there is no Policy team/gone",
            "Route default/r: spec.listeners[0]: dangling_reference: there is no Listener default/nope",
            "Route default/r: spec.listeners[1]: dangling_reference: there is no Listener team/public",
            "Route default/r: spec.listeners[2]: invalid: invalid reference \"a/b/c\", expected the name of a Listener",
            "Route default/r: spec.forward.backends[0].upstream: dangling_reference: there is no Upstream default/nope",
            "Route default/r: spec.forward.backends[1].upstream: dangling_reference: invalid reference \"team/users\", \
             upstreams are referred to within their own namespace",
            "Route default/r: spec.policyRefs[0]: dangling_reference: there is no Policy default/gone",
        ]
    );
}

#[test]
fn a_faulty_object_is_not_called_missing_by_those_that_name_it() {
    assert_eq!(
        of(json!([
            { "kind": "Upstream", "name": "bad" },
            { "kind": "Route", "name": "r", "forward": { "backends": [{ "upstream": "bad" }] } },
        ])),
        [
            "Upstream default/bad: spec.targets: required: name at least one target, or a source that discovers them"
        ]
    );
}

#[test]
fn the_same_thing_twice_is_refused() {
    assert_eq!(
        of(json!([
            { "kind": "Route", "name": "r", "respond": {}, "listeners": ["public", "default/public"],
              "hosts": ["a.org", "A.org.", "*.a.org", "*.a.org"], "policyRefs": ["std", "default/std"],
              "matches": [
                { "path": { "prefix": "/a" }, "methods": ["GET", "GET"], "sources": ["10.0.0.1", "10.0.0.1/32"],
                  "headers": [{ "name": "X-A", "exact": "1" }, { "name": "x-a", "exact": "1" }] },
                { "path": { "prefix": "/b" } },
                { "path": { "prefix": "/b/" } },
              ] },
        ])),
        [
            "Route default/r: spec.listeners[1]: duplicate: \"default/public\" is already in this list",
            "Route default/r: spec.hosts[1]: duplicate: \"A.org.\" is the same host as hosts[0]",
            "Route default/r: spec.hosts[3]: duplicate: \"*.a.org\" is the same host as hosts[2]",
            "Route default/r: spec.matches[0].methods[1]: duplicate: \"GET\" is already in this list",
            "Route default/r: spec.matches[0].headers[1]: duplicate: the same condition is already in this list",
            "Route default/r: spec.matches[0].sources[1]: duplicate: \"10.0.0.1/32\" is already in this list",
            "Route default/r: spec.matches[2]: duplicate: this entry asks for the same as matches[1], drop one",
            "Route default/r: spec.policyRefs[1]: duplicate: \"default/std\" is already in this list",
        ]
    );
    let twice = [
        upserts(json!([{ "kind": "Route", "name": "r", "respond": {} }])),
        vec![Change::Delete(key(Kind::Route, "default/r"))],
    ]
    .concat();
    assert_eq!(
        faults(&base(), twice),
        ["Route default/r: : duplicate: the object occurs twice in this batch, keep one"]
    );
}

#[test]
fn bad_values_are_named_with_their_place() {
    let found = of(json!([
        { "kind": "Route", "name": "r", "hosts": ["a:80", "*", "a..b"], "timeouts": { "request": "soon", "idle": "1d" },
          "matches": [
            { "path": { "regex": "(" } },
            { "path": { "template": "/{a}/{a}" }, "methods": ["get", "B AD"] },
            { "path": { "exact": "no-slash" }, "sources": ["10.0.0.1/8"] },
            { "path": {}, "headers": [{ "name": "a b", "exact": "1" }, { "name": "x" }, { "name": "x", "regex": "[" }] },
            { "query": [{ "exact": "1" }] },
          ] },
    ]));
    let places: Vec<String> =
        found.iter().map(|line| line.splitn(4, ": ").skip(1).take(2).collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        places,
        [
            "spec.hosts[0] invalid",
            "spec.hosts[1] invalid",
            "spec.hosts[2] invalid",
            "spec.matches[0].path.regex invalid",
            "spec.matches[1].path.template invalid",
            "spec.matches[1].methods[0] invalid",
            "spec.matches[1].methods[1] invalid",
            "spec.matches[2].path.exact invalid",
            "spec.matches[2].sources[0] invalid",
            "spec.matches[3].path required",
            "spec.matches[3].headers[0].name invalid",
            "spec.matches[3].headers[1] required",
            "spec.matches[3].headers[2].regex invalid",
            "spec.matches[4].query[0].name invalid",
            "spec required",
            "spec.timeouts.request invalid",
            "spec.timeouts.idle invalid",
        ]
    );
    assert!(found[5].ends_with("did you mean \"GET\"?"), "{}", found[5]);
}

#[test]
fn metadata_is_checked_on_every_kind() {
    for kind in Kind::ALL {
        let document = json!({
            "apiVersion": "gateway/v9", "kind": "Pod",
            "metadata": { "name": "Bad", "namespace": "no/pe", "labels": { "a b": "", "ok": "-" }, "annotations": { "": "" } },
            "spec": { },
        });
        let resource = Resource::deserialize(*kind, document).expect("the shape is right");
        let found = faults(&Engine::default(), vec![Change::Upsert(resource)]);
        for place in [
            "apiVersion: unknown",
            "kind: conflict",
            "metadata.name: invalid",
            "metadata.namespace: invalid",
            "metadata.labels[\"a b\"]: invalid",
            "metadata.labels[\"ok\"]: invalid",
            "metadata.annotations[\"\"]: invalid",
        ] {
            assert!(
                found.iter().any(|line| line.contains(&format!(": {place}"))),
                "{kind} {place}: {found:#?}"
            );
        }
    }
    let nameless = Resource::Policy(gateway_proto::wire::Policy::default());
    assert_eq!(
        faults(&Engine::default(), vec![Change::Upsert(nameless)]),
        ["Policy default/: metadata.name: required: every object has a name"]
    );
}

#[test]
fn two_listeners_on_one_port_are_refused_where_one_data_plane_could_take_both() {
    let conflict = |one: serde_json::Value, two: serde_json::Value| {
        compile(&Engine::default(), upserts(json!([one, two]))).map(|_| ()).map_err(|found| lines(&found))
    };
    let listener = |name: &str, address: &str, port: u32, group: Option<&str>| {
        let mut listener = json!({ "kind": "Listener", "name": name, "address": address, "port": port });
        if let Some(group) = group {
            listener["dataPlanes"] = json!({ "group": group });
        }
        listener
    };
    assert_eq!(conflict(listener("a", "127.0.0.1", 80, Some("edge")), listener("b", "0.0.0.0", 80, None)), Err(vec![
        "Listener default/b: spec.port: port_conflict: 0.0.0.0:80 overlaps with Listener default/a on 127.0.0.1:80, and a \
         data plane of group edge would take both; choose another port, address or group"
            .to_owned()
    ]));
    assert!(
        conflict(listener("a", "0.0.0.0", 80, Some("edge")), listener("b", "0.0.0.0", 80, Some("core")))
            .is_ok()
    );
    assert!(conflict(listener("a", "0.0.0.0", 0, None), listener("b", "0.0.0.0", 0, None)).is_ok());
    assert!(conflict(listener("a", "127.0.0.1", 80, None), listener("b", "127.0.0.2", 80, None)).is_ok());
    // Of a new and an old one the new one is to blame, whatever the names.
    let found = faults(&base(), upserts(json!([listener("a", "0.0.0.0", 8080, None)])));
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("Listener default/a: spec.port"), "{found:?}");
    // Moving away and taking the place in one batch is fine.
    let swap = json!([listener("a", "0.0.0.0", 8080, None), listener("public", "0.0.0.0", 8081, None)]);
    assert!(compile(&base(), upserts(swap)).is_ok());
}

#[test]
fn one_level_takes_a_policy_once() {
    let headers = json!([{ "requestHeaders": { "set": { "x-b": "1" } } }]);
    let engine = made(&base(), json!([
        { "kind": "Policy", "name": "second", "policies": [{ "responseHeaders": { "set": { "x-b": "1" } } }] },
        { "kind": "Route", "name": "both", "policyRefs": ["std", "second"], "respond": {} },
    ]))
    .engine;
    // Two references of a route in the batch.
    assert_eq!(
        faults(
            &engine,
            upserts(json!([
                { "kind": "Policy", "name": "third", "policies": headers },
                { "kind": "Route", "name": "r", "policyRefs": ["std", "third"], "respond": {} },
            ]))
        ),
        [
            "Route default/r: spec.policyRefs[1]: duplicate: requestHeaders is in Policy default/std and in Policy \
          default/third, and one level takes it once; drop one or write it inline"
        ]
    );
    // A policy that changes under a route which is not in the batch.
    assert_eq!(
        faults(&engine, upserts(json!([{ "kind": "Policy", "name": "second", "policies": headers }]))),
        [
            "Policy default/second: spec.policies: duplicate: Route default/both refers to this policy: requestHeaders is \
          in Policy default/std and in Policy default/second, and one level takes it once; drop one or write it inline"
        ]
    );
    // Inline beats references.
    made(
        &engine,
        json!([
            { "kind": "Route", "name": "r", "policyRefs": ["std"], "policies": headers, "respond": {} },
        ]),
    );
    // Two global policies of one namespace; another namespace is another level.
    let global = |name: &str| json!({ "kind": "Policy", "name": name, "global": true, "policies": headers });
    let engine = made(&engine, json!([global("default/g"), global("team/g")])).engine;
    assert_eq!(
        faults(&engine, upserts(json!([global("default/a")]))),
        [
            "Policy default/a: spec.policies: duplicate: requestHeaders is in the global Policy default/g too, and one level \
         takes it once"
        ]
    );
    let mut replaced = vec![Change::Delete(key(Kind::Policy, "default/g"))];
    replaced.extend(upserts(json!([global("default/a")])));
    assert!(compile(&engine, replaced).is_ok());
}

#[test]
fn every_fault_of_every_object_is_told_at_once() {
    let found = of(json!([
        { "kind": "Listener", "name": "l", "address": "x", "port": 70000 },
        { "kind": "Upstream", "name": "u", "targets": [{ "address": "x" }] },
        { "kind": "Policy", "name": "p", "policies": [{}] },
        { "kind": "Route", "name": "r" },
    ]));
    let objects: Vec<&str> = found.iter().map(|line| line.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        objects,
        [
            "Listener default/l",
            "Listener default/l",
            "Route default/r",
            "Upstream default/u",
            "Policy default/p"
        ]
    );
}
