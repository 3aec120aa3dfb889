//! HTTP/2 by prior knowledge, through the same proxy to the same HTTP/1.1 targets.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::support::{Gateway, OK, Peer, Proxy, field, within};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) async fn connect(gateway: &Gateway) -> SendRequest<Body> {
    let stream = TcpStream::connect(gateway.address).await.expect("connected");
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    tokio::spawn(connection);
    sender
}

/// A request on a stream.
pub(crate) type Asked = JoinHandle<hyper::Result<Response<Incoming>>>;

pub(crate) fn ask(sender: &mut SendRequest<Body>, request: Request<Body>) -> Asked {
    tokio::spawn(sender.send_request(request))
}

/// What is answered on a stream.
pub(crate) async fn response(asked: Asked) -> Response<Incoming> {
    within("a response", asked).await.expect("ran").expect("answered")
}

/// A request on a connection of its own that comes to the target, and its head there.
async fn exchange(proxy: &Proxy, request: Request<Body>) -> (Asked, Peer, String) {
    let asked = ask(&mut connect(&proxy.gateway).await, request);
    let (upstream, head) = proxy.target.request().await;
    (asked, upstream, head)
}

pub(crate) fn get(path: &str) -> Request<Body> {
    let uri = format!("http://a.example{path}");
    Request::builder().version(Version::HTTP_2).uri(uri).body(Empty::new().boxed()).expect("a request")
}

#[tokio::test]
async fn a_stream_is_a_request_like_any_other() {
    let proxy = Proxy::start().await;
    let mut request = get("/a//b?q");
    request.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    request.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    request.headers_mut().append("x-forwarded-for", HeaderValue::from_static("1.2.3.4"));
    let (asked, mut upstream, head) = exchange(&proxy, request).await;
    let id = field(&head, "x-request-id").expect("made").to_owned();
    assert_eq!(
        head,
        format!(
            "GET /a/b?q HTTP/1.1\r\nhost: a.example\r\ncookie: a=1; b=2\r\nx-request-id: {id}\r\n\
             x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: a.example\r\n\r\n"
        )
    );
    upstream
        .send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello")
        .await;
    let response = response(asked).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-request-id"], *id);
    assert_eq!(
        (&response.headers()["x-a"], &response.headers()["content-length"]),
        (&"1".parse().unwrap(), &"5".parse().unwrap())
    );
    assert!(!response.headers().contains_key("connection"));
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "hello");
}

#[tokio::test]
async fn bodies_and_trailers_pass_both_ways() {
    let proxy = Proxy::start().await;
    let frames = [
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"hello"))),
        Ok(Frame::trailers(HeaderMap::from_iter([(
            "x-sum".parse().unwrap(),
            HeaderValue::from_static("5"),
        )]))),
    ];
    let body = StreamBody::new(tokio_stream::iter(frames)).boxed();
    let mut request = get("/").map(|_| body);
    *request.method_mut() = http::Method::POST;
    request.headers_mut().append("te", HeaderValue::from_static("trailers"));
    let (asked, mut upstream, head) = exchange(&proxy, request).await;
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "te")), (Some("chunked"), Some("trailers")));
    assert_eq!(upstream.until("\r\n\r\n").await, "5\r\nhello\r\n0\r\nx-sum: 5\r\n\r\n");
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\nX-Done: 1\r\n\r\n")
        .await;
    let response = response(asked).await;
    let body = response.into_body().collect().await.expect("whole");
    assert_eq!(body.trailers().expect("trailers")["x-done"], "1");
    assert_eq!(body.to_bytes(), "yes");
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let proxy = Proxy::start().await;
    let large = Bytes::from(vec![b'x'; 2 << 20]);
    let mut request = get("/").map(|_| Full::new(large.clone()).boxed());
    *request.method_mut() = http::Method::PUT;
    request.headers_mut().insert("content-length", large.len().into());
    let (asked, mut upstream, head) = exchange(&proxy, request).await;
    assert_eq!(field(&head, "content-length"), Some(large.len().to_string().as_str()));
    assert!(upstream.bytes(large.len()).await == large);
    let answer = async {
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", large.len())).await;
        upstream.send(&large).await;
    };
    let read = async {
        let response = response(asked).await;
        within("the body", response.into_body().collect()).await.expect("whole").to_bytes()
    };
    let ((), got) = tokio::join!(answer, read);
    assert!(got == large);
}

#[tokio::test]
async fn streams_do_not_wait_for_each_other() {
    let proxy = Proxy::start().await;
    let mut sender = connect(&proxy.gateway).await;
    let first = ask(&mut sender, get("/1"));
    let (mut slow, _) = proxy.target.request().await;
    let second = ask(&mut sender, get("/2"));
    let (mut fast, _) = proxy.target.request().await;
    fast.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(response(second).await.status(), 200);
    slow.send("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(response(first).await.status(), 201);
}

#[tokio::test]
async fn no_more_streams_are_open_at_a_time_than_the_listener_allows() {
    let proxy = Proxy::with("{ http2: { maxConcurrentStreams: 1 } }", "").await;
    let mut sender = connect(&proxy.gateway).await;
    let first = ask(&mut sender, get("/1"));
    let (mut upstream, _) = proxy.target.request().await;
    // The first may go out before the settings are known; from now on they are.
    let second = ask(&mut sender, get("/2"));
    proxy.gateway.turn().await;
    assert!(proxy.target.is_left_alone().await, "waits for the first");
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    drop(response(first).await);
    assert!(upstream.head().await.starts_with("GET /2 "));
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(response(second).await.status(), 200);
}

#[tokio::test]
async fn a_refusal_is_a_problem_document_here_too() {
    let gateway = Gateway::start("{ maxUriBytes: 100 }", "").await;
    let mut sender = connect(&gateway).await;
    for (path, status, slug) in
        [("/x".to_owned(), 404, "no_route"), (format!("/{}", "x".repeat(100)), 414, "uri_too_long")]
    {
        let response = within("a response", sender.send_request(get(&path))).await.expect("answered");
        assert_eq!(
            (response.status(), &response.headers()["content-type"]),
            (status.try_into().unwrap(), &"application/problem+json".parse().unwrap())
        );
        let body = response.into_body().collect().await.expect("whole").to_bytes();
        let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(problem["type"], slug);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_resets_its_stream() {
    let proxy = Proxy::start().await;
    let (asked, mut upstream, _) = exchange(&proxy, get("/")).await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let response = response(asked).await;
    drop(upstream);
    assert!(within("the end", response.into_body().collect()).await.is_err());
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_its_request_with_it() {
    let proxy = Proxy::start().await;
    let (asked, mut upstream, _) = exchange(&proxy, get("/")).await;
    asked.abort();
    assert!(within("cancelled", upstream.is_closed()).await);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let proxy = Proxy::with("{ idleTimeout: 300ms }", "").await;
    let stream = TcpStream::connect(proxy.gateway.address).await.expect("connected");
    let (sender, connection) =
        handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream)).await.expect("h2");
    within("goodbye", connection).await.expect("clean");
    drop(sender);
}

#[tokio::test]
async fn leaving_finishes_open_streams() {
    let proxy = Proxy::start().await;
    let (asked, mut upstream, _) = exchange(&proxy, get("/")).await;
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
    Gateway::port_is_closed(proxy.gateway.address).await;
    upstream.send(OK).await;
    let response = response(asked).await;
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "ok");
    within("the end", leaving).await.expect("clean");
}
