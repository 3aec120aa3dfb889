//! Responses by table: what each shape is, or why it is a 502.

use gateway_http1::head::Status;
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::{Framing, Limits, Method, ParseError, Version};

/// Parses in one piece, after the oracle has seen that no split changes the result.
fn parse(method: Method, text: &[u8]) -> Result<ResponseHead, ParseError> {
    let choice = match method {
        Method::Head => 1,
        Method::Connect => 2,
        _ => 0,
    };
    crate::oracle::check("response", &[&[choice], text].concat());
    let mut head = ResponseHead::new();
    match response::parse(text, &Limits::default(), method, &mut head)? {
        Status::Complete => Ok(head),
        Status::Partial => panic!("incomplete: {}", text.escape_ascii()),
    }
}

#[test]
fn a_usual_response_is_read_in_full() {
    let text = b"HTTP/1.1 200 All is well\r\nServer: x\r\nContent-Length: 2\r\n\r\nok";
    let head = parse(Method::Get, text).unwrap();
    assert_eq!((head.status, head.reason.of(text)), (200, &b"All is well"[..]));
    assert_eq!((head.version, head.framing, head.keep_alive), (Version::Http11, Framing::Length(2), true));
    assert_eq!((head.content_length, head.interim, head.tunnel), (Some(2), false, false));
    assert_eq!(head.fields[0].name.of(text), b"Server");
    assert_eq!(&text[head.len..], b"ok");
}

#[test]
fn reasons_may_be_missing_empty_or_foreign() {
    for (line, reason) in [
        (&b"HTTP/1.1 200"[..], &b""[..]),
        (b"HTTP/1.1 200 ", b""),
        (b"HTTP/1.1 200  ", b" "),
        (b"HTTP/1.1 200 OK\tnot", b"OK\tnot"),
        (b"HTTP/1.1 200 sch\xc3\xb6n", b"sch\xc3\xb6n"),
    ] {
        for fields in [&b""[..], b"A: b\r\n"] {
            let text = [line, b"\r\n", fields, b"\r\n"].concat();
            let head = parse(Method::Get, &text).unwrap();
            assert_eq!(head.reason.of(&text), reason, "{}", text.escape_ascii());
        }
    }
}

#[test]
fn the_body_follows_from_method_status_and_fields() {
    use Framing::{Chunked, Length, None as Nothing, UntilClose};
    for (method, status, fields, framing, length) in [
        (Method::Get, 200, "", UntilClose, None),
        (Method::Get, 200, "Content-Length: 0\r\n", Length(0), Some(0)),
        (Method::Get, 200, "Content-Length: 7\r\n", Length(7), Some(7)),
        (Method::Get, 200, "Transfer-Encoding: Chunked\r\n", Chunked, None),
        (Method::Get, 500, "", UntilClose, None),
        (Method::Get, 999, "", UntilClose, None),
        (Method::Post, 304, "Content-Length: 7\r\n", Nothing, Some(7)),
        (Method::Get, 304, "Transfer-Encoding: chunked\r\n", Nothing, None),
        (Method::Get, 204, "", Nothing, None),
        (Method::Get, 204, "Content-Length: 0\r\n", Nothing, Some(0)),
        (Method::Get, 100, "", Nothing, None),
        (Method::Get, 101, "", Nothing, None),
        (Method::Head, 200, "Content-Length: 7\r\n", Nothing, Some(7)),
        (Method::Head, 200, "Transfer-Encoding: chunked\r\n", Nothing, None),
        (Method::Head, 200, "", Nothing, None),
        (Method::Connect, 200, "Content-Length: 7\r\n", Nothing, Some(7)),
        (Method::Connect, 404, "Content-Length: 7\r\n", Length(7), Some(7)),
    ] {
        let text = format!("HTTP/1.1 {status} x\r\n{fields}\r\n");
        let head = parse(method, text.as_bytes()).unwrap();
        assert_eq!((head.framing, head.content_length), (framing, length), "{method:?} {text:?}");
    }
}

