//! Requests over TLS: told from those in clear text, whole or not at all, in either version of HTTP.

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt as _;

use crate::support::{Authority, BOTH, Gateway, OK, ONLY_12, ONLY_13, Peer, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";

async fn client(authority: &Authority, gateway: &Gateway) -> Peer {
    authority.client(BOTH, &["http/1.1"]).connect(gateway, "a.example").await
}

#[tokio::test]
async fn a_connection_carries_one_request_after_another() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    for versions in [ONLY_12, ONLY_13] {
        let mut peer = authority.client(versions, &["http/1.1"]).connect(&gateway, "a.example").await;
        peer.send(GET).await;
        let mut upstream = gateway.upstream().await;
        let head = upstream.head().await;
        assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
        upstream.send(OK).await;
        peer.is_answered_ok().await;
        // Two at once, in one record.
        peer.send([GET, GET].concat()).await;
        for _ in 0..2 {
            upstream.head().await;
            upstream.send(OK).await;
            peer.is_answered_ok().await;
        }
    }
}

#[tokio::test]
async fn a_record_that_comes_byte_by_byte_is_bounded_like_a_head() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c] }", "{ headerTimeout: 2s }", &certificates).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send(GET).await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    peer.is_answered_ok().await;
    // The idle timeout, 75s, does not begin anew with each of them.
    peer.stream.get_mut().0.write_all(&[23, 3, 3]).await.expect("sent");
    let told = peer.rest().await.expect("a close_notify");
    assert!(told.starts_with(b"HTTP/1.1 408 "), "{}", String::from_utf8_lossy(&told));
}

#[tokio::test]
async fn a_redirect_stays_on_https() {
    let authority = Authority::new();
    let redirect = "kind: Route\nmetadata: { name: old }\n\
                    spec: { matches: [{ path: { prefix: /old } }], redirect: { host: b.example } }\n";
    let documents = [authority.certificate("c", &["a.example"]), redirect.to_owned()];
    let gateway = Gateway::start("{ certificates: [c] }", "{}", &documents).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send("GET /old HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let head = peer.until("\r\n\r\n").await;
    assert!(head.contains("\r\nlocation: https://b.example/old\r\n"), "{head}");
}

#[tokio::test]
async fn large_bodies_pass_unchanged_both_ways() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let body: Vec<u8> = (0..1_000_003_u32).map(|at| (at % 251) as u8).collect();
    let mut peer = client(&authority, &gateway).await;
    let (mut reader, mut writer) = tokio::io::split(&mut peer.stream);
    let (sent, received) = (body.clone(), body.clone());
    let send = async move {
        let head = format!("POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: {}\r\n\r\n", sent.len());
        writer.write_all(head.as_bytes()).await.expect("read");
        writer.write_all(&sent).await.expect("read");
        writer.flush().await.expect("read");
    };
    let answer = async {
        let mut upstream = gateway.upstream().await;
        upstream.head().await;
        let got = upstream.bytes(received.len()).await;
        assert!(got == received, "what came is what was sent");
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", received.len())).await;
        upstream.send(&received).await;
    };
    let read = async {
        let mut got = Vec::new();
        while !got.ends_with(&body[body.len() - 1_000..]) || got.len() < body.len() {
            let count = tokio::io::AsyncReadExt::read_buf(&mut reader, &mut got).await.expect("intact");
            assert!(count > 0, "closed early after {}", got.len());
        }
        let at = got.windows(4).position(|it| it == b"\r\n\r\n").expect("a head") + 4;
        assert!(got[at..] == body, "what came back is what was sent");
    };
    within("there and back", async { tokio::join!(send, answer, read) }).await;
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_not_taken_for_whole() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send("POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    assert_eq!(upstream.bytes(8).await, b"3\r\nabc\r\n");
    // The connection ends, but TLS does not: anybody on the way could have done that.
    let (stream, _) = peer.stream.into_inner();
    drop(stream);
    let rest = within("the end", async {
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut upstream.stream, &mut rest).await.ok();
        rest
    })
    .await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "{rest:?}");
}

#[tokio::test]
async fn the_end_of_a_connection_is_said() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    let rest = peer.rest().await.expect("a close_notify before the end");
    assert!(rest.ends_with(b"\r\n\r\nok"), "{}", String::from_utf8_lossy(&rest));
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_end_well() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send(GET).await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
    peer.until("abc").await;
    drop(upstream);
    assert!(peer.rest().await.is_err(), "no close_notify, a reset");
}

#[tokio::test]
async fn a_websocket_passes() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream
        .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhi")
        .await;
    peer.until("\r\n\r\nhi").await;
    peer.send("there").await;
    assert_eq!(upstream.bytes(5).await, b"there");
    drop(upstream);
    assert!(peer.rest().await.expect("a close_notify").is_empty());
}

#[tokio::test]
async fn http2_is_spoken_where_both_want_it() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let peer = authority.client(BOTH, &["h2", "http/1.1"]).connect(&gateway, "a.example").await;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake::<_, http_body_util::combinators::BoxBody<Bytes, std::convert::Infallible>>(TokioIo::new(
            peer.stream,
        ))
        .await
        .expect("h2");
    tokio::spawn(connection);
    let body = Bytes::from(vec![7; 200_000]);
    for upload in [Bytes::new(), body] {
        let content =
            if upload.is_empty() { Empty::new().boxed() } else { Full::new(upload.clone()).boxed() };
        let request = Request::post("https://a.example/x").body(content).expect("a request");
        let answered = tokio::spawn(sender.send_request(request));
        let mut upstream = gateway.upstream().await;
        let head = upstream.head().await;
        assert!(head.contains("\r\nx-forwarded-proto: https\r\n"), "{head}");
        assert!(upstream.bytes(upload.len()).await == upload);
        upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n").await;
        upstream.send(vec![9; 200_000]).await;
        let response = within("a response", answered).await.expect("ran").expect("answered");
        assert_eq!(response.status(), 200);
        let got = within("a body", response.into_body().collect()).await.expect("whole").to_bytes();
        assert!(got.len() == 200_000 && got.iter().all(|&byte| byte == 9));
    }
}

#[tokio::test]
async fn a_gateway_that_leaves_finishes_what_is_under_way() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut peer = client(&authority, &gateway).await;
    peer.send(GET).await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    let mut idle = client(&authority, &gateway).await;
    let leaving = tokio::spawn(gateway.running.shutdown());
    assert!(idle.rest().await.expect("a close_notify").is_empty());
    upstream.send(OK).await;
    let rest = peer.rest().await.expect("a close_notify");
    assert!(
        String::from_utf8_lossy(&rest).contains("connection: close"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    within("gone", leaving).await.expect("in good order");
}
