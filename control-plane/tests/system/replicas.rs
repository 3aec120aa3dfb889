//! Two control planes on one store: what one writes the other reads, publishes and shows.

use gateway_control_plane::config::Config;
use gateway_control_plane::{Running, run};
use gateway_proto::wire;
use http::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Api, labelled, listener, route, settings, upstream};
use crate::data_plane::{DataPlane, Held, hello};
use crate::secrets::{self, https, received};

struct Pair {
    one: Running,
    two: Running,
    first: Api,
    second: Api,
    _dirs: [TempDir; 3],
}

/// Two on one SQLite file: the trait is the same as with PostgreSQL, only slower to tell.
async fn pair() -> Pair {
    let dirs = [(); 3].map(|()| tempfile::tempdir().expect("a folder"));
    let url = format!("sqlite://{}", dirs[2].path().join("shared.db").display());
    let key = dirs[2].path().join("master-key");
    std::fs::write(&key, "0123456789abcdef".repeat(4)).expect("written");
    let on = |dir: &TempDir| Config {
        database_url: Some(url.clone()),
        master_key_file: Some(key.clone()),
        ..settings(dir)
    };
    let one = run(on(&dirs[0])).await.expect("starts");
    let two = run(on(&dirs[1])).await.expect("starts");
    assert!(one.admin_token_path.is_some() && two.admin_token_path.is_none(), "one store, one first token");
    let token = std::fs::read_to_string(dirs[0].path().join("admin-token")).expect("the token");
    let (first, second) = (Api::new(one.admin, token.trim()), Api::new(two.admin, token.trim()));
    Pair { one, two, first, second, _dirs: dirs }
}

