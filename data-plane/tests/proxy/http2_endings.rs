//! How HTTP/2 connections end whose clients do not do their part, byte by byte, and how streams end that are answered
//! before they are read.

use std::convert::Infallible;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::http2::{ask, connect, get, response};
use crate::http2_target;
use crate::support::{Gateway, OK, Peer, Proxy, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
/// `GET http://a/`, in indexed fields but for the authority.
const GET_BLOCK: &[u8] = &[0x82, 0x86, 0x84, 0x41, 1, b'a'];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut frame = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    frame.extend_from_slice(payload);
    frame
}

async fn begin(gateway: &Gateway, frames: &[Vec<u8>]) -> Peer {
    let mut client = gateway.connect().await;
    client.send([PREFACE, &frames.concat()].concat()).await;
    client
}

/// The code with which a stream is reset, whatever is said before.
async fn reset_code(client: &mut Peer, stream: u32) -> u8 {
    loop {
        let head = client.bytes(9).await;
        let payload =
            client.bytes(usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])).await;
        if head[3] == RST_STREAM && head[5..] == stream.to_be_bytes() {
            return payload[3];
        }
    }
}

#[tokio::test]
async fn requests_that_are_withdrawn_at_once_are_not_begun_and_not_without_bound() {
    let proxy = Proxy::with("{ http2: { maxConcurrentStreams: 1 } }", "").await;
    let ask = |stream| frame(HEADERS, 5, stream, GET_BLOCK);
    let withdraw = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    let frames = [frame(SETTINGS, 0, 0, &[]), ask(1), withdraw(1), ask(3), withdraw(3), ask(5)];
    let mut client = begin(&proxy.gateway, &frames).await;
    assert_eq!(reset_code(&mut client, 5).await, 7, "refused");
    assert!(proxy.target.is_left_alone().await);
    // Those are over now.
    client.send(ask(7)).await;
    proxy.target.request().await;
}

#[tokio::test]
async fn a_response_is_not_over_while_its_client_has_no_room_for_it() {
    let proxy = Proxy::with("{}", "  timeouts: { idle: 300ms }\n").await;
    let one_byte = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]);
    let mut client = begin(&proxy.gateway, &[one_byte, frame(HEADERS, 5, 1, GET_BLOCK)]).await;
    let (mut upstream, _) = proxy.target.request().await;
    upstream.send(OK).await;
    assert_eq!(reset_code(&mut client, 1).await, 2, "broken off");
    proxy
        .gateway
        .counts(
            r#"gateway_requests_total{route="default/all",method="GET",code="200",reason="client_closed"} 1"#,
        )
        .await;
}

#[tokio::test]
async fn small_pieces_that_a_target_does_not_take_do_not_cost_the_connection() {
    let proxy = http2_target::Proxy::start().await;
    let post = [&[0x83], &GET_BLOCK[1..]].concat();
    let mut client = begin(&proxy.gateway, &[frame(SETTINGS, 0, 0, &[]), frame(HEADERS, 4, 1, &post)]).await;
    let mut closed = h2::server::Builder::new();
    closed.initial_window_size(1);
    let mut session = proxy.target.session_of(&closed).await;
    let _held = session.request().await;
    client.send(frame(DATA, 0, 1, &[b'x'; 20]).repeat(5_000)).await;
    client.send(frame(HEADERS, 5, 3, GET_BLOCK)).await;
    let other = session.request().await;
    assert_eq!(other.request.method(), http::Method::GET);
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_closed_all_the_same() {
    let settings = || frame(SETTINGS, 0, 0, &[]);
    let short_idle = "{ idleTimeout: 300ms, headerTimeout: 60s }";
    let short_head = "{ idleTimeout: 60s, headerTimeout: 300ms }";
    for (what, http, frames) in [
        ("preface only", short_head, vec![]),
        ("never a request", short_head, vec![settings()]),
        ("a request without end", short_head, vec![settings(), frame(HEADERS, 0, 1, &GET_BLOCK[..1])]),
        ("idle after a request", short_idle, vec![settings(), frame(HEADERS, 5, 1, GET_BLOCK)]),
    ] {
        let gateway = Gateway::start(http, "").await;
        let began = Instant::now();
        let mut client = begin(&gateway, &frames).await;
        client.rest().await;
        assert!(began.elapsed() >= Duration::from_millis(300), "{what}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_answer_does_not_hold_up_leaving() {
    let gateway = Gateway::start("{ headerTimeout: 60s }", "").await;
    let mut client = begin(&gateway, &[frame(SETTINGS, 0, 0, &[])]).await;
    // The settings of the other side: it has taken up the connection.
    client.bytes(9).await;
    within("the end", gateway.running.shutdown()).await;
    client.rest().await;
}

#[tokio::test]
async fn a_client_that_is_answered_early_may_finish_what_it_says() {
    let respond = "kind: Route\nmetadata: { name: r }\nspec: { respond: { status: 200, body: hi } }\n";
    let gateway = Gateway::start("{}", respond).await;
    let mut sender = connect(&gateway).await;
    let (frames, body) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let mut request = get("/").map(|_| StreamBody::new(ReceiverStream::new(body)).boxed());
    *request.method_mut() = http::Method::POST;
    let response = within("a response", sender.send_request(request)).await.expect("answered");
    assert_eq!(response.status(), 200);
    assert_eq!(response.into_body().collect().await.expect("whole").to_bytes(), "hi");
    gateway.turn().await;
    assert!(!frames.is_closed(), "the stream was reset");
    for _ in 0..3 {
        within("read", frames.send(Ok(Frame::data(Bytes::from_static(&[b'x'; 10_000])))))
            .await
            .expect("read");
    }
    // Not for ever: it is told to stop.
    within("told to stop", frames.closed()).await;
}

#[tokio::test]
async fn a_connection_lives_on_after_a_response_that_took_longer_than_it_may_idle() {
    let proxy = Proxy::with("{ idleTimeout: 300ms, headerTimeout: 1s }", "").await;
    let mut sender = connect(&proxy.gateway).await;
    let first = ask(&mut sender, get("/1"));
    let (mut upstream, _) = proxy.target.request().await;
    proxy.gateway.header_timeout().await;
    upstream.send(OK).await;
    let body = response(first).await.into_body();
    assert_eq!(within("the body", body.collect()).await.expect("whole").to_bytes(), "ok");
    let second = ask(&mut sender, get("/2"));
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(response(second).await.status(), 200);
}
