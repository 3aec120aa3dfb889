//! Backups: what is dumped with sealed secrets becomes another store, where the master key is; and nothing else.

use gateway_control_plane::config::Config;
use gateway_control_plane::run;
use gateway_proto::wire::sync_mode::Value as Mode;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Api, Plane, listener, route, settings, upstream};
use crate::data_plane::{DataPlane, Held};
use crate::secrets::{Pair, https, received};

/// A control plane whose master key is `digit`, 64 times.
async fn plane(digit: &str) -> Plane {
    let dir = tempfile::tempdir().expect("a folder");
    let running = run(with_key(&dir, digit)).await.expect("starts");
    let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
    Plane { admin: Api::new(running.admin, token.trim()), running, dir }
}

fn with_key(dir: &TempDir, digit: &str) -> Config {
    let path = dir.path().join("key");
    std::fs::write(&path, digit.repeat(64)).expect("written");
    Config { master_key_file: Some(path), ..settings(dir) }
}

/// Every object, as a dump has it.
async fn dump(api: &Api) -> Vec<Value> {
    let mut all = Vec::new();
    for plural in ["listeners", "routes", "upstreams", "policies", "certificates"] {
        let path = format!("/v1/{plural}?namespace=*&limit=1000&secrets=sealed");
        let mut list = api.get(&path).await.expect(StatusCode::OK);
        for item in list["items"].as_array_mut().expect("a list") {
            all.push(item.take());
        }
    }
    all
}

fn backup(resources: &[Value]) -> Value {
    json!({ "resources": resources, "message": "after the flood" })
}

#[tokio::test]
async fn a_dump_becomes_another_store_that_data_planes_follow() {
    let (old, new) = (plane("a").await, plane("a").await);
    let pair = Pair::new();
    old.admin.apply(&[upstream("users"), route("users", "users"), listener("public", 8080)]).await;
    old.admin.apply(&[https("secure", "site"), pair.document("site")]).await;
    let mut node = DataPlane::connect(old.running.stream, "one", "default", Held::default()).await;
    node.reach(2).await;

    let dumped = dump(&old.admin).await;
    let text = serde_json::to_string(&dumped).expect("JSON");
    assert!(text.contains("sealed:2:") && !text.contains("PRIVATE KEY"));
    pair.is_not_in("the dump", text.as_bytes());
    assert_eq!(dump(&old.admin).await, dumped, "the same store, the same dump");

    let epoch = node.held.cursor.clone().expect("it holds something").epoch;
    let answer = new.admin.post("/v1/restore", &backup(&dumped)).await.expect(StatusCode::OK);
    assert_eq!((&answer["revision"], answer["changes"].as_array().map(Vec::len)), (&json!(1), Some(5)));
    let entry = new.admin.get("/v1/revisions/1").await.expect(StatusCode::OK);
    assert_eq!(entry["message"], "after the flood");
    let shown = new.admin.get("/v1/certificates/site").await.expect(StatusCode::OK);
    assert_eq!(shown["spec"]["key"], "***");
    let audit = new.admin.get("/v1/audit").await.expect(StatusCode::OK);
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["revision"]),
        (&json!("restore"), &json!(1))
    );

    // The secret is the old one, sealed anew: content hashes differ, so that it is sent once more.
    let mut other = DataPlane::connect(new.running.stream, "two", "default", Held::default()).await;
    other.reach(1).await;
    let mut moved = DataPlane::connect(new.running.stream, "one", "default", node.held.clone()).await;
    let transaction = moved.receive().await;
    assert!(transaction.allow_shrink, "it may be smaller than what the data plane held");
    assert_ne!(transaction.target.epoch, epoch);
    let secrets: Vec<_> = received(&transaction).into_values().collect();
    assert_eq!(secrets, std::slice::from_ref(&pair.key));
    moved.take(&transaction, &[]).await;
    assert_eq!(moved.names().len(), 5);
}

#[tokio::test]
async fn without_its_master_key_a_backup_is_refused_whole_and_the_key_is_named() {
    let (old, new) = (plane("a").await, plane("b").await);
    old.admin.apply(&[Pair::new().document("site"), Pair::new().document("shop"), upstream("users")]).await;
    let dumped = dump(&old.admin).await;
    let problem = new.admin.post("/v1/restore", &backup(&dumped)).await.problem(422, "validation_failed");
    let errors = problem["errors"].as_array().expect("a list");
    assert_eq!(errors.len(), 2, "{problem}");
    for error in errors {
        assert_eq!(error["field"], "spec.key");
        let said = error["message"].as_str().expect("text");
        assert!(said.contains("master key") && said.contains("--master-key-file"), "{said}");
    }
    assert_eq!(new.admin.get("/v1/upstreams").await.expect(StatusCode::OK)["items"], json!([]));

    // The old key beside the new one opens it, and what comes of it is sealed with the new one.
    let dir = tempfile::tempdir().expect("a folder");
    let config = with_key(&dir, "b");
    let key = config.master_key_file.clone().expect("given");
    std::fs::write(&key, format!("{}\n{}\n", "b".repeat(64), "a".repeat(64))).expect("written");
    let both = run(config).await.expect("starts");
    let token = std::fs::read_to_string(dir.path().join("admin-token")).expect("the token file");
    let api = Api::new(both.admin, token.trim());
    api.post("/v1/restore", &backup(&dumped)).await.expect(StatusCode::OK);
    let sealed = |text: &str| text.split(':').nth(2).map(str::to_owned);
    let (then, now) = (&dumped[1]["spec"]["key"], &dump(&api).await[1]["spec"]["key"]);
    assert_ne!(sealed(then.as_str().expect("text")), sealed(now.as_str().expect("text")));
}

