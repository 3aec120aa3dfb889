//! Secrets: masked in every answer, sealed in the store, streamed to those that need them.

use std::collections::BTreeMap;
use std::path::Path;

use gateway_control_plane::config::Config;
use gateway_control_plane::{RunError, run};
use gateway_proto::kind::{Key, Kind};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Answer, Plane, in_namespace, listener, settings, upstream};
use crate::data_plane::{DataPlane, Held, Transaction};

/// A certificate and its key, as PEM.
pub(crate) struct Pair {
    cert: String,
    pub(crate) key: String,
}

impl Pair {
    pub(crate) fn new() -> Pair {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        Pair { cert: made.cert.pem(), key: made.signing_key.serialize_pem() }
    }

    /// The same pair as a document.
    pub(crate) fn document(&self, name: &str) -> Value {
        json!({
            "apiVersion": "gateway/v1",
            "kind": "Certificate",
            "metadata": { "name": name },
            "spec": { "cert": self.cert, "key": self.key },
        })
    }

    /// What must be found nowhere: the key's own text, without its first and last line.
    fn traces(&self) -> Vec<String> {
        let lines = self.key.lines().filter(|line| !line.starts_with("-----"));
        lines.map(|line| line[..line.len().min(40)].to_owned()).collect()
    }

    #[track_caller]
    pub(crate) fn is_not_in(&self, what: &str, content: &[u8]) {
        for trace in self.traces() {
            let found = content.windows(trace.len()).any(|window| window == trace.as_bytes());
            assert!(!found, "{what} shows the key");
        }
    }
}

pub(crate) fn https(name: &str, certificate: &str) -> Value {
    let mut listener = listener(name, 8443);
    listener["spec"]["protocol"] = json!("https");
    listener["spec"]["tls"] = json!({ "certificates": [certificate] });
    listener
}

fn masked(mut document: Value) -> Value {
    document["spec"]["key"] = json!("***");
    document
}

/// Values of secrets that came with a transaction, by object.
pub(crate) fn received(transaction: &Transaction) -> BTreeMap<String, String> {
    let secrets = transaction.upserts.iter().flat_map(|upsert| {
        let body = gateway_proto::kind::Resource::decode(upsert.kind.parse().expect("a kind"), &upsert.body);
        let key = body.expect("a resource").key().to_string();
        upsert.secrets.iter().map(move |it| (format!("{key} {}", it.field), it.value.clone()))
    });
    secrets.collect()
}

const CERTIFICATE: &str = "/v1/certificates/site";

#[tokio::test]
async fn a_secret_is_shown_in_no_answer() {
    let plane = Plane::start().await;
    let (old, new) = (Pair::new(), Pair::new());
    plane.admin.apply(&[https("public", "site"), old.document("site")]).await;
    let changed = json!({ "resources": [new.document("site")] });
    let mut answers: Vec<Answer> = vec![
        plane.admin.post("/v1/diff", &changed).await,
        plane.admin.post("/v1/apply?dryRun=true", &changed).await,
        plane.admin.post("/v1/apply", &changed).await,
    ];
    let diff = answers[0].expect(StatusCode::OK);
    assert_eq!(diff["changes"][0]["before"]["spec"]["key"], "***");
    assert_eq!(diff["changes"][0]["after"]["spec"]["key"], "***");
    for path in [
        CERTIFICATE,
        "/v1/certificates",
        "/v1/revisions",
        "/v1/revisions/2",
        "/v1/revisions/0...2",
        "/v1/status/certificates/site",
        "/v1/audit",
        "/v1/data-planes",
        "/metrics",
    ] {
        answers.push(plane.admin.get(path).await);
    }
    answers.push(plane.admin.post("/v1/revisions/1/rollback?dryRun=true", &Value::Null).await);
    answers.push(plane.admin.put(CERTIFICATE, &old.document("site")).await);
    answers.push(plane.admin.delete("/v1/certificates/site?dryRun=true").await);
    for answer in &answers {
        old.is_not_in("an answer", answer.text.as_bytes());
        new.is_not_in("an answer", answer.text.as_bytes());
        assert!(!answer.text.contains("sealed:"), "{}", answer.text);
    }
    let shown = plane.admin.get(CERTIFICATE).await.expect(StatusCode::OK);
    assert_eq!((&shown["spec"]["key"], &shown["spec"]["cert"]), (&json!("***"), &json!(old.cert)));
}

