//! Tests of `auth.rs` in a chain: who gets through, what the upstream is told, what a refusal says.

use gateway_proto::kind::Resource;
use serde_json::{Value, json};

use super::super::chain::Chain;
use super::super::testing::{Message, NOW, Ran};
use super::*;
use crate::compile::{Change, compile};
use crate::engine::Engine;
use crate::identity::issuer::tests::{SECRET, Signer};

fn object(json: Value) -> Change {
    let kind = json["kind"].as_str().and_then(|kind| kind.parse().ok()).expect("a kind");
    Change::Upsert(Resource::deserialize(kind, json).expect("the shape is right"))
}

fn named(kind: &str, name: &str, spec: Value) -> Change {
    object(json!({ "kind": kind, "metadata": { "name": name }, "spec": spec }))
}

const OTHER: &str = "another secret of the other issuer, 64 bytes long or even more!!";

fn engine(policies: Value) -> Engine {
    engine_with(policies, Vec::new())
}

fn engine_with(policies: Value, more: Vec<Change>) -> Engine {
    let policies_of_gold = json!([
        { "requestHeaders": { "set": { "x-tier": "gold ${consumer.name}" } } },
        { "responseHeaders": { "set": { "x-asked": "${request.path} ${claim.sub}" } } },
    ]);
    let mut all = vec![
        named("Listener", "public", json!({ "port": 80 })),
        named("TokenIssuer", "main", json!({ "issuer": "main", "secret": SECRET, "consumerClaim": "sub" })),
        named("TokenIssuer", "guests", json!({ "issuer": "guests", "secret": OTHER })),
        named("Policy", "gold", json!({ "policies": policies_of_gold })),
        named("Consumer", "alice", json!({ "groups": ["gold", "eu"], "policyRefs": ["gold"] })),
        named("Consumer", "bob", json!({ "policies": [{ "ipFilter": { "deny": ["192.0.2.1"] } }] })),
        named("Route", "r", json!({ "respond": {}, "policies": policies })),
    ];
    all.extend(more);
    compile(&Engine::default(), all).expect("sound").engine
}

fn token(iss: &str, sub: &str, exp: u64) -> String {
    Signer::of("HS256").token(&json!({ "iss": iss, "sub": sub, "exp": exp }))
}

fn send(engine: &Engine, message: &Message) -> Ran {
    let route = engine.routes().next().expect("there is one");
    message.run_knowing(route.policies(), Directory::of(engine))
}

fn with_token(token: &str) -> Message {
    Message::request("GET", "/p").with("Authorization", &format!("Bearer {token}"))
}

fn any_main() -> Value {
    json!([{ "auth": { "any": [{ "jwt": { "issuers": ["main"] } }] } }])
}

const REFUSED: Flow = Flow::Reject(Reason::Unauthorized);

#[test]
fn who_is_known_gets_through_and_the_upstream_is_told() {
    let ran = send(&engine(any_main()), &with_token(&token("main", "alice", NOW + 9)));
    assert_eq!(ran.flow, Flow::Continue);
    let expected = [
        "x-consumer-id: default/alice",
        "x-consumer-username: alice",
        "x-consumer-groups: gold, eu",
        "x-credential-identifier: default/main",
        "x-tier: gold default/alice",
    ];
    assert_eq!(ran.request[1..], expected);
    assert_eq!(ran.response, ["x-asked: /p alice"]);
}

