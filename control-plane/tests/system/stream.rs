//! The snapshot stream, from a commit over HTTP to a data plane and back to `data-planes` and `status`.

use gateway_proto::FEATURE_BUCKETS;
use gateway_proto::digest::ItemHash;
use gateway_proto::kind::{Key, Kind};
use gateway_proto::wire;
use gateway_proto::wire::data_plane_message::Message as Say;
use gateway_proto::wire::sync_mode::Value as Mode;
use http::StatusCode;
use prost::Message as _;
use serde_json::{Value, json};

use crate::client::{Api, Plane, labelled, listener, route, upstream};
use crate::data_plane::{DataPlane, Held, hello};

/// Reads a path until what it answers is as wanted.
async fn until(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let answer = api.get(path).await.expect(StatusCode::OK);
            if wanted(&answer) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("within 20 s")
}

async fn begun() -> Plane {
    let plane = Plane::start().await;
    plane.admin.apply(&[listener("public", 8080), upstream("users"), route("users", "users")]).await;
    published(&plane).await;
    plane
}

/// Waits until the streams serve the head: status answers from what is published.
async fn published(plane: &Plane) {
    plane.admin.get("/v1/status/upstreams/users").await.expect(StatusCode::OK);
}

#[tokio::test]
async fn a_new_data_plane_gets_everything_then_what_changes() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    assert_eq!(node.mode(), Mode::Full);
    let all = node.receive().await;
    assert!(all.full && all.upserts.len() == 3);
    node.take(&all, &[]).await;
    assert_eq!(node.held.cursor, node.welcome.head);

    plane.admin.apply(&[labelled("a", "b", upstream("users"))]).await;
    let delta = node.receive().await;
    assert_eq!((delta.full, delta.upserts.len(), delta.chunks), (false, 1, 1));
    node.take(&delta, &[]).await;
    assert_eq!(node.held.cursor.as_ref(), Some(&delta.target));

    plane.admin.delete("/v1/routes/users").await.expect(StatusCode::OK);
    node.reach(3).await;
    assert_eq!(node.names(), ["Listener default/public"], "the upstream goes with the last route to it");
}

#[tokio::test]
async fn a_data_plane_that_comes_back_gets_nothing_or_the_difference() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let again = DataPlane::connect(plane.running.stream, "one", "default", node.held.clone()).await;
    assert_eq!(again.mode(), Mode::InSync);
    drop(again);
    plane.admin.apply(&[labelled("a", "b", upstream("users"))]).await;
    published(&plane).await;
    let mut again = DataPlane::connect(plane.running.stream, "one", "default", node.held.clone()).await;
    assert_eq!(again.mode(), Mode::Delta);
    let delta = again.receive().await;
    assert_eq!((delta.full, delta.upserts.len()), (false, 1));
}

#[tokio::test]
async fn a_restarted_control_plane_resumes_without_sending_an_object() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let plane = Plane::start_in(plane.stop().await).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", node.held).await;
    assert_eq!(node.mode(), Mode::InSync);
    plane.admin.apply(&[labelled("a", "b", upstream("users"))]).await;
    assert!(!node.receive().await.full);
}

#[tokio::test]
async fn a_restarted_control_plane_sends_the_difference_from_its_history() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let held = node.held.clone();
    plane.admin.apply(&[labelled("a", "b", upstream("users"))]).await;
    plane.admin.apply(&[route("more", "users")]).await;
    plane.admin.delete("/v1/routes/users").await.expect(StatusCode::OK);
    let plane = Plane::start_in(plane.stop().await).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", held).await;
    assert_eq!(node.mode(), Mode::Delta);
    let delta = node.receive().await;
    assert_eq!((delta.full, delta.upserts.len(), delta.tombstones.len()), (false, 2, 1));
    node.take(&delta, &[]).await;
    assert_eq!(node.held.cursor, node.welcome.head);
    assert_eq!(node.names(), ["Listener default/public", "Route default/more", "Upstream default/users"]);
}

