//! What a client cannot do to the process: bodies, counts, depth, media types, methods, slow heads.

use bytes::Bytes;
use gateway_control_plane::config::Config;
use gateway_control_plane::run;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::client::{Api, Plane, settings, upstream};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn bodies_over_their_bounds_are_refused_before_they_are_read_whole() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let big = Bytes::from(vec![b' '; (1 << 20) + 1]);
    let put = api.send(Method::PUT, "/v1/upstreams/a", &[JSON], Some(big.clone())).await;
    put.problem(413, "too_large");
    let mut document = upstream("a");
    document["metadata"]["annotations"]["note"] = json!("x".repeat(1 << 20));
    let problem = api
        .post("/v1/apply", &json!({ "resources": [upstream("b"), document] }))
        .await
        .problem(413, "too_large");
    assert_eq!(problem["errors"][0]["index"], 1);
    let many = format!("{{\"resources\":[{}]}}", vec!["{}"; 250_001].join(","));
    api.send(Method::POST, "/v1/apply", &[JSON], Some(many.into())).await.problem(413, "too_large");
    let long = json!({ "resources": [], "message": "x".repeat(5_000) });
    api.post("/v1/apply", &long).await.problem(413, "too_large");
}

#[tokio::test]
async fn a_declared_length_over_the_bound_is_refused_without_the_body() {
    let plane = Plane::start().await;
    let mut socket = TcpStream::connect(plane.running.admin).await.expect("connects");
    let token = std::fs::read_to_string(plane.dir.path().join("admin-token")).expect("the token");
    let head = format!(
        "POST /v1/apply HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        token.trim(),
        (256_u64 << 20) + 1
    );
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = vec![0; 1024];
    let read = socket.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer[..read]));
}

#[tokio::test]
async fn what_is_no_json_says_so_with_its_place() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let send = |media: &'static str, body: Bytes| async move {
        api.send(Method::POST, "/v1/apply", &[("content-type", media)], Some(body)).await
    };
    send("text/yaml", "a: b".into()).await.problem(415, "unsupported_media_type");
    send("application/json", "{".into()).await.problem(400, "bad_request");
    let problem = send("application/json; charset=utf-8", "{\n \"resorces\": []}".into())
        .await
        .problem(400, "bad_request");
    assert!(problem["detail"].as_str().expect("text").contains("line 2"), "{problem}");
    send("application/json", Bytes::from_static(b"{\"message\":\"\xff\"}")).await.problem(400, "bad_request");
    let deep = format!(
        "{{\"resources\":[{{\"apiVersion\":\"gateway/v1\",\"kind\":\"Route\",\"spec\":{}1{}}}]}}",
        "[".repeat(500),
        "]".repeat(500)
    );
    let deep = send("application/json", deep.into()).await;
    assert!(deep.status.is_client_error(), "{deep:?}");
    let none = api.send(Method::POST, "/v1/apply", &[], Some("{}".into())).await;
    none.problem(415, "unsupported_media_type");
}

#[tokio::test]
async fn more_than_a_thousand_faults_are_told_as_a_thousand() {
    let plane = Plane::start().await;
    let batch = json!({ "resources": vec![json!({ "kind": "Route" }); 1_500] });
    let problem = plane.admin.post("/v1/apply", &batch).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"].as_array().map(Vec::len), Some(1_000));
}

#[tokio::test]
async fn a_wrong_method_names_the_right_ones() {
    let plane = Plane::start().await;
    let answer = plane.admin.send(Method::PUT, "/v1/revisions", &[], None).await;
    answer.problem(405, "method_not_allowed");
    assert!(answer.headers["allow"].to_str().expect("text").contains("GET"));
}

#[tokio::test]
async fn a_batch_of_ten_thousand_is_one_revision() {
    let plane = Plane::start().await;
    let documents: Vec<_> = (0..10_000).map(|n| upstream(&format!("u{n}"))).collect();
    assert_eq!(plane.admin.apply(&documents).await, 1);
    assert_eq!(plane.admin.get("/v1/upstreams/u9999").await.status, StatusCode::OK);
}

#[tokio::test]
async fn watchers_beyond_the_bound_are_told_to_come_back() {
    let plane = Plane::start().await;
    let mut held = Vec::new();
    for _ in 0..256 {
        held.push(plane.admin.events().await);
    }
    let answer = plane.admin.get("/v1/watch").await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.headers["retry-after"], "1");
    held.pop();
    loop {
        // The server notices the closed connection in its own time.
        if plane.admin.try_events().await.is_some() {
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_arrive_ends_the_connection() {
    let plane = Plane::start().await;
    let mut socket = TcpStream::connect(plane.running.admin).await.expect("connects");
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await.expect("sent");
    let mut rest = Vec::new();
    let closed =
        tokio::time::timeout(std::time::Duration::from_secs(20), socket.read_to_end(&mut rest)).await;
    assert!(closed.is_ok() && !rest.starts_with(b"HTTP/1.1 200"));
}

#[tokio::test]
async fn no_more_credentials_are_kept_than_may_be() {
    let dir = tempfile::tempdir().expect("a folder");
    let running = run(Config { max_credentials: 2, ..settings(&dir) }).await.expect("starts");
    let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
    let admin = Api::new(running.admin, token.trim());
    let object = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "gateway/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let credential = |name: &str| object("Credential", name, json!({ "consumer": "alice", "apiKey": {} }));
    let mut first = vec![object("Consumer", "alice", json!({}))];
    first.extend(["a", "b"].map(credential));
    admin.apply(&first).await;
    let one_more = admin.put("/v1/credentials/c", &credential("c")).await;
    let problem = one_more.problem(422, "validation_failed");
    let message = problem["errors"][0]["message"].as_str().expect("a reason");
    assert!(message.contains("2 are kept") && message.contains("--max-credentials"), "{problem}");
    // What is there may change, and what goes makes room.
    admin.put("/v1/credentials/a", &credential("a")).await.expect(StatusCode::OK);
    let swap = json!({ "resources": [credential("c")],
        "deletes": [{ "kind": "Credential", "namespace": "default", "name": "b" }] });
    admin.post("/v1/apply", &swap).await.expect(StatusCode::OK);
    admin.delete("/v1/credentials/a").await.expect(StatusCode::OK);
    admin.put("/v1/credentials/d", &credential("d")).await.expect(StatusCode::CREATED);
    running.shutdown().await;
}
