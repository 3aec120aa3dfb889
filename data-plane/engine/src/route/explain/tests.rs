//! Explain: the reasons are those of the winner rule, and the levels of policies are named.

use gateway_proto::kind::{Kind, Resource};
use gateway_proto::wire;

use super::*;
use crate::compile::{Change, compile};

fn engine(json: serde_json::Value) -> Engine {
    let serde_json::Value::Array(items) = json else { panic!("an array is expected") };
    let changes = items
        .into_iter()
        .map(|item| {
            let kind: Kind = item["kind"].as_str().expect("kind").parse().expect("a kind");
            Change::Upsert(Resource::deserialize(kind, item).expect("the shape is right"))
        })
        .collect();
    compile(&Engine::default(), changes).expect("sound").engine
}

fn sample() -> Engine {
    let set = |name: &str| serde_json::json!([{ "requestHeaders": { "set": { name: "1" } } }]);
    engine(serde_json::json!([
        { "kind": "Listener", "metadata": { "name": "public" },
          "spec": { "port": 80, "policies": [{ "ipFilter": { "deny": ["9.9.9.9"] } }] } },
        { "kind": "Listener", "metadata": { "name": "inner", "namespace": "team" }, "spec": { "port": 81 } },
        { "kind": "Policy", "metadata": { "name": "all" }, "spec": { "global": true, "policies": set("x-all") } },
        { "kind": "Policy", "metadata": { "name": "std" }, "spec": { "policies": [{ "ipFilter": { "deny": ["8.8.8.8"] } }] } },
        { "kind": "Upstream", "metadata": { "name": "users" }, "spec": { "targets": [{ "address": "127.0.0.1:1" }] } },
        { "kind": "Route", "metadata": { "name": "users" }, "spec": {
            "hosts": ["api.org"], "policyRefs": ["std"], "policies": set("x-own"),
            "matches": [
                { "path": { "template": "/users/{id}" } },
                { "path": { "prefix": "/users" } },
                { "path": { "exact": "/users/1" }, "methods": ["PUT"] },
                { "path": { "exact": "/users/1" }, "headers": [{ "name": "x-v", "exact": "2" }] },
                { "path": { "exact": "/users/1" }, "query": [{ "name": "q", "present": true }] },
                { "path": { "exact": "/users/1" }, "sources": ["10.0.0.0/8"] },
                { "path": { "exact": "/other" } },
            ],
            "forward": { "backends": [{ "upstream": "users" }] } } },
        { "kind": "Route", "metadata": { "name": "elsewhere" }, "spec": { "hosts": ["b.org", "*.c.org"], "respond": {} } },
        { "kind": "Route", "metadata": { "name": "any" }, "spec": { "respond": {} } },
    ]))
}

fn ask(method: &str, host: &str, path: &str) -> admin::ExplainRequest {
    admin::ExplainRequest {
        listener: Some("public".into()),
        method: method.into(),
        host: host.into(),
        path: path.into(),
        headers: Vec::new(),
        source: None,
    }
}

#[test]
fn every_loser_is_told_why() {
    let explained = sample().explain(&ask("GET", "API.org:80", "/users/./1?x=1")).expect("sound");
    assert_eq!(explained.len(), 1);
    let explained = &explained[0];
    assert_eq!(explained.listener, "default/public");
    assert_eq!(explained.normalized_path.as_deref(), Some("/users/1"));
    assert_eq!((explained.status, explained.allow.len()), (None, 0));
    let winner = explained.winner.as_ref().expect("there is one");
    assert_eq!((winner.route.as_str(), winner.match_index), ("default/users", 0));
    assert_eq!(winner.reason, "matches by path template /users/{id}, priority 0, 0 further conditions");
    let losers: Vec<String> =
        explained.losers.iter().map(|it| format!("{} {} {}", it.route, it.match_index, it.reason)).collect();
    assert_eq!(
        losers,
        [
            "default/users 1 outranked by default/users matches[0]: path template /users/{id} is more specific than prefix /users",
            "default/any 0 outranked by default/users matches[0]: a more specific host",
            "default/users 2 method GET is not one of PUT",
            "default/users 3 header x-v does not hold: is \"2\"",
            "default/users 4 query parameter q does not hold: is present",
            "default/users 5 client 127.0.0.1 is in none of the sources",
            "default/users 6 path \"/users/1\" does not match path /other",
            "default/elsewhere 0 host \"api.org\" is not host b.org or host *.c.org",
        ]
    );
    assert!(explained.action.as_deref().is_some_and(|action| action.starts_with("forward to users")));
}

