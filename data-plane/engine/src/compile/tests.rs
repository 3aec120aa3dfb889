//! Compile: what every class of fault says and where, and what changes when something changes.

use std::sync::Arc;

use gateway_proto::admin::ExplainRequest;
use gateway_proto::field::Violation;
use gateway_proto::kind::{Key, Kind, Resource};

use super::{Change, Changed, Compiled, compile};
use crate::engine::Engine;

mod bounds;
mod faults;
mod warnings;

/// A resource from `{"kind": ..., "name": "namespace/name", ...spec}`.
fn resource(mut json: serde_json::Value) -> Resource {
    let fields = json.as_object_mut().expect("an object");
    let mut take =
        |name: &str| fields.remove(name).and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default();
    let (kind, qualified) = (take("kind"), take("name"));
    let (namespace, name) = qualified.split_once('/').unwrap_or(("", &qualified));
    let document = serde_json::json!({
        "metadata": { "namespace": namespace, "name": name },
        "spec": json,
    });
    let kind = kind.parse().expect("a kind");
    Resource::deserialize(kind, document).expect("the shape is right")
}

/// Upserts of every object of an array.
fn upserts(json: serde_json::Value) -> Vec<Change> {
    let serde_json::Value::Array(items) = json else { panic!("an array is expected") };
    items.into_iter().map(|item| Change::Upsert(resource(item))).collect()
}

fn made(engine: &Engine, json: serde_json::Value) -> Compiled {
    compile(engine, upserts(json)).unwrap_or_else(|found| panic!("sound, but {found:#?}"))
}

/// `Kind namespace/name: field: code: message`
fn lines(found: &[Violation]) -> Vec<String> {
    found
        .iter()
        .map(|it| format!("{}: {}: {}: {}", it.object, it.field, it.code.as_str(), it.message))
        .collect()
}

fn faults(engine: &Engine, changes: Vec<Change>) -> Vec<String> {
    lines(&compile(engine, changes).map(|compiled| compiled.changed).expect_err("faulty"))
}

fn key(kind: Kind, qualified: &str) -> Key {
    let (namespace, name) = qualified.split_once('/').expect("qualified");
    Key::new(kind, namespace, name)
}

/// A listener, an upstream, a policy, and a route that uses all of them.
fn base() -> Engine {
    made(&Engine::default(), serde_json::json!([
        { "kind": "Listener", "name": "public", "port": 8080 },
        { "kind": "Upstream", "name": "users", "targets": [{ "address": "127.0.0.1:1" }] },
        { "kind": "Policy", "name": "std", "policies": [{ "requestHeaders": { "set": { "x-a": "1" } } }] },
        { "kind": "Route", "name": "users", "listeners": ["public"], "policyRefs": ["std"],
          "forward": { "backends": [{ "upstream": "users" }] } },
    ]))
    .engine
}

#[test]
fn what_changed_is_named_and_equal_content_is_no_change() {
    let engine = base();
    let again = upserts(serde_json::json!([
        { "kind": "Listener", "name": "public", "port": 8080 },
        { "kind": "Upstream", "name": "default/users", "targets": [{ "address": "127.0.0.1:2" }] },
        { "kind": "Upstream", "name": "other", "targets": [{ "address": "127.0.0.1:2" }] },
    ]));
    let compiled = compile(&engine, again).expect("sound");
    assert_eq!(
        compiled.changed,
        Changed {
            added: vec![key(Kind::Upstream, "default/other")],
            updated: vec![key(Kind::Upstream, "default/users")],
            ..Changed::default()
        }
    );
    let gone = vec![
        Change::Delete(key(Kind::Route, "default/users")),
        Change::Delete(key(Kind::Upstream, "default/users")),
        Change::Delete(key(Kind::Upstream, "default/never-was")),
    ];
    let compiled = compile(&compiled.engine, gone).expect("nothing refers to it any more");
    let removed = vec![key(Kind::Route, "default/users"), key(Kind::Upstream, "default/users")];
    assert_eq!(compiled.changed, Changed { removed, ..Changed::default() });
    assert!(compile(&engine, Vec::new()).expect("sound").changed.is_empty());
}

#[test]
fn the_previous_engine_holds_on_whatever_is_compiled_from_it() {
    let before = base();
    let objects = before.objects().len();
    let after = made(
        &before,
        serde_json::json!([
            { "kind": "Route", "name": "users", "respond": {} },
            { "kind": "Route", "name": "more", "respond": {} },
        ]),
    )
    .engine;
    assert_eq!((before.objects().len(), after.objects().len()), (objects, objects + 1));
    let users = before.routes().next().expect("there");
    assert!(users.action.to_string().starts_with("forward"), "{}", users.action);
}