async fn until(api: &Api, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let wait = async {
        loop {
            let answer = api.get(path).await;
            if answer.status == StatusCode::OK {
                let answer = answer.expect(StatusCode::OK);
                if wanted(&answer) {
                    return answer;
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.expect("within 30 s")
}

#[tokio::test]
async fn a_commit_on_one_is_read_published_and_built_upon_by_the_other() {
    let pair = pair().await;
    pair.first.apply(&[listener("public", 8080), upstream("users"), route("users", "users")]).await;
    until(&pair.second, "/v1/routes/users", |_| true).await;
    let mut node = DataPlane::connect(pair.two.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    assert_eq!(node.names().len(), 3);

    // The other writes on top, also when it has not heard of the newest head yet.
    assert_eq!(pair.first.apply(&[labelled("a", "1", upstream("users"))]).await, 2);
    assert_eq!(pair.second.apply(&[labelled("a", "2", upstream("users"))]).await, 3);
    node.reach(3).await;
    until(&pair.first, "/v1/upstreams/users", |it| it["metadata"]["labels"]["a"] == "2").await;

    // Both compute the same hashes: a data plane may go from one to the other and gets nothing.
    until(&pair.first, "/v1/status/upstreams/users", |it| it["revision"] == 3).await;
    let moved = DataPlane::connect(pair.one.stream, "one", "default", node.held.clone()).await;
    assert_eq!(moved.mode(), wire::sync_mode::Value::InSync);
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}

#[tokio::test]
async fn what_is_refused_or_unchanged_is_judged_by_what_the_other_wrote_a_moment_ago() {
    let pair = pair().await;
    pair.first.apply(&[listener("public", 8080), upstream("users")]).await;
    assert_eq!(pair.second.apply(&[route("users", "users")]).await, 2, "what it refers to is there");
    assert_eq!(pair.first.apply(&[labelled("a", "1", upstream("users"))]).await, 3);
    assert_eq!(pair.second.apply(&[upstream("users")]).await, 4, "it is a change by now");
    let on_base = json!({ "resources": [labelled("a", "2", upstream("users"))], "baseRevision": 4 });
    assert_eq!(pair.first.post("/v1/apply", &on_base).await.expect(StatusCode::OK)["revision"], 5);
    let patch = json!({ "metadata": { "labels": { "b": "1" } } });
    let patched =
        pair.second.json(http::Method::PATCH, "/v1/upstreams/users", &[("if-match", "\"5\"")], &patch);
    assert_eq!(patched.await.expect(StatusCode::OK)["revision"], 6);
    let same = json!({ "resources": [labelled("b", "1", labelled("a", "2", upstream("users")))] });
    let difference = pair.first.post("/v1/diff", &same).await.expect(StatusCode::OK);
    assert_eq!((&difference["revision"], &difference["changes"]), (&json!(6), &json!([])));
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}

/// Takes transactions until one brings a secret (what is read already may not be published yet).
async fn next_secret(node: &mut DataPlane) -> String {
    loop {
        let transaction = node.receive().await;
        node.take(&transaction, &[]).await;
        if let Some(value) = received(&transaction).into_values().next() {
            return value;
        }
    }
}

#[tokio::test]
async fn a_secret_that_came_by_one_is_sent_kept_and_told_from_others_by_the_other() {
    const CERTIFICATE: &str = "/v1/certificates/site";
    let pair = pair().await;
    let (old, new) = (secrets::Pair::new(), secrets::Pair::new());
    pair.first.apply(&[https("public", "site"), old.document("site")]).await;
    let shown = until(&pair.second, CERTIFICATE, |_| true).await;
    assert_eq!(shown["spec"]["key"], "***");
    let mut node = DataPlane::connect(pair.two.stream, "one", "default", Held::default()).await;
    assert_eq!(next_secret(&mut node).await, old.key);

    for same in [shown, old.document("site")] {
        let answer = pair.second.put(CERTIFICATE, &same).await.expect(StatusCode::OK);
        assert_eq!(answer["changes"][0]["action"], "unchanged");
    }
    assert_eq!(pair.first.apply(&[new.document("site")]).await, 2);
    assert_eq!(next_secret(&mut node).await, new.key);
    let rolled = pair.second.post("/v1/revisions/1/rollback", &Value::Null).await;
    assert_eq!(rolled.expect(StatusCode::OK)["revision"], 3);
    until(&pair.first, "/v1/revisions", |it| it["items"][0]["revision"] == 3).await;
    let answer = pair.first.put(CERTIFICATE, &old.document("site")).await.expect(StatusCode::OK);
    assert_eq!(answer["changes"][0]["action"], "unchanged");
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}

#[tokio::test]
async fn data_planes_of_one_are_shown_and_told_of_by_the_other() {
    let pair = pair().await;
    pair.first.apply(&[listener("public", 8080)]).await;
    let mut events = pair.second.events().await;
    let mut node = DataPlane::connect(pair.one.stream, "far", "default", Held::default()).await;
    node.reach(1).await;
    let entry = until(&pair.second, "/v1/data-planes/far", |entry| entry["inSync"] == true).await;
    assert_eq!((entry["connected"].as_bool(), entry["appliedRevision"].as_u64()), (Some(true), Some(1)));
    until(&pair.second, "/v1/status/listeners/public", |it| it["dataPlanes"][0]["state"] == "applied").await;
    drop(node);
    until(&pair.second, "/v1/data-planes/far", |entry| entry["connected"] == false).await;
    loop {
        let (event, data) = events.next().await;
        if event == "dataPlane" && data["id"] == "far" && data["connected"] == false {
            break;
        }
    }
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}

#[tokio::test]
async fn of_two_processes_of_one_name_on_two_replicas_the_later_is_served_and_both_are_named() {
    let pair = pair().await;
    let come = async |to, instance: &str| {
        let hello = wire::Hello { instance: instance.into(), ..hello("one", "default", &Held::default()) };
        DataPlane::say_hello(to, hello, Held::default()).await
    };
    let later = come(pair.two.stream, "0002").await.expect("welcome");
    until(&pair.first, "/v1/data-planes/one", |entry| entry["connected"] == true).await;
    // The earlier one comes back, by a younger stream, to another replica.
    let mut earlier = come(pair.one.stream, "0001").await.expect("nobody knows yet");
    let cut = async {
        loop {
            if let Err(status) = earlier.hear().await {
                return status;
            }
        }
    };
    let cut = tokio::time::timeout(std::time::Duration::from_secs(60), cut).await.expect("it is found out");
    assert_eq!(cut.code(), tonic::Code::AlreadyExists, "{cut}");
    let refused = come(pair.one.stream, "0001").await.err().expect("known by now");
    let named = |entry: &Value| entry["twin"].is_string() && entry["connected"] == true;
    for api in [&pair.first, &pair.second] {
        let entry = until(api, "/v1/data-planes/one", named).await;
        let address = entry["address"].as_str().expect("where the other one is");
        assert!(refused.message().contains(address), "{refused}: {entry}");
    }
    drop(later);
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}

#[tokio::test]
async fn a_token_made_or_revoked_on_one_counts_on_the_other() {
    let pair = pair().await;
    let wish = serde_json::json!({ "name": "looker", "role": "viewer" });
    let made = pair.first.post("/v1/tokens", &wish).await.expect(StatusCode::CREATED);
    let looker = pair.second.with(made["token"].as_str().expect("shown once"));
    until(&looker, "/v1/routes", |_| true).await;
    assert_eq!(pair.first.delete("/v1/tokens/looker").await.status, StatusCode::NO_CONTENT);
    let revoked = async {
        while looker.get("/v1/routes").await.status != StatusCode::UNAUTHORIZED {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), revoked).await.expect("within 30 s");
    pair.one.shutdown().await;
    pair.two.shutdown().await;
}
