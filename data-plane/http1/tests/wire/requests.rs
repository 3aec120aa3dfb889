//! Requests by table: what each shape is, or why it is refused and with which status.

use gateway_http1::head::Status;
use gateway_http1::request::{self, RequestHead};
use gateway_http1::{Framing, KnownField, Limits, Method, ParseError, Version};

/// Parses in one piece, after the oracle has seen that no split changes the result.
fn parse(text: &[u8]) -> Result<RequestHead, ParseError> {
    crate::oracle::check("request", text);
    let mut head = RequestHead::new();
    match request::parse(text, &Limits::default(), &mut head)? {
        Status::Complete => Ok(head),
        Status::Partial => panic!("incomplete: {}", text.escape_ascii()),
    }
}

/// A POST with the given field lines (without the last CRLF).
fn with_fields(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n").into_bytes()
}

#[test]
fn a_usual_request_is_read_in_full() {
    let text = b"POST /shop/cart?item=5 HTTP/1.1\r\nHost: shop.example:8080\r\nUser-Agent:curl/8\r\n\
        Accept:\t*/* \r\nX-Empty:\r\nExpect: 100-Continue\r\nTE: trailers, deflate\r\n\
        Connection: Upgrade, X-Hop\r\nUpgrade: websocket\r\nx-hop: 1\r\ncontent-length: 5\r\n\r\nhello";
    let head = parse(text).unwrap();
    let show = |span: gateway_http1::Span| std::str::from_utf8(span.of(text)).unwrap();
    assert_eq!((head.method, show(head.method_span)), (Method::Post, "POST"));
    assert_eq!((show(head.target.path), head.target.query.map(show)), ("/shop/cart", Some("item=5")));
    assert_eq!((head.version, show(head.authority)), (Version::Http11, "shop.example:8080"));
    assert_eq!((head.framing, head.keep_alive), (Framing::Length(5), true));
    assert!(head.expect_continue && head.accepts_trailers);
    assert_eq!(head.upgrade.map(show), Some("websocket"));
    assert_eq!(&text[head.len..], b"hello");
    let fields: Vec<(&str, &str, bool)> =
        head.fields.iter().map(|f| (show(f.name), show(f.value), f.is_hop_by_hop())).collect();
    let want = [
        ("Host", "shop.example:8080", false),
        ("User-Agent", "curl/8", false),
        ("Accept", "*/*", false),
        ("X-Empty", "", false),
        ("Expect", "100-Continue", false),
        ("TE", "trailers, deflate", true),
        ("Connection", "Upgrade, X-Hop", true),
        ("Upgrade", "websocket", true),
        ("x-hop", "1", true),
        ("content-length", "5", false),
    ];
    assert_eq!(fields, want);
    assert_eq!(head.fields[3].known, KnownField::Other);
    let unusual: Vec<&str> = head.fields.iter().filter(|f| !f.usual).map(|f| show(f.name)).collect();
    assert_eq!(unusual, ["User-Agent", "Accept", "X-Empty"], "no space, other white space, neither");
}

