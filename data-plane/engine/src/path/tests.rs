//! Paths and hosts: tables from the contract, and the properties that matching relies on.

use proptest::prelude::*;

use super::*;

fn path(text: &[u8]) -> Result<String, BadPath> {
    normalize(text, &mut Vec::new()).map(str::to_owned)
}

fn name(text: &str) -> Result<String, BadHost> {
    host(text.as_bytes(), &mut Vec::new()).map(str::to_owned)
}

#[test]
fn paths_come_into_one_form() {
    for (text, form) in [
        ("", "/"),
        ("/", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("//a///b//", "/a/b/"),
        ("/a/./b/.", "/a/b/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../..", "/"),
        ("/a/b/../c", "/a/c"),
        ("/a//../b", "/b"),
        ("/%61/%7e%2D%5f", "/a/~-_"),
        ("/%2e%2E/", "bad: '..' leads above the root"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a%2fb%25%c3%a9", "/a%2Fb%25%C3%A9"),
        ("/caf\u{e9}/a b", "/caf%C3%A9/a%20b"),
        ("/.well-known/x", "/.well-known/x"),
        ("/...", "/..."),
        ("/a/..b/c..", "/a/..b/c.."),
        ("/a;p=1:@!$&'()*+,=", "/a;p=1:@!$&'()*+,="),
        ("/users/{id}", "/users/{id}"),
        ("/..", "bad: '..' leads above the root"),
        ("/a/../..", "bad: '..' leads above the root"),
        ("/a/../../b", "bad: '..' leads above the root"),
        ("a", "bad: a path begins with '/'"),
        ("*", "bad: a path begins with '/'"),
        ("/a\\b", "bad: '\\' is not allowed in a path, write %5C"),
        ("/a#b", "bad: '#' is not allowed in a path, write %23"),
        ("/a?b", "bad: '?' is not allowed in a path, write %3F"),
        ("/a\tb", "bad: control characters are not allowed in a path"),
        ("/a\0", "bad: control characters are not allowed in a path"),
        ("/\u{7f}", "bad: control characters are not allowed in a path"),
        ("/%00", "bad: %00 is not allowed in a path"),
        ("/%", "bad: '%' needs two hexadecimal digits after it, write %25 for the character itself"),
        ("/%4", "bad: '%' needs two hexadecimal digits after it, write %25 for the character itself"),
        ("/%4g", "bad: '%' needs two hexadecimal digits after it, write %25 for the character itself"),
        ("/%+1", "bad: '%' needs two hexadecimal digits after it, write %25 for the character itself"),
    ] {
        let got = path(text.as_bytes()).unwrap_or_else(|bad| format!("bad: {bad}"));
        assert_eq!(got, form, "{text:?}");
    }
}

#[test]
fn a_path_in_form_is_borrowed() {
    let text = b"/api/v1/users".to_vec();
    let mut scratch = Vec::new();
    let form = normalize(&text, &mut scratch).expect("sound");
    assert_eq!(form.as_ptr(), text.as_ptr());
}

#[test]
fn hosts_come_into_one_form() {
    for (text, form) in [
        ("", ""),
        ("example.com", "example.com"),
        ("Example.COM:8080", "example.com"),
        ("example.com.", "example.com"),
        ("example.com.:80", "example.com"),
        (":80", ""),
        ("example.com:", "example.com"),
        ("a_b.example", "a_b.example"),
        ("127.0.0.1:80", "127.0.0.1"),
        ("[::1]:8080", "[::1]"),
        ("[0:0:0:0:0:0:0:1]", "[::1]"),
        ("[2001:DB8::A]", "[2001:db8::a]"),
        ("[::1", "bad: brackets hold an IPv6 address"),
        ("[x]", "bad: brackets hold an IPv6 address"),
        ("[::1]x", "bad: a port is a number up to 65535"),
        ("a:b", "bad: a port is a number up to 65535"),
        ("a:65536", "bad: a port is a number up to 65535"),
        ("a:80:80", "bad: a port is a number up to 65535"),
    ] {
        let got = name(text).unwrap_or_else(|bad| format!("bad: {bad}"));
        assert_eq!(got, form, "{text:?}");
    }
    for text in ["a..b", ".a", "a..", ".", "..", ".:80", "a..:80"] {
        assert_eq!(name(text), Err(BadHost::Label), "{text:?}");
    }
    for text in ["a b", "user@host", "a/b", "ex\u{e4}mple", "a\0", "a,b", "a%41"] {
        assert_eq!(name(text), Err(BadHost::Character), "{text:?}");
    }
    assert_eq!(name(&"a".repeat(256)), Err(BadHost::Long));
}

#[test]
fn host_patterns_are_names_or_addresses_without_port() {
    for (text, form) in [
        ("Api.Example.com", "api.example.com"),
        ("api.example.com.", "api.example.com"),
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("[::1]", "[::1]"),
        ("localhost", "localhost"),
    ] {
        assert_eq!(host_pattern(text).as_deref(), Ok(form), "{text}");
    }
    for text in
        ["", "a:80", "[::1]:80", "a..b", ".a", "-a.b", "a-.b", "a b", "*", "a.*.b", "ex\u{e4}mple.org", "a/b"]
    {
        assert!(host_pattern(text).is_err(), "{text}");
    }
}

/// Paths over a small alphabet in which everything that the form is about is likely.
fn crooked() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop::sample::select(vec![
        &b"/"[..],
        b"/",
        b".",
        b"..",
        b"a",
        b"B",
        b"%2e",
        b"%2F",
        b"%41",
        b"%c3",
        b"%25",
        b"%00",
        b"%zz",
        b"\\",
        b"#",
        b" ",
        b"\xc3",
        b"~",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| {
        let mut path = b"/".to_vec();
        path.extend(pieces.concat());
        path
    })
}

#[test]
fn every_byte_and_pair_is_seen_in_every_place() {
    for length in 1..=20 {
        for at in 1..length {
            for byte in 0..=u8::MAX {
                let mut text = vec![b'a'; length];
                (text[0], text[at]) = (b'/', byte);
                assert_eq!(is_usual(&text), judge(&text) == Ok(true), "{byte:#x} at {at} of {length}");
            }
            for pair in [b"//", b"/."] {
                let mut text = vec![b'a'; length];
                text[0] = b'/';
                text.splice(at.., pair.iter().copied().chain(*b"aa"));
                assert!(!is_usual(&text), "{:?}", String::from_utf8_lossy(&text));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn the_form_is_stable_and_clean(text in crooked()) {
        if let Ok(form) = path(&text) {
            prop_assert_eq!(path(form.as_bytes()), Ok(form.clone()));
            prop_assert!(form.starts_with('/') && form.is_ascii());
            prop_assert!(!form.contains("//"));
            prop_assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
        }
    }

    #[test]
    fn what_is_normal_is_seen_in_words_as_byte_by_byte(
        text in prop_oneof![crooked(), prop::collection::vec(any::<u8>(), 0..40), "[ -~]{0,40}".prop_map(Vec::from)]
    ) {
        let text = [b"/", &*text].concat();
        prop_assert_eq!(is_usual(&text), judge(&text) == Ok(true));
    }

    #[test]
    fn a_host_in_form_stays(text in "[a-cA-C0-9.:_-]{0,12}|\\[[0-9a-f:]{0,8}\\](:[0-9]{0,6})?") {
        if let Ok(form) = name(&text) {
            let again = name(&form);
            prop_assert_eq!(again.as_deref(), Ok(&*form));
        }
    }
}
