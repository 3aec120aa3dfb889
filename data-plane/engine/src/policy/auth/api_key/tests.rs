//! Tests of `api_key.rs` in a chain: where keys are looked for, which are good, and that none goes upstream.

use gateway_proto::credential::{Grant, key};
use gateway_proto::kind::Resource;
use serde_json::{Value, json};

use super::super::super::testing::{Message, NOW, Ran};
use super::*;
use crate::compile::{Change, compile};
use crate::engine::Engine;
use crate::policy::Flow;
use crate::reject::Reason;

const REFUSED: Flow = Flow::Reject(Reason::Unauthorized);

fn secret(n: u8) -> String {
    key(&char::from(b'a' + n).to_string().repeat(43))
}

fn object(kind: &str, name: &str, spec: Value) -> Change {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let json = json!({ "kind": kind, "metadata": { "name": name, "namespace": namespace }, "spec": spec });
    Change::Upsert(Resource::deserialize(kind.parse().expect("a kind"), json).expect("the shape is right"))
}

/// A route that asks for keys; `a` is alice's, `b` has ended, `c` is of another namespace, `d` leads to nobody.
fn engine(api_key: Value) -> Engine {
    engine_with(json!({ "any": [{ "apiKey": api_key }] }))
}

fn engine_with(auth: Value) -> Engine {
    let limits = json!([{ "requestHeaders": { "set": { "x-of": "${consumer.name}" } } }]);
    let objects = vec![
        object("Listener", "public", json!({ "port": 80 })),
        object("Consumer", "alice", json!({ "groups": ["gold"], "policies": limits })),
        object("Consumer", "shop/carol", json!({})),
        object("TokenIssuer", "main", json!({ "issuer": "main", "secret": "x".repeat(32) })),
        object("Route", "r", json!({ "respond": {}, "policies": [{ "auth": auth }] })),
    ];
    let engine = compile(&Engine::default(), objects).expect("sound").engine;
    let grant = |n, consumer: &str, expires| Grant {
        digest: KeyDigest::of(secret(n).as_bytes()),
        consumer: consumer.into(),
        expires,
    };
    let grants = vec![
        grant(0, "default/alice", NOW as u32 + 1),
        grant(1, "default/alice", NOW as u32),
        grant(2, "shop/carol", 0),
        grant(3, "default/dave", 0),
    ];
    engine.keys().change(grants, &[]);
    engine.keys().set_complete(true);
    engine
}

fn send(engine: &Engine, message: &Message) -> Ran {
    let route = engine.routes().next().expect("there is one");
    message.run_knowing(route.policies(), Directory::of(engine))
}

fn with(field: &str, value: &str) -> Message {
    Message::request("GET", "/p").with(field, value)
}

#[test]
fn a_good_key_gets_through_and_the_upstream_is_told_whose_it_is_but_not_the_key() {
    let ran = send(&engine(json!({})), &with("X-API-Key", &secret(0)));
    let id = KeyDigest::of(secret(0).as_bytes()).id();
    let expected = [
        "x-consumer-id: default/alice",
        "x-consumer-username: alice",
        "x-consumer-groups: gold",
        &format!("x-credential-identifier: {}", id.as_str()),
        "x-of: default/alice",
    ];
    assert_eq!((ran.flow, ran.request), (Flow::Continue, expected.map(str::to_owned).to_vec()));
}

#[test]
fn every_other_key_is_refused_with_a_challenge() {
    let engine = engine(json!({}));
    let twice = with("x-api-key", &secret(0)).with("x-api-key", &secret(2));
    for (message, flow) in [
        (Message::request("GET", "/p"), REFUSED),
        (with("x-api-key", ""), REFUSED),
        (with("x-api-key", "gwk_junk"), REFUSED),
        (with("authorization", &secret(0)), REFUSED),
        (with("x-api-key", &secret(9)), REFUSED),
        (with("x-api-key", &secret(1)), REFUSED),
        (with("x-api-key", &secret(2)), REFUSED),
        (twice, REFUSED),
        (with("x-api-key", &secret(3)), Flow::Reject(Reason::Forbidden)),
        (with("x-api-key", &secret(0)).with("x-api-key", &secret(0)), Flow::Continue),
    ] {
        let ran = send(&engine, &message);
        assert_eq!(ran.flow, flow);
        let challenge = ran.response.iter().any(|line| line == "www-authenticate: ApiKey realm=\"gateway\"");
        assert_eq!(challenge, flow == REFUSED, "{:?}", ran.response);
    }
}

