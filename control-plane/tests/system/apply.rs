//! `/v1/apply`, `/v1/diff`, `/v1/explain`: batches as a whole.

use http::StatusCode;
use serde_json::{Value, json};

use crate::client::{Plane, in_namespace, labelled, listener, route, upstream};

fn actions(changes: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let changes = changes.as_array().expect("changes");
    changes.iter().map(|change| (text(&change["name"]), text(&change["action"]))).collect()
}

fn pair(name: &str, action: &str) -> (String, String) {
    (name.to_owned(), action.to_owned())
}

#[tokio::test]
async fn a_batch_is_one_revision_in_any_order_and_equal_content_makes_none() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let batch = [route("users", "users"), listener("public", 8080), upstream("users")];
    let first = api
        .post("/v1/apply", &json!({ "resources": batch, "message": "begin" }))
        .await
        .expect(StatusCode::OK);
    assert_eq!(first["revision"], 1);
    assert_eq!(
        actions(&first["changes"]),
        [pair("users", "created"), pair("public", "created"), pair("users", "created")]
    );
    let again = api.post("/v1/apply", &json!({ "resources": batch })).await.expect(StatusCode::OK);
    assert_eq!(again["revision"], 1);
    assert!(actions(&again["changes"]).iter().all(|(_, action)| action == "unchanged"));
    let changed = labelled("a", "b", upstream("users"));
    let next = api.post("/v1/apply", &json!({ "resources": [changed, listener("public", 8080)] })).await;
    let next = next.expect(StatusCode::OK);
    assert_eq!(next["revision"], 2);
    assert_eq!(actions(&next["changes"]), [pair("users", "updated"), pair("public", "unchanged")]);
}

#[tokio::test]
async fn one_fault_refuses_the_whole_batch_and_every_fault_is_told_with_its_index() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let bad = json!({ "resources": [upstream("users"), route("a", "nobody"), upstream("users"), json!({ "kind": "X" })] });
    let problem = api.post("/v1/apply", &bad).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["index"], 3);
    let bad = json!({ "resources": [upstream("users"), route("a", "nobody"), route("b", "nobody")] });
    let problem = api.post("/v1/apply", &bad).await.problem(422, "validation_failed");
    let indices: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|error| error["index"].as_u64()).collect();
    assert_eq!(indices, [Some(1), Some(2)]);
    assert_eq!(problem["errors"][0]["object"]["name"], "a");
    let twice = json!({ "resources": [upstream("users"), upstream("users")] });
    let problem = api.post("/v1/apply", &twice).await.problem(422, "validation_failed");
    assert_eq!(
        (problem["errors"][0]["index"].as_u64(), problem["errors"][0]["code"].as_str()),
        (Some(1), Some("duplicate"))
    );
    assert_eq!(api.get("/v1/upstreams").await.expect(StatusCode::OK)["revision"], 0);
}

#[tokio::test]
async fn a_dry_run_by_body_or_query_stores_nothing() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    for (path, body) in [
        ("/v1/apply", json!({ "resources": [upstream("a")], "dryRun": true })),
        ("/v1/apply?dryRun=true", json!({ "resources": [upstream("a")] })),
    ] {
        let answer = api.post(path, &body).await.expect(StatusCode::OK);
        assert_eq!(
            (answer["revision"].as_u64(), answer["changes"][0]["action"].as_str()),
            (Some(0), Some("created"))
        );
    }
    assert!(
        api.get("/v1/upstreams").await.expect(StatusCode::OK)["items"].as_array().expect("items").is_empty()
    );
}

#[tokio::test]
async fn a_stale_base_revision_is_a_conflict() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[upstream("a")]).await;
    let batch = |base: u64| json!({ "resources": [upstream("b")], "baseRevision": base });
    api.post("/v1/apply", &batch(0)).await.problem(409, "conflict");
    assert_eq!(api.post("/v1/apply", &batch(1)).await.expect(StatusCode::OK)["revision"], 2);
    api.post("/v1/apply", &batch(1)).await.problem(409, "conflict");
}

