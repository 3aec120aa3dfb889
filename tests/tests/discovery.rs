//! Endpoints from a file, from the file to an answered request, with real processes: followed, kept when the file breaks,
//! known after either plane was started again, and never a revision.

use std::net::SocketAddr;

use gateway_tests::client::{Http, Load};
use gateway_tests::stack::Stack;
use gateway_tests::upstream::{Seen, Upstream};
use gateway_tests::wait;
use serde_json::{Value, json};

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}

fn objects() -> Vec<Value> {
    vec![
        object("Listener", "public", &json!({"address": "127.0.0.1", "port": 0})),
        object("DiscoverySource", "files", &json!({"file": {"path": "services.yaml"}})),
        object("Upstream", "users", &json!({"discovery": {"source": "files", "service": "users"}})),
        object("Route", "users", &json!({"forward": {"backends": [{"upstream": "users"}]}})),
    ]
}

/// Writes the file as a program would that knows its trade: whole, under another name, then renamed.
fn write(stack: &Stack, text: &str) -> anyhow::Result<()> {
    let path = stack.discovery().join("services.yaml");
    std::fs::write(path.with_extension("new"), text)?;
    Ok(std::fs::rename(path.with_extension("new"), path)?)
}

fn users(addresses: &[SocketAddr]) -> String {
    let entry = |address: &SocketAddr| format!("{{ address: \"{address}\" }}");
    format!("services:\n  users: [{}]\n", addresses.iter().map(entry).collect::<Vec<_>>().join(", "))
}

/// Waits until requests are answered like that: by an upstream, or with a reason.
async fn answers(address: SocketAddr, by: &str) -> anyhow::Result<()> {
    wait::until(&format!("{address} to answer by {by}"), || async {
        let answer = Http::default().get(address, "any", "/").await.map_err(|error| format!("{error:#}"))?;
        let who = match answer.status().as_u16() {
            200 => Seen::parse(answer.body()).map_err(|error| format!("{error:#}"))?.upstream,
            _ => serde_json::from_slice::<Value>(answer.body()).map_err(|error| error.to_string())?["type"]
                .to_string(),
        };
        if who.trim_matches('"') == by { Ok(()) } else { Err(who) }
    })
    .await
}

/// Waits until the source's status is so.
async fn status(stack: &Stack, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    let admin = stack.admin();
    wait::until("the source's status", || async {
        let status = admin.get("/v1/discovery/files").await.map_err(|error| format!("{error:#}"))?;
        if is_so(&status) { Ok(status) } else { Err(status.to_string()) }
    })
    .await
}

/// What a data plane shows of its endpoints.
async fn shown(stack: &mut Stack, index: usize) -> anyhow::Result<Value> {
    let admin: SocketAddr = stack.data_planes[index]
        .line("the admin port", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["fields"]["admin"].as_str()?.parse().ok()
        })
        .await?;
    let config = Http::default().get(admin, "localhost", "/config").await?;
    Ok(serde_json::from_slice::<Value>(config.body())?["endpoints"].clone())
}

#[tokio::test]
async fn a_file_is_followed_and_what_is_wrong_with_it_changes_nothing() -> anyhow::Result<()> {
    let (one, two) = (Upstream::start("one").await?, Upstream::start("two").await?);
    let mut stack = Stack::new().start().await?;
    let revision = stack.admin().apply(&objects()).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/public").await?;
    answers(address, "not_ready").await?;
    let missing = status(&stack, |status| status["state"] == "failed" && status["error"].is_string()).await?;
    assert!(missing["error"].to_string().contains("No such file"), "{missing}");

    write(&stack, &users(&[one.address()]))?;
    answers(address, "one").await?;
    let load = Load::start(&[address], "any", "/", 2);
    load.more(20).await?;
    write(&stack, &users(&[two.address()]))?;
    answers(address, "two").await?;
    status(&stack, |status| status["state"] == "synced" && status["endpoints"] == 1).await?;

    // Broken: what was known serves on, and the place is named.
    write(&stack, "services:\n  users:\n    - { address: [\n")?;
    let broken = status(&stack, |status| status["state"] == "stale").await?;
    assert!(broken["error"].to_string().contains("line"), "{broken}");
    load.more(50).await?;
    let told = stack.gatewayctl(&["get", "discoverysources"]).await?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("services.yaml") && told.contains("stale"), "{told}");

    // An entry that is wrong loses itself only.
    let text = format!(
        "services:\n  users:\n    - {{ address: \"{}\" }}\n    - {{ address: nonsense }}\n",
        one.address()
    );
    write(&stack, &text)?;
    answers(address, "one").await?;
    let told = stack.gatewayctl(&["describe", "discoverysource", "files"]).await?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("passed over: services.users[1]") && told.contains("default/users"), "{told}");
    let tally = load.finish().await;
    assert!(tally.failures.is_empty() && tally.ok >= 70, "{tally:?}");

    // Emptied: a second look agrees.
    write(&stack, "services:\n  users: []\n")?;
    answers(address, "no_healthy_target").await?;
    let endpoints = shown(&mut stack, 0).await?;
    assert_eq!(
        (&endpoints[0]["authoritativeEmpty"], &endpoints[0]["source"]),
        (&true.into(), &"default/files".into())
    );
    write(&stack, &users(&[one.address(), two.address()]))?;
    answers(address, "two").await?;
    answers(address, "one").await?;

    // All of that was no revision.
    stack.applied(revision).await?;
    assert_eq!(stack.admin().get("/v1/revisions").await?["items"][0]["revision"], revision);
    assert!((stack.admin().metrics("gateway_stream_divergences_total").await?).abs() < f64::EPSILON);
    assert!(
        (stack.admin().metrics("gateway_discovery_endpoints{source=\"default/files\"}").await? - 2.0).abs()
            < 0.1
    );
    Ok(())
}

