//! Chores of the running process: history is cut, data planes are forgotten, and nobody who serves notices.

use std::time::Duration;

use gateway_control_plane::config::Config;
use gateway_control_plane::leader::Chores;
use gateway_control_plane::run;
use gateway_control_plane::store::Retention;
use gateway_proto::wire::sync_mode::Value as Mode;
use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Api, Plane, labelled, listener, route, settings, upstream};
use crate::data_plane::{DataPlane, Held};

async fn forgetful() -> Plane {
    let dir = tempfile::tempdir().expect("a folder");
    let history = Retention { revisions: 10, age: None };
    let chores = Chores { history, forget_nodes: Duration::from_secs(60) };
    let running = run(Config { chores, ..settings(&dir) }).await.expect("starts");
    let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
    Plane { admin: Api::new(running.admin, token.trim()), running, dir }
}

#[tokio::test]
async fn what_is_not_kept_is_named_and_what_is_older_is_compared() {
    let plane = forgetful().await;
    let api = &plane.admin;
    let first = ["gone", "users"].map(|name| [upstream(name), route(name, name)]).concat();
    api.apply(&[vec![listener("public", 8080)], first].concat()).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let held = node.held.clone();
    drop(node);
    api.delete("/v1/routes/gone").await.expect(StatusCode::OK);
    for note in 0..13 {
        api.apply(&[labelled("note", &note.to_string(), upstream("users"))]).await;
    }
    // Fifteen revisions, ten are kept.
    let wait = async {
        while api.get("/v1/revisions/5").await.status != StatusCode::NOT_FOUND {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("within 30 s");
    let gone = api.get("/v1/revisions/5").await.problem(404, "not_found");
    let said = gone["detail"].as_str().expect("text");
    assert!(said.contains("not kept any more") && said.contains("back to revision 6"), "{said}");
    let rollback = api.post("/v1/revisions/5/rollback", &Value::Null).await.problem(404, "not_found");
    assert!(rollback["detail"].as_str().is_some_and(|it| it.contains("--history-revisions")), "{rollback}");
    api.get("/v1/revisions/5...9").await.problem(404, "not_found");
    let list = api.get("/v1/revisions").await.expect(StatusCode::OK);
    assert_eq!(list["items"].as_array().map(Vec::len), Some(10));
    let oldest = api.get("/v1/revisions/6").await.expect(StatusCode::OK);
    assert_eq!(
        (&oldest["updated"], oldest.get("changes")),
        (&json!(1), None),
        "what it changed is not known"
    );
    let next = api.get("/v1/revisions/7").await.expect(StatusCode::OK);
    assert_eq!(next["changes"].as_array().map(Vec::len), Some(1));

    // A new process has nothing in memory, and history does not tell what revision 1 was.
    let Plane { running, dir, .. } = plane;
    running.shutdown().await;
    let plane = Plane::start_in(dir).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", held).await;
    assert_eq!(node.mode(), Mode::Full);
    node.reach(15).await;
    assert_eq!(node.names().len(), 3, "what was deleted long ago is gone");
    let back = plane.admin.post("/v1/revisions/6/rollback", &Value::Null).await;
    assert_eq!(back.expect(StatusCode::OK)["revision"], 16);
}

#[tokio::test]
async fn whether_it_does_the_chores_is_a_metric() {
    let plane = Plane::start().await;
    let wait = async {
        while !plane.admin.get("/metrics").await.text.lines().any(|it| it == "gateway_store_leader 1") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("within 30 s");
}
