//! What is written byte for byte, and what is refused.

use super::*;

#[test]
fn a_request_is_written_line_by_line() {
    let mut out = Vec::new();
    let mut head = HeadWriter::request(&mut out, b"POST", b"/a", Some(b"b=c")).unwrap();
    head.field(b"Host", b"example.org").unwrap();
    head.field(b"X-Empty", b"").unwrap();
    head.field(b"x-request-id", b"7").unwrap();
    head.framing(Framing::Length(1234567890));
    head.finish();
    let want = "POST /a?b=c HTTP/1.1\r\nHost: example.org\r\nX-Empty: \r\nx-request-id: 7\r\n\
                content-length: 1234567890\r\n\r\n";
    assert_eq!(out, want.as_bytes());
}

#[test]
fn responses_carry_the_registered_reason_or_none() {
    for (status, line) in [
        (200, "HTTP/1.1 200 OK\r\n"),
        (404, "HTTP/1.1 404 Not Found\r\n"),
        (101, "HTTP/1.1 101 Switching Protocols\r\n"),
        (299, "HTTP/1.1 299 \r\n"),
        (999, "HTTP/1.1 999 \r\n"),
    ] {
        let mut out = Vec::new();
        HeadWriter::response(&mut out, status).unwrap().finish();
        assert_eq!(out, format!("{line}\r\n").as_bytes());
    }
    for status in [0, 99, 1000] {
        let mut out = Vec::new();
        assert_eq!(HeadWriter::response(&mut out, status).err(), Some(WriteError::Status));
        assert!(out.is_empty());
    }
}

#[test]
fn nothing_can_be_injected_and_a_refused_piece_leaves_no_trace() {
    let mut out = Vec::new();
    for (method, path, query, error) in [
        (&b""[..], &b"/"[..], None, WriteError::Name),
        (b"GET /x HTTP/1.1\r\n", b"/", None, WriteError::Name),
        (b"GET", b"", None, WriteError::Target),
        (b"GET", b"/ HTTP/1.1\r\nx: y", None, WriteError::Target),
        (b"GET", b"/\xc3\xa4", None, WriteError::Target),
        (b"GET", b"/", Some(&b"a b"[..]), WriteError::Target),
        (b"GET", b"/", Some(b"a\n"), WriteError::Target),
    ] {
        assert_eq!(HeadWriter::request(&mut out, method, path, query).err(), Some(error));
        assert!(out.is_empty());
    }
    let mut head = HeadWriter::response(&mut out, 200).unwrap();
    for (name, value, error) in [
        (&b""[..], &b"x"[..], WriteError::Name),
        (b"a b", b"x", WriteError::Name),
        (b"a:", b"x", WriteError::Name),
        (b"a\r\nb", b"x", WriteError::Name),
        (b"a", b"x\r\nb: y", WriteError::Value),
        (b"a", b"x\n", WriteError::Value),
        (b"a", b"\0", WriteError::Value),
        (b"a", b"\x7f", WriteError::Value),
        (b"Content-Length", b"5", WriteError::Framing),
        (b"transfer-encoding", b"chunked", WriteError::Framing),
    ] {
        assert_eq!(head.field(name, value), Err(error), "{}", name.escape_ascii());
    }
    head.field(b"a", b"tab\tand \xc3\xa4").unwrap();
    head.finish();
    assert_eq!(out, b"HTTP/1.1 200 OK\r\na: tab\tand \xc3\xa4\r\n\r\n");
}

#[test]
fn parsed_fields_are_normalised_to_one_space_and_framing_is_left_out() {
    let buf = b"A: 1\r\nB:2\r\nC:\t 3 \r\nD:\r\nContent-Length: 9\r\n";
    let field = |name: std::ops::Range<usize>, value: std::ops::Range<usize>| Field {
        name: crate::Span::new(name.start, name.end),
        value: crate::Span::new(value.start, value.end),
        known: KnownField::classify(&buf[name]),
        nominated: false,
        usual: false,
    };
    let mut out = Vec::new();
    let mut head = HeadWriter::response(&mut out, 200).unwrap();
    head.parsed(buf, &field(0..1, 3..4));
    head.parsed(buf, &field(6..7, 8..9));
    head.parsed(buf, &field(11..12, 15..16));
    head.parsed(buf, &field(19..20, 21..21));
    head.parsed(buf, &field(23..37, 39..40));
    head.framing(Framing::Chunked);
    head.finish();
    let want = "HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\nC: 3\r\nD: \r\ntransfer-encoding: chunked\r\n\r\n";
    assert_eq!(out, want.as_bytes());
}

#[test]
fn a_response_announces_its_body_as_the_client_can_read_it() {
    use Framing::{Chunked, Length, None as Nothing, UntilClose};
    use Version::{Http10, Http11};
    for (method, status, version, length, want, body) in [
        (Method::Get, 200, Http11, Some(5), Length(5), true),
        (Method::Get, 200, Http10, Some(5), Length(5), true),
        (Method::Get, 200, Http11, None, Chunked, true),
        (Method::Get, 200, Http10, None, UntilClose, true),
        (Method::Head, 200, Http11, Some(5), Length(5), false),
        (Method::Head, 200, Http11, None, Nothing, false),
        (Method::Get, 304, Http11, Some(5), Length(5), false),
        (Method::Get, 304, Http11, None, Nothing, false),
        (Method::Get, 204, Http11, Some(0), Nothing, false),
        (Method::Get, 204, Http11, None, Nothing, false),
        (Method::Get, 101, Http11, None, Nothing, false),
        (Method::Connect, 200, Http11, Some(5), Nothing, false),
        (Method::Connect, 404, Http11, Some(5), Length(5), true),
    ] {
        assert_eq!(announce(method, status, version, length), want, "{method:?} {status} {version:?}");
        assert_eq!(has_body(method, status), body, "{method:?} {status}");
    }
}

#[test]
fn numbers_are_written_whole() {
    for number in [0, 9, 10, 1234, u64::MAX] {
        let mut out = Vec::new();
        push_decimal(number, &mut out);
        assert_eq!(out, number.to_string().as_bytes());
    }
}

#[test]
fn every_control_byte_is_found_wherever_it_stands() {
    for len in 1..=20 {
        for at in 0..len {
            for byte in 0..=255_u8 {
                let allowed = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
                for rest in [b'a', b'\t', 0x80, 0xff] {
                    let mut value = vec![rest; len];
                    value[at] = byte;
                    assert_eq!(is_value(&value), allowed, "{byte:#x} at {at} of {len} among {rest:#x}");
                }
            }
        }
    }
    assert!(is_value(b""));
}