#[tokio::test]
async fn the_mask_keeps_the_stored_value() {
    let plane = Plane::start().await;
    let (pair, other) = (Pair::new(), Pair::new());
    plane.admin.apply(&[https("public", "site"), pair.document("site")]).await;
    let shown = plane.admin.get(CERTIFICATE).await;
    let tag = shown.etag().to_owned();

    // What was read is put back, the value is given again: nothing changes.
    for same in [shown.expect(StatusCode::OK), pair.document("site")] {
        let answer = plane.admin.put(CERTIFICATE, &same).await;
        assert_eq!(answer.expect(StatusCode::OK)["changes"][0]["action"], "unchanged");
        assert_eq!(answer.etag(), tag);
    }
    let applied =
        plane.admin.post("/v1/apply", &json!({ "resources": [shown.expect(StatusCode::OK)] })).await;
    assert_eq!(applied.expect(StatusCode::OK)["revision"], 1);

    // Something else changes, the value stays.
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    node.reach(1).await;
    let patch = json!({ "metadata": { "labels": { "team": "x" } } });
    let patched = plane.admin.json(Method::PATCH, CERTIFICATE, &[("if-match", &tag)], &patch).await;
    assert_eq!(patched.expect(StatusCode::OK)["revision"], 2);
    assert_ne!(patched.etag(), tag);
    let sent = node.receive().await;
    let value = BTreeMap::from([("Certificate default/site spec.key".to_owned(), pair.key.clone())]);
    assert_eq!(received(&sent), value);
    node.take(&sent, &[]).await;

    // A new certificate needs its own key: the stored one does not fit, and the violation does not show it.
    let mut torn = masked(pair.document("site"));
    torn["spec"]["cert"] = json!(other.cert);
    let refused = plane.admin.put(CERTIFICATE, &torn).await;
    assert_eq!(refused.problem(422, "validation_failed")["errors"][0]["field"], "spec.key");
    pair.is_not_in("a violation", refused.text.as_bytes());
    let patch = json!({ "spec": { "cert": other.cert, "key": other.key } });
    let both = plane.admin.json(Method::PATCH, CERTIFICATE, &[], &patch).await;
    assert_eq!(both.expect(StatusCode::OK)["revision"], 3);
}

#[tokio::test]
async fn the_mask_of_a_new_object_is_a_violation() {
    let plane = Plane::start().await;
    let new = masked(Pair::new().document("site"));
    let batch = json!({ "resources": [upstream("u"), new] });
    for answer in [
        plane.admin.put(CERTIFICATE, &new).await,
        plane.admin.put("/v1/certificates/site?dryRun=true", &new).await,
        plane.admin.post("/v1/apply", &batch).await,
        plane.admin.post("/v1/diff", &batch).await,
    ] {
        let errors = &answer.problem(422, "validation_failed")["errors"];
        assert_eq!((&errors[0]["field"], &errors[0]["code"]), (&json!("spec.key"), &json!("required")));
        assert!(errors[0]["message"].as_str().expect("text").contains("give the value itself"), "{errors}");
        assert_eq!(errors.as_array().map(Vec::len), Some(1));
    }
    assert_eq!(plane.admin.get("/v1/revisions").await.expect(StatusCode::OK)["items"], json!([]));
}

#[tokio::test]
async fn what_is_wrong_with_a_secret_is_said_without_it() {
    let plane = Plane::start().await;
    let pair = Pair::new();
    let with = |key: Value| {
        let mut document = pair.document("site");
        document["spec"]["key"] = key;
        document
    };
    let cut = pair.key.replace("-----END", "-----FIN");
    let mut misplaced = listener("public", 1);
    misplaced["spec"]["port"] = json!(pair.key);
    let mut unknown = listener("public", 1);
    unknown["spec"]["protocol"] = json!(pair.key);
    for wrong in
        [with(json!(cut)), with(json!([pair.key])), with(json!({ pair.key.as_str(): 1 })), misplaced, unknown]
    {
        let answer = plane.admin.post("/v1/apply", &json!({ "resources": [wrong] })).await;
        answer.problem(422, "validation_failed");
        pair.is_not_in("a violation", answer.text.as_bytes());
    }
}

/// Every file below a folder, but for the master key.
fn files(folder: &Path, out: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out);
        } else {
            out.push((path.display().to_string(), std::fs::read(&path).expect("read")));
        }
    }
}

