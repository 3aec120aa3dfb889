//! Tests of `template.rs`.

use super::*;
use crate::context::Notes;
use crate::policy::testing::Message;

fn message() -> Message {
    Message::request("GET", "/users/a%2Fb?q=1").with("X-A", "1").with("x-a", "2").param("id", "a%2Fb")
}

fn rendered(text: &str, message: &Message) -> String {
    let template = Template::compile(text, Scope::SHARED).expect("valid");
    let (mut notes, mut parts, mut out) = (Notes::new(), message.parts(), Vec::new());
    let head = Head::new(b"", &mut parts);
    message.with_ctx(&mut notes, |ctx| template.render(ctx, Source::Request(&head), &mut out));
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn every_variable_renders_its_fact() {
    for (text, expected) in [
        ("", ""),
        ("plain", "plain"),
        ("[${request.id}]", "[req-1]"),
        ("${request.header.X-A}", "1, 2"),
        ("${request.header.none}", ""),
        ("${request.method} ${request.path} ${request.query}", "GET /users/a%2Fb q=1"),
        ("${request.scheme}://${request.host}", "http://example.com"),
        ("${path.id}|${path.other}", "a/b|"),
        ("${client.ip}", "192.0.2.1"),
        ("${route.name} ${listener.name}", "default/route default/listener"),
    ] {
        assert_eq!(rendered(text, &message()), expected, "{text}");
    }
}

#[test]
fn dollars_are_literal_unless_they_open_a_variable() {
    for (text, expected) in [("$", "$"), ("$$", "$"), ("$${x}", "${x}"), ("5$ a$b", "5$ a$b"), ("$$$$", "$$")]
    {
        let template = Template::compile(text, Scope::SHARED).expect("valid");
        assert_eq!(template.literal(), Some(expected), "{text}");
    }
}

#[test]
fn control_bytes_of_values_become_spaces() {
    let message = Message::request("GET", "/").with("x", "a\r\nb\0c\td\x7f").param("p", "%0d%0Aq%zz%4");
    assert_eq!(rendered("${request.header.x}|${path.p}", &message), "a  b c d |  q%zz%4");
}

#[test]
fn unknown_variables_are_answered_with_those_that_exist() {
    for bad in [
        "${nope}",
        "${}",
        "${path.}",
        "${NAME}",
        "${latency}",
        "${request.id }",
        "${consumer.id}",
        "${claim.}",
    ] {
        let message = Template::compile(bad, Scope::SHARED).expect_err(bad);
        assert!(
            message.starts_with("unknown variable") && message.contains("request.id, "),
            "{bad}: {message}"
        );
    }
    let claim = |length| Template::compile(&format!("${{claim.{}}}", "n".repeat(length)), Scope::SHARED);
    assert!(claim(256).is_ok());
    assert_eq!(claim(257).expect_err("too long"), "a claim's name has at most 256 bytes");
    assert!(Template::compile("a${request.id", Scope::SHARED).expect_err("unclosed").contains("without"));
    let spaced = Template::compile("${request.header.a b}", Scope::SHARED).expect_err("space");
    assert!(spaced.contains("invalid header name"), "{spaced}");
}

#[test]
fn a_routes_parameters_are_checked_and_a_shared_place_takes_any() {
    let own = |params| Template::compile("${path.id}", Scope { params: Some(params) });
    assert!(own(&["id"]).is_ok());
    assert!(own(&["uid", "rest"]).expect_err("other names").ends_with("they have uid, rest"));
    assert!(own(&[]).expect_err("no names").ends_with("matches by no template"));
    assert!(Template::compile("${path.id}", Scope::SHARED).is_ok());
}

#[test]
fn the_response_side_notes_each_fact_of_the_request_once() {
    let mut captures = Captures::default();
    let mut compile = |text| Template::compile_response(text, Scope::SHARED, &mut captures).expect("valid");
    let (one, two) =
        (compile("${request.path} ${latency}"), compile("${request.path}${path.id}${request.id}"));
    assert_eq!(captures.0.len(), 2);
    let message = message();
    let (mut notes, mut parts) = (Notes::new(), message.parts());
    let head = Head::new(b"", &mut parts);
    message.with_ctx(&mut notes, |ctx| {
        ctx.notes.capture(b"of somebody else");
        let source = Source::Notes(captures.note(ctx, &head).expect("there are captures"));
        let mut out = Vec::new();
        one.render(ctx, source, &mut out);
        out.push(b'|');
        two.render(ctx, source, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), "/users/a%2Fb 12.345ms|/users/a%2Fba/breq-1");
    });
}
