//! Tests of `cors.rs`.

use super::super::testing::{Message, accepted, faults};
use super::*;

fn policy(cors: wire::Cors) -> wire::PolicyEntry {
    wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::Cors(cors)) }
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn full() -> wire::Cors {
    wire::Cors {
        origins: texts(&["https://app.example"]),
        methods: texts(&["GET", "PUT"]),
        headers: texts(&["X-A", "content-type"]),
        expose_headers: texts(&["X-Total"]),
        credentials: true,
        max_age: Some("10m".to_owned()),
        ..Default::default()
    }
}

fn any() -> wire::Cors {
    wire::Cors { origins: texts(&["*"]), ..Default::default() }
}

fn preflight(origin: &str) -> Message {
    Message::request("OPTIONS", "/")
        .with("Origin", origin)
        .with("Access-Control-Request-Method", "PUT")
        .with("Access-Control-Request-Headers", "x-a, x-b")
}

const PREFLIGHT_VARY: &str = "vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

#[test]
fn a_preflight_is_answered_with_what_is_allowed() {
    let ran = preflight("https://app.example").run(&accepted(policy(full())));
    assert_eq!(ran.flow, Flow::Respond(204));
    let expected = [
        PREFLIGHT_VARY,
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
        "access-control-allow-methods: GET, PUT",
        "access-control-allow-headers: x-a, content-type",
        "access-control-max-age: 600",
    ];
    assert_eq!(ran.response, expected);
}

#[test]
fn a_preflight_of_another_origin_is_answered_without_permission() {
    let ran = preflight("https://evil.example").run(&accepted(policy(full())));
    assert_eq!((ran.flow, ran.response), (Flow::Respond(204), texts(&[PREFLIGHT_VARY])));
}

#[test]
fn the_defaults_allow_simple_methods_and_no_headers() {
    let ran = preflight("https://any.example").run(&accepted(policy(any())));
    let expected =
        [PREFLIGHT_VARY, "access-control-allow-origin: *", "access-control-allow-methods: GET, HEAD, POST"];
    assert_eq!(ran.response, expected);
}

#[test]
fn stars_echo_what_was_asked_for_if_it_is_a_list_of_tokens() {
    let cors = wire::Cors { methods: texts(&["*"]), headers: texts(&["*"]), ..full() };
    let set = accepted(policy(cors));
    let ran = preflight("https://app.example").run(&set);
    assert_eq!(
        ran.response[3..5],
        ["access-control-allow-methods: PUT", "access-control-allow-headers: x-a, x-b"]
    );
    let odd = Message::request("OPTIONS", "/")
        .with("Origin", "https://app.example")
        .with("Access-Control-Request-Method", "P\"T")
        .run(&set);
    assert!(
        !odd.response.iter().any(|field| field.starts_with("access-control-allow-methods")),
        "{:?}",
        odd.response
    );
}

#[test]
fn an_actual_response_gets_the_permission_and_loses_the_upstreams_own() {
    let answer = [
        ("Access-Control-Allow-Origin", "https://elsewhere.example"),
        ("access-control-allow-credentials", "false"),
        ("Access-Control-Expose-Headers", "*"),
        ("Vary", "Accept-Encoding"),
    ];
    let message = || Message::request("GET", "/").answer(&answer);
    let set = accepted(policy(full()));
    let expected = [
        "Vary: Accept-Encoding",
        "vary: Origin",
        "access-control-allow-origin: https://app.example",
        "access-control-allow-credentials: true",
        "access-control-expose-headers: x-total",
    ];
    assert_eq!(message().with("origin", "https://app.example").run(&set).response, expected);
    // Without permission, and without an origin: caches must still keep the answers apart.
    assert_eq!(message().with("origin", "https://evil.example").run(&set).response, expected[..2]);
    assert_eq!(message().run(&set).response, expected[..2]);
}

#[test]
fn vary_is_not_repeated_and_not_needed_when_all_get_the_same() {
    let message =
        |vary| Message::request("GET", "/").with("origin", "https://app.example").answer(&[("vary", vary)]);
    for vary in ["accept, ORIGIN", "*"] {
        let ran = message(vary).run(&accepted(policy(full())));
        assert_eq!(ran.response.iter().filter(|field| field.starts_with("vary")).count(), 1, "{vary}");
    }
    // Also without an origin: a cache may hand the answer to a script.
    for message in [message("accept"), Message::request("GET", "/").answer(&[("vary", "accept")])] {
        let ran = message.run(&accepted(policy(any())));
        assert_eq!(ran.response, ["vary: accept", "access-control-allow-origin: *"]);
    }
}

#[test]
fn options_without_the_question_is_no_preflight() {
    let message = Message::request("OPTIONS", "/").with("origin", "https://app.example");
    assert_eq!(message.run(&accepted(policy(full()))).flow, Flow::Continue);
    let message = Message::request("GET", "/").with("origin", "https://app.example");
    let message = message.with("access-control-request-method", "PUT");
    assert_eq!(message.run(&accepted(policy(full()))).flow, Flow::Continue);
}

#[test]
fn bad_values_are_refused_with_their_places() {
    let cors = |edit: fn(&mut wire::Cors)| {
        let mut cors = full();
        edit(&mut cors);
        cors
    };
    for (spec, place, text) in [
        (cors(|c| c.origins = texts(&["*"])), "credentials: conflict", "name the origins"),
        (cors(|c| c.origins.clear()), ": required", "originRegex"),
        (cors(|c| c.methods = texts(&["get"])), "methods[0]: invalid", "did you mean GET"),
        (cors(|c| c.methods = texts(&["GET", "*"])), "methods[1]: invalid", "stands alone"),
        (cors(|c| c.methods = texts(&[""])), "methods[0]: invalid", "invalid method"),
        (cors(|c| c.headers = texts(&["x a"])), "headers[0]: invalid", "invalid header name"),
        (cors(|c| c.expose_headers = texts(&["é"])), "exposeHeaders[0]: invalid", "invalid header name"),
        (cors(|c| c.expose_headers = texts(&["*"])), "exposeHeaders: conflict", "list the headers"),
        (cors(|c| c.max_age = Some("1500ms".to_owned())), "maxAge: invalid", "whole seconds"),
        (cors(|c| c.max_age = Some("soon".to_owned())), "maxAge: invalid", "invalid duration"),
        (cors(|c| c.disabled = true), "disabled: conflict", "stands alone"),
    ] {
        let found = faults(policy(spec));
        assert_eq!(found.len(), 1, "{place}: {found:?}");
        assert!(found[0].contains(place) && found[0].contains(text), "{place}: {found:?}");
    }
}
