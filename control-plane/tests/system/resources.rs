//! `/v1/{plural}`: one object at a time, pages, conditions.

use http::{Method, StatusCode};
use serde_json::json;

use crate::client::{Plane, in_namespace, labelled, listener, route, upstream};

#[tokio::test]
async fn an_object_is_put_read_listed_patched_and_deleted() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let put = api.put("/v1/upstreams/users", &upstream("users")).await;
    let body = put.expect(StatusCode::CREATED);
    assert_eq!(
        (body["revision"].as_u64(), body["changes"][0]["action"].as_str()),
        (Some(1), Some("created"))
    );

    let got = api.get("/v1/upstreams/users").await;
    assert_eq!(got.etag(), put.etag());
    let object = got.expect(StatusCode::OK);
    assert_eq!(object["metadata"]["generation"], "1");
    assert_eq!(object["metadata"]["namespace"], "default");
    assert_eq!(object["spec"]["targets"][0]["address"], "127.0.0.1:9101");

    // What was read may be written back: nothing changes.
    let again = api.put("/v1/upstreams/users", &object).await;
    assert_eq!(again.expect(StatusCode::OK)["changes"][0]["action"], "unchanged");
    assert_eq!(again.etag(), put.etag());

    let patch =
        json!({ "metadata": { "labels": { "team": "x" } }, "spec": { "timeouts": { "connect": "1s" } } });
    let patched = api.json(Method::PATCH, "/v1/upstreams/users", &[], &patch).await;
    assert_eq!(patched.expect(StatusCode::OK)["revision"], 2);
    let object = api.get("/v1/upstreams/users").await.expect(StatusCode::OK);
    assert_eq!(object["metadata"]["labels"]["team"], "x");
    assert_eq!(object["spec"]["timeouts"]["connect"], "1s");
    assert_eq!(object["spec"]["targets"][0]["address"], "127.0.0.1:9101");

    assert_eq!(
        api.get("/v1/upstreams").await.expect(StatusCode::OK)["items"].as_array().map(Vec::len),
        Some(1)
    );
    assert_eq!(api.delete("/v1/upstreams/users").await.expect(StatusCode::OK)["revision"], 3);
    api.get("/v1/upstreams/users").await.problem(404, "not_found");
    api.delete("/v1/upstreams/users").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_stale_or_false_condition_is_refused_and_changes_nothing() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let first = api.put("/v1/upstreams/users", &upstream("users")).await;
    let tag = first.etag().to_owned();
    let with = |header: &'static str, value: String, document| async move {
        api.json(Method::PUT, "/v1/upstreams/users", &[(header, value.as_str())], &document).await
    };
    let changed = labelled("a", "1", upstream("users"));
    assert_eq!(with("if-match", tag.clone(), changed.clone()).await.status, StatusCode::OK);
    with("if-match", tag.clone(), upstream("users")).await.problem(412, "precondition_failed");
    with("if-none-match", "*".into(), upstream("users")).await.problem(412, "precondition_failed");
    with("if-match", "W/\"1\"".into(), upstream("users")).await.problem(400, "bad_request");
    with("if-none-match", "\"1\"".into(), upstream("users")).await.problem(400, "bad_request");
    let patch = json!({ "metadata": { "labels": null } });
    api.json(Method::PATCH, "/v1/upstreams/users", &[("if-match", &tag)], &patch)
        .await
        .problem(412, "precondition_failed");
    api.send(Method::DELETE, "/v1/upstreams/users", &[("if-match", &tag)], None)
        .await
        .problem(412, "precondition_failed");
    let none = api.json(Method::PUT, "/v1/upstreams/other", &[("if-match", "*")], &upstream("other")).await;
    none.problem(412, "precondition_failed");
    let absent =
        api.json(Method::PUT, "/v1/upstreams/other", &[("if-none-match", "*")], &upstream("other")).await;
    assert_eq!(absent.status, StatusCode::CREATED);
    let object = api.get("/v1/upstreams/users").await.expect(StatusCode::OK);
    assert_eq!(object["metadata"]["labels"]["a"], "1");
    let tag = api.get("/v1/upstreams/users").await.etag().to_owned();
    assert_eq!(
        api.send(Method::DELETE, "/v1/upstreams/users", &[("if-match", &tag)], None).await.status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_dry_run_answers_like_a_write_and_stores_nothing() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let dry = api.put("/v1/upstreams/users?dryRun=true", &upstream("users")).await.expect(StatusCode::OK);
    assert_eq!((dry["revision"].as_u64(), dry["changes"][0]["action"].as_str()), (Some(0), Some("created")));
    api.get("/v1/upstreams/users").await.problem(404, "not_found");
    api.apply(&[upstream("users")]).await;
    let patch = json!({ "spec": { "timeouts": { "connect": "1s" } } });
    let dry =
        api.json(Method::PATCH, "/v1/upstreams/users?dryRun=true", &[], &patch).await.expect(StatusCode::OK);
    assert_eq!(dry["changes"][0]["action"], "updated");
    let dry = api.delete("/v1/upstreams/users?dryRun=true").await.expect(StatusCode::OK);
    assert_eq!((dry["revision"].as_u64(), dry["changes"][0]["action"].as_str()), (Some(1), Some("deleted")));
    assert_eq!(api.get("/v1/upstreams/users").await.etag(), "\"1\"");
    api.put("/v1/upstreams/users?dryRun=perhaps", &upstream("users")).await.problem(400, "bad_request");
}