#[test]
fn a_body_that_could_be_framed_in_two_ways_is_refused() {
    use ParseError::{
        BodyForbidden, ContentLength, ContentLengthDuplicate, LengthAndCoding, TransferCodingUnknown,
        TransferEncoding, TransferEncodingVersion,
    };
    for (line, fields, error) in [
        ("HTTP/1.1 200", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
        ("HTTP/1.1 304", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", LengthAndCoding),
        ("HTTP/1.1 200", "Content-Length: 5\r\nContent-Length: 5\r\n", ContentLengthDuplicate),
        ("HTTP/1.1 200", "Content-Length: 5, 5\r\n", ContentLength),
        ("HTTP/1.1 200", "Content-Length: +5\r\n", ContentLength),
        ("HTTP/1.1 200", "Content-Length:\r\n", ContentLength),
        ("HTTP/1.1 200", "Transfer-Encoding: identity\r\n", TransferEncoding),
        ("HTTP/1.1 200", "Transfer-Encoding: xchunked\r\n", TransferEncoding),
        ("HTTP/1.1 200", "Transfer-Encoding: chunked, chunked\r\n", TransferEncoding),
        ("HTTP/1.1 200", "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", TransferEncoding),
        ("HTTP/1.1 200", "Transfer-Encoding: gzip, chunked\r\n", TransferCodingUnknown),
        ("HTTP/1.0 200", "Transfer-Encoding: chunked\r\n", TransferEncodingVersion),
        ("HTTP/1.1 204", "Content-Length: 5\r\n", BodyForbidden),
        ("HTTP/1.1 204", "Transfer-Encoding: chunked\r\n", BodyForbidden),
        ("HTTP/1.1 101", "Content-Length: 5\r\n", BodyForbidden),
        ("HTTP/1.1 100", "Transfer-Encoding: chunked\r\n", BodyForbidden),
    ] {
        let got = parse(Method::Get, format!("{line} x\r\n{fields}\r\n").as_bytes());
        assert_eq!(got.map(|head| head.framing), Err(error), "{line} {fields:?}");
    }
}

#[test]
fn malformed_heads_are_refused() {
    use ParseError::{Control, EmptyLine, FieldLine, LineEnd, StatusLine};
    let cases: &[(&[u8], ParseError)] = &[
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", EmptyLine),
        (b"\nHTTP/1.1 200 OK\r\n\r\n", LineEnd),
        (b"HTTP/1.1 200 OK\n\n", LineEnd),
        (b"HTTP/1.1 200\n\r\n", LineEnd),
        (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", LineEnd),
        (b"HTTP/1.1 200 OK\r\nA: b\rC: d\r\n\r\n", LineEnd),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", LineEnd),
        (b"HTTP/1.1 200 O\0K\r\n\r\n", Control),
        (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Control),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", FieldLine),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", FieldLine),
        (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", FieldLine),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", FieldLine),
        (b"HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", FieldLine),
        (b"HTTP/1.1  200 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 200OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 099 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1 +20 OK\r\n\r\n", StatusLine),
        (b"HTTP/1.1\r\n\r\n", StatusLine),
        (b"http/1.1 200 OK\r\n\r\n", StatusLine),
        (b"ICY 200 OK\r\n\r\n", StatusLine),
        (b"<html>\r\n\r\n", StatusLine),
        (b"HTTP/2.0 200 OK\r\n\r\n", ParseError::Version),
        (b"HTTP/0.9 200 OK\r\n\r\n", ParseError::Version),
    ];
    for &(text, error) in cases {
        let got = parse(Method::Get, text).map(|head| head.len);
        assert_eq!(got, Err(error), "{}", text.escape_ascii());
    }
}

#[test]
fn interim_responses_and_tunnels_are_told_apart() {
    for (method, status, interim, tunnel, keep_alive) in [
        (Method::Get, 100, true, false, true),
        (Method::Get, 103, true, false, true),
        (Method::Get, 199, true, false, true),
        (Method::Get, 101, false, true, false),
        (Method::Connect, 200, false, true, false),
        (Method::Get, 204, false, false, true),
    ] {
        let head = parse(method, format!("HTTP/1.1 {status} x\r\n\r\n").as_bytes()).unwrap();
        let got = (head.interim, head.tunnel, head.keep_alive);
        assert_eq!(got, (interim, tunnel, keep_alive), "{method:?} {status}");
    }
    let switch = b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let head = parse(Method::Get, switch).unwrap();
    assert_eq!(head.upgrade.map(|span| span.of(switch)), Some(&b"websocket"[..]));
}

#[test]
fn a_connection_is_reused_when_both_sides_can_find_the_next_message() {
    for (text, keep_alive) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", false),
        ("HTTP/1.1 200 OK\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n", true),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n", false),
        ("HTTP/1.0 304 x\r\nConnection: keep-alive\r\n\r\n", true),
    ] {
        assert_eq!(parse(Method::Get, text.as_bytes()).unwrap().keep_alive, keep_alive, "{text:?}");
    }
}

#[test]
fn limits_are_exact() {
    let text = b"HTTP/1.1 200 OK\r\nA: b\r\nC: d\r\n\r\n";
    let limits = Limits { max_head_bytes: text.len(), max_target_bytes: 0, max_fields: 2 };
    let parse = |limits: &Limits| response::parse(text, limits, Method::Get, &mut ResponseHead::new());
    assert_eq!(parse(&limits), Ok(Status::Complete));
    let less = Limits { max_head_bytes: text.len() - 1, ..limits };
    assert_eq!(parse(&less), Err(ParseError::HeadTooLarge));
    let less = Limits { max_fields: 1, ..limits };
    assert_eq!(parse(&less), Err(ParseError::TooManyFields));
}