#[test]
fn a_body_that_could_be_framed_in_two_ways_is_refused() {
    use ParseError::{
        ContentLength, ContentLengthDuplicate, LengthAndCoding, TransferCodingUnknown, TransferEncoding,
    };
    for (lines, error) in [
        // RFC 9112 §6.1, §6.3: both
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", LengthAndCoding),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5", LengthAndCoding),
        ("Transfer-Encoding: identity\r\nContent-Length: 0", LengthAndCoding),
        // variants of chunked
        ("Transfer-Encoding: xchunked", TransferEncoding),
        ("Transfer-Encoding: chunkedx", TransferEncoding),
        ("Transfer-Encoding: chunked, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", TransferEncoding),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", TransferEncoding),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", TransferEncoding),
        ("Transfer-Encoding: chunked, identity", TransferEncoding),
        ("Transfer-Encoding: identity, chunked", TransferEncoding),
        ("Transfer-Encoding: chunked, gzip", TransferEncoding),
        ("Transfer-Encoding: identity", TransferEncoding),
        ("Transfer-Encoding: gzip", TransferEncoding),
        ("Transfer-Encoding: cow", TransferEncoding),
        ("Transfer-Encoding: cow, chunked", TransferEncoding),
        ("Transfer-Encoding: , chunked", TransferEncoding),
        ("Transfer-Encoding: chunked,", TransferEncoding),
        ("Transfer-Encoding: chunked;q=1", TransferEncoding),
        ("Transfer-Encoding: \"chunked\"", TransferEncoding),
        ("Transfer-Encoding: chun ked", TransferEncoding),
        ("Transfer-Encoding:", TransferEncoding),
        ("Transfer-Encoding: \u{a0}chunked", TransferEncoding),
        ("Transfer-Encoding: gzip, chunked", TransferCodingUnknown),
        ("Transfer-Encoding: x-gzip , deflate,Chunked", TransferCodingUnknown),
        // lengths
        ("Content-Length: 5\r\nContent-Length: 5", ContentLengthDuplicate),
        ("Content-Length: 5\r\nContent-Length: 6", ContentLengthDuplicate),
        ("Content-Length: 5\r\ncontent-length: 0", ContentLengthDuplicate),
        ("Content-Length: 5, 5", ContentLength),
        ("Content-Length: 5,", ContentLength),
        ("Content-Length: +5", ContentLength),
        ("Content-Length: -5", ContentLength),
        ("Content-Length: -0", ContentLength),
        ("Content-Length: 5 5", ContentLength),
        ("Content-Length: 0x5", ContentLength),
        ("Content-Length: 5e0", ContentLength),
        ("Content-Length: 5.0", ContentLength),
        ("Content-Length: \"5\"", ContentLength),
        ("Content-Length:", ContentLength),
        ("Content-Length: \u{665}", ContentLength),
        ("Content-Length: 9223372036854775808", ContentLength),
        ("Content-Length: 18446744073709551616", ContentLength),
        ("Content-Length: 99999999999999999999999999", ContentLength),
    ] {
        let got = parse(&with_fields(lines));
        assert_eq!(got.map(|head| head.framing), Err(error), "{lines}");
        assert_eq!(error.status(), if error == TransferCodingUnknown { 501 } else { 400 });
    }
}

#[test]
fn a_body_that_is_framed_in_one_way_is_accepted() {
    for (lines, framing) in [
        ("X: y", Framing::None),
        ("Content-Length: 0", Framing::Length(0)),
        ("content-LENGTH:\t5 ", Framing::Length(5)),
        ("Content-Length: 0005", Framing::Length(5)),
        ("Content-Length: 9223372036854775807", Framing::Length(i64::MAX as u64)),
        ("Transfer-Encoding: chunked", Framing::Chunked),
        ("transfer-encoding:\t CHUNKED\t", Framing::Chunked),
    ] {
        assert_eq!(parse(&with_fields(lines)).map(|head| head.framing), Ok(framing), "{lines}");
    }
}

#[test]
fn lines_and_bytes_that_readers_disagree_about_are_refused() {
    use ParseError::{Control, EmptyLine, FieldLine, LineEnd, RequestLine};
    let cases: &[(&[u8], ParseError)] = &[
        // line ends, RFC 9112 §2.2
        (b"GET / HTTP/1.1\nHost: a\n\n", LineEnd),
        (b"GET / HTTP/1.1\nHost: a\r\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\nY: 2\r\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX:\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\rHost: a\r\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\rX: 1\r\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\r\n\r\n", LineEnd),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r \r\n\r\n", LineEnd),
        (b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", LineEnd),
        // control bytes, RFC 9110 §5.5
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", Control),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n", Control),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\n\r\n", Control),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n", Control),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", Control),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Control),
        (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Control),
        (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Control),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Control),
        // obs-fold, RFC 9112 §5.2
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n \r\n\r\n", FieldLine),
        // field lines, RFC 9112 §5.1
        (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost\t: a\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n", FieldLine),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX\xc3\xa4: z\r\n\r\n", FieldLine),
        // empty lines before the request, RFC 9112 §2.2
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", EmptyLine),
        (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LineEnd),
        (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LineEnd),
        (b" \r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        // request lines, RFC 9112 §3
        (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / x HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\r\n\r\n", RequestLine),
        (b"GET\r\n\r\n", RequestLine),
        (b"G(T / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1.1x\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / http/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/11\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", ParseError::Version),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", ParseError::Version),
        (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", ParseError::Version),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", ParseError::Version),
    ];
    for &(text, error) in cases {
        assert_eq!(parse(text).map(|head| head.len), Err(error), "{}", text.escape_ascii());
        assert_eq!(error.status(), if error == ParseError::Version { 505 } else { 400 });
    }
}