#[tokio::test]
async fn a_prune_deletes_what_carries_its_labels_in_the_batch_s_namespaces_and_nothing_else() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let mine = |name: &str| labelled("team", "x", upstream(name));
    api.apply(&[mine("a"), mine("b"), upstream("c"), in_namespace("shop", mine("d"))]).await;
    let prune = |documents: Value, prune: Value| json!({ "resources": documents, "prune": prune });
    let labels = json!({ "labels": { "team": "x" } });

    let answer =
        api.post("/v1/apply", &prune(json!([mine("a")]), labels.clone())).await.expect(StatusCode::OK);
    assert_eq!(actions(&answer["changes"]), [pair("a", "unchanged"), pair("b", "deleted")]);
    let left = api.get("/v1/upstreams?namespace=*").await.expect(StatusCode::OK);
    assert_eq!(left["items"].as_array().map(Vec::len), Some(3));

    let bare = api
        .post("/v1/apply", &prune(json!([upstream("c")]), labels.clone()))
        .await
        .problem(422, "validation_failed");
    assert_eq!(
        (bare["errors"][0]["field"].as_str(), bare["errors"][0]["index"].as_u64()),
        (Some("metadata.labels"), Some(0))
    );
    let all = api.post("/v1/apply", &prune(json!([mine("a")]), json!({ "labels": {} }))).await;
    assert_eq!(all.problem(422, "validation_failed")["errors"][0]["field"], "prune.labels");

    let many: Vec<_> = (0..11).map(|n| mine(&format!("m{n:02}"))).collect();
    api.apply(&many).await;
    let over =
        api.post("/v1/apply", &prune(json!([mine("a")]), labels)).await.problem(422, "validation_failed");
    assert_eq!(over["errors"][0]["field"], "prune.maxDelete");
    let wide = json!({ "labels": { "team": "x" }, "maxDelete": 11 });
    let answer = api.post("/v1/apply", &prune(json!([mine("a")]), wide)).await.expect(StatusCode::OK);
    assert_eq!(answer["changes"].as_array().map(Vec::len), Some(12));
}

#[tokio::test]
async fn deletes_are_part_of_the_batch_and_as_bounded_as_the_rest_of_it() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let foreign = in_namespace("shop", upstream("s"));
    api.apply(&[listener("public", 8080), upstream("a"), upstream("b"), route("a", "a"), foreign]).await;
    let key = |kind: &str, name: &str| json!({ "kind": kind, "namespace": "default", "name": name });

    // Alone the upstream is in use; with the last route to it, it goes, and something else comes.
    let alone = json!({ "deletes": [key("Upstream", "a")] });
    api.post("/v1/apply", &alone).await.problem(409, "in_use");
    let both = json!({
        "resources": [upstream("c")],
        "deletes": [key("Upstream", "a"), key("Route", "a")],
        "dryRun": true,
    });
    let expected = [pair("c", "created"), pair("a", "deleted"), pair("a", "deleted")];
    let dry = api.post("/v1/apply", &both).await.expect(StatusCode::OK);
    assert_eq!((dry["revision"].as_u64(), actions(&dry["changes"])), (Some(1), expected.to_vec()));
    assert_eq!(api.get("/v1/routes/a").await.status, StatusCode::OK);
    let diff = api.post("/v1/diff", &both).await.expect(StatusCode::OK);
    assert_eq!(diff["changes"][1]["before"]["metadata"]["name"], "a");
    let both = json!({ "resources": both["resources"], "deletes": both["deletes"] });
    let done = api.post("/v1/apply", &both).await.expect(StatusCode::OK);
    assert_eq!((done["revision"].as_u64(), actions(&done["changes"])), (Some(2), expected.to_vec()));
    assert_eq!(api.get("/v1/revisions/2").await.expect(StatusCode::OK)["deleted"], 2);

    // One that does not exist refuses all of it; so does one that is named twice, either way.
    let missing = json!({ "deletes": [key("Upstream", "b"), key("Upstream", "a")] });
    api.post("/v1/apply", &missing).await.problem(404, "not_found");
    let twice = json!({ "resources": [upstream("b")], "deletes": [key("Upstream", "b")] });
    let problem = api.post("/v1/apply", &twice).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["code"], "duplicate");
    let twice = json!({ "deletes": [key("Upstream", "b"), key("Upstream", "b")] });
    api.post("/v1/apply", &twice).await.problem(422, "validation_failed");
    assert_eq!(api.get("/v1/upstreams/b").await.status, StatusCode::OK);

    let shop = plane.with_token("shop", "editor", &["shop"]).await;
    let others = json!({ "deletes": [key("Upstream", "b")] });
    shop.post("/v1/apply", &others).await.problem(403, "forbidden");
    let own = json!({ "deletes": [{ "kind": "Upstream", "namespace": "shop", "name": "s" }] });
    assert_eq!(shop.post("/v1/apply", &own).await.expect(StatusCode::OK)["revision"], 3);

    let document = api.get("/openapi.json").await.expect(StatusCode::OK);
    let deletes = &document["components"]["schemas"]["ApplyRequest"]["properties"]["deletes"];
    assert_eq!(deletes["items"]["$ref"], "#/components/schemas/Key");
}

