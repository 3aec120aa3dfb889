//! Bodies both ways: any framing, any size, trailers, interim responses, limits, and what is cut short.

use crate::support::{Exchange, GET, Proxy, field};

fn pattern(count: usize) -> Vec<u8> {
    (0..count).map(|at| b'a' + (at % 23) as u8).collect()
}

#[tokio::test]
async fn large_bodies_with_a_length_pass_both_ways() {
    let proxy = Proxy::start().await;
    let body = pattern(3 << 20);
    let mut client = proxy.gateway.connect().await;
    let request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let receive = async {
        let mut upstream = proxy.target.accept().await;
        assert_eq!(field(&upstream.head().await, "content-length"), Some(body.len().to_string().as_str()));
        assert!(upstream.bytes(body.len()).await == body);
        upstream
    };
    let send = async {
        client.send(request).await;
        client.send(&body).await;
    };
    let (mut upstream, ()) = tokio::join!(receive, send);
    let answer = async {
        upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        upstream.send(&body).await;
    };
    let ((), reply) = tokio::join!(answer, client.reply());
    assert!(reply.body.as_bytes() == body);
}

#[tokio::test]
async fn chunked_bodies_and_their_trailers_pass_both_ways() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n4;ext=1\r\nabcd\r\n")
        .await;
    let (mut upstream, head) = proxy.target.request().await;
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    assert_eq!((field(&head, "te"), field(&head, "connection")), (Some("trailers"), Some("te")));
    assert!(field(&head, "content-length").is_none());
    assert_eq!(upstream.bytes(9).await, b"4\r\nabcd\r\n", "without the extension");
    client.send("2\r\nef\r\n0\r\nX-Sum: 6\r\nAuthorization: no\r\n\r\n").await;
    assert_eq!(upstream.until("\r\n\r\n").await, "2\r\nef\r\n0\r\nX-Sum: 6\r\n\r\n");
    upstream
        .send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n5\r\nhello\r\n")
        .await;
    let head = client.head().await;
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "trailer")), (Some("chunked"), Some("x-t")));
    assert_eq!(client.bytes(10).await, b"5\r\nhello\r\n");
    let large = pattern(20_000);
    upstream.send(format!("{:x}\r\n", large.len())).await;
    upstream.send(&large).await;
    upstream.send("\r\n0\r\nX-T: 1\r\n\r\n").await;
    let rest = client.until("X-T: 1\r\n\r\n").await;
    let data: String = decode(&rest);
    assert!(data.as_bytes() == large);
    client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(upstream.head().await.starts_with("GET /next "), "both connections are in step");
}

#[tokio::test]
async fn where_consumers_are_known_a_client_says_who_it_is_neither_in_the_head_nor_in_trailers() {
    let consumer = "---\nkind: Consumer\nmetadata: { name: alice }\n";
    let proxy = Proxy::with("{}", consumer).await;
    let mut client = proxy.gateway.connect().await;
    client
        .send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\nX-Consumer-ID: default/alice\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 0\r\nX-Consumer_ID: default/alice\r\n\r\n")
        .await;
    let (mut upstream, head) = proxy.target.request().await;
    assert!(field(&head, "x-consumer-id").is_none(), "no policy asks who it is");
    assert_eq!(upstream.until("\r\n\r\n").await, "0\r\nX-Sum: 0\r\n\r\n");
}

/// The data of a chunked body.
fn decode(mut text: &str) -> String {
    let mut data = String::new();
    loop {
        let (size, rest) = text.split_once("\r\n").expect("a size");
        let size = usize::from_str_radix(size, 16).expect("hexadecimal");
        if size == 0 {
            return data;
        }
        data.push_str(&rest[..size]);
        text = rest[size..].strip_prefix("\r\n").expect("the end of the chunk");
    }
}

#[tokio::test]
async fn a_response_until_close_becomes_chunked() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(GET).await;
    upstream.send("HTTP/1.0 200 OK\r\n\r\nall of it").await;
    drop(upstream);
    assert_eq!(field(&client.head().await, "transfer-encoding"), Some("chunked"));
    assert_eq!(decode(&client.until("0\r\n\r\n").await), "all of it");
    proxy.goes_on(&mut client).await;
}

#[tokio::test]
async fn a_slow_chunk_is_passed_on_when_it_comes_and_not_at_the_end() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } =
        proxy.exchange("GET /events HTTP/1.1\r\nHost: a\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.head().await;
    for event in ["one", "two"] {
        upstream.send(format!("3\r\n{event}\r\n")).await;
        assert_eq!(client.bytes(8).await, format!("3\r\n{event}\r\n").as_bytes());
    }
}

