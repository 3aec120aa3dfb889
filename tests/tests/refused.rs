//! A revision that one data plane must refuse while another serves it: shown wherever somebody would look, and mended
//! without help when the cause is gone.

use std::net::SocketAddr;

use gateway_tests::client::Http;
use gateway_tests::process::free_port;
use gateway_tests::stack::Stack;
use gateway_tests::wait;
use serde_json::{Value, json};

async fn answers(address: SocketAddr, body: &str) -> anyhow::Result<()> {
    wait::until(&format!("{address} to answer {body:?}"), || async {
        match Http::default().get(address, "any", "/").await {
            Ok(answer) if answer.body() == body.as_bytes() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// What `gatewayctl` says, and its exit code.
async fn ctl(stack: &Stack, arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = stack.gatewayctl(arguments).await?;
    let said = [&*output.stdout, &*output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

#[tokio::test]
async fn a_port_that_is_taken_on_one_host_is_shown_everywhere_and_heals_when_it_is_free() -> anyhow::Result<()>
{
    let mut stack = Stack::new().start().await?;
    let route = |body: &str| json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "r"}, "spec": {"respond": {"body": body}}});
    // Of two data planes on one host, the first to come has the port: the other finds it taken.
    let port = free_port()?;
    let listener = json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
        "spec": {"address": "127.0.0.1", "port": port}});
    let revision = stack.admin().apply(&[listener.clone(), route("one")]).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/public").await?;
    answers(address, "one").await?;
    let second = stack.start_data_plane(stack.stream_address())?;
    stack.applied(revision).await?;

    let file = stack.directory().join("two.yaml");
    std::fs::write(&file, format!("{listener}\n---\n{}\n", route("two")))?;
    let path = file.display().to_string();
    let (code, said) = ctl(&stack, &["apply", "-f", &path, "--wait=30s"]).await?;
    assert_eq!(code, Some(5), "{said}");
    assert!(said.contains("dp-1: refused Listener default/public: spec.port"), "{said}");
    answers(address, "two").await?;
    let (_, said) = ctl(&stack, &["status", "listener", "public"]).await?;
    assert!(said.contains("dp-1") && said.contains("refused") && said.contains(&port.to_string()), "{said}");
    let (_, said) = ctl(&stack, &["nodes", "-o", "json"]).await?;
    let nodes: Value = serde_json::from_str(&said)?;
    let rejects = |at: usize| nodes["items"][at]["rejects"].as_array().cloned().unwrap_or_default();
    assert_eq!(rejects(0), Vec::<Value>::new(), "{said}");
    assert_eq!(
        (&rejects(1)[0]["code"], &rejects(1)[0]["field"]),
        (&"port_in_use".into(), &"spec.port".into())
    );

    // The cause goes, and nobody does anything.
    assert!(stack.data_planes[0].terminate().await?.success());
    assert_eq!(stack.listener(second, "default/public").await?, address);
    answers(address, "two").await?;
    let healed = || async {
        let planes = stack.admin().get("/v1/data-planes").await.map_err(|error| format!("{error:#}"))?;
        let items = planes["items"].as_array().cloned().unwrap_or_default();
        let plane = items.iter().find(|it| it["id"] == "dp-1").cloned().unwrap_or(Value::Null);
        let sound = plane["inSync"] == true && plane["rejects"].as_array().is_none_or(Vec::is_empty);
        if sound { Ok(()) } else { Err(planes.to_string()) }
    };
    wait::until("dp-1 to refuse nothing", healed).await?;
    let (_, said) = ctl(&stack, &["status", "listener", "public"]).await?;
    assert!(!said.contains("refused"), "{said}");
    Ok(())
}
