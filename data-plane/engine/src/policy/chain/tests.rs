//! Tests of `chain.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_proto::wire;
use gateway_proto::wire::policy_entry::Policy as Entry;

use super::super::Scope;
use super::super::testing::{Message, compiled};
use super::*;
use crate::context::Notes;
use crate::identity::Directory;
use crate::reject::Reason;

fn set(entries: Vec<Entry>) -> PolicySet {
    let entries: Vec<_> =
        entries.into_iter().map(|policy| wire::PolicyEntry { policy: Some(policy) }).collect();
    let (set, faults) = compiled(&entries, Scope::SHARED);
    assert!(faults.is_empty(), "{faults:?}");
    set
}

fn map(name: &str, value: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), value.to_owned())])
}

fn add(value: &str) -> wire::HeaderEdits {
    wire::HeaderEdits { add: map("x", value), ..Default::default() }
}

fn uri(max: u32) -> Entry {
    Entry::RequestLimits(wire::RequestLimits { max_uri_bytes: Some(max), ..Default::default() })
}

fn cors() -> Entry {
    Entry::Cors(wire::Cors { origins: vec!["https://a.example".to_owned()], ..Default::default() })
}

fn deny_all() -> Entry {
    Entry::IpFilter(wire::IpFilter { deny: vec!["0.0.0.0/0".to_owned()], ..Default::default() })
}

fn chain<'a>(
    global: &'a PolicySet,
    namespace: &'a PolicySet,
    listener: &'a PolicySet,
    route: &'a PolicySet,
) -> Chain<'a> {
    let (listener, route) = (listener.into(), route.into());
    Chain::new(Levels { global, namespace, listener, route, directory: Directory::EMPTY })
}

const NONE: &PolicySet = &PolicySet::EMPTY;

#[test]
fn the_closest_level_replaces_the_farther_ones() {
    let (tight, wide) = (set(vec![uri(1)]), set(vec![uri(100)]));
    let message = Message::request("GET", "/long");
    let refused = Flow::Reject(Reason::UriTooLong);
    for (levels, expected) in [
        (chain(&tight, NONE, NONE, NONE), refused),
        (chain(&tight, &wide, NONE, NONE), Flow::Continue),
        (chain(&wide, &tight, NONE, NONE), refused),
        (chain(&tight, NONE, &wide, NONE), Flow::Continue),
        (chain(NONE, NONE, &tight, &wide), Flow::Continue),
        (chain(NONE, NONE, &wide, &tight), refused),
    ] {
        assert_eq!(message.run_chain(levels).flow, expected, "{:?}", levels.applied().collect::<Vec<_>>());
    }
}

#[test]
fn disabled_removes_what_is_farther_until_a_closer_level_sets_it_again() {
    let tight = set(vec![uri(1)]);
    let off = set(vec![Entry::RequestLimits(wire::RequestLimits { disabled: true, ..Default::default() })]);
    let message = Message::request("GET", "/long");
    assert_eq!(message.run_chain(chain(&tight, NONE, &off, NONE)).flow, Flow::Continue);
    assert_eq!(message.run_chain(chain(&tight, NONE, NONE, &off)).flow, Flow::Continue);
    assert_eq!(message.run_chain(chain(NONE, &off, NONE, &tight)).flow, Flow::Reject(Reason::UriTooLong));
    assert!(chain(NONE, NONE, NONE, &off).is_empty());
}

#[test]
fn headers_add_up_from_far_to_near_and_disabled_cuts_off_what_is_behind() {
    let level = |value| set(vec![Entry::RequestHeaders(add(value)), Entry::ResponseHeaders(add(value))]);
    let (a, b, c, d) = (level("a"), level("b"), level("c"), level("d"));
    let off = wire::HeaderEdits { disabled: true, ..Default::default() };
    let off = set(vec![Entry::RequestHeaders(off.clone()), Entry::ResponseHeaders(off)]);
    let message = Message::request("GET", "/");
    for (levels, expected) in [
        (chain(&a, &b, &c, &d), &["x: a", "x: b", "x: c", "x: d"][..]),
        (chain(&a, &off, &c, &d), &["x: c", "x: d"]),
        (chain(&a, &b, &c, &off), &[]),
        (chain(&a, &a, NONE, &d), &["x: a", "x: d"]),
    ] {
        let ran = message.run_chain(levels);
        assert_eq!(ran.request, expected);
        assert_eq!(ran.response, expected);
    }
}

#[test]
fn each_levels_response_templates_read_their_own_notes() {
    let level = |name: &str, value: &str| {
        let edits = wire::HeaderEdits { set: map(name, value), ..Default::default() };
        set(vec![Entry::ResponseHeaders(edits)])
    };
    let (a, b, c) = (
        level("a", "${request.path}"),
        level("b", "${latency}"),
        level("c", "${request.method}${request.host}"),
    );
    let ran = Message::request("PUT", "/p").run_chain(chain(&a, &b, NONE, &c));
    assert_eq!(ran.response, ["a: /p", "b: 12.345ms", "c: PUTexample.com"]);
}

#[test]
fn a_refused_request_still_gets_cors_and_header_edits() {
    let route = set(vec![deny_all(), cors(), Entry::ResponseHeaders(add("${request.header.origin}"))]);
    let ran = Message::request("GET", "/").with("origin", "https://a.example").run(&route);
    assert_eq!(ran.flow, Flow::Reject(Reason::Forbidden));
    let expected = ["x: https://a.example", "vary: Origin", "access-control-allow-origin: https://a.example"];
    assert_eq!(ran.response, expected);
}

