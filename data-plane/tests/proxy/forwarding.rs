//! What goes to the target and what comes back, for requests without surprises.

use crate::support::{Exchange, GET, Gateway, LAST, OK, Proxy, Target, field};

#[tokio::test]
async fn a_request_arrives_with_what_belongs_to_it_and_without_what_belonged_to_the_hop() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } = proxy.exchange(
            "GET /a//b/../c%7E?q=%7e&x HTTP/1.1\r\nHost: API.example.com:80\r\nAccept: */*\r\nConnection: keep-alive, x-hop\r\n\
             X-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nX-Kept: yes\r\n\
             X-Forwarded-For: 1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n",
        ).await;
    let id = field(&head, "x-request-id").expect("made").to_owned();
    assert_eq!(
        head,
        format!(
            "GET /a/c~?q=%7e&x HTTP/1.1\r\nhost: API.example.com:80\r\nAccept: */*\r\nX-Kept: yes\r\nx-request-id: {id}\r\n\
             x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: API.example.com:80\r\n\r\n"
        )
    );
    upstream
        .send(
            "HTTP/1.1 201 Whatever\r\nContent-Length: 3\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nX-Request-ID: theirs\r\n\
             Connection: x-secret\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nyes",
        )
        .await;
    let reply = client.reply().await;
    assert_eq!(
        reply.head,
        format!(
            "HTTP/1.1 201 Created\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\
             x-request-id: {id}\r\ncontent-length: 3\r\n\r\n"
        )
    );
    assert_eq!(reply.body, "yes");
}

#[tokio::test]
async fn a_sane_request_id_is_kept_and_another_is_replaced() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } =
        proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine-1\r\n\r\n").await;
    assert_eq!(field(&head, "x-request-id"), Some("mine-1"));
    upstream.send(OK).await;
    assert_eq!(client.reply().await.field("x-request-id"), Some("mine-1"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: not \"sane\"\r\n\r\n").await;
    let head = upstream.head().await;
    assert_eq!(head.matches("request-id").count(), 1);
    assert_eq!(field(&head, "x-request-id").map(str::len), Some(32));
}

#[tokio::test]
async fn trusted_proxies_are_continued() {
    let proxy = Proxy::with("{ trustedProxies: [127.0.0.0/8] }", "").await;
    let request = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\nForwarded: for=192.0.2.1\r\n\r\n";
    let head = proxy.exchange(request).await.head;
    assert_eq!(field(&head, "x-forwarded-for"), Some("192.0.2.1, 127.0.0.1"));
    assert_eq!(field(&head, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&head, "forwarded"), Some("for=192.0.2.1, for=127.0.0.1"));
}

#[tokio::test]
async fn connections_are_used_again_on_both_sides() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = proxy.target.accept().await;
    for turn in 2..5 {
        upstream.head().await;
        upstream.send(OK).await;
        assert_eq!(client.reply().await.body, "ok");
        client.send(format!("POST /{turn} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")).await;
        let head = upstream.head().await;
        assert!(head.starts_with(&format!("POST /{turn} HTTP/1.1\r\n")), "{head}");
        assert_eq!(upstream.bytes(3).await, b"abc");
        upstream.send(OK).await;
        assert_eq!(client.reply().await.body, "ok");
        client.send(GET).await;
    }
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET /3 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await;
    let mut upstream = proxy.target.accept().await;
    for turn in 1..=3 {
        let head = upstream.head().await;
        assert!(head.contains(&format!(" /{turn} HTTP/1.1")), "{head}");
        if turn == 2 {
            assert_eq!(upstream.bytes(2).await, b"hi");
        }
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{turn}")).await;
    }
    for turn in 1..=3 {
        assert_eq!(client.reply().await.body, turn.to_string());
    }
}

#[tokio::test]
async fn the_host_field_is_preserved_or_replaced_as_the_route_says() {
    let target = Target::bind().await;
    let label = target.address.to_string();
    for (host, expected) in
        [("preserve", "a.example"), ("upstream", label.as_str()), ("b.example", "b.example")]
    {
        let documents = format!(
            "kind: Upstream\nmetadata: {{ name: t }}\nspec: {{ targets: [{{ address: '{}' }}] }}\n---\n\
             kind: Route\nmetadata: {{ name: r }}\nspec: {{ forward: {{ backends: [{{ upstream: t }}], host: {host} }} }}\n",
            target.address
        );
        let gateway = Gateway::start("{}", &documents).await;
        let mut client = gateway.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
        assert_eq!(field(&target.accept().await.head().await, "host"), Some(expected), "{host}");
    }
}

