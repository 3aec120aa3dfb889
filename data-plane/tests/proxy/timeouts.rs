//! Every timeout cuts what it is about, and nothing else.

use std::time::{Duration, Instant};

use crate::support::{Exchange, GET, Gateway, OK, Proxy, forwarding};

#[tokio::test]
async fn a_target_that_does_not_answer_in_time_is_a_504() {
    let proxy = Proxy::with("{}", "  timeouts: { request: 200ms }\n").await;
    let mut client = proxy.gateway.connect().await;
    let began = Instant::now();
    client.send(GET).await;
    let (mut upstream, _) = proxy.target.request().await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("504", "upstream_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(upstream.is_closed().await);
    proxy.goes_on(&mut client).await;
}

#[tokio::test]
async fn the_time_to_answer_begins_when_the_request_has_ended() {
    let proxy = Proxy::with("{ headerTimeout: 500ms }", "  timeouts: { request: 200ms }\n").await;
    let Exchange { mut client, mut upstream, .. } =
        proxy.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").await;
    proxy.gateway.header_timeout().await;
    client.send("i").await;
    upstream.bytes(2).await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
}

#[tokio::test]
async fn a_response_that_pauses_too_long_is_broken_off() {
    let proxy = Proxy::with("{ headerTimeout: 300ms }", "  timeouts: { idle: 1500ms }\n").await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    // Longer than the timeout in all, but no pause is.
    for _ in 0..6 {
        proxy.gateway.header_timeout().await;
        upstream.send("x").await;
    }
    client.until("xxxxxx").await;
    let (rest, clean) = client.rest().await;
    assert!(rest.is_empty() && !clean);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn timeouts_of_0s_are_none() {
    let proxy = Proxy::with("{ headerTimeout: 300ms }", "  timeouts: { request: 0s, idle: 0s }\n").await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    proxy.gateway.header_timeout().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no").await;
    client.head().await;
    assert_eq!(client.bytes(1).await, b"o");
    proxy.gateway.header_timeout().await;
    upstream.send("k").await;
    assert_eq!(client.bytes(1).await, b"k");
}

#[tokio::test]
async fn a_client_that_pauses_in_its_body_is_a_408() {
    let proxy = Proxy::with("{}", "  timeouts: { idle: 200ms }\n").await;
    let reply = proxy.gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").await;
    assert_eq!((reply.status(), &*reply.problem()), ("408", "client_timeout"));
    assert_eq!(reply.field("connection"), Some("close"));
}

#[tokio::test]
async fn a_client_that_pauses_in_its_head_is_a_408() {
    let proxy = Proxy::with("{ headerTimeout: 200ms }", "").await;
    let began = Instant::now();
    let mut client = proxy.gateway.connect().await;
    client.send("GET / HT").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("408", "client_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let proxy = Proxy::with("{ headerTimeout: 200ms, idleTimeout: 200ms }", "").await;
    assert_eq!(proxy.gateway.connect().await.rest().await, (Vec::new(), true), "never a byte");
    let (mut client, _upstream) = proxy.pooled().await;
    let began = Instant::now();
    assert_eq!(client.rest().await, (Vec::new(), true), "between requests");
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_pooled_connection_is_closed_when_it_idles_too_long() {
    let proxy = Proxy::with_upstream("{ idle: 200ms }").await;
    let (mut client, mut upstream) = proxy.pooled().await;
    assert_eq!(upstream.rest().await, (Vec::new(), true));
    proxy.goes_on(&mut client).await;
}

#[tokio::test]
async fn without_an_idle_time_connections_are_not_pooled() {
    let proxy = Proxy::with_upstream("{ idle: 0s }").await;
    let (_client, mut upstream) = proxy.pooled().await;
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn a_target_that_takes_no_connection_in_time_is_a_504() {
    // A listening socket whose queue is full drops what comes: connecting to it hangs. This queue holds one.
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    listener.listen(0).expect("listening");
    let address = listener.local_addr().expect("bound").as_socket().expect("TCP");
    let _fills_it = tokio::net::TcpStream::connect(address).await.expect("connected");
    let documents = forwarding(&address.to_string(), "{ connect: 200ms }");
    let reply = Gateway::start("{}", &documents).await.ask(GET).await;
    assert_eq!((reply.status(), &*reply.problem()), ("504", "upstream_timeout"));
}
