//! Requests with two meanings are refused, and their connection is closed.

use crate::support::{Proxy, field};

#[tokio::test]
async fn ambiguous_or_malformed_requests_are_refused_and_closed() {
    let proxy = Proxy::start().await;
    for request in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "nonsense\r\n\r\n",
    ] {
        let mut client = proxy.gateway.connect().await;
        client.send(request).await;
        let reply = client.reply().await;
        assert_eq!((reply.status(), &*reply.problem()), ("400", "bad_request"), "{request:?}");
        assert_eq!(reply.field("connection"), Some("close"), "{request:?}");
        assert!(client.is_closed().await, "{request:?}");
    }
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn paths_and_hosts_that_are_none_are_refused() {
    let proxy = Proxy::start().await;
    for path in ["/../x", "/%00", "/%zz", "/a/%2e%2e/../..", "/a\\b"] {
        let reply = proxy.gateway.ask(&format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        assert_eq!((reply.status(), &*reply.problem()), ("400", "bad_request"), "{path}");
    }
    for host in ["a..b", ".a", "a..", "."] {
        let reply = proxy.gateway.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        assert_eq!((reply.status(), &*reply.problem()), ("400", "bad_request"), "{host}");
    }
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn each_kind_of_refusal_has_its_own_status() {
    let proxy = Proxy::with("{ maxHeaderBytes: 2048, maxUriBytes: 100 }", "").await;
    let long = "x".repeat(3000);
    for (request, status, slug) in [
        (format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(100)), "414", "uri_too_long"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), "431", "head_too_large"),
        (format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}"), "431", "head_too_large"),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".to_owned(), "501", "not_implemented"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".to_owned(), "505", "version_not_supported"),
        ("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404", "no_route"),
    ] {
        let reply = proxy.gateway.ask(&request).await;
        assert_eq!((reply.status(), &*reply.problem()), (status, slug), "{request:.60}");
    }
}

#[tokio::test]
async fn heads_larger_than_a_buffer_pass_when_the_limit_allows_them() {
    let proxy = Proxy::with("{ maxHeaderBytes: 200000 }", "").await;
    for size in [15_000, 40_000, 150_000] {
        let long = "x".repeat(size);
        let head = proxy.exchange(format!("GET / HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n")).await.head;
        assert_eq!(field(&head, "x-long"), Some(long.as_str()));
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_one_request() {
    let proxy = Proxy::start().await;
    let mut client = proxy.gateway.connect().await;
    for byte in "GET /slow HTTP/1.1\r\nHost: a\r\nAccept: x\r\n\r\n".bytes() {
        client.send([byte]).await;
    }
    let (_upstream, head) = proxy.target.request().await;
    assert!(head.starts_with("GET /slow HTTP/1.1\r\nhost: a\r\nAccept: x\r\n"), "{head}");
}
