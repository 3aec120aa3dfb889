//! Who may do what: tokens, roles, namespaces, the audit log.

use http::StatusCode;
use serde_json::json;

use crate::client::{Plane, in_namespace, listener, route, upstream};

#[tokio::test]
async fn without_a_good_token_only_health_answers() {
    let plane = Plane::start().await;
    let nobody = plane.admin.with("");
    for path in ["/v1/routes", "/v1/revisions", "/v1/watch", "/metrics", "/openapi.json", "/v1/tokens"] {
        let answer = nobody.get(path).await;
        answer.problem(401, "unauthorized");
        assert!(answer.headers["www-authenticate"].to_str().expect("text").starts_with("Bearer"));
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(nobody.get(path).await.status, StatusCode::OK);
    }
    plane.admin.with("gwa_nonsense").get("/v1/routes").await.problem(401, "unauthorized");
    nobody.get("/nowhere").await.problem(404, "not_found");
}

#[tokio::test]
async fn roles_bound_what_a_token_may_do() {
    let plane = Plane::start().await;
    let viewer = plane.with_token("looker", "viewer", &[]).await;
    let editor = plane.with_token("writer", "editor", &[]).await;
    let batch = json!({ "resources": [upstream("a")] });
    viewer.post("/v1/apply", &batch).await.problem(403, "forbidden");
    viewer.put("/v1/upstreams/a", &upstream("a")).await.problem(403, "forbidden");
    viewer.delete("/v1/upstreams/a").await.problem(403, "forbidden");
    assert_eq!(viewer.post("/v1/diff", &batch).await.status, StatusCode::OK);
    assert_eq!(viewer.get("/metrics").await.status, StatusCode::OK);
    assert_eq!(editor.post("/v1/apply", &batch).await.status, StatusCode::OK);
    editor.get("/v1/tokens").await.problem(403, "forbidden");
    editor.get("/v1/audit").await.problem(403, "forbidden");
    editor.post("/v1/revisions/0/rollback", &json!({})).await.problem(403, "forbidden");
}

#[tokio::test]
async fn namespaces_bound_every_read_and_write() {
    let plane = Plane::start().await;
    let admin = &plane.admin;
    admin
        .apply(&[
            listener("public", 8080),
            upstream("a"),
            route("a", "a"),
            in_namespace("shop", upstream("s")),
            in_namespace("shop", route("s", "s")),
        ])
        .await;
    let shop = plane.with_token("shop", "editor", &["shop"]).await;
    shop.get("/v1/upstreams/a").await.problem(403, "forbidden");
    shop.get("/v1/upstreams").await.problem(403, "forbidden");
    shop.get("/v1/status/upstreams/a").await.problem(403, "forbidden");
    shop.put("/v1/upstreams/a", &upstream("a")).await.problem(403, "forbidden");
    shop.delete("/v1/upstreams/a").await.problem(403, "forbidden");
    let all = shop.get("/v1/upstreams?namespace=*").await.expect(StatusCode::OK);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(shop.get("/v1/upstreams/s?namespace=shop").await.status, StatusCode::OK);

    // One foreign document refuses the batch as a whole.
    let mixed = json!({ "resources": [in_namespace("shop", upstream("t")), upstream("b")] });
    shop.post("/v1/apply", &mixed).await.problem(403, "forbidden");
    shop.post("/v1/diff", &mixed).await.problem(403, "forbidden");
    shop.get("/v1/upstreams/t?namespace=shop").await.problem(404, "not_found");
    let own = json!({ "resources": [in_namespace("shop", upstream("t"))] });
    assert_eq!(shop.post("/v1/apply", &own).await.expect(StatusCode::OK)["revision"], 2);

    let history = shop.get("/v1/revisions/1").await.expect(StatusCode::OK);
    assert_eq!(history["changes"].as_array().map(Vec::len), Some(2));
    let between = shop.get("/v1/revisions/0...2").await.expect(StatusCode::OK);
    assert_eq!(between["changes"].as_array().map(Vec::len), Some(3));
    // The listener is of another namespace: nothing of it is told.
    let explained = shop.post("/v1/explain", &json!({ "path": "/a" })).await.expect(StatusCode::OK);
    assert!(explained["listeners"].as_array().expect("listeners").is_empty());
}