#[tokio::test]
async fn the_store_holds_no_secret_and_a_rollback_brings_an_old_one_back() {
    let plane = Plane::start().await;
    let (old, new) = (Pair::new(), Pair::new());
    plane.admin.apply(&[https("public", "site"), old.document("site")]).await;
    assert_eq!(plane.admin.apply(&[new.document("site")]).await, 2);
    let roots = |revisions: Value| {
        let items = revisions["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|it| it["rootHash"].clone()).collect::<Vec<_>>()
    };

    // From the store alone: nothing is left in memory.
    let dir = plane.stop().await;
    let mut found = Vec::new();
    files(dir.path(), &mut found);
    assert!(found.iter().any(|(path, _)| path.ends_with("gateway.db")));
    for (path, content) in &found {
        old.is_not_in(path, content);
        new.is_not_in(path, content);
    }
    let plane = Plane::start_in(dir).await;
    let mut node = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    let everything = node.receive().await;
    assert_eq!(received(&everything).into_values().collect::<Vec<_>>(), [new.key.as_str()]);
    node.take(&everything, &[]).await;

    let rolled = plane.admin.post("/v1/revisions/1/rollback", &Value::Null).await;
    assert_eq!(rolled.expect(StatusCode::OK)["revision"], 3);
    let difference = node.receive().await;
    assert_eq!(received(&difference).into_values().collect::<Vec<_>>(), [old.key.as_str()]);
    node.take(&difference, &[]).await;
    let roots = roots(plane.admin.get("/v1/revisions").await.expect(StatusCode::OK));
    assert_eq!(roots[0], roots[2], "the same content has the same hash");

    // Gone and back again.
    plane.admin.delete("/v1/listeners/public").await.expect(StatusCode::OK);
    plane.admin.delete(CERTIFICATE).await.expect(StatusCode::OK);
    let rolled = plane.admin.post("/v1/revisions/2/rollback", &Value::Null).await;
    assert_eq!(rolled.expect(StatusCode::OK)["revision"], 6);
    node.reach(6).await;
    let mut fresh = DataPlane::connect(plane.running.stream, "two", "default", Held::default()).await;
    assert_eq!(received(&fresh.receive().await).into_values().collect::<Vec<_>>(), [new.key.as_str()]);
}

#[tokio::test]
async fn a_secret_goes_only_to_groups_that_refer_to_it() {
    let plane = Plane::start().await;
    let (edge, unused) = (Pair::new(), Pair::new());
    let mut for_edge = https("public", "site");
    for_edge["spec"]["dataPlanes"] = json!({ "group": "edge" });
    let other = in_namespace("shop", unused.document("site"));
    plane.admin.apply(&[for_edge, edge.document("site"), other, listener("open", 8080)]).await;
    let mut others = DataPlane::connect(plane.running.stream, "one", "default", Held::default()).await;
    others.reach(1).await;
    assert_eq!(others.names(), ["Listener default/open"]);
    let mut node = DataPlane::connect(plane.running.stream, "two", "edge", Held::default()).await;
    let all = node.receive().await;
    let expected = BTreeMap::from([("Certificate default/site spec.key".to_owned(), edge.key.clone())]);
    assert_eq!(received(&all), expected);
    node.take(&all, &[]).await;

    // It comes with the first reference and leaves with the last.
    let mut late = in_namespace("shop", https("late", "site"));
    late["spec"]["port"] = json!(9443);
    plane.admin.apply(&[late]).await;
    others.reach(2).await;
    let key = Key::new(Kind::Certificate, "shop", "site");
    assert!(others.held.items.contains_key(&key));
    plane.admin.delete("/v1/listeners/late?namespace=shop").await.expect(StatusCode::OK);
    others.reach(3).await;
    assert_eq!(others.names(), ["Listener default/open"]);
}

#[tokio::test]
async fn without_its_own_master_key_a_store_is_not_opened() {
    let dir = Plane::start().await.stop().await;
    let made = dir.path().join("master-key");
    let text = std::fs::read_to_string(&made).expect("made with the store");
    assert_eq!(text.trim().len(), 64);
    let config = |file: &Path| Config { master_key_file: Some(file.to_owned()), ..settings(&dir) };
    let other = dir.path().join("other");
    let cases = [
        (Some("ab".repeat(32)), "is not the one that the store's secrets are sealed with"),
        (Some("hunter2".to_owned()), "expected 64 hex digits a line"),
        (None, "cannot read the master key"),
    ];
    for (content, expected) in cases {
        let _ = std::fs::remove_file(&other);
        if let Some(content) = content {
            std::fs::write(&other, content).expect("written");
        }
        let error = run(config(&other)).await.expect_err("refused");
        assert!(matches!(error, RunError::MasterKey(_)), "{error}");
        let said = error.to_string();
        assert!(said.contains(expected) && said.contains("other") && !said.contains("hunter2"), "{said}");
    }
    // Where it is does not matter, that it is there does.
    std::fs::rename(&made, &other).expect("moved");
    let error = run(settings(&dir)).await.expect_err("refused").to_string();
    assert!(error.contains("put it back"), "{error}");
    run(config(&other)).await.expect("the right key").shutdown().await;
    assert!(!made.exists(), "none is made for a store that has one");
}

#[tokio::test]
async fn on_postgres_a_master_key_must_be_given() {
    let dir = tempfile::tempdir().expect("a folder");
    let url = Some("postgres://nobody@127.0.0.1:1/none".to_owned());
    let error = run(Config { database_url: url, ..settings(&dir) }).await.expect_err("refused").to_string();
    assert!(error.contains("--master-key-file") && error.contains("openssl rand -hex 32"), "{error}");
    assert!(!dir.path().join("master-key").exists());
}
