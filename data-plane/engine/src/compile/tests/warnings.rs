//! Warnings: each has a case that brings it about and one that does not.

use serde_json::json;

use super::*;

fn warned(engine: &Engine, json: serde_json::Value) -> Vec<String> {
    lines(&made(engine, json).warnings)
}

#[test]
fn a_route_that_asks_for_the_same_as_a_better_one_is_in_its_shade() {
    let a = json!({ "path": { "prefix": "/a" }, "methods": ["GET"] });
    let engine = made(
        &base(),
        json!([
            { "kind": "Route", "name": "m", "hosts": ["x.org"], "matches": [a], "respond": {} },
        ]),
    )
    .engine;
    // Later by name: its own fault.
    assert_eq!(
        warned(
            &engine,
            json!([
                { "kind": "Route", "name": "z", "hosts": ["x.org"], "matches": [{ "path": { "prefix": "/b" } }, a], "respond": {} },
            ])
        ),
        [
            "Route default/z: spec.matches[1]: shadowed: for host x.org this is never reached: Route default/m matches[0] \
          asks for the same and comes first by name"
        ]
    );
    // By priority the new one wins; the old one is told.
    assert_eq!(
        warned(
            &engine,
            json!([
                { "kind": "Route", "name": "z", "priority": 1, "hosts": ["x.org"], "matches": [a], "respond": {} },
            ])
        ),
        [
            "Route default/m: spec.matches[0]: shadowed: for host x.org this is never reached: Route default/z matches[0] \
          asks for the same and comes first by priority 1 over 0"
        ]
    );
    for different in [
        json!({ "hosts": ["y.org"], "matches": [a] }),
        json!({ "hosts": ["x.org"], "matches": [{ "path": { "exact": "/a" }, "methods": ["GET"] }] }),
        json!({ "hosts": ["x.org"], "matches": [{ "path": { "prefix": "/a" }, "methods": ["POST"] }] }),
        json!({ "hosts": ["x.org"], "matches": [{ "path": { "regex": "/a" }, "methods": ["GET"] }] }),
    ] {
        let mut route = different;
        route["kind"] = "Route".into();
        route["name"] = "z".into();
        route["respond"] = json!({});
        assert_eq!(warned(&engine, json!([route])), [""; 0]);
    }
}

#[test]
fn shade_on_one_listener_is_none_while_another_lets_it_be_reached() {
    let route = |name: &str, listeners: serde_json::Value| json!({ "kind": "Route", "name": name, "hosts": ["x.org"], "listeners": listeners, "respond": {} });
    let engine = made(
        &base(),
        json!([
            { "kind": "Listener", "name": "second", "port": 1 },
            route("a", json!(["second"])),
        ]),
    )
    .engine;
    assert_eq!(warned(&engine, json!([route("b", json!([]))])), [""; 0], "on public it is reached");
    assert_eq!(warned(&engine, json!([route("b", json!(["second"]))])).len(), 1);
}

#[test]
fn what_has_no_effect_is_told() {
    assert_eq!(
        warned(
            &Engine::default(),
            json!([
                { "kind": "Route", "name": "r", "respond": {} },
                { "kind": "Route", "name": "team/r", "respond": {} },
                { "kind": "Policy", "name": "unused", "policies": [{ "requestHeaders": { "set": { "x-a": "1" } } }] },
                { "kind": "Policy", "name": "empty", "global": true },
                { "kind": "Policy", "name": "used", "global": true, "policies": [{ "requestHeaders": { "set": { "x-a": "1" } } }] },
                { "kind": "Upstream", "name": "u", "targets": [{ "address": "a:1", "weight": 0 }] },
            ])
        ),
        [
            "Route default/r: spec.listeners: no_effect: no listener takes it: there is none in namespace default",
            "Route team/r: spec.listeners: no_effect: no listener takes it: there is none in namespace team or default",
            "Upstream default/u: spec.targets: no_effect: every target has weight 0, so that requests are answered with 503",
            "Policy default/empty: spec: no_effect: it holds no policies",
            "Policy default/unused: spec: no_effect: nothing refers to it and it is not global",
        ]
    );
    assert_eq!(lines(&base().warnings()), [""; 0]);
}
