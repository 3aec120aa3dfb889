//! Leaving in good order.

use std::time::Duration;

use gateway_data_plane::Config;

use crate::support::{Exchange, GET, Gateway, LAST, OK, Peer, Proxy, Target, forwarding, within};

/// With other settings of the process.
async fn with(change: impl FnOnce(&mut Config)) -> Proxy {
    let target = Target::bind().await;
    let documents = forwarding(&target.address.to_string(), "{}");
    Proxy { gateway: Gateway::start_with("{}", &documents, change).await, target }
}

#[tokio::test]
async fn what_is_in_flight_finishes_and_idle_connections_close() {
    let proxy = Proxy::start().await;
    let Exchange { client: mut busy, mut upstream, .. } = proxy.exchange(GET).await;
    let (mut idle, _pooled) = proxy.pooled().await;
    let address = proxy.gateway.address;
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
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
    let proxy = with(|config| config.drain_delay = Duration::from_secs(2)).await;
    let Exchange { client: mut old, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send(OK).await;
    assert_eq!(old.reply().await.field("connection"), None);
    let address = proxy.gateway.address;
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
    // Connection after connection, until one is told.
    within("a response that says close", async {
        loop {
            let mut client = Peer::new(tokio::net::TcpStream::connect(address).await.expect("served"));
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
    let proxy = with(|config| config.drain_timeout = Duration::from_millis(300)).await;
    let upgrade = "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n";
    let Exchange { client: mut tunnel, mut upstream, .. } = proxy.exchange(upgrade).await;
    upstream.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n").await;
    tunnel.head().await;
    let _slow = proxy.exchange(GET).await;
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
    assert!(tunnel.is_closed().await && upstream.is_closed().await);
    within("the end", leaving).await.expect("clean");
}

#[tokio::test]
async fn connections_in_the_queue_are_served_before_the_port_closes() {
    let proxy = Proxy::start().await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = proxy.gateway.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    let leaving = tokio::spawn(proxy.gateway.running.shutdown());
    for _ in 0..20 {
        let mut upstream = proxy.target.accept().await;
        tokio::spawn(async move {
            upstream.head().await;
            // No connection is used twice: each is of one client in the queue.
            upstream.send(LAST).await;
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