#[test]
fn a_key_is_taken_from_every_place_that_is_named_and_from_no_other_and_removed_there() {
    let key = secret(0);
    let everywhere = json!({ "header": "X-Token", "query": "key", "cookie": "k" });
    let request = |query: &str| Message::request("GET", &format!("/p?{query}"));
    let taken = |ran: &Ran| (ran.flow, ran.query.clone(), ran.request.first().cloned());
    let all = engine(everywhere);
    let told = |first: &str| Some(first.to_owned());
    let who = told("x-consumer-id: default/alice");
    for (message, query, first) in [
        (with("x-token", &key), None, who.clone()),
        (request(&format!("a=1&key={key}&b=2")), told("a=1&b=2"), who.clone()),
        (request(&format!("key={key}")), None, who.clone()),
        (request(&format!("key={key}&%6bey=1&key")), None, who.clone()),
        (with("cookie", &format!("k={key}")), None, who),
        (with("a", "1").with("cookie", &format!("s=1; k={key}")).with("cookie", "t=2"), None, told("a: 1")),
    ] {
        let ran = send(&all, &message);
        assert_eq!(taken(&ran), (Flow::Continue, query, first));
        assert!(!ran.request.iter().any(|line| line.contains("gwk_")), "{:?}", ran.request);
    }
    let ran = send(&all, &with("cookie", &format!("s=1; k={key}")).with("cookie", "t=2"));
    assert_eq!(ran.request[0], "cookie: s=1; t=2");
    let elsewhere =
        [with("x-api-key", &key), request(&format!("keys={key}")), with("cookie", &format!("kk={key}"))];
    elsewhere.iter().for_each(|message| assert_eq!(send(&all, message).flow, REFUSED));
    let both = request(&format!("key={key}")).with("x-token", &secret(2));
    assert_eq!(send(&all, &both).flow, REFUSED, "two that differ say two things");
}

#[test]
fn while_not_all_keys_are_here_an_unknown_one_is_not_called_wrong() {
    let engine = engine(json!({}));
    engine.keys().set_complete(false);
    assert_eq!(send(&engine, &with("x-api-key", &secret(9))).flow, Flow::Reject(Reason::NotReady));
    assert_eq!(send(&engine, &with("x-api-key", "junk")).flow, REFUSED);
    assert_eq!(send(&engine, &with("x-api-key", &secret(0))).flow, Flow::Continue, "it is here");
}

#[test]
fn beside_a_token_one_of_both_is_enough_or_both_are_asked_for() {
    let ways = json!([{ "jwt": { "issuers": ["main"] } }, { "apiKey": {} }]);
    let any = send(&engine_with(json!({ "any": ways })), &with("x-api-key", &secret(0)));
    assert_eq!(any.flow, Flow::Continue);
    let all = engine_with(json!({ "all": ways }));
    let ran = send(&all, &with("x-api-key", &secret(0)));
    assert_eq!(ran.flow, REFUSED);
    let challenges: Vec<_> =
        ran.response.iter().filter(|line| line.starts_with("www-authenticate")).collect();
    assert_eq!(
        challenges,
        ["www-authenticate: ApiKey realm=\"gateway\"", "www-authenticate: Bearer realm=\"gateway\""]
    );
}

#[test]
fn an_engine_knows_whether_anybody_asks_for_keys_and_shares_them_with_its_successors() {
    let asking = engine(json!({}));
    assert!(asking.asks_for_keys());
    let open = object("Route", "r", json!({ "respond": {} }));
    let after = compile(&asking, vec![open]).expect("sound").engine;
    assert!(!after.asks_for_keys());
    assert!(Arc::ptr_eq(asking.keys(), after.keys()));
    let policy = object("Policy", "p", json!({ "policies": [{ "auth": { "any": [{ "apiKey": {} }] } }] }));
    let with_policy = compile(&after, vec![policy]).expect("sound").engine;
    assert!(with_policy.asks_for_keys());
    let key = gateway_proto::kind::Key::new(gateway_proto::kind::Kind::Policy, "default", "p");
    assert!(!compile(&with_policy, vec![Change::Delete(key)]).expect("unused").engine.asks_for_keys());
}

#[test]
fn bad_names_are_refused_with_their_place() {
    let long = "x".repeat(129);
    for (api_key, expected) in [
        (json!({ "header": "a b" }), "apiKey.header"),
        (json!({ "header": "Cookie" }), "apiKey.header"),
        (json!({ "header": "Content-Length" }), "apiKey.header"),
        (json!({ "query": "a=b" }), "apiKey.query"),
        (json!({ "query": long }), "apiKey.query"),
        (json!({ "cookie": "a;b" }), "apiKey.cookie"),
    ] {
        let policies = json!([{ "auth": { "any": [{ "apiKey": api_key }] } }]);
        let changes = vec![
            object("Listener", "public", json!({ "port": 80 })),
            object("Route", "r", json!({ "respond": {}, "policies": policies })),
        ];
        let found = compile(&Engine::default(), changes).map(|_| ()).expect_err("faulty");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, format!("spec.policies[0].auth.any[0].{expected}"));
    }
}