#[tokio::test]
async fn a_token_is_shown_once_listed_without_its_secret_and_revoked_at_once() {
    let plane = Plane::start().await;
    let viewer = plane.with_token("looker", "viewer", &["shop"]).await;
    assert_eq!(viewer.get("/v1/routes?namespace=shop").await.status, StatusCode::OK);
    let list = plane.admin.get("/v1/tokens").await.expect(StatusCode::OK);
    let looker = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .find(|token| token["name"] == "looker")
        .expect("listed");
    assert!(looker.get("token").is_none() && looker["namespaces"] == json!(["shop"]), "{looker}");
    let again = json!({ "name": "looker", "role": "viewer" });
    plane.admin.post("/v1/tokens", &again).await.problem(409, "conflict");
    assert_eq!(plane.admin.delete("/v1/tokens/looker").await.status, StatusCode::NO_CONTENT);
    viewer.get("/v1/routes?namespace=shop").await.problem(401, "unauthorized");
    plane.admin.delete("/v1/tokens/looker").await.problem(404, "not_found");
}

#[tokio::test]
async fn a_wish_for_a_token_is_checked_as_a_whole() {
    let plane = Plane::start().await;
    let bad = json!({ "name": "A b", "role": "viewer", "namespaces": ["ok", "Not"], "expires": "2001-01-01T00:00:00Z" });
    let problem = plane.admin.post("/v1/tokens", &bad).await.problem(422, "validation_failed");
    let fields: Vec<_> =
        problem["errors"].as_array().expect("errors").iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["name", "namespaces[1]", "expires"]);
    let bad = json!({ "name": "a", "role": "viewer", "expires": "tomorrow" });
    plane.admin.post("/v1/tokens", &bad).await.problem(422, "validation_failed");
    let wide = json!({ "name": "a", "role": "admin", "namespaces": ["shop"] });
    let problem = plane.admin.post("/v1/tokens", &wide).await.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["field"], "namespaces");
    plane.admin.post("/v1/tokens", &json!({ "name": "a", "role": "god" })).await.problem(400, "bad_request");
    let soon = json!({ "name": "a", "role": "viewer", "expires": "2999-01-01T00:00:00Z" });
    assert_eq!(
        plane.admin.post("/v1/tokens", &soon).await.expect(StatusCode::CREATED)["expires"],
        "2999-01-01T00:00:00Z"
    );
}

#[tokio::test]
async fn the_audit_log_names_who_did_and_who_tried() {
    let plane = Plane::start().await;
    let viewer = plane.with_token("looker", "viewer", &[]).await;
    plane.admin.put("/v1/upstreams/a", &upstream("a")).await.expect(StatusCode::CREATED);
    viewer.delete("/v1/upstreams/a").await.problem(403, "forbidden");
    let long = format!("/v1/upstreams/{}", "x".repeat(5_000));
    viewer.put(&long, &upstream("a")).await.problem(403, "forbidden");
    let entries = loop {
        // Refused attempts are written beside the answer: soon, not at once.
        let list = plane.admin.get("/v1/audit").await.expect(StatusCode::OK);
        let entries = list["items"].as_array().expect("items").clone();
        if entries.iter().filter(|entry| entry["status"] == 403).count() == 2 {
            break entries;
        }
        tokio::task::yield_now().await;
    };
    let cut = entries.iter().find(|entry| entry["action"] == "put" && entry["status"] == 403);
    assert_eq!(cut.expect("kept")["object"].as_str().map(str::len), Some(256));
    let find = |action: &str| entries.iter().rfind(|entry| entry["action"] == action).expect("an entry");
    assert_eq!((find("put")["who"].as_str(), find("put")["revision"].as_u64()), (Some("admin"), Some(1)));
    assert_eq!(find("put")["object"], "Upstream default/a");
    assert_eq!(
        (find("delete")["who"].as_str(), find("delete")["from"].as_str()),
        (Some("looker"), Some("127.0.0.1"))
    );
    assert_eq!(find("token.create")["object"], "looker");
    plane.admin.get("/v1/audit?limit=0").await.problem(400, "bad_request");
    let first = plane.admin.get("/v1/audit?limit=1").await.expect(StatusCode::OK);
    let next = first["nextCursor"].as_str().expect("there are more");
    let second = plane.admin.get(&format!("/v1/audit?limit=1&cursor={next}")).await.expect(StatusCode::OK);
    assert!(second["items"][0]["id"].as_u64() < first["items"][0]["id"].as_u64());
}

