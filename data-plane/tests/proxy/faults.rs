//! What happens when a target, a connection or a client fails.

use crate::support::{Exchange, GET, Gateway, LAST, OK, Proxy, Target, forwarding, within};

#[tokio::test]
async fn a_target_that_cannot_be_reached_is_a_502_and_the_client_may_go_on() {
    let proxy = Proxy::start().await;
    drop(proxy.target);
    let mut client = proxy.gateway.connect().await;
    for _ in 0..2 {
        client.send(GET).await;
        let reply = client.reply().await;
        assert_eq!(
            (reply.status(), &*reply.problem(), reply.field("connection")),
            ("502", "upstream_connect_failed", None)
        );
    }
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_a_503() {
    let gateway = Gateway::start("{}", &forwarding("no-such-host.invalid:80", "{}")).await;
    let reply = gateway.ask(GET).await;
    assert_eq!((reply.status(), &*reply.problem()), ("503", "no_healthy_target"));
}

#[tokio::test]
async fn a_target_given_by_name_is_resolved() {
    let target = Target::bind().await;
    let name = format!("localhost:{}", target.address.port());
    let gateway = Gateway::start("{}", &forwarding(&name, "{}")).await;
    let proxy = Proxy { gateway, target };
    proxy.goes_on(&mut proxy.gateway.connect().await).await;
}

#[tokio::test]
async fn a_target_that_closes_without_an_answer_is_a_502_and_not_asked_again() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, upstream, .. } = proxy.exchange(GET).await;
    drop(upstream);
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("502", "upstream_reset"));
    assert!(proxy.target.is_left_alone().await, "the connection was fresh");
}

#[tokio::test]
async fn nonsense_from_a_target_is_a_502_and_its_connection_is_closed() {
    let proxy = Proxy::start().await;
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        "HTTP/1.1 200 OK\nA: b\n\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
        upstream.send(nonsense).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &*reply.problem()), ("502", "upstream_protocol"), "{nonsense:?}");
        assert!(upstream.is_closed().await, "{nonsense:?}");
    }
}

#[tokio::test]
async fn a_response_head_without_end_is_refused() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.try_send(format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(100_000))).await;
    assert_eq!(client.reply().await.problem(), "upstream_protocol");
    client.send(GET).await;
    let (mut upstream, _) = proxy.target.request().await;
    let long = "y".repeat(40_000);
    upstream.send(format!("HTTP/1.1 200 OK\r\nX: {long}\r\nContent-Length: 2\r\n\r\nok")).await;
    let reply = client.reply().await;
    assert_eq!((reply.field("x"), &*reply.body), (Some(long.as_str()), "ok"), "a long one is taken");
}

#[tokio::test]
async fn a_pooled_connection_that_the_target_closed_is_replaced_whatever_the_method() {
    let proxy = Proxy::start().await;
    for request in [GET, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
        let (mut client, upstream) = proxy.pooled().await;
        drop(upstream);
        client.send(request).await;
        let (mut upstream, _) = proxy.target.request().await;
        upstream.send(LAST).await;
        assert_eq!(client.reply().await.body, "ok");
    }
}

#[tokio::test]
async fn a_request_that_a_pooled_connection_swallowed_is_repeated_if_that_does_no_harm() {
    let proxy = Proxy::start().await;
    for request in [GET, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"] {
        let (mut client, mut upstream) = proxy.pooled().await;
        client.send(request).await;
        let first = upstream.head().await;
        drop(upstream);
        let mut upstream = proxy.target.accept().await;
        assert_eq!(upstream.head().await, first);
        upstream.send(LAST).await;
        assert_eq!(client.reply().await.body, "ok");
    }
}

#[tokio::test]
async fn a_request_that_could_be_done_twice_is_not_repeated() {
    let proxy = Proxy::start().await;
    let (mut client, mut upstream) = proxy.pooled().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi").await;
    upstream.head().await;
    upstream.bytes(2).await;
    drop(upstream);
    assert_eq!(client.reply().await.problem(), "upstream_reset");
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn a_body_too_large_to_be_kept_is_not_repeated() {
    let proxy = Proxy::start().await;
    let (mut client, mut upstream) = proxy.pooled().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000\r\n\r\n").await;
    client.send("x".repeat(10_000)).await;
    upstream.head().await;
    upstream.bytes(10_000).await;
    drop(upstream);
    assert_eq!(client.reply().await.problem(), "upstream_reset");
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_pooled_connection() {
    let proxy = Proxy::start().await;
    let (mut client, mut upstream) = proxy.pooled().await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
    proxy.gateway.turn().await;
    proxy.goes_on(&mut client).await;
}

#[tokio::test]
async fn a_response_followed_by_more_than_was_asked_for_is_the_last_on_its_connection() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send(format!("{OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")).await;
    assert_eq!(client.reply().await.body, "ok");
    proxy.goes_on(&mut client).await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_request_with_it() {
    let proxy = Proxy::start().await;
    for answered in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nso far"] {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
        upstream.send(answered).await;
        if !answered.is_empty() {
            client.until("so far").await;
        }
        drop(client);
        assert!(within("cancelled", upstream.is_closed()).await);
    }
    for code in ["none", "200"] {
        let series = r#"gateway_requests_total{route="default/all",method="GET",code=""#;
        proxy.gateway.counts(&format!("{series}{code}\",reason=\"client_closed\"}} 1")).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_behind_more_than_is_read_ahead_is_noticed() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    client.send(GET.repeat(2_000)).await;
    drop(client);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn what_was_not_read_ahead_is_read_when_its_turn_comes() {
    let proxy = Proxy::start().await;
    for size in [20_000, 100_000] {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
        let body = "x".repeat(size);
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}")).await;
        // By then the gateway has read as much as it will.
        proxy.gateway.turn().await;
        upstream.send(OK).await;
        assert_eq!(client.reply().await.body, "ok");
        upstream.head().await;
        assert!(upstream.bytes(size).await == body.as_bytes());
        upstream.send(LAST).await;
        assert_eq!(client.reply().await.body, "ok");
        proxy.goes_on(&mut client).await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_in_its_body_takes_its_request_with_it() {
    let proxy = Proxy::start().await;
    let Exchange { client, mut upstream, .. } =
        proxy.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome").await;
    upstream.bytes(4).await;
    drop(client);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn a_client_that_only_ends_its_sending_side_gets_its_response() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send(GET).await;
    tokio::io::AsyncWriteExt::shutdown(&mut client.stream).await.expect("half closed");
    let (mut upstream, _) = proxy.target.request().await;
    upstream.send(OK).await;
    assert_eq!(client.reply().await.body, "ok");
    assert!(client.is_closed().await);
}
