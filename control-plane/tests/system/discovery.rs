//! Discovery sources: what is refused, and the lane of endpoints beside a data plane played by the test.

use std::path::Path;

use gateway_control_plane::config::Config;
use gateway_control_plane::run;
use gateway_proto::digest::RootHash;
use gateway_proto::endpoints::{hash_of_set, hash_of_source, sums};
use gateway_proto::wire;
use http::StatusCode;
use serde_json::{Value, json};
use wire::control_plane_message::Message as Hear;
use wire::data_plane_message::Message as Say;

use crate::client::{Api, Plane, listener, route, settings};
use crate::data_plane::{DataPlane, Held, hello};

fn source(path: &str) -> Value {
    json!({ "apiVersion": "gateway/v1", "kind": "DiscoverySource", "metadata": { "name": "files" },
            "spec": { "file": { "path": path } } })
}

fn upstream(service: &str) -> Value {
    json!({ "apiVersion": "gateway/v1", "kind": "Upstream", "metadata": { "name": "users" },
            "spec": { "discovery": { "source": "files", "service": service } } })
}

/// A control plane that reads files in `files` of its folder.
async fn start() -> Plane {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(dir.path().join("files")).expect("made");
    let config = Config { discovery_file_dir: Some(dir.path().join("files")), ..settings(&dir) };
    let running = run(config).await.expect("starts");
    let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
    let admin = Api::new(running.admin, token.trim());
    Plane { running, admin, dir }
}

fn write(plane: &Plane, users: &[&str]) {
    let entries: Vec<Value> = users.iter().map(|address| json!({ "address": address })).collect();
    let text = json!({ "services": { "users": entries } }).to_string();
    let path: &Path = plane.dir.path();
    std::fs::write(path.join("files/new"), text).expect("written");
    std::fs::rename(path.join("files/new"), path.join("files/services.json")).expect("renamed");
}

#[tokio::test]
async fn a_source_that_cannot_be_read_here_is_refused_and_nothing_is_stored() {
    let plane = Plane::start().await;
    let put = async |document: &Value| plane.admin.put("/v1/discoverysources/files", document).await;
    let problem = put(&source("a.yaml")).await.problem(422, "validation_failed");
    let error = &problem["errors"][0];
    assert_eq!((&error["field"], &error["code"]), (&json!("spec.file"), &json!("conflict")));
    assert!(error["message"].to_string().contains("start it with --discovery-file-dir"), "{error}");
    let batch = json!({ "resources": [source("a.yaml"), upstream("users")] });
    let problem = plane.admin.post("/v1/apply", &batch).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["index"], 0);
    plane.admin.get("/v1/discoverysources/files").await.problem(404, "not_found");
    plane.admin.get("/v1/discovery/files").await.problem(404, "not_found");

    let plane = start().await;
    let put = async |document: &Value| plane.admin.put("/v1/discoverysources/files", document).await;
    for path in ["/etc/passwd", "../x", "a/../../x"] {
        let problem = put(&source(path)).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "spec.file.path", "{path}");
    }
    let etcd = json!({ "apiVersion": "gateway/v1", "kind": "DiscoverySource", "metadata": { "name": "files" },
                       "spec": { "etcd": { "endpoints": ["http://127.0.0.1:2379"] } } });
    let problem = put(&etcd).await.problem(422, "validation_failed").to_string();
    assert!(problem.contains("etcd") && problem.contains("file"), "{problem}");
    assert_eq!(plane.admin.get("/v1/discovery").await.expect(StatusCode::OK)["items"], json!([]));
}

#[tokio::test]
async fn a_source_that_upstreams_name_is_not_deleted() {
    let plane = start().await;
    plane.admin.apply(&[source("services.json"), upstream("users")]).await;
    let problem = plane.admin.delete("/v1/discoverysources/files").await.problem(409, "in_use");
    assert!(problem.to_string().contains("default/users"), "{problem}");
}

#[tokio::test]
async fn who_is_bound_to_a_namespace_sees_the_sources_of_that_one() {
    let plane = start().await;
    plane.admin.apply(&[source("services.json"), upstream("users")]).await;
    let other = plane.with_token("other", "viewer", &["shop"]).await;
    assert_eq!(other.get("/v1/discovery").await.expect(StatusCode::OK)["items"], json!([]));
    assert_eq!(other.get("/v1/discovery/files").await.status, StatusCode::FORBIDDEN);
    let own = plane.with_token("own", "viewer", &["default"]).await;
    let status = own.get("/v1/discovery/files").await.expect(StatusCode::OK);
    assert_eq!(status["upstreams"][0]["upstream"], "default/users");
}

/// The next piece of endpoints, past whatever else comes.
async fn endpoints(node: &mut DataPlane) -> wire::EndpointsChunk {
    loop {
        match node.hear().await.expect("open").expect("a message") {
            Hear::Endpoints(chunk) => return chunk,
            Hear::CompareEndpoints(_) => panic!("asked for sums"),
            _ => {}
        }
    }
}