#[tokio::test]
async fn data_planes_and_status_tell_what_serves_where() {
    let plane = begun().await;
    let api = &plane.admin;
    let pending = api.get("/v1/status/routes/users").await.expect(StatusCode::OK);
    assert_eq!(
        (pending["revision"].as_u64(), pending["dataPlanes"].as_array().map(Vec::len)),
        (Some(1), Some(0))
    );
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    let all = node.receive().await;
    let pending = api.get("/v1/status/routes/users").await.expect(StatusCode::OK);
    assert_eq!(
        (pending["dataPlanes"][0]["id"].as_str(), pending["dataPlanes"][0]["state"].as_str()),
        (Some("one"), Some("pending"))
    );
    node.take(&all, &[]).await;
    let status = until(api, "/v1/status/routes/users", |it| it["dataPlanes"][0]["state"] == "applied").await;
    assert_eq!(status["dataPlanes"][0]["appliedRevision"], 1);

    let list = until(api, "/v1/data-planes", |list| list["items"][0]["inSync"] == true).await;
    let entry = &list["items"][0];
    assert_eq!(
        (list["revision"].as_u64(), entry["appliedRevision"].as_u64(), entry["lag"].as_u64()),
        (Some(1), Some(1), Some(0))
    );
    assert_eq!(
        (entry["version"].as_str(), entry["connected"].as_bool(), entry["applyUs"].as_u64()),
        (Some("test"), Some(true), Some(42))
    );
    assert_eq!(entry["listeners"]["default/public"], "127.0.0.1:8080");
    assert_eq!(api.get("/v1/data-planes/one").await.expect(StatusCode::OK)["id"], "one");
    api.get("/v1/data-planes/two").await.problem(404, "not_found");
    api.get("/v1/status/routes/nobody").await.problem(404, "not_found");

    drop(node);
    until(api, "/v1/data-planes/one", |entry| entry["connected"] == false).await;
    let gone = api.get("/v1/status/routes/users").await.expect(StatusCode::OK);
    assert!(gone["dataPlanes"].as_array().expect("a list").is_empty());
}

#[tokio::test]
async fn what_a_data_plane_refuses_is_told_and_not_sent_again_until_it_changes() {
    let plane = begun().await;
    let api = &plane.admin;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let bad = Key::new(Kind::Upstream, "default", "users");
    api.apply(&[labelled("a", "b", upstream("users"))]).await;
    let delta = node.receive().await;
    node.take(&delta, std::slice::from_ref(&bad)).await;
    let status =
        until(api, "/v1/status/upstreams/users", |it| it["dataPlanes"][0]["state"] == "refused").await;
    let reject = &status["dataPlanes"][0]["reject"];
    assert_eq!(
        (reject["code"].as_str(), reject["message"].as_str(), reject["retryable"].as_bool()),
        (Some("port_in_use"), Some("told to"), Some(true))
    );

    // The next revision goes out without it; it stays refused.
    api.apply(&[route("more", "users")]).await;
    let delta = node.receive().await;
    assert_eq!(delta.upserts.iter().map(|it| it.kind.as_str()).collect::<Vec<_>>(), ["Route"]);
    node.take(&delta, &[]).await;
    let entry = until(api, "/v1/data-planes/one", |entry| entry["appliedRevision"] == 3).await;
    assert_eq!(
        (entry["rejects"][0]["name"].as_str(), entry["inSync"].as_bool()),
        (Some("users"), Some(false))
    );

    // A retry of its own works.
    node.held.parked.clear();
    let cursor = node.held.cursor.clone();
    node.say(Say::Status(wire::Status { cursor, ..Default::default() })).await;
    until(api, "/v1/data-planes/one", |entry| entry["rejects"].as_array().is_some_and(Vec::is_empty)).await;
}

#[tokio::test]
async fn a_data_plane_that_refuses_a_great_deal_is_not_cut_off() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let refused = (0..60_000).map(|n| (Key::new(Kind::Route, "default", format!("{n:0100}")), [7; 16]));
    node.held.parked = refused.map(|(key, hash)| (key, ItemHash(hash))).collect();
    let hello = hello("one", "default", &node.held);
    assert!(hello.encoded_len() > 8 << 20);
    let heartbeat =
        wire::Heartbeat { cursor: hello.cursor.clone(), parked: hello.parked.clone(), ..Default::default() };
    let mut node = DataPlane::say_hello(plane.running.stream, hello, node.held).await.expect("welcome");
    node.say(Say::Heartbeat(heartbeat)).await;
    plane.admin.apply(&[labelled("a", "b", upstream("users"))]).await;
    assert_eq!(node.receive().await.upserts.len(), 1, "the stream goes on");
}

