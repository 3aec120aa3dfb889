//! Responses beside hyper's client: what we accept hyper accepts with the same meaning. What only hyper
//! accepts is listed in [`ONLY_HYPER`], each with an example that is checked and the reason.
//! (Bounds differ too: ours are [`Limits`](gateway_http1::Limits) and `ChunkedLimits`, hyper's its own.)

use std::future::poll_fn;
use std::pin::pin;

use gateway_http1::Method;
use gateway_http1::ParseError::*;
use gateway_http1::body::BodyError;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use proptest::prelude::*;

use crate::generate;
use crate::hyper_io::{self, Io, Wire};
use crate::ours::{self, Seen, Stop};

/// The response that hyper's client gives out for a request of this method, body included.
fn hyper_response(input: &[u8], method: Method) -> Option<Seen> {
    let io = Io::from(Wire::to_client(input));
    let request = Request::builder()
        .method(method.name().unwrap())
        .uri(if method == Method::Connect { "a:80" } else { "/" })
        .body(Empty::<Bytes>::new())
        .unwrap();
    let exchange = async {
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        let mut connection = pin!(connection);
        let mut open = true;
        let mut exchange = pin!(async {
            let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
            let body = body.collect().await.ok()?;
            let start = vec![parts.status.as_u16().to_string(), format!("{:?}", parts.version)];
            let trailers = body.trailers().map(hyper_io::trailers).unwrap_or_default();
            let body = body.to_bytes().to_vec();
            Some(Seen { start, fields: hyper_io::fields(&parts.headers), body, trailers })
        });
        poll_fn(|cx| {
            let result = exchange.as_mut().poll(cx);
            if open && result.is_pending() {
                open = connection.as_mut().poll(cx).is_pending();
                return exchange.as_mut().poll(cx);
            }
            result
        })
        .await
    };
    hyper_io::run(exchange).flatten()
}

/// Shapes that hyper accepts and we refuse: the reason we give, why it is right to, and an example.
const ONLY_HYPER: &[(Stop, &str, &[u8])] = &[
    (
        Stop::Head(LineEnd),
        "RFC 9112 §2.2: a bare LF MAY be taken for a line end; the client may see other lines than we do",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    ),
    (
        Stop::Head(EmptyLine),
        "RFC 9112 §2.2 speaks of requests only: an empty line before a response is left over from a body",
        b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Stop::Head(LengthAndCoding),
        "RFC 9112 §6.3: ought to be handled as an error",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Stop::Head(ContentLengthDuplicate),
        "RFC 9112 §6.3: equal duplicates MAY be merged or refused",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        Stop::Head(ContentLength),
        "RFC 9110 §8.6: a list of equal values MAY be merged or refused; hyper ignores the field with HEAD, 204, 304",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0, 0\r\n\r\n",
    ),
    (
        Stop::Head(TransferEncoding),
        "RFC 9112 §6.3: hyper reads until the close when chunked is not last, which the next hop may not",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    (
        Stop::Head(TransferCodingUnknown),
        "RFC 9112 §6.1: the gateway does not send TE, so no other coding may be used",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Stop::Head(TransferEncodingVersion),
        "RFC 9112 §6.1: framing of an HTTP/1.0 message with it MUST be treated as faulty (hyper: not with 204, 304, HEAD)",
        b"HTTP/1.0 304 x\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    (
        Stop::Head(BodyForbidden),
        "RFC 9110 §8.6, RFC 9112 §6.1: MUST NOT be sent with 1xx and 204; a body may follow that hyper takes for a response",
        b"HTTP/1.1 204 x\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Stop::Head(ConnectionOptions),
        "RFC 9110 §7.6.1 has no bound; ours keeps their comparison with all fields linear",
        b"HTTP/1.1 204 x\r\nConnection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::ChunkSize),
        "RFC 9112 §7.1: a size is hex digits only",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::ChunkExtension),
        "RFC 9112 §7.1.1: BWS and malformed extensions MUST NOT be sent",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1; =\r\nx\r\n0\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::TrailerForbidden),
        "RFC 9110 §6.5.1: no framing or routing field in a trailer section",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::Trailers),
        "RFC 9112 §2.2: hyper ends trailers at a bare LF but reads on to a CRLF, swallowing what is between",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\nHTTP/1.1 200 OK\r\n\r\n",
    ),
];

#[test]
fn what_only_hyper_accepts_is_listed_with_its_section() {
    for (stop, why, input) in ONLY_HYPER {
        assert_eq!(ours::response(input, Method::Get), Err(*stop), "{}", input.escape_ascii());
        assert!(hyper_response(input, Method::Get).is_some(), "no longer only hyper: {why}");
        assert!(why.contains('§'));
    }
}

/// Holds one response to the rule.
fn compare(input: &[u8], method: Method) {
    let hypers = hyper_response(input, method);
    match ours::response(input, method) {
        Ok(message) => assert_eq!(hypers, Some(message), "{method:?} {}", input.escape_ascii()),
        Err(stop) => {
            let listed = ONLY_HYPER.iter().any(|(known, ..)| *known == stop);
            assert!(hypers.is_none() || listed, "only hyper accepts ({stop:?}) {}", input.escape_ascii());
        }
    }
}

proptest! {
    #![proptest_config(generate::cases(20_000))]

    #[test]
    fn what_we_accept_hyper_accepts_with_the_same_meaning(choices in generate::choices(), method in 0usize..3) {
        compare(&generate::response(&choices), [Method::Get, Method::Head, Method::Connect][method]);
    }
}
