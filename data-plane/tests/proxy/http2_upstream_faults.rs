//! Targets that speak HTTP/2 and fail: what is sent again, what is not, and what clients are told.

use bytes::Bytes;
use h2::Reason;
use h2::server::Builder;

use crate::http2_endings::frame;
use crate::http2_target::{Proxy, Session, documents};
use crate::support::{GET, Gateway, Peer, within};

const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;

/// The target's side of a connection, byte by byte, up to the first request.
async fn raw_request(proxy: &Proxy) -> Peer {
    let mut raw = Peer::new(proxy.target.accept().await);
    raw.send(frame(SETTINGS, 0, 0, &[])).await;
    raw.until("SM\r\n\r\n").await;
    request_head(&mut raw).await;
    raw
}

/// Reads up to and with a request's head.
async fn request_head(raw: &mut Peer) {
    loop {
        let head = raw.bytes(9).await;
        raw.bytes(usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])).await;
        if head[3] == HEADERS {
            return;
        }
    }
}

/// A session that has served a request.
async fn warm(proxy: &Proxy, client: &mut Peer) -> Session {
    client.send(GET).await;
    let (session, mut asked) = proxy.target.request().await;
    asked.begin(&[("content-length", "2")]).send_data(Bytes::from_static(b"ok"), true).expect("sent");
    assert_eq!(client.reply().await.body, "ok");
    session
}

/// The request comes again on the next connection, whole.
async fn is_asked_again(proxy: &Proxy, client: &mut Peer) {
    let (_session, mut asked) = proxy.target.request().await;
    assert_eq!(asked.read().await.0, b"hello");
    asked.begin(&[("content-length", "2")]).send_data(Bytes::from_static(b"ok"), true).expect("sent");
    assert_eq!(client.reply().await.status(), "200");
}

#[tokio::test]
async fn a_refused_stream_is_tried_on_a_fresh_connection_whatever_it_asks() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(POST).await;
    let (_session, mut asked) = proxy.target.request().await;
    asked.respond.send_reset(Reason::REFUSED_STREAM);
    is_asked_again(&proxy, &mut client).await;
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_is_tried_on_a_fresh_connection() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(POST).await;
    let mut raw = raw_request(&proxy).await;
    raw.send(frame(GOAWAY, 0, 0, &[0; 8])).await;
    is_asked_again(&proxy, &mut client).await;
}

#[tokio::test]
async fn a_stream_that_a_goaway_lets_finish_is_finished_and_the_next_goes_elsewhere() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let mut raw = raw_request(&proxy).await;
    raw.send(frame(GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0])).await;
    let mut other = proxy.gateway.connect().await;
    other.send(POST).await;
    is_asked_again(&proxy, &mut other).await;
    // `:status: 204`, indexed.
    raw.send(frame(HEADERS, 5, 1, &[0x89])).await;
    assert_eq!(client.reply().await.status(), "204");
}

#[tokio::test]
async fn who_is_refused_again_and_again_is_told() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    for _ in 0..3 {
        proxy.target.request().await.1.respond.send_reset(Reason::REFUSED_STREAM);
    }
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.problem().as_str()), ("502", "upstream_reset"));
}

#[tokio::test]
async fn a_reset_is_no_refusal_and_what_may_have_happened_is_not_repeated() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    let mut session = warm(&proxy, &mut client).await;
    client.send(POST).await;
    session.request().await.respond.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.reply().await.problem(), "upstream_reset");
    // The connection lives: it is not one that died while it was in the pool.
    client.send(GET).await;
    session.request().await.respond.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.reply().await.problem(), "upstream_reset");
}

#[tokio::test]
async fn a_burst_at_a_target_that_takes_few_at_a_time_is_spread_over_connections() {
    let proxy = Proxy::start().await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = proxy.gateway.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    // All are on the first connection now, which has not said how many it takes.
    proxy.gateway.turn().await;
    let mut sessions = Vec::new();
    let mut settings = Builder::new();
    settings.max_concurrent_streams(2);
    for _ in 0..6 {
        let mut session = proxy.target.session_of(&settings).await;
        let held = [session.request().await, session.request().await];
        sessions.push((session, held));
    }
    for (_, held) in &mut sessions {
        for asked in held {
            asked.answer();
        }
    }
    for mut client in clients {
        assert!(client.head().await.starts_with("HTTP/1.1 200 "));
    }
}

