//! `gateway-control-plane migrate`: a store goes from SQLite to PostgreSQL with everything in it, and data planes find
//! the store that they know.

use std::process::Output;

use gateway_control_plane::auth;
use gateway_control_plane::store::{self, StoreError, transfer};
use gateway_proto::admin::Role;
use gateway_tests::client::Admin;
use gateway_tests::https::Pair;
use gateway_tests::process::program;
use gateway_tests::services::Postgres;
use gateway_tests::stack::Stack;
use gateway_tests::wait;
use http::Method;
use serde_json::{Value, json};

fn route(body: &str) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "r", "labels": {"a": "1"}},
           "spec": {"respond": {"body": body}}})
}

fn objects(pair: &Pair) -> Vec<Value> {
    let listener = json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
        "spec": {"address": "127.0.0.1", "port": 0, "protocol": "https", "tls": {"certificates": ["site"]}}});
    let certificate = json!({"apiVersion": "gateway/v1", "kind": "Certificate", "metadata": {"name": "site"},
        "spec": {"cert": pair.cert, "key": pair.key}});
    vec![listener, certificate, route("one\n\ttwo \\N \u{1f980}")]
}

async fn migrate(from: &str, to: &str) -> anyhow::Result<Output> {
    let mut command = tokio::process::Command::new(program("gateway-control-plane")?);
    Ok(command.args(["migrate", "--from", from, "--to", to]).env_clear().output().await?)
}

fn said(output: &Output) -> (bool, String) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text.into_owned())
}

/// All that the API tells of a store.
async fn everything(admin: &Admin) -> anyhow::Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in [
        "/v1/listeners?secrets=sealed",
        "/v1/certificates?secrets=sealed",
        "/v1/routes",
        "/v1/revisions",
        "/v1/revisions/1",
        "/v1/revisions/2",
        "/v1/revisions/3",
        "/v1/revisions/4",
        "/v1/tokens",
        "/v1/audit",
    ] {
        all.push(admin.get(path).await?);
    }
    Ok(all)
}

#[tokio::test]
async fn a_store_moves_to_postgres_whole_and_data_planes_resume() -> anyhow::Result<()> {
    let mut stack = Stack::new().planes(2).start().await?;
    let admin = stack.admin();
    let pair = Pair::new()?;
    admin.apply(&objects(&pair)).await?;
    let odd = json!({"resources": [route("two")], "message": "back\\slash, \\N and \u{1f980}"});
    assert_eq!(admin.call(Method::POST, "/v1/apply", Some(&odd)).await?.0, 200);
    admin.call(Method::DELETE, "/v1/routes/r", None).await?;
    let (status, _) = admin.call(Method::POST, "/v1/revisions/1/rollback", None).await?;
    assert_eq!(status, 200);
    let token = json!({"name": "ci", "role": "viewer", "namespaces": ["default"]});
    admin.call(Method::POST, "/v1/tokens", Some(&token)).await?;
    stack.applied(4).await?;
    let before = everything(&admin).await?;

    let postgres = Postgres::start().await?;
    let (source, target) = (stack.database_url().to_owned(), postgres.database().await?);
    let (done, text) = said(&migrate(&source, &target).await?);
    assert!(!done && text.contains("in use by another process"), "{text}");
    stack.control_plane.as_mut().expect("it runs").terminate().await?;
    let (done, text) = said(&migrate(&source, &target).await?);
    assert!(done && text.contains("revision 4 of epoch") && text.contains("--master-key-file"), "{text}");
    let (done, text) = said(&migrate(&source, &target).await?);
    assert!(!done && text.contains("holds a store already, at revision 4"), "{text}");

    let key = stack.master_key();
    stack.postgres = Some(postgres);
    std::fs::copy(key, stack.master_key())?;
    stack.on_store(target);
    let known: Vec<usize> = stack.data_planes.iter().map(|plane| plane.welcomes().len()).collect();
    stack.start_control_plane().await?;
    for (plane, known) in stack.data_planes.iter().zip(known) {
        let mode = wait::until("the data plane to come back", || async {
            plane.welcomes().get(known).map(|(mode, _)| mode.clone()).ok_or("not yet")
        });
        assert_eq!(mode.await?, "in_sync");
    }
    let after = everything(&stack.admin()).await?;
    assert_eq!(after, before);
    // Numbers go on: of revisions, and of the audit log.
    assert_eq!(stack.admin().apply(&[route("three")]).await?, 5);
    stack.applied(5).await?;
    let audit = stack.admin().get("/v1/audit").await?;
    let ids: Vec<_> = audit["items"].as_array().expect("a list").iter().map(|it| it["id"].as_u64()).collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    Ok(())
}

#[tokio::test]
async fn a_store_that_cannot_be_moved_whole_is_not_moved_at_all() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let source = format!("sqlite://{}/gateway.db", dir.path().display());
    let (_, token) = auth::new_token("admin", Role::Admin, Vec::new(), None);
    let opened = store::open(&source, &token).await?.store;
    // SQLite takes such a name, PostgreSQL does not.
    let (_, token) = auth::new_token("a\0b", Role::Viewer, Vec::new(), None);
    opened.put_token(token).await?;
    opened.close().await;
    drop(opened);
    let postgres = Postgres::start().await?;
    let target = postgres.database().await?;
    let error = transfer::transfer(&source, &target).await.expect_err("it is refused");
    assert!(matches!(&error, StoreError::Broken(why) if why.contains("NUL")), "{error}");
    for table in ["meta", "tokens", "token_version", "leader"] {
        let rows = postgres.query(&target, &format!("SELECT count(*) FROM {table}")).await?;
        assert_eq!(rows, if table == "leader" { "1" } else { "0" }, "{table}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_no_such_store_is_named() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let postgres = Postgres::start().await?;
    let target = postgres.database().await?;
    let missing = format!("sqlite://{}/nowhere.db", dir.path().display());
    let text = dir.path().join("text.db");
    std::fs::write(&text, "not a database, however long it may be; it is only text, after all")?;
    let text = format!("sqlite://{}", text.display());
    let free = gateway_tests::process::free_port()?;
    let nobody = format!("postgres://ann:hunter2@127.0.0.1:{free}/x");
    for (from, to, expected) in [
        (&*missing, &*target, "there is no such file"),
        (&text, &target, "text.db"),
        (&target, &target, "--from names a server"),
        (&missing, &missing, "there is no such file"),
        ("oracle://x", &target, "--from"),
    ] {
        let (done, said) = said(&migrate(from, to).await?);
        assert!(!done && said.contains(expected), "{from} {to}: {said}");
        assert!(!said.contains("--database-url"), "{said}");
    }
    assert!(!dir.path().join("nowhere.db").exists(), "nothing is made");
    let source = format!("sqlite://{}/gateway.db", dir.path().display());
    let (_, token) = auth::new_token("admin", Role::Admin, Vec::new(), None);
    store::open(&source, &token).await?.store.close().await;
    for (to, expected) in [(&*source, "--to names no server"), (&nobody, "that --to names it")] {
        let (done, said) = said(&migrate(&source, to).await?);
        assert!(!done && said.contains(expected) && !said.contains("hunter2"), "{to}: {said}");
    }
    Ok(())
}