#[test]
fn a_refusal_says_what_would_be_believed_and_keeps_cors_and_header_edits() {
    let policies = json!([
        { "auth": { "any": [{ "jwt": { "issuers": ["main"] } }] } },
        { "cors": { "origins": ["https://a.example"] } },
        { "responseHeaders": { "set": { "x-id": "${request.id}", "x-who": "[${consumer.name}${claim.sub}]" } } },
    ]);
    let engine = engine(policies);
    let stale = token("main", "alice", NOW - 3600);
    for (message, challenge) in [
        (Message::request("GET", "/"), "Bearer realm=\"gateway\""),
        (Message::request("GET", "/").with("authorization", "Basic YTpi"), "Bearer realm=\"gateway\""),
        (with_token("x.y.z"), "Bearer realm=\"gateway\", error=\"invalid_token\""),
        (with_token(&stale), "Bearer realm=\"gateway\", error=\"invalid_token\""),
        // Two say two things: none is believed.
        (
            with_token(&token("main", "alice", NOW + 9)).with("authorization", "Bearer x"),
            "Bearer realm=\"gateway\"",
        ),
    ] {
        let ran = send(&engine, &message.with("origin", "https://a.example"));
        assert_eq!(ran.flow, REFUSED);
        for line in [
            &format!("www-authenticate: {challenge}"),
            "access-control-allow-origin: https://a.example",
            "x-id: req-1",
            "x-who: []",
        ] {
            assert!(ran.response.iter().any(|sent| sent == line), "{line}: {:?}", ran.response);
        }
    }
    let preflight = Message::request("OPTIONS", "/")
        .with("origin", "https://a.example")
        .with("access-control-request-method", "GET");
    assert_eq!(send(&engine, &preflight).flow, Flow::Respond(204), "before authentication");
}

#[test]
fn fields_of_identity_cannot_be_forged() {
    let forge = |message: Message| {
        message
            .with("X-Consumer-Username", "root")
            .with("x_consumer_username", "root")
            .with("X-Consumer-Custom-Id", "1")
            .with("X-Credential_Identifier", "1")
            .with("x-consumers", "stays")
    };
    let told = |ran: &Ran| -> Vec<String> {
        ran.request.iter().filter(|line| !line.starts_with("Authorization")).cloned().collect()
    };
    let ran = send(&engine(any_main()), &forge(with_token(&token("main", "bob", NOW + 9)).from("192.0.2.9")));
    assert_eq!(
        told(&ran),
        [
            "x-consumers: stays",
            "x-consumer-id: default/bob",
            "x-consumer-username: bob",
            "x-credential-identifier: default/main"
        ]
    );
    let open = engine(json!([{ "auth": { "disabled": true } }]));
    let ran = send(&open, &forge(Message::request("GET", "/")));
    assert_eq!((ran.flow, told(&ran)), (Flow::Continue, vec!["x-consumers: stays".to_owned()]));
}

#[test]
fn fields_of_identity_cannot_be_forged_where_nobody_is_asked_either() {
    let forged = Message::request("GET", "/p").with("X-Consumer-ID", "default/root").with("a", "1");
    let known = engine(json!([]));
    assert_eq!(send(&known, &forged).request, ["a: 1"]);
    assert!(!chain_of(&known).is_empty(), "it is not passed over");

    let delete = |kind: &str, name: &str| {
        Change::Delete(gateway_proto::kind::Key::new(kind.parse().expect("a kind"), "default", name))
    };
    let [alice, bob] = ["alice", "bob"].map(|name| delete("Consumer", name));
    let [main, guests] = ["main", "guests"].map(|name| delete("TokenIssuer", name));
    let after = |changes: Vec<Change>| compile(&known, changes).expect("nothing names them").engine;
    for some in
        [after(vec![alice.clone(), bob.clone(), guests.clone()]), after(vec![main.clone(), guests.clone()])]
    {
        assert_eq!(send(&some, &forged).request, ["a: 1"]);
    }
    // Where nobody is known they are fields like any other, and cost nothing.
    let nobody = after(vec![alice, bob, main, guests]);
    assert!(chain_of(&nobody).is_empty());
    assert_eq!(send(&nobody, &forged).request.len(), 2);
}

fn chain_of(engine: &Engine) -> Chain<'_> {
    let route = engine.routes().next().expect("there is one");
    let listener = engine.listeners().next().expect("there is one");
    Chain::new(engine.levels(listener, route))
}

#[test]
fn a_consumers_own_policies_are_the_closest_also_those_that_ran_before() {
    let engine = engine(any_main());
    let bob = with_token(&token("main", "bob", NOW + 9));
    assert_eq!(send(&engine, &bob).flow, Flow::Reject(Reason::Forbidden), "its ipFilter");
    assert_eq!(send(&engine, &bob.from("192.0.2.9")).flow, Flow::Continue);
}

