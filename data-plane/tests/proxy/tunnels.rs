//! Upgraded connections.

use crate::support::{Exchange, GET, Peer, Proxy, field};

const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: y\r\n\r\n";

/// A tunnel through the gateway: its client and its target.
async fn tunnel(proxy: &Proxy) -> (Peer, Peer) {
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(UPGRADE).await;
    upstream.send(SWITCH).await;
    client.head().await;
    (client, upstream)
}

#[tokio::test]
async fn after_an_upgrade_bytes_pass_both_ways_also_those_that_came_early() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } = proxy.exchange(format!("{UPGRADE}early")).await;
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(field(&head, "sec-websocket-key"), Some("x"));
    upstream.send(format!("{SWITCH}first")).await;
    let head = client.head().await;
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(field(&head, "sec-websocket-accept"), Some("y"));
    assert_eq!(client.bytes(5).await, b"first");
    assert_eq!(upstream.bytes(5).await, b"early");
    let large = "z".repeat(200_000);
    let ((), got) = tokio::join!(client.send(&large), upstream.bytes(large.len()));
    assert!(got == large.as_bytes());
    upstream.send("pong").await;
    assert_eq!(client.bytes(4).await, b"pong");
    drop(upstream);
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn each_side_of_a_tunnel_may_end_on_its_own() {
    let proxy = Proxy::start().await;
    let (mut client, mut upstream) = tunnel(&proxy).await;
    client.send("last words").await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.expect("half closed");
    assert_eq!(upstream.rest().await, (b"last words".to_vec(), true));
    upstream.send("and an answer").await;
    drop(upstream);
    assert_eq!(client.rest().await, (b"and an answer".to_vec(), true));
}

#[tokio::test]
async fn a_silent_tunnel_is_cut() {
    let proxy = Proxy::with("{ headerTimeout: 300ms }", "  timeouts: { idle: 1500ms }\n").await;
    let (mut client, mut upstream) = tunnel(&proxy).await;
    // Longer than the timeout in all, but no pause is.
    for _ in 0..6 {
        proxy.gateway.header_timeout().await;
        client.send("x").await;
    }
    assert_eq!(upstream.bytes(6).await, b"xxxxxx");
    assert!(client.is_closed().await && upstream.is_closed().await);
}

#[tokio::test]
async fn a_refused_upgrade_is_an_ordinary_response() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(UPGRADE).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.field("connection"), &*reply.body), ("200", None, "no"));
    client.send(GET).await;
    assert!(field(&upstream.head().await, "upgrade").is_none());
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_passed_on() {
    let proxy = Proxy::start().await;
    // The settings are of this hop whether the client says so or not (RFC 7540 §3.2.1).
    for connection in ["Upgrade, HTTP2-Settings", "Upgrade"] {
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: {connection}\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        );
        let head = proxy.exchange(request).await.head;
        for name in ["upgrade", "connection", "http2-settings"] {
            assert!(field(&head, name).is_none(), "{head}");
        }
    }
}
