//! Requests beside hyper's server: what we accept hyper accepts with the same meaning. What only hyper
//! accepts is listed in [`ONLY_HYPER`], each with an example that is checked and the reason.
//! (Bounds differ too: ours are [`Limits`](gateway_http1::Limits) and `ChunkedLimits`, hyper's its own.)

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;

use gateway_http1::ParseError::*;
use gateway_http1::body::BodyError;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use proptest::prelude::*;

use crate::generate;
use crate::hyper_io::{self, Io, Wire};
use crate::ours::{self, Seen, Stop};

/// The requests that hyper's server hands to a service, bodies included.
fn hyper_requests(input: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = seen.clone();
        async move {
            if let Some(message) = read(request).await {
                seen.borrow_mut().push(message);
            }
            // 404: a CONNECT that is refused does not turn the connection into a tunnel.
            Ok::<_, Infallible>(Response::builder().status(404).body(Empty::<Bytes>::new()).unwrap())
        }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    let connection =
        server.header_read_timeout(None).serve_connection(Io::from(Wire::to_server(input)), service);
    let _ = hyper_io::run(connection);
    Rc::try_unwrap(seen).map_or_else(|shared| shared.take(), RefCell::into_inner)
}

async fn read(request: Request<Incoming>) -> Option<Seen> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.ok()?;
    let uri = &parts.uri;
    let start = vec![
        parts.method.to_string(),
        uri.authority().map_or(String::new(), |authority| authority.to_string()),
        uri.path().to_owned(),
        uri.query().unwrap_or("none").to_owned(),
        format!("{:?}", parts.version),
    ];
    let trailers = body.trailers().map(hyper_io::trailers).unwrap_or_default();
    let body = body.to_bytes().to_vec();
    Some(Seen { start, fields: hyper_io::fields(&parts.headers), body, trailers })
}

/// Shapes that hyper accepts and we refuse: the reason we give, why it is right to, and an example.
const ONLY_HYPER: &[(Stop, &str, &[u8])] = &[
    (
        Stop::Head(LineEnd),
        "RFC 9112 §2.2: a recipient MAY take a bare LF for a line end; two readers then see other lines",
        b"GET / HTTP/1.1\nHost: a\n\n",
    ),
    (
        Stop::Head(EmptyLine),
        "RFC 9112 §2.2: at least one empty line SHOULD be ignored; we ignore one CRLF and no more",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Head(HostMissing),
        "RFC 9112 §3.2: MUST be answered with 400 (hyper leaves it to the service)",
        b"GET / HTTP/1.1\r\n\r\n",
    ),
    (
        Stop::Head(HostDuplicate),
        "RFC 9112 §3.2: MUST be answered with 400",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Head(Host),
        "RFC 9112 §3.2: an invalid host MUST be answered with 400; RFC 9110 §4.2.4: userinfo is an error",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    ),
    (
        Stop::Head(HostConflict),
        "RFC 9112 §3.2.2: the target wins over Host; a gateway that routes by host does not guess",
        b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Head(TargetForm),
        "RFC 9112 §3.2.3, §3.2.4: authority-form is for CONNECT, asterisk-form for OPTIONS only",
        b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
    ),
    (
        Stop::Head(Target),
        "RFC 9112 §3.2: no form of target has a fragment (hyper drops it), or another scheme than http(s)",
        b"GET /x#y HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Head(RequestLine),
        "RFC 3986 §2: a target is visible ASCII (hyper lets UTF-8 through)",
        b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    (
        Stop::Head(ContentLengthDuplicate),
        "RFC 9112 §6.3: equal duplicates MAY be merged or refused",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ),
    (
        Stop::Head(LengthAndCoding),
        "RFC 9112 §6.1, §6.3: both MAY be refused; ought to be handled as an error",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Stop::Head(TransferEncoding),
        "RFC 9112 §6.1: chunked MUST NOT be applied twice; hyper looks at the end of the last line only",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Stop::Head(TransferCodingUnknown),
        "RFC 9112 §6.1: 501 for a coding that is not understood; hyper leaves gzip to the service",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        Stop::Head(BodyForbidden),
        "RFC 9110 §9.3.6: a CONNECT request has no content",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\nContent-Length: 1\r\n\r\nx",
    ),
    (
        Stop::Head(ConnectionOptions),
        "RFC 9110 §7.6.1 has no bound; ours keeps their comparison with all fields linear",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a,a\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::ChunkSize),
        "RFC 9112 §7.1: a size is hex digits only (hyper skips whitespace behind it; digits beyond 16 zeros)",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::ChunkExtension),
        "RFC 9112 §7.1.1: BWS and malformed extensions MUST NOT be sent (hyper skips to the next CR)",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1; =\r\nx\r\n0\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::TrailerForbidden),
        "RFC 9110 §6.5.1: no framing or routing field in a trailer section",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 5\r\n\r\n",
    ),
    (
        Stop::Body(BodyError::Trailers),
        "RFC 9112 §2.2: hyper ends trailers at a bare LF but reads on to a CRLF, swallowing the next request",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
];

#[test]
fn what_only_hyper_accepts_is_listed_with_its_section() {
    for (stop, why, input) in ONLY_HYPER {
        assert_eq!(ours::requests(input), (vec![], *stop), "{}", input.escape_ascii());
        assert_eq!(hyper_requests(input).len(), 1, "no longer only hyper: {why}");
        assert!(why.contains('§'));
    }
}

/// Holds one stream of requests to the rule.
fn compare(input: &[u8]) {
    let (ours, stop) = ours::requests(input);
    let hypers = hyper_requests(input);
    let show = || input.escape_ascii().to_string();
    for (at, message) in ours.iter().enumerate() {
        assert_eq!(hypers.get(at), Some(message), "request {at} of {}", show());
    }
    if hypers.len() > ours.len() {
        let listed = ONLY_HYPER.iter().any(|(known, ..)| *known == stop);
        assert!(listed, "only hyper accepts request {} ({stop:?}) of {}", ours.len(), show());
    }
}

proptest! {
    #![proptest_config(generate::cases(20_000))]

    #[test]
    fn what_we_accept_hyper_accepts_with_the_same_meaning(choices in generate::choices()) {
        compare(&generate::requests(&choices));
    }
}
