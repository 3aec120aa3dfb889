//! Every timeout cuts what it is about, and nothing else.

use std::time::{Duration, Instant};

use crate::support::{Gateway, Target};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_target_that_does_not_answer_in_time_is_a_504() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{}", "{}", &target, "  timeouts: { request: 200ms }\n").await;
    let mut client = gateway.connect().await;
    let began = Instant::now();
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("504", "upstream_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(upstream.is_closed().await);
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok", "the client's connection goes on");
}

#[tokio::test]
async fn the_time_to_answer_begins_when_the_request_has_ended() {
    let target = Target::bind().await;
    let gateway =
        Gateway::with("{ headerTimeout: 500ms }", "{}", &target, "  timeouts: { request: 200ms }\n").await;
    let mut client = gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    gateway.header_timeout().await;
    client.send("i").await;
    upstream.bytes(2).await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
}

#[tokio::test]
async fn a_response_that_pauses_too_long_is_broken_off() {
    let target = Target::bind().await;
    let gateway =
        Gateway::with("{ headerTimeout: 300ms }", "{}", &target, "  timeouts: { idle: 1500ms }\n").await;
    let mut client = gateway.connect().await;
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
    // Longer than the timeout in all, but no pause is.
    for _ in 0..6 {
        gateway.header_timeout().await;
        upstream.send("x").await;
    }
    client.until("xxxxxx").await;
    let (rest, clean) = client.rest().await;
    assert!(rest.is_empty() && !clean);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn a_client_that_pauses_in_its_body_is_a_408() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{}", "{}", &target, "  timeouts: { idle: 200ms }\n").await;
    let reply = gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nh").await;
    assert_eq!((reply.status(), &*reply.problem()), ("408", "client_timeout"));
    assert_eq!(reply.field("connection"), Some("close"));
}

#[tokio::test]
async fn a_client_that_pauses_in_its_head_is_a_408() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{ headerTimeout: 200ms }", "{}", &target, "").await;
    let began = Instant::now();
    let mut client = gateway.connect().await;
    client.send("GET / HT").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("408", "client_timeout"));
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{ headerTimeout: 200ms, idleTimeout: 200ms }", "{}", &target, "").await;
    assert_eq!(gateway.connect().await.rest().await, (Vec::new(), true), "never a byte");
    let mut client = gateway.connect().await;
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
    let began = Instant::now();
    assert_eq!(client.rest().await, (Vec::new(), true), "between requests");
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_pooled_connection_is_closed_when_it_idles_too_long() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{}", "{ idle: 200ms }", &target, "").await;
    let mut client = gateway.connect().await;
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
    assert_eq!(upstream.rest().await, (Vec::new(), true));
    client.send(GET).await;
    target.accept().await.head().await;
}

#[tokio::test]
async fn without_an_idle_time_connections_are_not_pooled() {
    let target = Target::bind().await;
    let gateway = Gateway::with("{}", "{ idle: 0s }", &target, "").await;
    let mut client = gateway.connect().await;
    client.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
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
    let documents = format!(
        "kind: Upstream\nmetadata: {{ name: t }}\nspec: {{ targets: [{{ address: '{address}' }}], timeouts: {{ connect: 200ms }} }}\n---\n\
         kind: Route\nmetadata: {{ name: r }}\nspec: {{ forward: {{ backends: [{{ upstream: t }}] }} }}\n"
    );
    let gateway = Gateway::start("{}", &documents).await;
    let reply = gateway.ask(GET).await;
    assert_eq!((reply.status(), &*reply.problem()), ("504", "upstream_timeout"));
}