#[test]
fn a_request_without_a_route_gets_them_from_begin() {
    let listener = set(vec![cors()]);
    let chain = chain(NONE, NONE, &listener, NONE);
    let message = Message::request("GET", "/").with("origin", "https://a.example");
    let (mut notes, mut request, mut answer) = (Notes::new(), message.parts(), crate::head::HeadParts::new());
    let mut response = Head::new(b"", &mut answer);
    message.with_ctx(&mut notes, |ctx| {
        chain.begin(ctx, &Head::new(b"", &mut request));
        chain.response(ctx, &mut response);
    });
    assert_eq!(response.get("access-control-allow-origin"), Some(&b"https://a.example"[..]));
}

#[test]
fn a_preflight_is_answered_after_the_filters_and_before_what_follows() {
    let edits = wire::HeaderEdits { set: map("x", "1"), ..Default::default() };
    let preflight = || {
        Message::request("OPTIONS", "/")
            .with("origin", "https://a.example")
            .with("access-control-request-method", "GET")
    };
    let ran = preflight().run(&set(vec![Entry::RequestHeaders(edits), cors()]));
    assert_eq!((ran.flow, ran.request.len()), (Flow::Respond(204), 2));
    assert_eq!(preflight().run(&set(vec![deny_all(), cors()])).flow, Flow::Reject(Reason::Forbidden));
}

#[test]
fn notes_of_the_last_request_are_forgotten() {
    let route = set(vec![cors()]);
    let mut chain = chain(NONE, NONE, NONE, &route);
    let mut notes = Notes::new();
    for (message, allowed) in [
        (Message::request("GET", "/").with("origin", "https://a.example"), true),
        (Message::request("GET", "/"), false),
    ] {
        let (mut request, mut answer) = (message.parts(), crate::head::HeadParts::new());
        let mut response = Head::new(b"", &mut answer);
        message.with_ctx(&mut notes, |ctx| {
            assert_eq!(chain.request(ctx, &mut Head::new(b"", &mut request)), Flow::Continue);
            chain.response(ctx, &mut response);
        });
        assert_eq!(response.contains("access-control-allow-origin"), allowed);
    }
}

#[test]
fn the_body_bound_is_the_closest_policys_else_the_listeners() {
    let body =
        |max| set(vec![Entry::RequestLimits(wire::RequestLimits { max_body_bytes: max, ..uri_only() })]);
    let (ten, zero, silent) = (body(Some(10)), body(Some(0)), body(None));
    for (levels, listener_max, expected) in [
        (chain(NONE, NONE, NONE, NONE), 0, u64::MAX),
        (chain(NONE, NONE, NONE, NONE), 5, 5),
        (chain(&ten, NONE, NONE, NONE), 5, 10),
        (chain(&ten, NONE, NONE, &zero), 5, u64::MAX),
        (chain(&ten, NONE, NONE, &silent), 5, 5),
    ] {
        assert_eq!(levels.max_body_bytes(listener_max), expected);
    }
}

fn uri_only() -> wire::RequestLimits {
    wire::RequestLimits { max_uri_bytes: Some(100), ..Default::default() }
}

#[test]
fn explain_lists_what_is_in_force_in_running_order_with_its_origin() {
    let global = set(vec![Entry::ResponseHeaders(add("a")), cors()]);
    let (global, clashes) = PolicySet::merge(NONE, &[(Arc::from("default/house"), &global)]);
    assert!(clashes.is_empty());
    let route = set(vec![Entry::ResponseHeaders(add("b")), uri(9)]);
    let levels = chain(&global, NONE, NONE, &route);
    let found: Vec<_> =
        levels.applied().map(|applied| (applied.kind.name(), applied.level, applied.policy)).collect();
    let expected = [
        ("requestLimits", Level::Route, None),
        ("cors", Level::Global, Some("default/house")),
        ("responseHeaders", Level::Global, Some("default/house")),
        ("responseHeaders", Level::Route, None),
    ];
    assert_eq!(found, expected);
}

#[test]
fn what_an_object_says_itself_hides_what_it_refers_to() {
    let (one, two) = (set(vec![uri(1)]), set(vec![uri(100)]));
    let off = set(vec![Entry::RequestLimits(wire::RequestLimits { disabled: true, ..Default::default() })]);
    let edits = |value: &str| {
        let set = [("x-by".to_owned(), value.to_owned())].into();
        Entry::RequestHeaders(wire::HeaderEdits { add: set, ..Default::default() })
    };
    let (mine, theirs) = (set(vec![edits("own")]), set(vec![edits("referred"), uri(1)]));
    let route = |own, referred| {
        let route = Said { own, referred };
        Chain::new(Levels {
            global: NONE,
            namespace: NONE,
            listener: NONE.into(),
            route,
            directory: Directory::EMPTY,
        })
    };
    let message = Message::request("GET", "/long");
    let refused = Flow::Reject(Reason::UriTooLong);
    assert_eq!(message.run_chain(route(&two, &one)).flow, Flow::Continue);
    assert_eq!(message.run_chain(route(NONE, &one)).flow, refused);
    assert_eq!(message.run_chain(route(&off, &one)).flow, Flow::Continue, "removed");
    assert!(route(&off, &one).is_empty());
    assert_eq!(message.run_chain(route(&one, &off)).flow, refused, "only what is behind is removed");
    // Edits add up over levels, not over what one level says twice.
    let short = Message::request("GET", "");
    let ran = short.run_chain(route(&mine, &theirs));
    assert_eq!(ran.request.iter().filter(|line| line.starts_with("x-by")).collect::<Vec<_>>(), ["x-by: own"]);
    let applied: Vec<Kind> = route(&mine, &theirs).applied().map(|applied| applied.kind).collect();
    assert_eq!(applied, [Kind::RequestLimits, Kind::RequestHeaders]);
}
