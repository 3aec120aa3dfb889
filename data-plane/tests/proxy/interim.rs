//! What becomes of a request whose target sends an interim response and then fails, or fails as its body begins: the
//! client is told, nothing of what was thrown away is read again, and no gauge is left behind.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::http2::{ask, connect, get, response};
use crate::support::{Exchange, GET, OK, Peer, Proxy, Reply, field, within};

const EARLY: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload; as=style\r\n\r\n";

/// No gauge is left behind.
const AT_REST: &str = "gateway_requests_in_flight 0";

/// What a target does after its interim response: says this and, if so, closes; then what the client gets.
const FAILURES: [(&str, bool, &str, &str); 4] = [
    ("", true, "502", "upstream_reset"),
    ("nonsense\r\n\r\n", false, "502", "upstream_protocol"),
    (
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        false,
        "502",
        "upstream_protocol",
    ),
    ("", false, "504", "upstream_timeout"),
];

/// The final response, whatever precedes it.
async fn final_reply(client: &mut Peer) -> Reply {
    loop {
        let head = client.head().await;
        if head.starts_with("HTTP/1.1 103 ") {
            continue;
        }
        let length = field(&head, "content-length").expect("a length").parse().expect("a number");
        let body = String::from_utf8(client.bytes(length).await).expect("text");
        return Reply { head, body };
    }
}

#[tokio::test]
async fn a_target_that_fails_after_an_interim_response_is_a_failure_like_any_other() {
    let proxy = Proxy::with("{}", "  timeouts: { request: 300ms }\n").await;
    for (said, closes, status, slug) in FAILURES {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
        upstream.send(format!("{EARLY}{said}")).await;
        let upstream = (!closes).then_some(upstream);
        let reply = final_reply(&mut client).await;
        assert_eq!((reply.status(), &*reply.problem()), (status, slug), "{said:?}");
        assert_eq!(reply.field("link"), None, "{said:?}");
        drop(upstream);
        proxy.goes_on(&mut client).await;
    }
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn interim_responses_without_end_are_a_502() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send(EARLY.repeat(33)).await;
    assert_eq!(final_reply(&mut client).await.problem(), "upstream_protocol");
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn a_body_that_grows_too_large_after_an_interim_response_is_a_413() {
    let proxy = Proxy::with("{ maxBodyBytes: 10 }", "").await;
    let request = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(request).await;
    upstream.send(EARLY).await;
    assert!(client.head().await.starts_with("HTTP/1.1 103 "));
    client.send("6\r\n world\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("413", "body_too_large"));
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn over_http2_a_target_that_fails_after_an_interim_response_is_a_failure_like_any_other() {
    let proxy = Proxy::with("{}", "  timeouts: { request: 300ms }\n").await;
    let mut sender = connect(&proxy.gateway).await;
    for (said, closes, status, slug) in FAILURES {
        let asked = ask(&mut sender, get("/"));
        let (mut upstream, _) = proxy.target.request().await;
        upstream.send(format!("{EARLY}{said}")).await;
        let upstream = (!closes).then_some(upstream);
        let response = response(asked).await;
        assert_eq!(response.status().as_str(), status, "{said:?}");
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(problem["type"], slug, "{said:?}");
        drop(upstream);
    }
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn over_http2_a_body_that_grows_too_large_after_an_interim_response_is_a_413() {
    let proxy = Proxy::with("{ maxBodyBytes: 10 }", "").await;
    let mut sender = connect(&proxy.gateway).await;
    let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let mut request = get("/").map(|_| StreamBody::new(ReceiverStream::new(body)).boxed());
    *request.method_mut() = http::Method::POST;
    let asked = ask(&mut sender, request);
    let (mut upstream, _) = proxy.target.request().await;
    upstream.send(EARLY).await;
    for _ in 0..2 {
        frames.send(Ok(Frame::data(Bytes::from_static(b"hello!")))).await.expect("wanted");
    }
    let response = response(asked).await;
    assert_eq!(response.status(), 413);
    drop(frames);
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn a_body_that_is_none_from_its_first_byte_is_a_502() {
    let proxy = Proxy::start().await;
    let head = "HTTP/1.1 200 OK\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let large = format!("2000\r\n{}\r\nnonsense\r\n", "x".repeat(0x2000));
    for body in ["nonsense\r\n", "2\r\nok\r\nnonsense\r\n", "2\r\nok+"] {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
        upstream.send(format!("{head}{body}")).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &*reply.problem()), ("502", "upstream_protocol"), "{body:?}");
        assert_eq!(reply.field("x-a"), None, "{body:?}");
        assert!(upstream.is_closed().await, "{body:?}");
        proxy.goes_on(&mut client).await;
        let mut sender = connect(&proxy.gateway).await;
        let asked = ask(&mut sender, get("/"));
        let (mut upstream, _) = proxy.target.request().await;
        upstream.send(format!("{head}{body}")).await;
        let response = response(asked).await;
        assert_eq!((response.status(), response.headers().get("x-a")), (502.try_into().unwrap(), None));
        assert!(response.into_body().collect().await.is_ok());
    }
    // What has left cannot be taken back.
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send(format!("{head}{large}")).await;
    let (got, clean) = client.rest().await;
    assert!(got.starts_with(b"HTTP/1.1 200 ") && !clean);
    proxy.gateway.counts(AT_REST).await;
}

#[tokio::test]
async fn a_client_of_http2_gets_them_too() {
    let proxy = Proxy::start().await;
    let stream = TcpStream::connect(proxy.gateway.address).await.expect("connected");
    let (mut sender, connection) = within("h2", h2::client::handshake(stream)).await.expect("h2");
    let driving = tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(()).expect("a request");
    let (mut response, _) = sender.send_request(request, true).expect("sent");
    let (mut upstream, _) = proxy.target.request().await;
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x\r\nX: 1\r\n\r\n").await;
    let hints = within("hints", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    let hints = hints.expect("before the last").expect("sound");
    assert_eq!((hints.status().as_u16(), &hints.headers()["link"]), (103, &"</a.css>".parse().unwrap()));
    assert_eq!(hints.headers().len(), 1);
    upstream.send(OK).await;
    assert_eq!(within("a response", response).await.expect("answered").status(), 200);
    driving.abort();
}