#[tokio::test]
async fn an_absolute_target_goes_on_as_its_path() {
    let proxy = Proxy::start().await;
    for (asked, expected) in [("http://a.example/x?y", "/x?y"), ("http://a.example", "/")] {
        let head = proxy.exchange(format!("GET {asked} HTTP/1.1\r\nHost: a.example\r\n\r\n")).await.head;
        assert!(head.starts_with(&format!("GET {expected} HTTP/1.1\r\nhost: a.example\r\n")), "{head}");
    }
}

#[tokio::test]
async fn responses_to_head_and_those_without_content_have_no_body() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } =
        proxy.exchange("HEAD /1 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await;
    assert_eq!(field(&client.head().await, "content-length"), Some("1000"));
    for status in ["204 No Content", "304 Not Modified"] {
        client.send("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
        upstream.head().await;
        upstream.send(format!("HTTP/1.1 {status}\r\nETag: x\r\n\r\n")).await;
        let head = client.head().await;
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{head}");
        assert!(
            field(&head, "content-length").is_none() && field(&head, "transfer-encoding").is_none(),
            "{head}"
        );
    }
    assert!(proxy.target.is_left_alone().await, "the connection stays in step");
}

#[tokio::test]
async fn an_http_1_0_client_gets_a_body_it_can_read() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } = proxy.exchange("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(
        field(&head, "host"),
        Some(proxy.target.address.to_string().as_str()),
        "1.1 does not go without: {head}"
    );
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
    let (all, clean) = client.rest().await;
    let all = String::from_utf8(all).expect("text");
    assert!(clean && all.ends_with("connection: close\r\n\r\nabc"), "{all}");
    assert!(!all.contains("chunked"));
}

#[tokio::test]
async fn an_http_1_0_client_may_keep_its_connection() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    let mut upstream = None;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").await;
        let upstream = match &mut upstream {
            Some(upstream) => upstream,
            none => none.insert(proxy.target.accept().await),
        };
        upstream.head().await;
        upstream.send(OK).await;
        let reply = client.reply().await;
        assert_eq!((reply.field("connection"), &*reply.body), (Some("keep-alive"), "ok"));
    }
}

#[tokio::test]
async fn a_client_that_asks_to_close_is_closed_after_its_response() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } =
        proxy.exchange("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(field(&head, "connection").is_none(), "the upstream's connection is another matter");
    upstream.send(OK).await;
    let reply = client.reply().await;
    assert_eq!((reply.field("connection"), &*reply.body), (Some("close"), "ok"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_upstream_connection_that_is_to_close_is_not_used_again() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    for response in [LAST, OK] {
        client.send(GET).await;
        let (mut upstream, _) = proxy.target.request().await;
        upstream.send(response).await;
        let reply = client.reply().await;
        assert_eq!((reply.field("connection"), &*reply.body), (None, "ok"), "the client's connection stays");
    }
}

#[tokio::test]
async fn requests_go_to_targets_and_backends_by_weight() {
    let (one, two, three) = (Target::bind().await, Target::bind().await, Target::bind().await);
    let documents = format!(
        "kind: Upstream\nmetadata: {{ name: pair }}\nspec: {{ targets: [{{ address: '{}' }}, {{ address: '{}', weight: 2 }}] }}\n---\n\
         kind: Upstream\nmetadata: {{ name: single }}\nspec: {{ targets: [{{ address: '{}' }}] }}\n---\n\
         kind: Route\nmetadata: {{ name: r }}\nspec: {{ forward: {{ backends: [{{ upstream: pair, weight: 3 }}, {{ upstream: single }}] }} }}\n",
        one.address, two.address, three.address
    );
    let gateway = Gateway::start("{}", &documents).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        let mut client = gateway.connect().await;
        client.send(GET).await;
        clients.push(client);
    }
    for (target, share) in [(&one, 3), (&two, 6), (&three, 3)] {
        let mut upstreams = Vec::new();
        for _ in 0..share {
            upstreams.push(target.accept().await);
        }
        assert!(target.is_left_alone().await);
    }
}