#[tokio::test]
async fn a_group_gets_the_listeners_that_name_it_and_what_those_reach() {
    let plane = Plane::start().await;
    let mut edge = listener("edge", 8081);
    edge["spec"]["dataPlanes"] = json!({ "group": "edge" });
    let mut behind = route("behind", "inner");
    behind["spec"]["listeners"] = json!(["edge"]);
    plane
        .admin
        .apply(&[
            listener("public", 8080),
            edge,
            upstream("users"),
            route("users", "users"),
            upstream("inner"),
            behind,
        ])
        .await;
    published(&plane).await;
    let mut one = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    let mut two = DataPlane::connect(plane.running.stream, "two", "edge", Held::default()).await;
    one.reach(1).await;
    two.reach(1).await;
    assert_eq!(one.names(), ["Listener default/public", "Route default/users", "Upstream default/users"]);
    assert_eq!(two.names().len(), 6);

    // A change outside its scope moves only its number.
    plane.admin.apply(&[labelled("a", "b", upstream("inner"))]).await;
    let nothing = one.receive().await;
    assert!(nothing.upserts.is_empty() && nothing.tombstones.is_empty());
    one.take(&nothing, &[]).await;
    two.reach(2).await;
    let status =
        until(&plane.admin, "/v1/status/upstreams/inner", |it| it["dataPlanes"][0]["state"] == "applied")
            .await;
    assert_eq!(status["dataPlanes"].as_array().map(Vec::len), Some(1));
    assert_eq!(status["dataPlanes"][0]["id"], "two");
    assert_eq!(one.revision(), 2);
}

#[tokio::test]
async fn a_large_transaction_comes_in_pieces_and_changes_meanwhile_are_merged() {
    let plane = Plane::start().await;
    let mut documents = vec![listener("public", 8080), upstream("users")];
    documents.extend((0..2_000).map(|n| route(&format!("r{n}"), "users")));
    plane.admin.apply(&documents).await;
    published(&plane).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    let all = node.receive().await;
    assert!(all.chunks > 2 && all.upserts.len() == 2_002, "{} chunks", all.chunks);
    // Not acknowledged yet: two revisions later there is one delta.
    plane.admin.apply(&[labelled("a", "1", upstream("users"))]).await;
    let head = plane.admin.apply(&[labelled("a", "2", upstream("users"))]).await;
    node.take(&all, &[]).await;
    node.reach(head).await;
    assert_eq!(node.held.items.len(), 2_002);
}

#[tokio::test]
async fn a_second_stream_of_a_node_ends_the_first() {
    let plane = begun().await;
    let mut first = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    first.reach(1).await;
    let second = DataPlane::connect(plane.running.stream, "one", "default", first.held.clone()).await;
    let ended = loop {
        match first.hear().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("ended without a reason"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), tonic::Code::Aborted);
    let entry = until(&plane.admin, "/v1/data-planes/one", |entry| entry["inSync"] == true).await;
    assert_eq!(entry["connected"], true);
    drop(second);
}

#[tokio::test]
async fn of_two_processes_of_one_name_the_later_is_served_and_both_are_named() {
    let plane = begun().await;
    let to = plane.running.stream;
    let come = async |instance: &str| {
        let hello = wire::Hello { instance: instance.into(), ..hello("one", "default", &Held::default()) };
        DataPlane::say_hello(to, hello, Held::default()).await
    };
    let mut first = come("0001").await.expect("welcome");
    let _second = come("0002").await.expect("a restart is taken at once");
    while first.hear().await.is_ok() {}
    let refused = come("0001").await.err().expect("it comes back while the other one is there");
    assert_eq!(refused.code(), tonic::Code::AlreadyExists);
    let entry = until(&plane.admin, "/v1/data-planes/one", |entry| entry["twin"].is_string()).await;
    let address = entry["address"].as_str().expect("where the other one is");
    assert!(refused.message().contains(address) && refused.message().contains("--node"), "{refused}");
    assert_ne!(entry["twin"], entry["address"]);
    assert_eq!(entry["connected"], true);
    let metrics = plane.admin.get("/metrics").await.text;
    assert!(metrics.lines().any(|line| line == "gateway_stream_twins_total 1"), "{metrics}");
    come("0003").await.expect("a later one again");
}

#[tokio::test]
async fn a_message_out_of_place_ends_the_stream_with_a_reason() {
    let plane = begun().await;
    let to = plane.running.stream;
    let held = Held::default();
    let refused = |change: fn(&mut wire::Hello)| {
        let mut hello = hello("one", "default", &held);
        change(&mut hello);
        async move { DataPlane::say_hello(to, hello, Held::default()).await.err().expect("refused").code() }
    };
    assert_eq!(refused(|hello| hello.protocol = 9).await, tonic::Code::FailedPrecondition);
    assert_eq!(refused(|hello| hello.node.clear()).await, tonic::Code::InvalidArgument);
    assert_eq!(refused(|hello| hello.group = "x".repeat(300)).await, tonic::Code::InvalidArgument);
    let mut node = DataPlane::connect(to, "one", "default", Held::default()).await;
    node.reach(1).await;
    node.say(Say::Ack(wire::Ack { transaction: 77, ..Default::default() })).await;
    let ended = loop {
        if let Err(status) = node.hear().await {
            break status;
        }
    };
    assert!(ended.message().contains("77"), "{ended}");
}

