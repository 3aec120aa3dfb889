//! Backups with real processes: a dump of one store becomes another, data planes follow, and secrets are readable
//! nowhere on the way. The same story on SQLite and on PostgreSQL.

use std::net::SocketAddr;
use std::process::Output;

use gateway_tests::https::{Https, Pair};
use gateway_tests::stack::Stack;
use gateway_tests::wait;
use serde_json::{Value, json};

fn objects(pair: &Pair, routes: usize) -> Vec<Value> {
    let mut all = vec![
        json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "secure"},
            "spec": {"address": "127.0.0.1", "port": 0, "protocol": "https", "tls": {"certificates": ["site"]}}}),
        json!({"apiVersion": "gateway/v1", "kind": "Certificate", "metadata": {"name": "site"},
            "spec": {"cert": pair.cert, "key": pair.key}}),
        json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "hello"},
            "spec": {"respond": {"body": "cost: $5, $${NOT_A_VARIABLE}"}}}),
    ];
    all.extend((0..routes).map(|n| {
        json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": format!("r{n}"), "namespace": "many"},
            "spec": {"matches": [{"path": {"exact": format!("/r{n}")}}], "respond": {"body": n.to_string()}}})
    }));
    all
}

async fn served(pair: &Pair, address: SocketAddr) -> anyhow::Result<()> {
    let client = Https::trusting(&[pair])?;
    wait::until("an answer under the certificate", || async {
        let answer = client.get(address, "/").await.map_err(|error| format!("{error:#}"))?;
        if answer.ends_with("cost: $5, ${NOT_A_VARIABLE}") { Ok(()) } else { Err(answer) }
    })
    .await
}

fn ok(output: Output) -> anyhow::Result<String> {
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{errors}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn dump_and_restore(mut stack: Stack, routes: usize) -> anyhow::Result<()> {
    let pair = Pair::new()?;
    let admin = stack.admin();
    let revision = admin.apply(&objects(&pair, routes)).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/secure").await?;
    served(&pair, address).await?;

    let plain = ok(stack.gatewayctl(&["dump"]).await?)?;
    let sealed = ok(stack.gatewayctl(&["dump", "--secrets", "sealed"]).await?)?;
    for text in [&plain, &sealed] {
        assert!(!pair.leaks_into(text.as_bytes()), "a dump shows the key");
        assert_eq!(text.lines().filter(|line| *line == "---").count(), routes + 3);
    }
    assert_eq!(ok(stack.gatewayctl(&["dump", "--secrets", "sealed"]).await?)?, sealed, "the same each time");
    std::fs::write(stack.directory().join("backup.yaml"), &sealed)?;

    // The store is lost. What comes in its place is empty, and not followed.
    stack.kill_control_plane().await?;
    let fresh = match &stack.postgres {
        Some(postgres) => postgres.database().await?,
        None => format!("sqlite://{}", stack.directory().join("fresh.db").display()),
    };
    stack.on_store(fresh);
    stack.start_control_plane().await?;
    wait::until("the data plane to wait for an operator", || async {
        let planes = stack.admin().get("/v1/data-planes").await.map_err(|error| format!("{error:#}"))?;
        let blocked = &planes["items"][0]["blocked"];
        if blocked.to_string().contains("epoch_shrink") { Ok(()) } else { Err(planes.to_string()) }
    })
    .await?;
    served(&pair, address).await?;

    let said = ok(stack.gatewayctl(&["restore", "-f", "backup.yaml", "-m", "flood", "--wait"]).await?)?;
    assert!(said.contains("revision 1") && said.contains("dp-0: applied"), "{said}");
    served(&pair, stack.listener(0, "default/secure").await?).await?;
    assert_eq!(ok(stack.gatewayctl(&["dump"]).await?)?, plain, "equal content, equal dump");

    // Somebody's work is not overwritten by accident.
    let again = stack.gatewayctl(&["restore", "-f", "backup.yaml"]).await?;
    assert_eq!(again.status.code(), Some(4), "{}", String::from_utf8_lossy(&again.stderr));
    assert!(String::from_utf8_lossy(&again.stderr).contains("--replace"));
    stack
        .admin()
        .apply(&[json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "later"},
        "spec": {"matches": [{"path": {"exact": "/later"}}], "respond": {"body": "later"}}})])
        .await?;
    let said = ok(stack.gatewayctl(&["restore", "-f", "backup.yaml", "--replace", "--wait"]).await?)?;
    assert!(said.contains("1 deleted") && said.contains("revision 3"), "{said}");
    assert_eq!(ok(stack.gatewayctl(&["dump"]).await?)?, plain);
    served(&pair, address).await
}

#[tokio::test]
async fn a_dump_restored_into_a_new_sqlite_store_is_followed() -> anyhow::Result<()> {
    // As many as the issue names.
    dump_and_restore(Stack::new().start().await?, 10_000).await
}

#[tokio::test]
async fn a_dump_restored_into_a_new_postgres_store_is_followed() -> anyhow::Result<()> {
    dump_and_restore(Stack::new().postgres().start().await?, 10).await
}

#[tokio::test]
async fn without_the_master_key_nothing_is_restored() -> anyhow::Result<()> {
    let mut stack = Stack::new().planes(0).start().await?;
    stack.admin().apply(&objects(&Pair::new()?, 0)).await?;
    std::fs::write(
        stack.directory().join("backup.yaml"),
        ok(stack.gatewayctl(&["dump", "--secrets", "sealed"]).await?)?,
    )?;
    stack.kill_control_plane().await?;
    std::fs::remove_file(stack.master_key())?;
    stack.on_store(format!("sqlite://{}", stack.directory().join("fresh.db").display()));
    stack.start_control_plane().await?;
    let refused = stack.gatewayctl(&["restore", "-f", "backup.yaml"]).await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    for part in ["backup.yaml:", "master key", "was not given", "--master-key-file"] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    assert_eq!(stack.admin().get("/v1/routes").await?["items"], json!([]));
    Ok(())
}
