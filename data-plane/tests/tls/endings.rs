//! How connections under TLS end when they should: not late, not for the wrong reason, and never so that a part is taken
//! for the whole.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Authority, BOTH, Gateway, OK, ONLY_13, within};

#[tokio::test]
async fn a_handshake_that_is_not_finished_does_not_hold_up_leaving() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c] }", "{ headerTimeout: 60s }", &certificates).await;
    let mut silent = TcpStream::connect(gateway.address).await.expect("connected");
    // The beginning of a record, and no more.
    silent.write_all(&[22, 3, 1]).await.expect("sent");
    gateway.counts(r#"gateway_connections{listener="default/public"} 1"#).await;
    within("gone", gateway.running.shutdown()).await;
    assert_eq!(silent.read(&mut [0; 10]).await.ok(), Some(0));
}

#[tokio::test]
async fn records_that_carry_nothing_do_not_keep_an_idle_connection_open() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c] }", "{ idleTimeout: 1s }", &certificates).await;
    let mut peer = authority.client(ONLY_13, &["http/1.1"]).connect(&gateway, "a.example").await;
    peer.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    peer.is_answered_ok().await;
    within("closed", async {
        loop {
            // A KeyUpdate.
            let renewed = peer.stream.get_mut().1.refresh_traffic_keys();
            if renewed.is_err() || peer.stream.flush().await.is_err() {
                return;
            }
            let mut byte = [0];
            let more = peer.stream.read(&mut byte);
            if let Ok(ended) = tokio::time::timeout(Duration::from_millis(200), more).await {
                assert_eq!(ended.ok(), Some(0), "a close_notify");
                return;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_is_cut_at_the_deadline_does_not_end_well() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start_with("{ certificates: [c] }", "{}", &certificates, |config| {
        config.drain_timeout = Duration::from_millis(300);
    })
    .await;
    let mut peer = authority.client(BOTH, &["http/1.1"]).connect(&gateway, "a.example").await;
    // Nothing but the end of the connection ends such a response.
    peer.send("GET / HTTP/1.0\r\nHost: a.example\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
    peer.until("abc").await;
    within("gone", gateway.running.shutdown()).await;
    assert!(peer.rest().await.is_err(), "no close_notify");
}

#[tokio::test]
async fn connections_in_clear_text_end_when_their_listener_begins_to_want_tls() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c] }", "{}", &certificates).await;
    gateway.speak("http", &certificates).await;
    let mut plain = TcpStream::connect(gateway.address).await.expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("sent");
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    // The next request may come to another worker.
    upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
    let mut answer = Vec::new();
    while !answer.ends_with(b"ok") {
        assert!(within("an answer", plain.read_buf(&mut answer)).await.expect("intact") > 0);
    }
    gateway.speak("https", &certificates).await;
    assert_eq!(within("closed", plain.read(&mut [0; 10])).await.expect("in good order"), 0);
    let mut peer = authority.client(BOTH, &["http/1.1"]).connect(&gateway, "a.example").await;
    peer.send("GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    peer.is_answered_ok().await;
}