#[tokio::test]
async fn a_data_plane_that_holds_something_else_is_counted_and_sent_everything() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let mut cursor = node.held.cursor.clone().expect("set");
    cursor.root_hash = vec![1; 16];
    node.say(Say::Heartbeat(wire::Heartbeat { cursor: Some(cursor), ..Default::default() })).await;
    assert!(node.receive().await.full);
    let metrics = plane.admin.get("/metrics").await.text;
    for line in [
        "gateway_stream_divergences_total 1",
        "gateway_stream_streams 1",
        "gateway_stream_pushes_total{mode=\"full\"} 2",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn what_came_apart_is_compared_and_mended_without_sending_everything() {
    let plane = Plane::start().await;
    let mut documents = vec![listener("public", 8080), upstream("users")];
    documents.extend((0..200).map(|n| route(&format!("r{n}"), "users")));
    plane.admin.apply(&documents).await;
    published(&plane).await;
    let able = wire::Hello {
        features: vec![FEATURE_BUCKETS.to_owned()],
        ..hello("one", "default", &Held::default())
    };
    let to = plane.running.stream;
    let mut node = DataPlane::say_hello(to, able, Held::default()).await.expect("welcome");
    node.reach(1).await;
    let lost = Key::new(Kind::Route, "default", "r7");
    node.held.items.remove(&lost);
    node.held.items.insert(
        Key::new(Kind::Route, "default", "never"),
        node.held.items[&Key::new(Kind::Route, "default", "r8")].clone(),
    );
    let cursor = node.spoilt();
    node.say(Say::Heartbeat(wire::Heartbeat { cursor, ..Default::default() })).await;
    node.answer_comparison().await;
    let mended = node.receive().await;
    assert!(!mended.full && (1..20).contains(&mended.upserts.len()), "{} objects", mended.upserts.len());
    node.take(&mended, &[]).await;
    assert_eq!(node.held.cursor, node.welcome.head);
    assert_eq!(node.held.items.len(), 202);
    let metrics = plane.admin.get("/metrics").await.text;
    for line in ["gateway_stream_divergences_total 1", "gateway_stream_pushes_total{mode=\"buckets\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing in\n{metrics}");
    }
}

#[tokio::test]
async fn a_data_plane_that_would_shrink_is_shown_and_follows_once_it_may() {
    let plane = begun().await;
    let elsewhere = Held {
        cursor: Some(wire::Cursor {
            epoch: uuid::Uuid::from_u128(8).to_string(),
            revision: 7,
            root_hash: vec![1; 16],
        }),
        ..Held::default()
    };
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", elsewhere).await;
    let all = node.receive().await;
    assert!(all.full && !all.allow_shrink);
    node.refuse(&all, "epoch_shrink").await;
    let entry = until(&plane.admin, "/v1/data-planes/one", |entry| entry["blocked"].is_string()).await;
    assert_eq!(entry["blocked"], "epoch_shrink: told to");

    // Nothing changes but that it may.
    let batch = json!({"resources": [upstream("users")], "allowShrink": true});
    let answer = plane.admin.post("/v1/apply", &batch).await.expect(StatusCode::OK);
    assert_eq!(answer["revision"], 1);
    let all = node.receive().await;
    assert!(all.full && all.allow_shrink);
    node.take(&all, &[]).await;
    until(&plane.admin, "/v1/data-planes/one", |entry| entry["inSync"] == true && entry["blocked"].is_null())
        .await;
}

#[tokio::test]
async fn watchers_see_data_planes_come_and_go() {
    let plane = begun().await;
    let mut events = plane.admin.events().await;
    let node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    let (event, data) = events.next().await;
    assert_eq!(
        (event.as_str(), data["id"].as_str(), data["connected"].as_bool()),
        ("dataPlane", Some("one"), Some(true))
    );
    drop(node);
    loop {
        let (_, data) = events.next().await;
        if data["connected"] == false {
            break;
        }
    }
}

#[tokio::test]
async fn at_the_end_data_planes_are_told_to_leave() {
    let plane = begun().await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let stopped = tokio::spawn(plane.stop());
    loop {
        match node.hear().await.expect("told before it ends") {
            Some(wire::control_plane_message::Message::Drain(_)) => break,
            Some(_) => {}
            None => panic!("ended without a word"),
        }
    }
    drop(node);
    stopped.await.expect("stops");
}
