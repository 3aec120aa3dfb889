//! Revisions, rollback, and the events of both.

use http::StatusCode;
use serde_json::json;

use crate::client::{Plane, labelled, listener, route, upstream};

#[tokio::test]
async fn history_tells_what_each_revision_did_and_what_lies_between() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let begin = json!({ "resources": [upstream("a"), upstream("b")], "message": "begin" });
    api.post("/v1/apply", &begin).await.expect(StatusCode::OK);
    api.apply(&[labelled("x", "y", upstream("a"))]).await;
    api.delete("/v1/upstreams/b").await.expect(StatusCode::OK);

    let list = api.get("/v1/revisions").await.expect(StatusCode::OK);
    let numbers: Vec<_> =
        list["items"].as_array().expect("items").iter().map(|it| it["revision"].as_u64()).collect();
    assert_eq!(numbers, [Some(3), Some(2), Some(1)]);
    let page = api.get("/v1/revisions?limit=2").await.expect(StatusCode::OK);
    let next = page["nextCursor"].as_str().expect("there are more");
    let rest = api.get(&format!("/v1/revisions?limit=2&cursor={next}")).await.expect(StatusCode::OK);
    assert_eq!((rest["items"][0]["revision"].as_u64(), rest["nextCursor"].as_str()), (Some(1), None));

    let first = api.get("/v1/revisions/1").await.expect(StatusCode::OK);
    assert_eq!(
        (first["message"].as_str(), first["author"].as_str(), first["created"].as_u64()),
        (Some("begin"), Some("admin"), Some(2))
    );
    assert_eq!(first["changes"].as_array().map(Vec::len), Some(2));
    let between = api.get("/v1/revisions/1...3").await.expect(StatusCode::OK);
    let actions: Vec<_> =
        between["changes"].as_array().expect("changes").iter().map(|it| it["action"].clone()).collect();
    assert_eq!(actions, ["updated", "deleted"]);
    assert_eq!(between["changes"][0]["after"]["metadata"]["labels"]["x"], "y");

    api.get("/v1/revisions/9").await.problem(404, "not_found");
    api.get("/v1/revisions/0").await.problem(404, "not_found");
    api.get("/v1/revisions/1...9").await.problem(404, "not_found");
    api.get("/v1/revisions/x").await.problem(400, "bad_request");
    api.get("/v1/revisions?limit=501").await.problem(400, "bad_request");
}

#[tokio::test]
async fn more_changes_than_anybody_reads_are_counted_and_not_shown() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[upstream("a")]).await;
    let many: Vec<_> = (0..10_001).map(|at| upstream(&format!("u{at}"))).collect();
    api.apply(&many).await;
    api.apply(&[upstream("b")]).await;
    let problem = api.get("/v1/revisions/1...3").await.problem(413, "too_large");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("10000")), "{problem}");
    api.get("/v1/revisions/3...1").await.problem(413, "too_large");
    let whole = api.get("/v1/revisions/2").await.expect(StatusCode::OK);
    assert_eq!((whole["created"].as_u64(), whole.get("changes")), (Some(10_001), None));
    let near = api.get("/v1/revisions/2...3").await.expect(StatusCode::OK);
    assert_eq!(near["changes"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_the_old_content() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[listener("public", 8080), upstream("a"), route("a", "a")]).await;
    let before = api.get("/v1/revisions/1").await.expect(StatusCode::OK)["rootHash"].clone();
    api.delete("/v1/routes/a").await.expect(StatusCode::OK);
    api.apply(&[labelled("x", "y", upstream("a")), upstream("b")]).await;

    let dry = api.post("/v1/revisions/1/rollback?dryRun=true", &json!({})).await.expect(StatusCode::OK);
    assert_eq!((dry["revision"].as_u64(), dry["changes"].as_array().map(Vec::len)), (Some(3), Some(3)));
    let back = api.post("/v1/revisions/1/rollback", &json!({})).await.expect(StatusCode::OK);
    assert_eq!(back["revision"], 4);
    let now = api.get("/v1/revisions/4").await.expect(StatusCode::OK);
    assert_eq!(now["rootHash"], before);
    assert_eq!(now["message"], "rollback to 1");
    assert_eq!(api.get("/v1/routes/a").await.status, StatusCode::OK);
    assert_eq!(api.get("/v1/upstreams/b").await.status, StatusCode::NOT_FOUND);
    // Already there: nothing to do, no revision.
    assert_eq!(api.post("/v1/revisions/1/rollback", &json!({})).await.expect(StatusCode::OK)["revision"], 4);
    api.post("/v1/revisions/9/rollback", &json!({})).await.problem(404, "not_found");
    api.post("/v1/revisions/1/rollback?x=1", &json!({})).await.problem(400, "bad_request");
    // To the empty store and back.
    assert_eq!(api.post("/v1/revisions/0/rollback", &json!({})).await.expect(StatusCode::OK)["revision"], 5);
    assert!(
        api.get("/v1/upstreams").await.expect(StatusCode::OK)["items"].as_array().expect("items").is_empty()
    );
}

#[tokio::test]
async fn watchers_are_told_of_every_revision_in_order() {
    let plane = Plane::start().await;
    let mut events = plane.admin.events().await;
    for name in ["a", "b"] {
        plane.admin.apply(&[upstream(name)]).await;
    }
    for number in 1..=2 {
        let (event, data) = events.next().await;
        assert_eq!(
            (event.as_str(), data["revision"].as_u64(), data["created"].as_u64()),
            ("revision", Some(number), Some(1))
        );
    }
}

#[tokio::test]
async fn a_restart_finds_everything_and_makes_no_second_token() {
    let plane = Plane::start().await;
    plane.admin.apply(&[listener("public", 8080), upstream("a"), route("a", "a")]).await;
    let first = plane.running.admin_token_path.clone();
    assert!(first.is_some());
    let plane = Plane::start_in(plane.stop().await).await;
    assert!(plane.running.admin_token_path.is_none());
    assert_eq!(plane.admin.get("/v1/routes/a").await.etag(), "\"1\"");
    assert_eq!(plane.admin.apply(&[upstream("b")]).await, 2);
}
