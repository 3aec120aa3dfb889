//! Leaving in good order.

use std::time::Duration;

use crate::support::{Gateway, Target, within};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn route(target: &Target) -> String {
    format!(
        "kind: Upstream\nmetadata: {{ name: t }}\nspec: {{ targets: [{{ address: '{}' }}] }}\n---\n\
         kind: Route\nmetadata: {{ name: r }}\nspec: {{ forward: {{ backends: [{{ upstream: t }}] }} }}\n",
        target.address
    )
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_idle_connections_close() {
    let target = Target::bind().await;
    let gateway = Gateway::start("{}", &route(&target)).await;
    let mut busy = gateway.connect().await;
    busy.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    let mut idle = gateway.connect().await;
    idle.send(GET).await;
    let mut other = target.accept().await;
    other.head().await;
    other.send(OK).await;
    assert_eq!(idle.reply().await.body, "ok");
    let address = gateway.address;
    let leaving = tokio::spawn(gateway.running.shutdown());
    assert_eq!(idle.rest().await, (Vec::new(), true), "closed at once");
    Gateway::port_is_closed(address).await;
    upstream.send(OK).await;
    let reply = busy.reply().await;
    assert_eq!((&*reply.body, reply.field("connection")), ("ok", Some("close")));
    assert!(busy.is_closed().await);
    within("the end", leaving).await.expect("clean");
}

#[tokio::test]
async fn during_the_delay_everything_is_served_but_told_to_leave() {
    let target = Target::bind().await;
    let gateway =
        Gateway::start_with("{}", &route(&target), |config| config.drain_delay = Duration::from_secs(2))
            .await;
    let mut old = gateway.connect().await;
    old.send(GET).await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send(OK).await;
    assert_eq!(old.reply().await.field("connection"), None);
    let address = gateway.address;
    let leaving = tokio::spawn(gateway.running.shutdown());
    // Connection after connection, until one is told.
    within("a response that says close", async {
        loop {
            let mut client =
                crate::support::Peer::new(tokio::net::TcpStream::connect(address).await.expect("served"));
            client.send(GET).await;
            upstream.head().await;
            upstream.send(OK).await;
            if client.reply().await.field("connection") == Some("close") {
                break;
            }
        }
    })
    .await;
    within("the end", leaving).await.expect("clean");
    assert_eq!(old.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn at_the_deadline_what_is_left_is_cut() {
    let target = Target::bind().await;
    let gateway = Gateway::start_with("{}", &route(&target), |config| {
        config.drain_timeout = Duration::from_millis(300);
    })
    .await;
    let mut tunnel = gateway.connect().await;
    tunnel.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    let mut upstream = target.accept().await;
    upstream.head().await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    tunnel.head().await;
    let mut slow = gateway.connect().await;
    slow.send(GET).await;
    target.accept().await.head().await;
    let leaving = tokio::spawn(gateway.running.shutdown());
    assert!(tunnel.is_closed().await && upstream.is_closed().await);
    within("the end", leaving).await.expect("clean");
}

#[tokio::test]
async fn connections_in_the_queue_are_served_before_the_port_closes() {
    let target = Target::bind().await;
    let gateway = Gateway::start("{}", &route(&target)).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = gateway.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    let leaving = tokio::spawn(gateway.running.shutdown());
    for _ in 0..20 {
        let mut upstream = target.accept().await;
        tokio::spawn(async move {
            upstream.head().await;
            // No connection is used twice: each is of one client in the queue.
            upstream.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
            upstream.rest().await;
        });
    }
    for mut client in clients {
        assert_eq!(client.reply().await.body, "ok");
    }
    within("the end", leaving).await.expect("clean");
}

#[tokio::test]
async fn a_connection_that_has_never_said_anything_does_not_hold_up_leaving() {
    let gateway = Gateway::start("{ headerTimeout: 60s }", "").await;
    let mut silent = gateway.connect().await;
    // Accepted after the silent one.
    assert_eq!(gateway.ask(GET).await.status(), "404");
    within("the end", gateway.running.shutdown()).await;
    assert_eq!(silent.rest().await, (Vec::new(), true));
}
