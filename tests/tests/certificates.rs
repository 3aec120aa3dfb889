//! Certificates through the control plane: applied, rotated under load, rolled back, kept over restarts, and their keys
//! found nowhere. The same story on SQLite and on PostgreSQL, with real processes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::Context as _;
use gateway_tests::https::{Https, Pair};
use gateway_tests::process::{Process, program};
use gateway_tests::stack::Stack;
use gateway_tests::wait;
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

fn document(pair: &Pair) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Certificate", "metadata": {"name": "site"},
           "spec": {"cert": pair.cert, "key": pair.key}})
}

fn configuration(pair: &Pair) -> Vec<Value> {
    let listener = json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "secure"},
        "spec": {"address": "127.0.0.1", "port": 0, "protocol": "https", "tls": {"certificates": ["site"]}}});
    let route = json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "hello"},
        "spec": {"respond": {"status": 200, "body": "hello"}}});
    vec![listener, document(pair), route]
}

async fn hello(client: &Https, address: SocketAddr) -> anyhow::Result<()> {
    let answer = client.get(address, "/").await?;
    anyhow::ensure!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer:?}");
    Ok(())
}

/// Waits until every address serves with a certificate.
async fn served_with(pair: &Pair, addresses: &[SocketAddr]) -> anyhow::Result<()> {
    let client = Https::trusting(&[pair])?;
    for address in addresses {
        wait::until(&format!("the certificate on {address}"), || async {
            hello(&client, *address).await.map_err(|error| format!("{error:#}"))
        })
        .await?;
    }
    Ok(())
}

/// Requests on fresh connections until it is finished.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    tasks: JoinSet<Vec<String>>,
}

impl Load {
    fn start(client: &Https, addresses: &[SocketAddr]) -> Load {
        let mut load = Load { stop: Arc::default(), done: Arc::default(), tasks: JoinSet::new() };
        for address in addresses.iter().copied().cycle().take(4) {
            let (client, stop, done) = (client.clone(), Arc::clone(&load.stop), Arc::clone(&load.done));
            load.tasks.spawn(async move {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match hello(&client, address).await {
                        Ok(()) => drop(done.fetch_add(1, Ordering::Relaxed)),
                        Err(error) => failures.push(format!("{error:#}")),
                    }
                }
                failures
            });
        }
        load
    }

    async fn more(&self, requests: u64) -> anyhow::Result<()> {
        let goal = self.done.load(Ordering::Relaxed) + requests;
        wait::until("requests of the load", || async {
            let done = self.done.load(Ordering::Relaxed);
            if done >= goal { Ok(()) } else { Err(format!("{done} of {goal}")) }
        })
        .await
    }

    async fn finish(mut self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(failures) = self.tasks.join_next().await {
            let failures = failures?;
            anyhow::ensure!(failures.is_empty(), "{} failed, first {}", failures.len(), failures[0]);
        }
        Ok(())
    }
}

async fn the_life_of_a_certificate(mut stack: Stack) -> anyhow::Result<()> {
    let (old, new) = (Pair::new()?, Pair::new()?);
    let first = stack.admin().apply(&configuration(&old)).await?;
    stack.applied(first).await?;
    let addresses = stack.listeners("default/secure").await?;
    served_with(&old, &addresses).await?;

    // Rotated back and forth under load, then by rollback.
    let load = Load::start(&Https::trusting(&[&old, &new])?, &addresses);
    let mut last = first;
    for pair in [&new, &old, &new] {
        load.more(20).await?;
        last = stack.admin().apply(&[document(pair)]).await?;
        stack.applied(last).await?;
        served_with(pair, &addresses).await?;
    }
    let difference = stack.gatewayctl(&["rollout", "diff", &first.to_string(), &last.to_string()]).await?;
    let difference = String::from_utf8(difference.stdout)?;
    assert!(difference.contains("\n (spec.key differs; its values are not shown)\n"), "{difference}");
    assert!(difference.contains("-----BEGIN CERTIFICATE-----"), "{difference}");
    let path = format!("/v1/revisions/{first}/rollback");
    let (code, answer) = stack.admin().call(Method::POST, &path, None).await?;
    assert_eq!((code, answer["revision"].as_u64()), (200, Some(last + 1)), "{answer}");
    stack.applied(last + 1).await?;
    served_with(&old, &addresses).await?;
    load.more(20).await?;
    load.finish().await?;

    what_is_shown_is_masked_and_may_be_applied_again(&stack, &[&old, &new]).await?;
    restarts_change_nothing(&mut stack, &old).await?;
    nothing_holds_a_key(&stack, &[&old, &new]).await?;
    another_master_key_is_refused(&mut stack).await?;
    the_master_key_is_replaced(&mut stack, &old).await
}