#[test]
fn a_token_that_leads_to_no_consumer_is_refused_where_it_has_to() {
    let engine = engine(any_main());
    for stranger in ["nobody", "", "alice/x", "../default/alice"] {
        let ran = send(&engine, &with_token(&token("main", stranger, NOW + 9)));
        assert_eq!(ran.flow, Flow::Reject(Reason::Forbidden), "{stranger}");
        assert!(!ran.response.iter().any(|line| line.starts_with("www-")), "{:?}", ran.response);
    }
}

#[test]
fn any_takes_the_first_that_convinces_and_all_takes_every_one() {
    let guest = |secret: &str| {
        let claims = json!({ "iss": "guests", "sub": "alice", "exp": NOW + 9 });
        let signed = Signer::of("HS256").token(&claims);
        let (text, _) = signed.rsplit_once('.').expect("three parts");
        let mac = crate::identity::issuer::tests::hmac_of("HS256", secret.as_bytes(), text.as_bytes());
        use base64::Engine as _;
        format!("{text}.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(mac))
    };
    let ways = json!([{ "jwt": { "issuers": ["main"] } }, { "jwt": { "issuers": ["guests"] } }]);
    let any = engine(json!([{ "auth": { "any": ways } }]));
    let ran = send(&any, &with_token(&guest(OTHER)));
    assert_eq!(ran.flow, Flow::Continue);
    assert_eq!(ran.request[1..], ["x-credential-identifier: default/guests"], "no consumer is named");
    assert_eq!(send(&any, &with_token(&guest(SECRET))).flow, REFUSED, "signed by the other issuer");
    assert_eq!(send(&any, &with_token(&token("main", "alice", NOW + 9))).flow, Flow::Continue);
    let all = engine(json!([{ "auth": { "all": ways } }]));
    for token in [guest(OTHER), token("main", "alice", NOW + 9)] {
        assert_eq!(send(&all, &with_token(&token)).flow, REFUSED);
    }
    let twice = json!([{ "jwt": { "issuers": ["main"] } }, { "jwt": { "issuers": ["main", "guests"] } }]);
    let all = engine(json!([{ "auth": { "all": twice } }]));
    assert_eq!(send(&all, &with_token(&token("main", "alice", NOW + 9))).flow, Flow::Continue);
}

#[test]
fn a_change_of_keys_holds_at_once_for_policies_that_are_not_touched() {
    let before = engine(any_main());
    let rotated = named("TokenIssuer", "main", json!({ "issuer": "main", "secret": OTHER }));
    let after = compile(&before, vec![rotated]).expect("sound").engine;
    let old = with_token(&token("main", "alice", NOW + 9));
    assert_eq!(send(&before, &old).flow, Flow::Continue);
    assert_eq!(send(&after, &old).flow, REFUSED);
}

fn faults(changes: Vec<Change>) -> Vec<String> {
    let found = compile(&engine(any_main()), changes).map(|made| made.changed).expect_err("faulty");
    found
        .iter()
        .map(|it| format!("{}: {}: {}: {}", it.object, it.field, it.code.as_str(), it.message))
        .collect()
}

fn auth_faults(auth: Value) -> Vec<String> {
    faults(vec![named("Policy", "p", json!({ "policies": [{ "auth": auth }] }))])
        .into_iter()
        .map(|fault| fault.replace("Policy default/p: spec.policies[0].auth", ""))
        .collect()
}

#[test]
fn bad_values_are_named_with_their_place() {
    let jwt = |names: Value| json!({ "jwt": { "issuers": names } });
    assert_eq!(auth_faults(json!({})), [": required: name ways to say who one is: any or all"]);
    let both = auth_faults(json!({ "any": [jwt(json!(["main"]))], "all": [jwt(json!(["main"]))] }));
    assert_eq!(both, [": conflict: any and all exclude each other, drop one"]);
    assert_eq!(auth_faults(json!({ "any": [{}] })), [".any[0]: required: name one way: apiKey or jwt"]);
    let found = auth_faults(json!({ "all": [
        jwt(json!([])), jwt(json!(["main", "nobody", "main", "other/main", "A"])),
    ] }));
    let expected = [
        ".all[0].jwt.issuers: required: name the token issuers that are believed",
        ".all[1].jwt.issuers[1]: dangling_reference: there is no TokenIssuer default/nobody",
        ".all[1].jwt.issuers[2]: duplicate: \"main\" is already in this list",
        ".all[1].jwt.issuers[3]: invalid: invalid reference \"other/main\", tokenissuers are referred to within their \
         own namespace",
        ".all[1].jwt.issuers[4]: invalid: invalid reference \"A\", expected the name of a TokenIssuer",
    ];
    assert_eq!(found, expected);
    let many: Vec<Value> = (0..17).map(|_| jwt(json!(["main"]))).collect();
    assert_eq!(
        auth_faults(json!({ "any": many })),
        [".any: out_of_range: 17 ways are too many, at most 16 are allowed"]
    );
    let names: Vec<String> = (0..17).map(|n| format!("i{n}")).collect();
    let found = auth_faults(json!({ "any": [jwt(json!(names))] }));
    assert_eq!(found, [".any[0].jwt.issuers: out_of_range: 17 issuers are too many, at most 16 are allowed"]);
}

#[test]
fn a_consumer_that_asks_for_what_cannot_be_is_refused() {
    let early = json!([{ "auth": { "disabled": true } }, { "cors": { "origins": ["*"] } }]);
    let found = faults(vec![
        named("Policy", "early", json!({ "policies": early })),
        named("Consumer", "c", json!({ "groups": ["a", "a b", "a", ""], "policyRefs": ["early"] })),
        named("Consumer", "d", json!({ "policies": early })),
    ]);
    let expected = [
        "Consumer default/c: spec.groups[1]: invalid: ",
        "Consumer default/c: spec.groups[2]: duplicate: ",
        "Consumer default/c: spec.groups[3]: invalid: ",
        "Consumer default/c: spec.policyRefs: conflict: cors is decided before the consumer is known",
        "Consumer default/c: spec.policyRefs: conflict: auth is decided before the consumer is known",
        "Consumer default/d: spec.policies: conflict: cors is decided before the consumer is known",
        "Consumer default/d: spec.policies: conflict: auth is decided before the consumer is known",
    ];
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}");
    }
    let groups: Vec<String> = (0..65).map(|n| format!("g{n}")).collect();
    let found = faults(vec![named("Consumer", "c", json!({ "groups": groups }))]);
    assert_eq!(
        found,
        ["Consumer default/c: spec.groups: out_of_range: 65 groups are too many, at most 64 are allowed"]
    );
}