#[test]
fn one_empty_line_before_a_request_is_skipped() {
    let head = parse(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\nrest").unwrap();
    assert_eq!((head.len, head.method_span.range()), (29, 2..5));
}

#[test]
fn hosts_and_targets_must_agree() {
    use ParseError::{Host, HostConflict, HostDuplicate, HostMissing, Target, TargetForm};
    for (line, fields, want) in [
        ("GET / HTTP/1.1", "", Err(HostMissing)),
        ("GET http://a/ HTTP/1.1", "", Err(HostMissing)),
        ("GET / HTTP/1.0", "", Ok("")),
        ("GET http://a/ HTTP/1.0", "", Ok("a")),
        ("GET / HTTP/1.1", "Host: a\r\nHost: a\r\n", Err(HostDuplicate)),
        ("GET / HTTP/1.0", "Host: a\r\nhost: b\r\n", Err(HostDuplicate)),
        ("GET / HTTP/1.1", "Host:\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: a, b\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: a b\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: a/b\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: a@b\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: a:x\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: http://a\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: \u{e4}\r\n", Err(Host)),
        ("GET / HTTP/1.0", "Host: a b\r\n", Err(Host)),
        ("GET / HTTP/1.1", "Host: [::1]:8080\r\n", Ok("[::1]:8080")),
        ("GET http://a/ HTTP/1.1", "Host: b\r\n", Err(HostConflict)),
        ("GET http://a:81/ HTTP/1.1", "Host: a\r\n", Err(HostConflict)),
        ("GET http://a/ HTTP/1.1", "Host: A:80\r\n", Ok("a")),
        ("GET https://a:443/ HTTP/1.1", "Host: a\r\n", Ok("a:443")),
        ("GET https://a/ HTTP/1.1", "Host: a:80\r\n", Err(HostConflict)),
        ("GET http://u@a/ HTTP/1.1", "Host: a\r\n", Err(Host)),
        ("CONNECT a:443 HTTP/1.1", "Host: a:443\r\n", Ok("a:443")),
        ("CONNECT a:443 HTTP/1.1", "Host: b:443\r\n", Err(HostConflict)),
        ("CONNECT / HTTP/1.1", "Host: a\r\n", Err(TargetForm)),
        ("GET a:443 HTTP/1.1", "Host: a:443\r\n", Err(TargetForm)),
        ("GET * HTTP/1.1", "Host: a\r\n", Err(TargetForm)),
        ("OPTIONS * HTTP/1.1", "Host: a\r\n", Ok("a")),
        ("GET /#x HTTP/1.1", "Host: a\r\n", Err(Target)),
        ("GET /x?y#z HTTP/1.1", "Host: a\r\n", Err(Target)),
        ("GET x HTTP/1.1", "Host: a\r\n", Err(TargetForm)),
        ("GET x/y HTTP/1.1", "Host: a\r\n", Err(Target)),
    ] {
        let text = format!("{line}\r\n{fields}\r\n");
        let got = parse(text.as_bytes()).map(|head| &text[head.authority.range()]);
        assert_eq!(got, want, "{line} with {fields:?}");
    }
}

#[test]
fn coding_and_connection_options_follow_the_version() {
    let parse = |version: &str, lines: &str| {
        parse(format!("GET / HTTP/{version}\r\nHost: a\r\n{lines}\r\n").as_bytes())
    };
    let refused = parse("1.0", "Transfer-Encoding: chunked\r\n").map(|head| head.framing);
    assert_eq!(refused, Err(ParseError::TransferEncodingVersion));
    for (version, lines, keep_alive) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.1", "Connection: close, keep-alive\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive, close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        assert_eq!(parse(version, lines).unwrap().keep_alive, keep_alive, "{version} {lines:?}");
    }
    for (version, lines, upgrade, expect) in [
        ("1.1", "Upgrade: websocket\r\nConnection: upgrade\r\nExpect: 100-continue\r\n", true, true),
        ("1.0", "Upgrade: websocket\r\nConnection: upgrade\r\nExpect: 100-continue\r\n", false, false),
        ("1.1", "Upgrade: websocket\r\n", false, false),
        ("1.1", "Upgrade: a\r\nUpgrade: b\r\nConnection: upgrade\r\n", false, false),
        ("1.1", "Upgrade:\r\nConnection: upgrade\r\nExpect: something\r\n", false, false),
    ] {
        let head = parse(version, lines).unwrap();
        assert_eq!((head.upgrade.is_some(), head.expect_continue), (upgrade, expect), "{version} {lines:?}");
    }
}

