//! Who gets in, how fast the second time, and who does not.

use rustls::HandshakeKind;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Authority, BOTH, Gateway, ONLY_12, ONLY_13, within};

#[tokio::test]
async fn sessions_resume_on_any_worker_and_after_a_change() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    for versions in [ONLY_12, ONLY_13] {
        let client = authority.client(versions, &["http/1.1"]);
        for attempt in 0..6 {
            let mut peer = client.connect(&gateway, "a.example").await;
            let expected = if attempt == 0 { HandshakeKind::Full } else { HandshakeKind::Resumed };
            // A hello retry would be a full handshake too, but with one more round trip.
            assert_eq!(peer.handshake(), expected, "{versions:?} {attempt}");
            peer.send("GET / HTTP/1.1\r\n\r\n").await;
            assert!(peer.until("\r\n\r\n").await.starts_with("HTTP/1.1 400 "), "no host");
        }
        gateway.change(&[authority.certificate("c", &["a.example"])]).await;
        let peer = client.connect(&gateway, "a.example").await;
        assert_eq!(peer.handshake(), HandshakeKind::Resumed, "{versions:?}");
    }
}

#[tokio::test]
async fn versions_below_the_lowest_are_refused() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c], minVersion: '1.3' }", "{}", &certificates).await;
    let old = authority.client(ONLY_12, &[]).try_connect(gateway.address, "a.example").await;
    assert!(old.is_err_and(|error| error.to_string().contains("ProtocolVersion")), "an alert says why");
    gateway.counts(r#"gateway_tls_handshakes_total{listener="default/public",result="failed"} 1"#).await;
    authority.client(BOTH, &[]).connect(&gateway, "a.example").await;
    gateway.counts(r#"gateway_tls_handshakes_total{listener="default/public",result="ok"} 1"#).await;
}

#[tokio::test]
async fn clients_that_speak_something_else_are_refused() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let other = authority.client(BOTH, &["imap"]).try_connect(gateway.address, "a.example").await;
    assert!(other.is_err_and(|error| error.to_string().contains("NoApplicationProtocol")));
    let mut plain = TcpStream::connect(gateway.address).await.expect("connected");
    plain.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.expect("sent");
    let mut answer = Vec::new();
    within("the end", plain.read_to_end(&mut answer)).await.ok();
    assert!(!answer.starts_with(b"HTTP"), "nothing in clear text: {answer:?}");
    gateway.counts(r#"gateway_tls_handshakes_total{listener="default/public",result="failed"} 2"#).await;
}

#[tokio::test]
async fn a_handshake_that_takes_too_long_is_cut_off() {
    let authority = Authority::new();
    let certificates = [authority.certificate("c", &["a.example"])];
    let gateway = Gateway::start("{ certificates: [c] }", "{ headerTimeout: 100ms }", &certificates).await;
    let mut silent = TcpStream::connect(gateway.address).await.expect("connected");
    // The beginning of a record, and no more.
    silent.write_all(&[22, 3, 1]).await.expect("sent");
    let mut answer = Vec::new();
    within("the end", silent.read_to_end(&mut answer)).await.expect("closed");
    assert!(answer.is_empty(), "{answer:?}");
    gateway.counts(r#"gateway_tls_handshakes_total{listener="default/public",result="timeout"} 1"#).await;
    gateway.counts(r#"gateway_connections{listener="default/public"} 0"#).await;
}