async fn what_is_shown_is_masked_and_may_be_applied_again(
    stack: &Stack,
    pairs: &[&Pair],
) -> anyhow::Result<()> {
    for arguments in [
        &["get", "certificates", "-o", "yaml"][..],
        &["get", "certificate/site", "-o", "json"],
        &["describe", "certificate", "site"],
        &["rollout", "history"],
        &["rollout", "diff", "1"],
        &["dump"],
        &["status"],
    ] {
        let output = stack.gatewayctl(arguments).await?;
        let said = [output.stdout, output.stderr].concat();
        anyhow::ensure!(!pairs.iter().any(|pair| pair.leaks_into(&said)), "{arguments:?} shows a key");
    }
    let dump = stack.gatewayctl(&["dump"]).await?.stdout;
    assert!(String::from_utf8_lossy(&dump).contains("***"), "{}", String::from_utf8_lossy(&dump));
    let file = stack.directory().join("dump.yaml");
    std::fs::write(&file, &dump)?;
    let before = stack.admin().get("/v1/revisions").await?["items"][0]["revision"].clone();
    let applied = stack.gatewayctl(&["apply", "-f", &file.display().to_string()]).await?;
    let said = String::from_utf8_lossy(&applied.stdout).into_owned();
    assert!(applied.status.success() && said.contains("unchanged"), "{said}");
    assert_eq!(stack.admin().get("/v1/revisions").await?["items"][0]["revision"], before);
    Ok(())
}

async fn restarts_change_nothing(stack: &mut Stack, pair: &Pair) -> anyhow::Result<()> {
    // A data plane without its control plane.
    stack.kill_control_plane().await?;
    stack.data_planes[0].kill().await?;
    stack.restart_data_plane(0, stack.stream_address())?;
    let bound = stack.data_planes[0]
        .line("the address it binds", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let fields = &line["fields"];
            let is_it = fields["listener"] == "default/secure" && fields["message"] == "listening";
            is_it.then(|| fields["address"].as_str()?.parse().ok())?
        })
        .await?;
    served_with(pair, &[bound]).await?;

    // A control plane that knows what its store knows, and a data plane that knows nothing.
    stack.start_control_plane().await?;
    let fresh = stack.start_data_plane(stack.stream_address())?;
    let address = stack.listener(fresh, "default/secure").await?;
    served_with(pair, &[address]).await?;
    let labelled = json!({"apiVersion": "gateway/v1", "kind": "Certificate",
        "metadata": {"name": "site", "labels": {"team": "x"}}, "spec": {"cert": pair.cert, "key": "***"}});
    let revision = stack.admin().apply(&[labelled]).await?;
    stack.applied(revision).await?;
    served_with(pair, &stack.listeners("default/secure").await?).await
}

async fn nothing_holds_a_key(stack: &Stack, pairs: &[&Pair]) -> anyhow::Result<()> {
    let mut found = Vec::new();
    files(stack.directory(), &mut found)?;
    if stack.postgres.is_some() {
        let dump = tokio::process::Command::new("pg_dump").arg(stack.database_url()).output().await?;
        anyhow::ensure!(dump.status.success(), "pg_dump: {}", String::from_utf8_lossy(&dump.stderr));
        assert!(String::from_utf8_lossy(&dump.stdout).contains("COPY public.secrets"));
        found.push(("the database".to_owned(), dump.stdout));
    } else {
        assert!(found.iter().any(|(path, _)| path.ends_with("gateway.db")), "the store is looked at");
    }
    for (index, plane) in stack.data_planes.iter().enumerate() {
        found.push((format!("log of dp-{index}"), plane.lines().join("\n").into_bytes()));
    }
    let control = stack.control_plane.as_ref().context("it runs")?;
    found.push(("log of the control plane".to_owned(), control.lines().join("\n").into_bytes()));
    for path in ["/v1/certificates?namespace=*", "/v1/revisions/1", "/v1/revisions/0...4", "/v1/audit"] {
        found.push((path.to_owned(), stack.admin().get(path).await?.to_string().into_bytes()));
    }
    for (what, content) in &found {
        anyhow::ensure!(!pairs.iter().any(|pair| pair.leaks_into(content)), "{what} holds a key");
    }
    Ok(())
}