#[tokio::test]
async fn a_watch_ends_with_its_token() {
    let plane = Plane::start().await;
    let looker = plane.with_token("looker", "viewer", &[]).await;
    let (mut own, others) = (plane.admin.events().await, looker.events().await);
    assert_eq!(plane.admin.delete("/v1/tokens/looker").await.status, StatusCode::NO_CONTENT);
    others.ended().await;
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(1);
    let wish = json!({ "name": "brief", "role": "viewer", "expires": soon.to_string() });
    let made = plane.admin.post("/v1/tokens", &wish).await.expect(StatusCode::CREATED);
    plane.admin.with(made["token"].as_str().expect("shown once")).events().await.ended().await;
    // Whoever watches with another token is not concerned.
    plane.admin.apply(&[upstream("a")]).await;
    assert_eq!(own.next().await.1["revision"], 1);
}

#[tokio::test]
async fn what_others_did_in_their_namespaces_is_not_told() {
    let plane = Plane::start().await;
    let shop = plane.with_token("shop", "viewer", &["shop"]).await;
    let mut events = shop.events().await;
    let write = async |document, message: &str| {
        let batch = json!({ "resources": [document], "message": message });
        plane.admin.post("/v1/apply", &batch).await.expect(StatusCode::OK);
    };
    write(upstream("a"), "for us").await;
    write(in_namespace("shop", upstream("s")), "for the shop").await;
    let facts = |it: &serde_json::Value| {
        let text = |name: &str| it[name].as_str().expect("text").to_owned();
        (it["revision"].as_u64(), text("author"), text("message"), it["created"].as_u64())
    };
    let foreign = (Some(1), String::new(), String::new(), Some(0));
    let own = (Some(2), "admin".to_owned(), "for the shop".to_owned(), Some(1));
    let list = shop.get("/v1/revisions").await.expect(StatusCode::OK);
    assert_eq!((facts(&list["items"][0]), facts(&list["items"][1])), (own.clone(), foreign.clone()));
    assert_eq!(facts(&shop.get("/v1/revisions/1").await.expect(StatusCode::OK)), foreign);
    for expected in [foreign, own] {
        assert_eq!(facts(&events.next().await.1), expected);
    }
    let all = plane.admin.get("/v1/revisions/1").await.expect(StatusCode::OK);
    assert_eq!(all["message"], "for us");
}