/// Sum of what a piece says.
fn root(chunk: &wire::EndpointsChunk) -> Vec<u8> {
    let items = chunk.sets.iter().map(hash_of_set).chain(chunk.sources.iter().map(hash_of_source));
    items.collect::<RootHash>().to_bytes().to_vec()
}

async fn connect(plane: &Plane, node: &str, endpoints: Vec<u8>) -> DataPlane {
    let hello = wire::Hello { endpoints, ..hello(node, "default", &Held::default()) };
    DataPlane::say_hello(plane.running.stream, hello, Held::default()).await.expect("welcome")
}

#[tokio::test]
async fn endpoints_have_a_lane_of_their_own_and_nothing_is_sent_twice() {
    let plane = start().await;
    write(&plane, &["10.0.0.2:80", "10.0.0.1:80"]);
    let objects =
        [listener("public", 8080), source("services.json"), upstream("users"), route("users", "users")];
    plane.admin.apply(&objects).await;
    let mut node = connect(&plane, "one", Vec::new()).await;
    let mut held = wire::EndpointsChunk::default();
    while held.sets.is_empty() {
        // The first may say no more than that the source was not read yet.
        let chunk = endpoints(&mut node).await;
        assert!(chunk.last);
        held.sources.retain(|said| !chunk.sources.iter().any(|it| it.source == said.source));
        held.sources.extend(chunk.sources);
        held.sets.extend(chunk.sets);
        node.say(Say::Endpoints(wire::EndpointsHeld { root_hash: root(&held), sums: Vec::new() })).await;
    }
    let addresses: Vec<&str> = held.sets[0].endpoints.iter().map(|it| &*it.address).collect();
    assert_eq!((&*held.sets[0].upstream, addresses), ("default/users", vec!["10.0.0.1:80", "10.0.0.2:80"]));

    // A change is sent once, and makes no revision.
    write(&plane, &["10.0.0.3:80"]);
    let chunk = endpoints(&mut node).await;
    assert_eq!(
        (chunk.sets.len(), chunk.sources.len(), &*chunk.sets[0].endpoints[0].address),
        (1, 0, "10.0.0.3:80")
    );
    held.sets = chunk.sets;
    node.say(Say::Endpoints(wire::EndpointsHeld { root_hash: root(&held), sums: Vec::new() })).await;
    assert_eq!(plane.admin.get("/v1/revisions").await.expect(StatusCode::OK)["items"][0]["revision"], 1);

    // Who comes again with the same gets nothing of it: the next that it hears of endpoints is the next change.
    let mut again = connect(&plane, "two", root(&held)).await;
    assert_eq!(again.welcome.endpoints, root(&held));
    write(&plane, &["10.0.0.4:80"]);
    let chunk = endpoints(&mut again).await;
    assert_eq!(&*chunk.sets[0].endpoints[0].address, "10.0.0.4:80");

    // Who comes with something else is asked for its sums, and gets what differs.
    let hello = wire::Hello { endpoints: vec![7; 16], ..hello("three", "default", &Held::default()) };
    let mut other =
        DataPlane::say_hello(plane.running.stream, hello, Held::default()).await.expect("welcome");
    loop {
        match other.hear().await.expect("open").expect("a message") {
            Hear::CompareEndpoints(_) => break,
            Hear::Endpoints(chunk) => panic!("sent before it was asked: {chunk:?}"),
            _ => {}
        }
    }
    let nothing = sums(std::iter::empty()).to_bytes();
    other.say(Say::Endpoints(wire::EndpointsHeld { root_hash: vec![0; 16], sums: nothing })).await;
    let chunk = endpoints(&mut other).await;
    assert_eq!((chunk.sets.len(), chunk.sources.len(), chunk.buckets.len()), (1, 1, 2));
}

#[tokio::test]
async fn what_was_served_last_is_known_to_a_control_plane_that_starts_without_the_file() {
    let plane = start().await;
    write(&plane, &["10.0.0.1:80"]);
    let objects =
        [listener("public", 8080), source("services.json"), upstream("users"), route("users", "users")];
    plane.admin.apply(&objects).await;
    let mut node = connect(&plane, "one", Vec::new()).await;
    while endpoints(&mut node).await.sets.is_empty() {
        let root_hash = hash_of_source(&wire::SourceSaid { source: "default/files".into(), state: 2 });
        let root_hash = [root_hash].into_iter().collect::<RootHash>().to_bytes().to_vec();
        node.say(Say::Endpoints(wire::EndpointsHeld { root_hash, sums: Vec::new() })).await;
    }
    drop(node);
    let dir = plane.stop().await;
    std::fs::remove_file(dir.path().join("files/services.json")).expect("there");
    let config = Config { discovery_file_dir: Some(dir.path().join("files")), ..settings(&dir) };
    let running = run(config).await.expect("starts");
    let hello = hello("two", "default", &Held::default());
    let mut node = DataPlane::say_hello(running.stream, hello, Held::default()).await.expect("welcome");
    let chunk = endpoints(&mut node).await;
    assert_eq!(&*chunk.sets[0].endpoints[0].address, "10.0.0.1:80");
    assert_eq!(chunk.sources[0].state(), wire::source_state::Value::Stale);
    running.shutdown().await;
}