#[tokio::test]
async fn lists_select_by_namespace_and_labels_and_go_on_where_the_page_ended() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let mut documents: Vec<_> = (0..5).map(|n| upstream(&format!("u{n}"))).collect();
    documents.push(labelled("team", "x", upstream("u5")));
    documents.push(in_namespace("shop", labelled("team", "x", upstream("u0"))));
    api.apply(&documents).await;

    let names = |list: &serde_json::Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items");
        items
            .iter()
            .map(|item| {
                format!("{}/{}", item["metadata"]["namespace"], item["metadata"]["name"]).replace('"', "")
            })
            .collect()
    };
    let list = |query: &'static str| async move {
        api.get(&format!("/v1/upstreams{query}")).await.expect(StatusCode::OK)
    };
    assert_eq!(names(&list("").await).len(), 6);
    assert_eq!(names(&list("?namespace=shop").await), ["shop/u0"]);
    assert_eq!(names(&list("?namespace=*").await).len(), 7);
    assert_eq!(names(&list("?namespace=*&labels=team%3Dx").await), ["default/u5", "shop/u0"]);
    assert_eq!(names(&list("?labels=!team,other!%3Dx").await).len(), 5);
    assert!(names(&list("?namespace=nowhere").await).is_empty());

    let mut all = Vec::new();
    let mut cursor = String::new();
    loop {
        let page =
            api.get(&format!("/v1/upstreams?namespace=*&limit=3{cursor}")).await.expect(StatusCode::OK);
        assert!(names(&page).len() <= 3);
        all.extend(names(&page));
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(all, names(&list("?namespace=*").await));

    for query in ["?limit=0", "?limit=1001", "?limit=x", "?cursor=%21", "?labels=%3Dx", "?nonsense=1"] {
        api.get(&format!("/v1/upstreams{query}")).await.problem(400, "bad_request");
    }
    api.get("/v1/gadgets").await.problem(404, "not_found");
}

#[tokio::test]
async fn what_others_refer_to_is_not_deleted() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    api.apply(&[listener("public", 8080), upstream("users"), route("users", "users")]).await;
    let problem = api.delete("/v1/upstreams/users").await.problem(409, "in_use");
    assert_eq!(problem["errors"][0]["code"], "in_use");
    assert!(problem["errors"][0]["message"].as_str().expect("text").contains("default/users"), "{problem}");
    assert_eq!(api.get("/v1/upstreams/users").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_document_that_contradicts_its_place_or_has_faults_is_refused_with_every_fault() {
    let plane = Plane::start().await;
    let api = &plane.admin;
    let other = api.put("/v1/upstreams/users", &upstream("others")).await.problem(422, "validation_failed");
    assert_eq!(other["errors"][0]["field"], "metadata.name");
    let unknown = api.put("/v1/upstreams/users", &json!({ "spec": { "tragets": [] } })).await;
    let unknown = unknown.problem(422, "validation_failed");
    assert_eq!(
        (unknown["errors"][0]["field"].as_str(), unknown["errors"][0]["code"].as_str()),
        (Some("spec.tragets"), Some("unknown"))
    );
    assert!(unknown["errors"][0]["message"].as_str().expect("text").contains("targets"));
    let dangling = api.put("/v1/routes/a", &route("a", "nobody")).await.problem(422, "validation_failed");
    assert_eq!(dangling["errors"][0]["code"], "dangling_reference");
    let patch = json!({ "spec": { "nonsense": 1 } });
    api.apply(&[upstream("users")]).await;
    let patched =
        api.json(Method::PATCH, "/v1/upstreams/users", &[], &patch).await.problem(422, "validation_failed");
    assert_eq!(patched["errors"][0]["object"]["name"], "users");
    api.json(Method::PATCH, "/v1/upstreams/users", &[], &json!([])).await.problem(400, "bad_request");
    api.json(Method::PATCH, "/v1/upstreams/nobody", &[], &json!({})).await.problem(404, "not_found");
}