#[tokio::test]
async fn a_connection_that_died_is_replaced_for_what_may_be_repeated() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    let mut session = warm(&proxy, &mut client).await;
    client.send(GET).await;
    let asked = session.request().await;
    session.cut().await;
    drop(asked);
    let (_session, mut asked) = proxy.target.request().await;
    asked.answer();
    assert!(client.head().await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_ended_cleanly() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let (_session, mut asked) = proxy.target.request().await;
    let mut body = asked.begin(&[]);
    body.send_data(Bytes::from_static(b"abc"), false).expect("sent");
    client.until("abc\r\n").await;
    body.send_reset(Reason::INTERNAL_ERROR);
    assert_eq!(client.rest().await, (Vec::new(), false));
}

#[tokio::test]
async fn a_target_that_speaks_something_else_is_no_http() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let mut raw = Peer::new(proxy.target.accept().await);
    raw.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.problem().as_str()), ("502", "upstream_protocol"));
}

#[tokio::test]
async fn a_target_cannot_switch_protocols_on_a_stream() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let mut raw = raw_request(&proxy).await;
    raw.send(frame(HEADERS, 4, 1, b"\x08\x03101")).await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.problem().as_str()), ("502", "upstream_protocol"));
}

#[tokio::test]
async fn data_where_no_body_can_be_is_ignored() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let mut raw = raw_request(&proxy).await;
    let answer = |stream| [frame(HEADERS, 4, stream, &[0x89]), frame(DATA, 1, stream, b"x")].concat();
    raw.send(answer(1)).await;
    assert_eq!(client.reply().await.status(), "204");
    client.send(GET).await;
    request_head(&mut raw).await;
    raw.send(answer(3)).await;
    assert_eq!(client.reply().await.status(), "204");
}

#[tokio::test]
async fn nobody_there_is_told_at_once() {
    let unused = crate::http2_target::Target::bind().await.address;
    let gateway = Gateway::start("{}", &documents(unused, "{}", "")).await;
    assert_eq!(gateway.ask(GET).await.problem(), "upstream_connect_failed");
}

#[tokio::test]
async fn a_silent_target_is_given_up_in_time_and_its_connection_with_it() {
    let proxy = Proxy::with("{}", "  timeouts: { request: 300ms }\n").await;
    let mut client = proxy.gateway.connect().await;
    let mut session = warm(&proxy, &mut client).await;
    client.send(GET).await;
    let asked = session.request().await;
    assert_eq!(client.reply().await.problem(), "upstream_timeout");
    client.send(POST).await;
    is_asked_again(&proxy, &mut client).await;
    drop(asked);
}

#[tokio::test]
async fn a_response_that_stops_is_given_up_after_the_idle_timeout() {
    let proxy = Proxy::with("{}", "  timeouts: { idle: 300ms }\n").await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    let (_session, mut asked) = proxy.target.request().await;
    let mut body = asked.begin(&[]);
    body.send_data(Bytes::from_static(b"abc"), false).expect("sent");
    client.until("abc\r\n").await;
    assert_eq!(client.rest().await, (Vec::new(), false));
    let reason = within("reset", std::future::poll_fn(|cx| body.poll_reset(cx))).await.expect("reset");
    assert_eq!(reason, Reason::CANCEL);
}

#[tokio::test]
async fn a_session_without_requests_is_closed_after_its_idle_timeout() {
    for timeout in ["1s", "0s"] {
        let proxy = Proxy::with(&format!("{{ idle: {timeout} }}"), "").await;
        let mut client = proxy.gateway.connect().await;
        let mut session = warm(&proxy, &mut client).await;
        assert!(session.is_closed().await, "{timeout}");
    }
}