#[tokio::test]
async fn a_message_is_one_line_of_text() {
    let plane = Plane::start().await;
    for message in ["two\nlines", "a \u{0} b", "\u{1b}[2J"] {
        let batch = json!({ "resources": [upstream("a")], "message": message });
        let problem = plane.admin.post("/v1/apply", &batch).await.problem(422, "validation_failed");
        assert_eq!(problem["errors"][0]["field"], "message");
    }
}

#[tokio::test]
async fn a_diff_shows_both_sides_of_what_would_change() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[upstream("a"), upstream("b")]).await;
    let changed = labelled("x", "y", upstream("a"));
    let batch = json!({ "resources": [changed, upstream("b"), upstream("c")] });
    let diff = api.post("/v1/diff", &batch).await.expect(StatusCode::OK);
    assert_eq!(diff["revision"], 1);
    assert_eq!(actions(&diff["changes"]), [pair("a", "updated"), pair("c", "created")]);
    assert_eq!(diff["changes"][0]["after"]["metadata"]["labels"]["x"], "y");
    assert!(diff["changes"][0]["before"]["metadata"]["labels"].is_null());
    assert!(diff["changes"][1]["before"].is_null());
    assert_eq!(api.get("/v1/upstreams/c").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn explain_names_the_winner_and_the_revision() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[
        listener("public", 8080),
        upstream("users"),
        route("users", "users"),
        route("other", "users"),
    ])
    .await;
    let answer = api.post("/v1/explain", &json!({ "path": "/users/1" })).await.expect(StatusCode::OK);
    assert_eq!(answer["revision"], 1);
    assert_eq!(answer["listeners"][0]["winner"]["route"], "default/users");
    let missing = api.post("/v1/explain", &json!({ "path": "/nowhere" })).await.expect(StatusCode::OK);
    assert_eq!(missing["listeners"][0]["status"], 404);
    api.post("/v1/explain", &json!({ "path": "/", "listener": "nobody" }))
        .await
        .problem(422, "validation_failed");
    api.post("/v1/explain", &json!({ "pfad": "/" })).await.problem(400, "bad_request");
    api.post("/v1/explain?x=1", &json!({ "path": "/" })).await.problem(400, "bad_request");
}

#[tokio::test]
async fn two_writers_on_one_base_never_break_a_reference() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[listener("public", 8080), upstream("users")]).await;
    let batch = json!({ "resources": [route("a", "users")] });
    let (delete, add) = tokio::join!(api.delete("/v1/upstreams/users"), api.post("/v1/apply", &batch));
    assert!(delete.status.is_success() != add.status.is_success(), "{delete:?} {add:?}");
}

#[tokio::test]
async fn many_writers_at_once_all_get_through() {
    let plane = Plane::start().await;
    let writes = (0..40).map(|n| {
        let (api, path) = (plane.admin.clone(), format!("/v1/upstreams/u{n}"));
        async move { api.put(&path, &upstream(&format!("u{n}"))).await.status }
    });
    let statuses = futures_util::future::join_all(writes).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::CREATED), "{statuses:?}");
    let stored = plane.admin.get("/v1/upstreams").await.expect(StatusCode::OK);
    assert_eq!((stored["items"].as_array().map(Vec::len), stored["revision"].as_u64()), (Some(40), Some(40)));
}