#[test]
fn policies_are_named_in_order_with_their_level() {
    let explained = sample().explain(&ask("GET", "api.org", "/users/1")).expect("sound").remove(0);
    let policies: Vec<String> =
        explained.policies.iter().map(|it| format!("{} {}", it.policy, it.from)).collect();
    assert_eq!(
        policies,
        [
            "ipFilter Policy default/std of Route default/users",
            "requestHeaders global Policy default/all",
            "requestHeaders Route default/users",
        ]
    );
    let explained = sample().explain(&ask("GET", "none", "/")).expect("sound").remove(0);
    assert_eq!(explained.winner.map(|winner| winner.route).as_deref(), Some("default/any"));
    let policies: Vec<String> =
        explained.policies.iter().map(|it| format!("{} {}", it.policy, it.from)).collect();
    assert_eq!(policies, ["ipFilter Listener default/public", "requestHeaders global Policy default/all"]);
}

#[test]
fn what_the_proxy_answers_itself_is_said() {
    let engine = engine(serde_json::json!([
        { "kind": "Listener", "metadata": { "name": "public" }, "spec": { "port": 80 } },
        { "kind": "Route", "metadata": { "name": "r" },
          "spec": { "matches": [{ "path": { "exact": "/a" }, "methods": ["GET"] }], "respond": {} } },
    ]));
    let status = |method, host, path| {
        let explained = engine.explain(&ask(method, host, path)).expect("sound").remove(0);
        (explained.status, explained.allow.join(" "))
    };
    assert_eq!(status("POST", "", "/a"), (Some(405), "GET HEAD".to_owned()));
    assert_eq!(status("GET", "", "/b"), (Some(404), String::new()));
    assert_eq!(status("GET", "", "/%"), (Some(400), String::new()));
    assert_eq!(status("GET", "a b", "/a"), (Some(400), String::new()));
    assert_eq!(status("GET", "", "/a"), (None, String::new()));
}

#[test]
fn a_preflight_is_routed_by_the_method_it_asks_about() {
    let mut request = ask("OPTIONS", "api.org", "/users/1");
    let find = |request: &admin::ExplainRequest| {
        sample().explain(request).expect("sound")[0].winner.as_ref().map(|winner| winner.match_index)
    };
    assert_eq!(find(&request), Some(0));
    request.headers =
        vec![("Origin".into(), "https://a".into()), ("Access-Control-Request-Method".into(), "PUT".into())];
    assert_eq!(find(&request), Some(2));
}

#[test]
fn every_listener_is_asked_unless_one_is_named() {
    let engine = sample();
    let everywhere = admin::ExplainRequest { listener: None, ..ask("GET", "api.org", "/") };
    let listeners: Vec<String> =
        engine.explain(&everywhere).expect("sound").into_iter().map(|it| it.listener).collect();
    assert_eq!(listeners, ["default/public", "team/inner"]);
    let inner = admin::ExplainRequest { listener: Some("team/inner".into()), ..ask("GET", "api.org", "/") };
    assert_eq!(
        engine.explain(&inner).expect("sound")[0].status,
        Some(404),
        "routes of default are not reached there"
    );
    let errors = [
        admin::ExplainRequest { listener: Some("gone".into()), ..ask("GET", "", "/") },
        admin::ExplainRequest { source: Some("localhost".into()), ..ask("GET", "", "/") },
        ask("B AD", "", "/"),
    ]
    .map(|request| engine.explain(&request).expect_err("malformed").to_string());
    assert_eq!(
        errors,
        [
            "there is no Listener default/gone",
            "invalid source \"localhost\", expected an IP address",
            "invalid method \"B AD\", expected a token such as GET",
        ]
    );
}

#[test]
fn losers_are_bounded() {
    let routes = (0..100).map(|at| {
        let metadata = wire::Metadata { name: format!("r{at}"), ..Default::default() };
        let action = Some(wire::route_spec::Action::Respond(wire::Respond::default()));
        let spec = wire::RouteSpec { action, ..Default::default() };
        wire::Route { metadata: Some(metadata), spec: Some(spec), ..Default::default() }.into()
    });
    let spec = wire::ListenerSpec { port: Some(1), ..Default::default() };
    let metadata = wire::Metadata { name: "public".into(), ..Default::default() };
    let listener = wire::Listener { metadata: Some(metadata), spec: Some(spec), ..Default::default() };
    let changes = routes.chain([listener.into()]).map(Change::Upsert).collect();
    let engine = compile(&Engine::default(), changes).expect("sound").engine;
    let explained = engine.explain(&ask("GET", "", "/")).expect("sound").remove(0);
    assert_eq!(explained.losers.len(), MAX_LOSERS);
    assert_eq!(explained.losers[0].reason, "outranked by default/r0 matches[0]: it comes first by name");
}
