//! How a data plane starts when nobody can tell it anything: from its own disk with a large configuration, and from
//! the copy of another.

use std::net::SocketAddr;
use std::time::Instant;

use gateway_tests::client::Http;
use gateway_tests::process::{Process, program};
use gateway_tests::stack::Stack;
use gateway_tests::{full_profile, wait};
use serde_json::{Value, json};

fn listener() -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
           "spec": {"address": "127.0.0.1", "port": 0}})
}

fn route(n: usize) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": format!("r{n}")},
           "spec": {"hosts": [format!("h{}.example.com", n / 10)],
                    "matches": [{"path": {"prefix": format!("/api/v1/service-{n}")}, "methods": ["GET", "POST"]}],
                    "respond": {"body": n.to_string()}}})
}

/// Address that a process logged for something.
async fn logged(process: &mut Process, what: &str, value: &str) -> anyhow::Result<SocketAddr> {
    process
        .line(&format!("the address of {value}"), |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = &line["fields"];
            let is_it = fields[what].as_str().is_some_and(|text| value.is_empty() || text == value);
            is_it.then(|| fields["address"].as_str()?.parse().ok())?
        })
        .await
}

async fn answers(address: SocketAddr, host: &str, path: &str, body: &str) -> anyhow::Result<()> {
    let http = Http::default();
    wait::until(&format!("{path} to answer"), || async {
        match http.get(address, host, path).await {
            Ok(answer) if answer.body() == body.as_bytes() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

/// `<= 2 s` for 100,000 routes is a figure of a release build: `full` prints it, a debug build is many times slower.
#[tokio::test]
async fn a_large_configuration_serves_from_disk_without_a_control_plane() -> anyhow::Result<()> {
    let routes = if full_profile() { 100_000 } else { 2_000 };
    let mut stack = Stack::new().start().await?;
    stack.admin().apply(&[listener()]).await?;
    let mut revision = 0;
    for part in (0..routes).collect::<Vec<_>>().chunks(20_000) {
        revision = stack.admin().apply(&part.iter().map(|&n| route(n)).collect::<Vec<_>>()).await?;
    }
    stack.applied(revision).await?;
    stack.kill_control_plane().await?;
    assert!(stack.data_planes[0].terminate().await?.success());
    let size = std::fs::metadata(stack.data_plane_state(0).join("last-good"))?.len();

    let begun = Instant::now();
    stack.restart_data_plane(0, stack.stream_address())?;
    let address = logged(&mut stack.data_planes[0], "listener", "default/public").await?;
    let last = routes - 1;
    let (host, path) = (format!("h{}.example.com", last / 10), format!("/api/v1/service-{last}/x"));
    answers(address, &host, &path, &last.to_string()).await?;
    println!("{routes} routes ({size} bytes on disk): first answer {:?} after the start", begun.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_new_replica_starts_from_anothers_snapshot_while_the_control_plane_is_dead() -> anyhow::Result<()> {
    let mut stack = Stack::new().planes(0).start().await?;
    let key = stack.directory().join("snapshot-key");
    std::fs::write(&key, "2a".repeat(32))?;
    let (stream, folder) = (stack.stream_address(), stack.directory().to_owned());
    let plane = |name: &str, more: &[String]| {
        let mut arguments = vec![
            format!("--control-plane=http://{stream}"),
            format!("--node={name}"),
            "--admin-listen=127.0.0.1:0".to_owned(),
            format!("--state-dir={}", folder.join(name).display()),
            format!("--snapshot-key-file={}", key.display()),
            "--log-format=json".to_owned(),
        ];
        arguments.extend_from_slice(more);
        Process::start(name, &program("gateway-data-plane")?.to_string_lossy(), &arguments, &[])
    };
    let mut old = plane("old", &[])?;
    stack.admin().apply(&[listener(), route(1)]).await?;
    let address = logged(&mut old, "listener", "default/public").await?;
    answers(address, "h0.example.com", "/api/v1/service-1", "1").await?;
    let admin = logged(&mut old, "admin", "").await?;
    let snapshot = format!("http://{admin}/snapshot");
    wait::until("the copy on disk", || async {
        match Http::default().get(admin, "localhost", "/snapshot").await {
            Ok(answer) if answer.status() == 200 => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;

    stack.kill_control_plane().await?;
    let mut new = plane("new", &[format!("--bootstrap-snapshot={snapshot}")])?;
    let address = logged(&mut new, "listener", "default/public").await?;
    answers(address, "h0.example.com", "/api/v1/service-1", "1").await?;
    assert!(new.welcomes().is_empty(), "no control plane answers");

    // As if it had never been without one.
    stack.start_control_plane().await?;
    let mode = wait::until("a welcome", || async {
        new.welcomes().first().map(|(mode, _)| mode.clone()).ok_or("not yet")
    });
    assert_eq!(mode.await?, "in_sync");
    let mut changed = route(1);
    changed["spec"]["respond"]["body"] = "changed".into();
    stack.admin().apply(&[changed]).await?;
    answers(address, "h0.example.com", "/api/v1/service-1", "changed").await
}