const EXPECTING: &str = "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

#[tokio::test]
async fn a_client_that_waits_for_100_continue_hears_the_upstreams() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, head } = proxy.exchange(EXPECTING).await;
    assert_eq!(field(&head, "expect"), Some("100-continue"));
    upstream.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.head().await, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n");
    assert_eq!(client.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("body").await;
    assert_eq!(upstream.bytes(4).await, b"body");
    upstream.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(client.reply().await.status(), "204");
}

#[tokio::test]
async fn a_refused_expectation_ends_the_connections_because_the_body_may_follow_or_not() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } = proxy.exchange(EXPECTING).await;
    upstream.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.field("connection"), &*reply.body), ("403", Some("close"), "no"));
    assert!(client.is_closed().await);
    assert!(upstream.is_closed().await);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_whole_body_is_passed_on_at_once() {
    let proxy = Proxy::start().await;
    let Exchange { mut client, mut upstream, .. } =
        proxy.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome").await;
    upstream.send("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), reply.field("connection"), &*reply.body), ("401", Some("close"), "no"));
    client.try_send(pattern(10_000)).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_declared_body_over_the_limit_is_refused_unread() {
    for (http, policy) in [
        ("{ maxBodyBytes: 10 }", ""),
        ("{}", "  policies: [{ requestLimits: { maxBodyBytes: 10 } }]\n"),
        ("{ maxBodyBytes: 1000 }", "  policies: [{ requestLimits: { maxBodyBytes: 10 } }]\n"),
    ] {
        let proxy = Proxy::with(http, policy).await;
        let reply = proxy.gateway.ask("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n").await;
        assert_eq!((reply.status(), &*reply.problem()), ("413", "body_too_large"), "{http} {policy}");
        assert_eq!(reply.field("connection"), Some("close"));
        let Exchange { client: _client, mut upstream, .. } =
            proxy.exchange("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789").await;
        assert_eq!(upstream.bytes(10).await, b"0123456789");
    }
}

#[tokio::test]
async fn a_chunked_body_is_counted_as_it_streams() {
    let proxy = Proxy::with("{ maxBodyBytes: 10 }", "").await;
    let Exchange { mut client, mut upstream, .. } = proxy
        .exchange("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\n012345\r\n")
        .await;
    assert_eq!(upstream.bytes(11).await, b"6\r\n012345\r\n");
    client.send("6\r\n012345\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("413", "body_too_large"));
    let (rest, _) = upstream.rest().await;
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the upstream must not take it for the whole");
}

#[tokio::test]
async fn a_malformed_body_is_refused_and_the_upstream_never_sees_its_end() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.status(), &*reply.problem()), ("400", "bad_request"));
    assert_eq!(reply.field("connection"), Some("close"));
    let (rest, _) = proxy.target.accept().await.rest().await;
    assert!(!String::from_utf8_lossy(&rest).contains("0\r\n\r\n"));
}

#[tokio::test]
async fn a_response_that_breaks_off_is_never_taken_for_the_whole() {
    let proxy = Proxy::start().await;
    const SIZED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (request, head, body) in [
        (GET, SIZED, "abc"),
        (GET, CHUNKED, "5\r\nab"),
        (GET, CHUNKED, "nonsense\r\n"),
        ("GET / HTTP/1.0\r\n\r\n", CHUNKED, "2\r\nab\r\n"),
    ] {
        let Exchange { mut client, mut upstream, .. } = proxy.exchange(request).await;
        upstream.send(head).await;
        // Before the head is passed on, a failure could still be told.
        client.head().await;
        upstream.send(body).await;
        drop(upstream);
        let (all, clean) = client.rest().await;
        let all = String::from_utf8_lossy(&all).into_owned();
        assert!(!all.ends_with("0\r\n\r\n"), "{all}");
        assert!(!clean, "a reset says that something is missing: {all}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_its_target_up_and_nothing_more() {
    let proxy = Proxy::start().await;
    let Exchange { client: _client, mut upstream, .. } = proxy.exchange(GET).await;
    let size = 64 << 20;
    upstream.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n")).await;
    let block = pattern(1 << 20);
    let (mut sent, mut refused) = (0, 0);
    // Until the sockets in between are full, also when the gateway had its turn: far less than the whole.
    while refused < 10 {
        match upstream.stream.try_write(&block) {
            Ok(written) => (sent, refused) = (sent + written, 0),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                refused += 1;
                proxy.gateway.turn().await;
            }
            Err(error) => panic!("the gateway holds the connection: {error}"),
        }
        assert!(sent < size / 2, "somebody buffers the body");
    }
    proxy.goes_on(&mut proxy.gateway.connect().await).await;
}