#[test]
fn numbers_stay_with_their_objects_and_are_taken_again() {
    let engine = base();
    let slot = engine.routes().next().expect("there").slot;
    let updated =
        made(&engine, serde_json::json!([{ "kind": "Route", "name": "users", "respond": {} }])).engine;
    assert_eq!(updated.routes().next().expect("there").slot, slot);
    let mut changes = vec![Change::Delete(key(Kind::Route, "default/users"))];
    changes.extend(upserts(serde_json::json!([{ "kind": "Route", "name": "other", "respond": {} }])));
    let replaced = compile(&updated, changes).expect("sound").engine;
    assert_eq!(replaced.route(slot).map(|route| &*route.name), Some("default/other"));
    assert_eq!(replaced.route_bound(), 1);
}

#[test]
fn a_changed_policy_reaches_those_that_refer_to_it() {
    let engine = base();
    let compiled = made(
        &engine,
        serde_json::json!([
            { "kind": "Policy", "name": "std", "policies": [{ "responseHeaders": { "set": { "x-b": "1" } } }] },
        ]),
    );
    let route = |engine: &Engine| Arc::clone(engine.routes().next().expect("there"));
    assert!(Arc::ptr_eq(&route(&engine), &route(&compiled.engine)), "the route itself is not touched");
    assert!(compiled.changed.affected.is_empty());
    let request = ExplainRequest {
        listener: None,
        method: "GET".into(),
        host: String::new(),
        path: "/".into(),
        headers: Vec::new(),
        source: None,
    };
    let explained = compiled.engine.explain(&request).expect("sound");
    let policies: Vec<&str> = explained[0].policies.iter().map(|it| it.policy.as_str()).collect();
    assert_eq!(policies, ["responseHeaders"]);
    assert_eq!(explained[0].policies[0].from, "Policy default/std of Route default/users");
}

#[test]
fn a_list_of_policies_is_joined_once_and_kept_as_long_as_somebody_holds_it() {
    let holders = |refs: serde_json::Value| {
        upserts(serde_json::json!([
            { "kind": "Listener", "name": "public", "port": 80, "policyRefs": refs },
            { "kind": "Route", "name": "users", "respond": {}, "policyRefs": refs },
            { "kind": "Consumer", "name": "c", "policyRefs": refs },
        ]))
    };
    let mut changes = holders(serde_json::json!(["std", "team/more"]));
    changes.extend(upserts(serde_json::json!([
        { "kind": "Policy", "name": "team/more", "policies": [{ "responseHeaders": { "set": { "x-b": "1" } } }] },
    ])));
    let engine = compile(&base(), changes).expect("sound").engine;
    assert_eq!(engine.state.joins.len(), 1);
    let other = compile(&engine, holders(serde_json::json!(["team/more", "std"]))).expect("sound").engine;
    assert_eq!(other.state.joins.len(), 1, "another order is another list, and nobody holds the first");
    let gone = [(Kind::Route, "default/users"), (Kind::Consumer, "default/c"), (Kind::Policy, "team/more")];
    let mut changes = holders(serde_json::json!([]));
    changes.truncate(1);
    changes.extend(gone.map(|(kind, name)| Change::Delete(key(kind, name))));
    assert_eq!(compile(&other, changes).expect("sound").engine.state.joins.len(), 0);
    assert_eq!((engine.state.joins.len(), other.state.joins.len()), (1, 1), "old versions stay");
}

#[test]
fn deleting_what_others_name_is_refused_unless_the_batch_mends_it() {
    let engine = base();
    assert_eq!(
        faults(&engine, vec![Change::Delete(key(Kind::Upstream, "default/users"))]),
        [
            "Upstream default/users: : in_use: Upstream default/users is in use by Route default/users; change or delete \
         them in the same batch"
        ]
    );
    let mended = |order: bool| {
        let mut changes = upserts(serde_json::json!([{ "kind": "Route", "name": "users", "respond": {} }]));
        changes.push(Change::Delete(key(Kind::Upstream, "default/users")));
        if order {
            changes.reverse();
        }
        compile(&engine, changes)
    };
    assert!(mended(false).is_ok() && mended(true).is_ok(), "the order of a batch does not matter");
}

#[test]
fn resources_come_back_in_canonical_form() {
    let engine = base();
    let key = key(Kind::Listener, "default/public");
    let resource = engine.resource(&key).expect("there");
    assert_eq!(resource.metadata().map(|metadata| metadata.namespace.as_str()), Some("default"));
    assert_eq!(engine.body(&key), Some(&resource.encode()));
    let keys: Vec<String> = engine.objects().iter().map(|object| object.key.to_string()).collect();
    assert_eq!(
        keys,
        ["Listener default/public", "Route default/users", "Upstream default/users", "Policy default/std"]
    );
    assert_eq!(engine.referrers(&Key::new(Kind::Policy, "default", "std")).len(), 1);
}