#[tokio::test]
async fn what_stands_in_the_way_in_other_namespaces_is_not_named() {
    let plane = Plane::start().await;
    let mut guest = in_namespace("shop", route("guest", "s"));
    guest["spec"]["listeners"] = json!(["default/public"]);
    plane.admin.apply(&[listener("public", 8080), in_namespace("shop", upstream("s")), guest]).await;
    let shop = plane.with_token("shop", "editor", &["shop"]).await;
    let owner = plane.with_token("owner", "editor", &["default"]).await;

    let taken = in_namespace("shop", listener("mine", 8080));
    let refused = shop.put("/v1/listeners/mine?namespace=shop", &taken).await;
    let problem = refused.problem(422, "validation_failed");
    assert_eq!(problem["errors"][0]["code"], "port_conflict");
    assert!(
        refused.text.contains("another namespace's Listener") && !refused.text.contains("default/public")
    );
    let refused = owner.delete("/v1/listeners/public").await;
    refused.problem(409, "in_use");
    assert!(refused.text.contains("another namespace's Route") && !refused.text.contains("shop/guest"));
    let told = plane.admin.delete("/v1/listeners/public").await;
    assert!(told.text.contains("Route shop/guest"), "{}", told.text);

    let explain = async |listener: &str| {
        let answer = shop.post("/v1/explain", &json!({ "path": "/", "listener": listener })).await;
        answer.problem(422, "validation_failed")["detail"].as_str().expect("text").to_owned()
    };
    let missing = explain("default/nobody").await;
    assert_eq!(explain("default/public").await, missing.replace("nobody", "public"));
    assert_eq!(explain("public").await, missing.replace("nobody", "public"));
}

#[tokio::test]
async fn join_tokens_and_the_ca_are_the_admin_s_business_and_bad_wishes_are_answered_whole() {
    let plane = Plane::start().await;
    let bad = json!({ "name": "Edge 1", "group": "a/b", "uses": 0, "ttl": "8761h" });
    let problem = plane.admin.post("/v1/join-tokens", &bad).await.problem(422, "validation_failed");
    let fields: Vec<_> =
        problem["errors"].as_array().expect("a list").iter().map(|error| error["field"].clone()).collect();
    assert_eq!(fields, ["name", "group", "uses", "ttl"], "{problem}");
    for (uses, ttl) in [(100_001, "1h"), (1, "0s"), (1, "soon")] {
        let bad = json!({ "name": "edge", "group": "edge", "uses": uses, "ttl": ttl });
        plane.admin.post("/v1/join-tokens", &bad).await.problem(422, "validation_failed");
    }
    let unknown = json!({ "name": "edge", "group": "edge", "for": "ever" });
    plane.admin.post("/v1/join-tokens", &unknown).await.problem(400, "bad_request");
    let good = json!({ "name": "edge", "group": "edge" });
    let editor = plane.with_token("writer", "editor", &[]).await;
    editor.post("/v1/join-tokens", &good).await.problem(403, "forbidden");
    editor.get("/v1/join-tokens").await.problem(403, "forbidden");
    editor.post("/v1/ca/rotate", &json!({})).await.problem(403, "forbidden");
    editor.post("/v1/data-planes/a/revoke", &json!({})).await.problem(403, "forbidden");

    let made = plane.admin.post("/v1/join-tokens", &good).await.expect(StatusCode::CREATED);
    assert_eq!((&made["uses"], &made["used"]), (&json!(1), &json!(0)), "{made}");
    let secret = made["token"].as_str().expect("shown once");
    plane.admin.post("/v1/join-tokens", &good).await.problem(409, "conflict");
    let listed = plane.admin.get("/v1/join-tokens").await;
    assert!(!listed.text.contains(secret), "{}", listed.text);
    let ca = editor.get("/v1/ca").await.expect(StatusCode::OK);
    assert_eq!((&ca["roots"][0]["state"], &ca["roots"][0]["sha256"]), (&json!("active"), &made["ca"]));
    assert!(secret.contains(made["ca"].as_str().expect("a hash")));
    plane.admin.delete("/v1/join-tokens/none").await.problem(404, "not_found");
    let revoke = async |query: &str| {
        plane.admin.post(&format!("/v1/data-planes/dp-O/revoke{query}"), &json!({})).await
    };
    revoke("").await.problem(404, "not_found");
    revoke("?force=perhaps").await.problem(400, "bad_request");
    assert_eq!(revoke("?force=true").await.status, StatusCode::NO_CONTENT);
    let audit = plane.admin.get("/v1/audit").await;
    assert!(audit.text.contains("join_token.create") && !audit.text.contains(secret), "{}", audit.text);
}