fn files(folder: &Path, out: &mut Vec<(String, Vec<u8>)>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files(&path, out)?;
        } else {
            out.push((path.display().to_string(), std::fs::read(&path)?));
        }
    }
    Ok(())
}

async fn another_master_key_is_refused(stack: &mut Stack) -> anyhow::Result<()> {
    stack.kill_control_plane().await?;
    let other = stack.directory().join("other-key");
    std::fs::write(&other, "ab".repeat(32))?;
    let arguments = [
        "--admin-listen=127.0.0.1:0".to_owned(),
        "--stream-listen=127.0.0.1:0".to_owned(),
        format!("--database-url={}", stack.database_url()),
        format!("--state-dir={}", stack.directory().join("control-plane").display()),
        format!("--master-key-file={}", other.display()),
    ];
    let path = program("gateway-control-plane")?;
    let mut process = Process::start("another key", &path.to_string_lossy(), &arguments, &[])?;
    assert!(!process.exited().await?.success());
    // Its last words may be read after it has ended.
    wait::until("why it ended", || async {
        let said = process.lines().join("\n");
        let expected = "is not the one that the store's secrets are sealed with";
        if said.contains(expected) { Ok(()) } else { Err(said) }
    })
    .await?;
    stack.start_control_plane().await
}

async fn the_master_key_is_replaced(stack: &mut Stack, pair: &Pair) -> anyhow::Result<()> {
    let (file, new) = (stack.master_key(), "cd".repeat(32));
    let old = std::fs::read_to_string(&file)?;
    stack.kill_control_plane().await?;
    std::fs::write(&file, format!("{new}\n{old}\n"))?;
    stack.start_control_plane().await?;
    let done = stack.gatewayctl(&["secrets", "rewrap"]).await?;
    let said = [done.stdout, done.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(done.status.success() && said.contains("sealed with master key"), "{said}");
    let audit = stack.admin().get("/v1/audit").await?;
    assert_eq!(audit["items"][0]["action"], "secrets.rewrap", "{audit}");

    // The new key alone does from here on, for what was sealed before too.
    stack.kill_control_plane().await?;
    std::fs::write(&file, &new)?;
    stack.start_control_plane().await?;
    let fresh = stack.start_data_plane(stack.stream_address())?;
    served_with(pair, &[stack.listener(fresh, "default/secure").await?]).await?;
    let again = stack.gatewayctl(&["secrets", "rewrap"]).await?;
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.success() && said.contains("one master key only"), "{said}");
    let same = stack.admin().apply(&[document(pair)]).await;
    assert!(same.is_ok(), "{same:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_certificate_on_sqlite() -> anyhow::Result<()> {
    the_life_of_a_certificate(Stack::new().planes(2).start().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_a_certificate_on_postgres() -> anyhow::Result<()> {
    the_life_of_a_certificate(Stack::new().postgres().planes(2).start().await?).await
}

#[tokio::test(flavor = "multi_thread")]
async fn dev_prints_an_https_listener_as_one() -> anyhow::Result<()> {
    let (home, pair) = (tempfile::TempDir::new()?, Pair::new()?);
    let manifest = home.path().join("https.yaml");
    let documents = configuration(&pair).iter().map(Value::to_string).collect::<Vec<_>>();
    std::fs::write(&manifest, documents.join("\n---\n"))?;
    let state = home.path().join("state");
    let (manifest, state, home) =
        (manifest.display().to_string(), state.display().to_string(), home.path().display().to_string());
    let arguments = ["dev", "-f", &manifest, "--state-dir", &state, "--admin-listen", "127.0.0.1:0"];
    let mut dev = Process::start(
        "dev",
        &program("gatewayctl")?.display().to_string(),
        &arguments.map(str::to_owned),
        &[("HOME", &home), ("XDG_CONFIG_HOME", &home)],
    )?;
    let address: SocketAddr = dev
        .line("the listener's URL", |line| {
            let url = line.strip_prefix("listener    https://")?;
            url.strip_suffix("  (default/secure)")?.parse().ok()
        })
        .await?;
    dev.line("how to try it", |line| line.contains("curl -k -i https://").then_some(())).await?;
    hello(&Https::trusting(&[&pair])?, address).await?;
    dev.signal(nix::sys::signal::Signal::SIGINT)?;
    assert!(dev.exited().await?.success(), "{}", dev.tail());
    Ok(())
}