#[tokio::test]
async fn what_was_found_outlives_both_planes() -> anyhow::Result<()> {
    let one = Upstream::start("one").await?;
    let mut stack = Stack::new().start().await?;
    write(&stack, &users(&[one.address()]))?;
    let revision = stack.admin().apply(&objects()).await?;
    stack.applied(revision).await?;
    answers(stack.listener(0, "default/public").await?, "one").await?;

    // The control plane ends, the file goes, and another data plane comes: it is told what was known last.
    let mut control_plane = stack.control_plane.take().expect("it runs");
    assert!(control_plane.terminate().await?.success());
    std::fs::remove_file(stack.discovery().join("services.yaml"))?;
    stack.start_control_plane().await?;
    status(&stack, |status| status["state"] == "stale" && status["upstreams"][0]["endpoints"] == 1).await?;
    let another = stack.start_data_plane(stack.stream_address())?;
    answers(stack.listener(another, "default/public").await?, "one").await?;
    let endpoints = shown(&mut stack, another).await?;
    assert_eq!(
        (&endpoints[0]["state"], &endpoints[0]["upstream"]),
        (&"stale".into(), &"default/users".into())
    );

    // The control plane is killed, and the data plane started again: it serves from its disk.
    stack.kill_control_plane().await?;
    assert!(stack.data_planes[0].terminate().await?.success());
    stack.restart_data_plane(0, stack.stream_address())?;
    let bound = stack.data_planes[0]
        .line("a bound listener", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["listener"] == "default/public")
                .then(|| line["fields"]["address"].as_str()?.parse().ok())?
        })
        .await?;
    answers(bound, "one").await?;

    // And follows again once there is somebody to follow.
    let two = Upstream::start("two").await?;
    stack.start_control_plane().await?;
    write(&stack, &users(&[two.address()]))?;
    answers(bound, "two").await
}

#[tokio::test]
async fn an_upstream_goes_from_targets_to_discovery_and_back_without_a_gap() -> anyhow::Result<()> {
    let (one, two) = (Upstream::start("one").await?, Upstream::start("two").await?);
    let stack = Stack::new().start().await?;
    let mut with_targets = objects();
    with_targets[2] =
        object("Upstream", "users", &json!({"targets": [{"address": one.address().to_string()}]}));
    let revision = stack.admin().apply(&with_targets).await?;
    stack.applied(revision).await?;
    let address = stack.listener(0, "default/public").await?;
    answers(address, "one").await?;

    // Nobody has read the source yet: what there was serves on.
    let load = Load::start(&[address], "any", "/", 2);
    let revision = stack.admin().apply(&objects()).await?;
    stack.applied(revision).await?;
    load.more(50).await?;
    answers(address, "one").await?;
    write(&stack, &users(&[two.address()]))?;
    answers(address, "two").await?;

    // A service that is wrong is not one without instances.
    write(&stack, "services:\n  users: null\n")?;
    status(&stack, |status| status["upstreams"][0]["state"] == "held").await?;
    let revision = stack.admin().apply(&with_targets).await?;
    stack.applied(revision).await?;
    answers(address, "one").await?;
    let tally = load.finish().await;
    assert!(tally.failures.is_empty() && tally.ok >= 50, "{tally:?}");
    Ok(())
}
