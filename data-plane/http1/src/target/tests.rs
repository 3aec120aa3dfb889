//! Targets and hosts by table.

use super::*;

/// Form, scheme, authority, path, query.
type Parts<'a> = (Form, &'a str, &'a str, &'a str, Option<&'a str>);

#[test]
fn each_form_is_taken_apart() {
    use Form::{Absolute, Asterisk, Authority, Origin};
    let cases: &[(Method, &str, Parts<'_>)] = &[
        (Method::Get, "/", (Origin, "", "", "/", None)),
        (Method::Get, "/a/b?c=d?e", (Origin, "", "", "/a/b", Some("c=d?e"))),
        (Method::Get, "/?", (Origin, "", "", "/", Some(""))),
        (Method::Get, "//x/../%2F", (Origin, "", "", "//x/../%2F", None)),
        (Method::Options, "*", (Asterisk, "", "", "*", None)),
        (Method::Options, "/x", (Origin, "", "", "/x", None)),
        (Method::Connect, "a.example:443", (Authority, "", "a.example:443", "", None)),
        (Method::Connect, "[::1]:80", (Authority, "", "[::1]:80", "", None)),
        (Method::Get, "http://a/b?c", (Absolute, "http", "a", "/b", Some("c"))),
        (Method::Get, "HTTPS://a:1", (Absolute, "HTTPS", "a:1", "", None)),
        (Method::Options, "http://a?q", (Absolute, "http", "a", "", Some("q"))),
        (Method::Get, "/{a}|\"^[]\\", (Origin, "", "", "/{a}|\"^[]\\", None)),
        (Method::Get, "/?`{}|^", (Origin, "", "", "/", Some("`{}|^"))),
    ];
    for &(method, text, want) in cases {
        let buf = format!("GET {text} HTTP/1.1");
        let buf = buf.as_bytes();
        let target = parse(buf, Span::new(4, 4 + text.len()), method).expect(text);
        let show = |span: Span| std::str::from_utf8(span.of(buf)).unwrap();
        let got = (
            target.form,
            show(target.scheme),
            show(target.authority),
            show(target.path),
            target.query.map(show),
        );
        assert_eq!(got, want, "{method:?} {text}");
        assert_eq!(target.span.of(buf), text.as_bytes());
    }
}

#[test]
fn malformed_targets_and_misplaced_forms_are_refused() {
    use ParseError::{Host, Target, TargetForm};
    for (method, text, error) in [
        (Method::Get, "*", TargetForm),
        (Method::Get, "a.example:443", TargetForm),
        (Method::Get, "localhost", TargetForm),
        (Method::Connect, "/", TargetForm),
        (Method::Connect, "*", TargetForm),
        (Method::Connect, "a.example", TargetForm),
        (Method::Connect, "a.example:", TargetForm),
        (Method::Connect, "http://a.example:80/", TargetForm),
        (Method::Options, "**", TargetForm),
        (Method::Get, "a/b", Target),
        (Method::Get, "?q", Target),
        (Method::Get, "/#f", Target),
        (Method::Get, "/?a#f", Target),
        (Method::Get, "/<", Target),
        (Method::Get, "/`", Target),
        (Method::Get, "/?\"", Target),
        (Method::Get, "/\u{e4}", Target),
        (Method::Get, "/\u{7f}", Target),
        (Method::Get, "ftp://a/", Target),
        (Method::Get, "http:/a", Target),
        (Method::Get, "javascript:alert(1)", Target),
        (Method::Get, "http://", Host),
        (Method::Get, "http:///x", Host),
        (Method::Get, "http://user@a/", Host),
        (Method::Get, "http://a b/", Host),
        (Method::Get, "http://a#b/", Host),
        (Method::Get, "http://a:99999/", Host),
    ] {
        let got = parse(text.as_bytes(), Span::new(0, text.len()), method);
        assert_eq!(got, Err(error), "{method:?} {text}");
    }
}

#[test]
fn hosts_are_names_or_addresses_with_an_optional_port() {
    for (text, name, port) in [
        ("a", "a", None),
        ("Example.ORG.", "Example.ORG.", None),
        ("a_b-c.d:80", "a_b-c.d", Some(80)),
        ("a:", "a", None),
        ("127.0.0.1:65535", "127.0.0.1", Some(65535)),
        ("[2001:db8::1]", "[2001:db8::1]", None),
        ("[::ffff:1.2.3.4]:00080", "[::ffff:1.2.3.4]", Some(80)),
    ] {
        assert_eq!(host(text.as_bytes()), Some(Host { name: name.as_bytes(), port }), "{text}");
    }
    for text in [
        "",
        ":",
        ":80",
        " a",
        "a ",
        "a b",
        "a/b",
        "a?b",
        "a#b",
        "a@b",
        "a\\b",
        "a%41",
        "a\"",
        "a<b",
        "a:b",
        "a:+1",
        "a:65536",
        "a:1:2",
        "::1",
        "[::1",
        "[]",
        "[a]",
        "[::1]x",
        "[::1]:x",
        "[::1%25eth0]",
        "a\u{e4}",
        "a\0",
    ] {
        assert_eq!(host(text.as_bytes()), None, "{text:?}");
    }
}

#[test]
fn origins_are_compared_without_case_and_with_the_default_port() {
    for (a, b, same) in [
        ("a.example", "A.Example", true),
        ("a.example:80", "a.example", true),
        ("a.example:", "a.example:080", true),
        ("a.example:81", "a.example", false),
        ("a.example", "a.example.", false),
        ("a.example", "b.example", false),
        ("a.example", "", false),
    ] {
        assert_eq!(same_origin(a.as_bytes(), b.as_bytes(), 80), same, "{a} {b}");
    }
}