#[tokio::test]
async fn what_is_there_is_replaced_only_when_that_is_said() {
    let plane = plane("a").await;
    let api = &plane.admin;
    api.apply(&[upstream("users"), route("users", "users")]).await;
    let before = dump(api).await;
    api.apply(&[upstream("orders"), listener("public", 8080)]).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(2).await;
    let epoch = node.held.cursor.clone().expect("it holds something").epoch;

    let problem = api.post("/v1/restore", &backup(&before)).await.problem(409, "conflict");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("holds 4 objects")), "{problem}");
    let mut wish = backup(&before);
    wish["replace"] = true.into();
    wish["dryRun"] = true.into();
    assert_eq!(api.post("/v1/restore", &wish).await.expect(StatusCode::OK)["revision"], 2);
    wish["dryRun"] = false.into();
    let answer = api.post("/v1/restore", &wish).await.expect(StatusCode::OK);
    assert_eq!(answer["revision"], 3);
    let left = dump(api).await;
    assert_eq!(left.iter().map(|it| &it["metadata"]["name"]).collect::<Vec<_>>(), ["users", "users"]);

    // The stream that is open leads into the new epoch.
    let transaction = node.receive().await;
    assert!(
        transaction.target.epoch != epoch && transaction.target.revision == 3,
        "{:?}",
        transaction.target
    );
    assert!(transaction.allow_shrink);
    // History goes on, and leads back.
    assert_eq!(
        api.post("/v1/revisions/2/rollback", &Value::Null).await.expect(StatusCode::OK)["revision"],
        4
    );
    assert_eq!(dump(api).await.len(), 4);
    let again = DataPlane::connect(plane.running.stream, "two", "default", Held::default()).await;
    assert_eq!(again.mode(), Mode::Full);
}

#[tokio::test]
async fn backups_are_for_admins() {
    let plane = plane("a").await;
    plane.admin.apply(&[Pair::new().document("site")]).await;
    let dumped = dump(&plane.admin).await;
    let editor = plane.with_token("editor", "editor", &[]).await;
    editor.get("/v1/certificates?secrets=sealed").await.problem(403, "forbidden");
    editor.get("/v1/certificates?secrets=clear").await.problem(400, "bad_request");
    editor.post("/v1/restore", &backup(&dumped)).await.problem(403, "forbidden");
    // What a dump has sealed is for a restore only.
    let apply = json!({ "resources": dumped });
    let problem = plane.admin.post("/v1/apply", &apply).await.problem(422, "validation_failed");
    let said = problem["errors"][0]["message"].as_str().expect("text");
    assert!(said.contains("gatewayctl restore"), "{said}");
    // Without a value there is nothing to restore.
    let masked = plane.admin.get("/v1/certificates").await.expect(StatusCode::OK)["items"].clone();
    let empty = self::plane("a").await;
    let problem = empty.admin.post("/v1/restore", &json!({ "resources": masked })).await;
    let problem = problem.problem(422, "validation_failed");
    assert!(problem["errors"][0]["message"].as_str().is_some_and(|it| it.contains("***")), "{problem}");
}

#[tokio::test]
async fn credentials_of_a_backup_come_along_and_those_beside_it_stay() {
    let (old, new) = (plane("a").await, plane("a").await);
    let object = |kind: &str, name: &str, spec: Value| json!({ "apiVersion": "gateway/v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
    let credential = |name: &str, digit: &str| {
        object("Credential", name, json!({ "consumer": "alice", "apiKey": { "sha256": digit.repeat(64) } }))
    };
    let alice = object("Consumer", "alice", json!({}));
    old.admin.apply(&[alice.clone(), credential("laptop", "a")]).await;
    let mut dumped = Vec::new();
    for plural in ["consumers", "credentials"] {
        let list = old.admin.get(&format!("/v1/{plural}?namespace=*&secrets=sealed")).await;
        dumped.extend(list.expect(StatusCode::OK)["items"].as_array().expect("a list").clone());
    }
    let keys = async |api: &Api| {
        let list = api.get("/v1/credentials").await.expect(StatusCode::OK);
        let items = list["items"].as_array().expect("a list").iter();
        items
            .map(|it| it["spec"]["apiKey"]["sha256"].as_str().map(|it| it[..1].to_owned()))
            .collect::<Vec<_>>()
    };
    new.admin.post("/v1/restore", &backup(&dumped)).await.expect(StatusCode::OK);
    assert_eq!(keys(&new.admin).await, [Some("a".to_owned())]);

    // What was revoked since is good again, as the backup says; an apply of the same is refused.
    old.admin.apply(&[credential("phone", "b")]).await;
    old.admin.delete("/v1/credentials/laptop").await.expect(StatusCode::OK);
    let applied = old.admin.post("/v1/apply", &json!({ "resources": [credential("laptop", "a")] })).await;
    applied.problem(422, "validation_failed");
    let mut wish = backup(&dumped);
    wish["replace"] = true.into();
    old.admin.post("/v1/restore", &wish).await.expect(StatusCode::OK);
    assert_eq!(keys(&old.admin).await, [Some("a".to_owned()), Some("b".to_owned())]);
}
