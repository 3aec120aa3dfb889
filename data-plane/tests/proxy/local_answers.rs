//! Responses that the gateway makes itself, and the policies around them.

use crate::support::{Exchange, Gateway, Proxy, field};

#[tokio::test]
async fn no_route_is_a_problem_document() {
    let gateway = Gateway::start("{}", "").await;
    let reply = gateway.ask("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let id = reply.field("x-request-id").expect("always there").to_owned();
    assert_eq!((reply.status(), &*reply.problem()), ("404", "no_route"));
    assert_eq!(
        reply.body,
        format!(
            "{{\"type\":\"no_route\",\"title\":\"no route matches this request\",\"status\":404,\"requestId\":\"{id}\"}}"
        )
    );
    assert!(reply.field("date").is_some() && reply.field("connection").is_none());
}

#[tokio::test]
async fn a_refusal_to_head_has_the_length_but_no_body_and_the_connection_goes_on() {
    let gateway = Gateway::start("{}", "").await;
    let mut client = gateway.connect().await;
    client.send("HEAD /x HTTP/1.1\r\nHost: a\r\n\r\nGET /y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_ne!(field(&client.head().await, "content-length"), Some("0"));
    assert_eq!(client.reply().await.problem(), "no_route");
}

#[tokio::test]
async fn a_refused_request_with_a_small_body_does_not_cost_the_connection() {
    let gateway = Gateway::start("{}", "").await;
    let mut client = gateway.connect().await;
    for _ in 0..2 {
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
        let reply = client.reply().await;
        assert_eq!((&*reply.problem(), reply.field("connection")), ("no_route", None));
    }
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\nhello").await;
    assert_eq!(
        client.reply().await.field("connection"),
        Some("close"),
        "what is not there yet is not waited for"
    );
    client.try_send("x".repeat(100_000)).await;
    assert!(client.is_closed().await);
}

const FIXED: &str = "kind: Route\nmetadata: { name: fixed }\nspec:\n  matches: [{ path: { exact: /fixed }, methods: [GET, PUT] }]\n  \
    respond: { status: 201, headers: { X-Id: '${request.id}' }, body: 'hello ${client.ip}' }\n  \
    policies: [{ cors: { origins: ['https://app.example'], methods: [PUT] } }, { responseHeaders: { set: { x-set: 'yes' } } }]\n---\n\
    kind: Route\nmetadata: { name: moved }\nspec:\n  matches: [{ path: { prefix: /old } }]\n  redirect: { prefix: /new, status: 301 }\n";

#[tokio::test]
async fn a_fixed_response_may_use_variables() {
    let gateway = Gateway::start("{}", FIXED).await;
    let reply = gateway.ask("GET /fixed HTTP/1.1\r\nHost: a\r\nX-Request-Id: me\r\n\r\n").await;
    assert_eq!((reply.status(), &*reply.body), ("201", "hello 127.0.0.1"));
    assert_eq!((reply.field("x-id"), reply.field("x-set")), (Some("me"), Some("yes")));
    assert_eq!(reply.field("content-type"), Some("text/plain; charset=utf-8"));
}

#[tokio::test]
async fn a_redirect_keeps_the_rest_of_path_and_query() {
    let gateway = Gateway::start("{}", FIXED).await;
    let reply = gateway.ask("GET /old/a?b=c HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((reply.status(), reply.field("location")), ("301", Some("/new/a?b=c")));
    assert_eq!(reply.field("content-length"), Some("0"));
}

#[tokio::test]
async fn a_method_that_no_route_takes_is_a_405_with_those_that_are() {
    let gateway = Gateway::start("{}", FIXED).await;
    let reply = gateway.ask("DELETE /fixed HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!((reply.status(), &*reply.problem()), ("405", "method_not_allowed"));
    let allow = reply.field("allow").expect("named");
    assert!(allow.contains("GET") && allow.contains("PUT"), "{allow}");
}

#[tokio::test]
async fn a_preflight_is_routed_by_the_method_it_asks_about() {
    let gateway = Gateway::start("{}", FIXED).await;
    let reply = gateway
        .ask("OPTIONS /fixed HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
        .await;
    assert!(reply.status().starts_with("20"), "{reply:?}");
    assert_eq!(reply.field("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(reply.field("access-control-allow-methods"), Some("PUT"));
}

#[tokio::test]
async fn a_preflight_that_no_cors_answers_is_an_ordinary_request() {
    let plain = "kind: Route\nmetadata: { name: put }\nspec: { matches: [{ methods: [PUT] }], respond: { body: put } }\n---\n\
        kind: Route\nmetadata: { name: options }\nspec: { matches: [{ methods: [OPTIONS] }], respond: { body: options } }\n";
    let gateway = Gateway::start("{}", plain).await;
    let reply = gateway
        .ask("OPTIONS / HTTP/1.1\r\nHost: a\r\nOrigin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n")
        .await;
    assert_eq!((reply.status(), &*reply.body), ("200", "options"));
}

#[tokio::test]
async fn the_response_side_of_the_policies_applies_to_refusals_too() {
    let policies = "  policies: [{ ipFilter: { deny: [127.0.0.0/8] } }, { cors: { origins: ['*'] } }, \
        { responseHeaders: { set: { x-policy: 'ran' } } }]\n";
    let proxy = Proxy::with("{}", policies).await;
    let reply = proxy.gateway.ask("GET / HTTP/1.1\r\nHost: a\r\nOrigin: https://x.example\r\n\r\n").await;
    assert_eq!((reply.status(), &*reply.problem()), ("403", "forbidden"));
    assert_eq!(
        (reply.field("access-control-allow-origin"), reply.field("x-policy")),
        (Some("*"), Some("ran"))
    );
    assert!(proxy.target.is_left_alone().await);
}

#[tokio::test]
async fn policies_change_what_goes_there_and_what_comes_back() {
    let policies = "  matches: [{ path: { prefix: /api } }]\n  policies: [{ rewrite: { prefix: /v2 } }, \
        { requestHeaders: { rename: { x-old: x-new }, remove: [accept], set: { x-id: '${request.id}' } } }, \
        { responseHeaders: { remove: [server], add: { x-more: '1' } } }]\n";
    let proxy = Proxy::with("{}", policies).await;
    let Exchange { mut client, mut upstream, head } = proxy
        .exchange("GET /api/x?y HTTP/1.1\r\nHost: a\r\nAccept: z\r\nX-Old: 1\r\nX-Request-Id: me\r\n\r\n")
        .await;
    assert!(head.starts_with("GET /v2/x?y HTTP/1.1\r\n"), "{head}");
    assert_eq!(
        (field(&head, "x-new"), field(&head, "x-old"), field(&head, "accept")),
        (Some("1"), None, None)
    );
    assert_eq!(field(&head, "x-id"), Some("me"));
    upstream.send("HTTP/1.1 200 OK\r\nServer: secret\r\nContent-Length: 0\r\n\r\n").await;
    let reply = client.reply().await;
    assert_eq!((reply.field("server"), reply.field("x-more")), (None, Some("1")));
}