#[test]
fn connection_options_name_fields_of_this_hop_but_not_those_for_everyone() {
    let text = with_fields(
        "Connection: X-A, host, authorization, X-FORWARDED-FOR, content-length, cookie\r\n\
         connection: x-b\r\nX-A: 1\r\nx-B: 2\r\nX-C: 3\r\nAuthorization: t\r\nX-Forwarded-For: 1.2.3.4\r\n\
         Cookie: c\r\nContent-Length: 0",
    );
    let head = parse(&text).unwrap();
    let nominated: Vec<&[u8]> =
        head.fields.iter().filter(|field| field.nominated).map(|field| field.name.of(&text)).collect();
    assert_eq!(nominated, [b"X-A", b"x-B"]);
    let options = |count: usize| parse(&with_fields(&format!("Connection: {}", "a,".repeat(count))));
    assert!(options(32).is_ok());
    assert_eq!(options(33).map(|head| head.len), Err(ParseError::ConnectionOptions));
}

#[test]
fn a_connect_request_has_no_body() {
    let connect = |lines: &str| {
        let text = format!("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n{lines}\r\n");
        parse(text.as_bytes()).map(|head| head.framing)
    };
    assert_eq!(connect(""), Ok(Framing::None));
    assert_eq!(connect("Content-Length: 0\r\n"), Ok(Framing::Length(0)));
    assert_eq!(connect("Content-Length: 1\r\n"), Err(ParseError::BodyForbidden));
    assert_eq!(connect("Transfer-Encoding: chunked\r\n"), Err(ParseError::BodyForbidden));
}

#[test]
fn limits_are_exact_and_have_their_own_status() {
    let text = b"GET /12345 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
    let limits = Limits { max_head_bytes: text.len(), max_target_bytes: 6, max_fields: 2 };
    let parse = |text: &[u8], limits: &Limits| {
        let mut head = RequestHead::new();
        request::parse(text, limits, &mut head).map_err(|error| (error, error.status()))
    };
    assert_eq!(parse(text, &limits), Ok(Status::Complete));
    let less = Limits { max_head_bytes: text.len() - 1, ..limits };
    assert_eq!(parse(text, &less), Err((ParseError::HeadTooLarge, 431)));
    assert_eq!(parse(&text[..text.len() - 1], &less), Err((ParseError::HeadTooLarge, 431)));
    assert_eq!(parse(&text[..text.len() - 2], &less), Ok(Status::Partial));
    let less = Limits { max_target_bytes: 5, ..limits };
    assert_eq!(parse(text, &less), Err((ParseError::TargetTooLong, 414)));
    let less = Limits { max_fields: 1, ..limits };
    assert_eq!(parse(text, &less), Err((ParseError::TooManyFields, 431)));
    let long_target = [b"GET /", &[b'a'; 70_000][..]].concat();
    assert_eq!(parse(&long_target, &Limits::default()), Err((ParseError::TargetTooLong, 414)));
    let many = [b"GET / HTTP/1.1\r\nHost: a\r\n", &b"a: b\r\n".repeat(300)[..], b"\r\n"].concat();
    let most = Limits { max_fields: 1000, ..Limits::default() };
    assert_eq!(parse(&many, &most), Err((ParseError::TooManyFields, 431)), "256 is the most");
}

#[test]
fn a_head_is_reused_and_forgets_what_it_knew() {
    let mut head = RequestHead::new();
    let limits = Limits::default();
    assert_eq!(request::parse(b"GET / HT", &limits, &mut head), Ok(Status::Partial));
    head.reset();
    let text = b"POST /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    assert_eq!(request::parse(text, &limits, &mut head), Ok(Status::Complete));
    assert!(!head.keep_alive && head.expect_continue);
    let text = b"GET / HTTP/1.1\r\nHost: b\r\n\r\n";
    assert_eq!(request::parse(text, &limits, &mut head), Ok(Status::Complete));
    let mut fresh = RequestHead::new();
    assert_eq!(request::parse(text, &limits, &mut fresh), Ok(Status::Complete));
    assert_eq!(head, fresh);
}
