//! Tests of `rewrite.rs`.

use super::super::testing::{Message, accepted, compiled, faults};
use super::*;

fn policy(to: To) -> wire::PolicyEntry {
    let rewrite = wire::Rewrite { disabled: false, to: Some(to) };
    wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::Rewrite(rewrite)) }
}

fn path(text: &str) -> wire::PolicyEntry {
    policy(To::Path(text.to_owned()))
}

fn prefix(text: &str) -> wire::PolicyEntry {
    policy(To::Prefix(text.to_owned()))
}

fn regex(pattern: &str, replacement: &str) -> wire::PolicyEntry {
    policy(To::Regex(wire::RegexRewrite { pattern: pattern.to_owned(), replacement: replacement.to_owned() }))
}

const REFUSED: Flow = Flow::Reject(Reason::BadRequest);

#[test]
fn a_path_replaces_the_whole_and_the_query_stays() {
    let ran = Message::request("GET", "/a/b?q=/x").run(&accepted(path("/new")));
    assert_eq!((&*ran.path, ran.query.as_deref()), ("/new", Some("q=/x")));
}

#[test]
fn variables_stay_inside_their_place() {
    for (text, header, expected) in [
        ("/t/${request.header.x}/f", "a", Ok("/t/a/f")),
        ("/t/${request.header.x}/f", "a/b?c#d%e f", Ok("/t/a%2Fb%3Fc%23d%25e%20f/f")),
        ("/t/${request.header.x}/f", "..", Err(REFUSED)),
        ("/t/${request.header.x}/f", ".", Err(REFUSED)),
        ("/t/.${request.header.x}/f", ".", Err(REFUSED)),
        ("/t/${request.header.x}/f", "", Ok("/t/f")),
        ("/v/${path.id}", "", Ok("/v/a%2Fb")),
        ("/v${request.path}", "", Ok("/v/users/a%2Fb")),
        ("/v/${path.none}x", "", Ok("/v/x")),
        ("/${request.host}", "", Ok("/example.com")),
    ] {
        let message = Message::request("GET", "/users/a%2Fb").with("x", header).param("id", "a%2Fb");
        let ran = message.run(&accepted(path(text)));
        match expected {
            Ok(path) => assert_eq!((ran.flow, &*ran.path), (Flow::Continue, path), "{text} {header}"),
            Err(flow) => assert_eq!(ran.flow, flow, "{text} {header}"),
        }
    }
}

#[test]
fn a_prefix_replaces_what_the_route_matched_by() {
    for (text, request, matched, expected) in [
        ("/v2", "/api/users", Some(4), "/v2/users"),
        ("/v2/", "/api/users", Some(4), "/v2/users"),
        ("/v2", "/api", Some(4), "/v2"),
        ("/", "/api/users", Some(4), "/users"),
        ("/", "/api", Some(4), "/"),
        ("/", "/api/", Some(4), "/"),
        ("/v2", "/users", Some(0), "/v2/users"),
        ("/v2", "/users", Some(1), "/v2/users"),
        ("/v2", "/", Some(1), "/v2"),
        ("/v2", "/api/users", None, "/api/users"),
    ] {
        let mut message = Message::request("GET", request);
        message.matched_prefix = matched;
        assert_eq!(message.run(&accepted(prefix(text))).path, expected, "{text} {request} {matched:?}");
    }
}

#[test]
fn every_match_of_a_pattern_is_replaced() {
    for (pattern, replacement, request, expected) in [
        ("^/old/(.*)$", "/new/$1", "/old/a/b", "/new/a/b"),
        ("a", "b", "/a/a", "/b/b"),
        ("/(?P<id>[0-9]+)", "/item-${id}", "/7/8", "/item-7/item-8"),
        ("^/x", "/$$$0", "/x/y", "/$/x/y"),
        ("/(a)|/(b)", "/$1", "/b", "/"),
        ("^/none", "/x", "/some", "/some"),
        ("^/api", "", "/api/users", "/users"),
        ("x", "%2f", "/ax", "/a%2F"),
    ] {
        let ran = Message::request("GET", request).run(&accepted(regex(pattern, replacement)));
        assert_eq!((ran.flow, &*ran.path), (Flow::Continue, expected), "{pattern} {replacement} {request}");
    }
}

#[test]
fn a_pattern_that_makes_no_path_refuses_the_request() {
    for (pattern, replacement, request) in [("^/", "", "/users"), ("a", "../..", "/a"), ("2F", "", "/%2F")] {
        let ran = Message::request("GET", request).run(&accepted(regex(pattern, replacement)));
        assert_eq!(ran.flow, REFUSED, "{pattern} {replacement} {request}");
    }
}

#[test]
fn bad_values_are_refused_with_their_places() {
    let none =
        wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::Rewrite(wire::Rewrite::default())) };
    for (entry, place, text) in [
        (none, "rewrite: required", "path, prefix or regex"),
        (path("new"), "rewrite.path: invalid", "begins with '/'"),
        (path("/a?b"), "rewrite.path: invalid", "%3F"),
        (path("/a/../b"), "rewrite.path: invalid", "dot segment"),
        (path("/${nope}"), "rewrite.path: invalid", "unknown variable"),
        (path("/${latency}"), "rewrite.path: invalid", "unknown variable"),
        (prefix(""), "rewrite.prefix: invalid", "begins with '/'"),
        (prefix("v2"), "rewrite.prefix: invalid", "begins with '/'"),
        (regex("(", "/"), "rewrite.regex.pattern: invalid", "unclosed group"),
        (regex("", "/"), "rewrite.regex.pattern: invalid", "empty"),
        (regex("(a)", "$2"), "rewrite.regex.replacement: invalid", "no group \"2\""),
        (regex("(a)", "$1b"), "rewrite.regex.replacement: invalid", "no group \"1b\""),
        (regex("(a)", "${1"), "rewrite.regex.replacement: invalid", "without"),
        (regex("a", "a b"), "rewrite.regex.replacement: invalid", "percent-encoded"),
        (regex("a", "?x"), "rewrite.regex.replacement: invalid", "percent-encoded"),
    ] {
        let found = faults(entry);
        assert_eq!(found.len(), 1, "{place}: {found:?}");
        assert!(found[0].contains(place) && found[0].contains(text), "{place}: {found:?}");
    }
}

#[test]
fn a_route_is_held_to_its_own_matches() {
    let scope = Scope { params: Some(&["id"]), by_prefix: false, references: None };
    assert!(compiled(&[path("/x/${path.id}")], scope).1.is_empty());
    let found = compiled(&[path("/x/${path.uid}")], scope).1;
    assert!(
        found[0].contains("no path parameter \"uid\" in this route's templates, they have id"),
        "{found:?}"
    );
    let found = compiled(&[prefix("/x")], scope).1;
    assert!(found[0].starts_with("spec.policies[0].rewrite.prefix: conflict: "), "{found:?}");
}