#[test]
fn what_is_named_cannot_be_deleted_and_a_policy_reaches_its_consumers() {
    let engine = engine(any_main());
    let delete = |kind: &str, name: &str| {
        Change::Delete(gateway_proto::kind::Key::new(kind.parse().expect("a kind"), "default", name))
    };
    assert_eq!(
        faults(vec![delete("TokenIssuer", "main"), delete("Policy", "gold")]).len(),
        2,
        "both are in use"
    );
    let silver = json!({ "policies": [{ "requestHeaders": { "set": { "x-tier": "silver" } } }] });
    let after = compile(&engine, vec![named("Policy", "gold", silver)]).expect("sound").engine;
    let ran = send(&after, &with_token(&token("main", "alice", NOW + 9)));
    assert_eq!(ran.request.last().map(String::as_str), Some("x-tier: silver"));
    let early = json!({ "policies": [{ "auth": { "disabled": true } }] });
    let found = faults(vec![named("Policy", "gold", early)]);
    assert!(
        found[0].starts_with("Policy default/gold: spec.policies: conflict: Consumer default/alice"),
        "{found:?}"
    );
    let gone = compile(&engine, vec![delete("Consumer", "alice")]).expect("nothing names it").engine;
    let ran = send(&gone, &with_token(&token("main", "alice", NOW + 9)));
    assert_eq!(ran.flow, Flow::Reject(Reason::Forbidden));
}
