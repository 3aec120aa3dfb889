//! The benchmark's own parts, for real but small: origin, generator and driver with our data plane, without peers and
//! without a word about speed. What they count must be true, above all the errors.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use gateway_tests::PATIENCE;
use gateway_tests::process::{Process, program};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::process::Command;

/// An origin and a data plane before it, which knows `/` and nothing else.
struct Setup {
    counts: SocketAddr,
    proxy: SocketAddr,
    _processes: [Process; 2],
    _directory: TempDir,
}

impl Setup {
    async fn start() -> anyhow::Result<Self> {
        let load = program("gateway-load")?;
        let mut origin = Process::start("origin", &load.to_string_lossy(), &["origin".to_owned()], &[])?;
        let listening = origin.line("its addresses", |line| serde_json::from_str::<Value>(line).ok()).await?;
        let address = |name: &str| listening[name].as_str().context("an address").map(str::to_owned);
        let directory = tempfile::tempdir()?;
        let manifest = directory.path().join("gateway.yaml");
        tokio::fs::write(&manifest, manifests(&address("address")?)).await?;
        let arguments = [
            format!("--manifests={}", manifest.display()),
            format!("--state-dir={}", directory.path().join("state").display()),
            "--admin-listen=127.0.0.1:0".to_owned(),
            "--log-format=json".to_owned(),
        ];
        let plane = program("gateway-data-plane")?;
        let mut plane = Process::start("data plane", &plane.to_string_lossy(), &arguments, &[])?;
        let proxy = plane
            .line("a bound listener", |line| {
                let line: Value = serde_json::from_str(line).ok()?;
                line["fields"]["listener"].as_str()?;
                line["fields"]["address"].as_str()?.parse().ok()
            })
            .await?;
        let counts = address("counts")?.parse()?;
        Ok(Setup { counts, proxy, _processes: [origin, plane], _directory: directory })
    }

    /// What the generator reports after a short run with these options.
    async fn generate(&self, options: &str) -> anyhow::Result<Value> {
        let target = self.proxy.to_string();
        let mut arguments = vec!["generate", "--target", &target, "--seconds", "0.3"];
        arguments.extend(options.split_whitespace());
        let mut command = Command::new(program("gateway-load")?);
        let output = command.args(&arguments).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, output).await.context("it did not end")??;
        let text = String::from_utf8(output.stdout)?;
        let last = text.lines().last().with_context(|| format!("{options}: {:?}", output.status))?;
        Ok(serde_json::from_str(last)?)
    }

    /// Connections and requests that the origin has seen.
    async fn seen(&self) -> anyhow::Result<(u64, u64)> {
        let mut text = String::new();
        TcpStream::connect(self.counts).await?.read_to_string(&mut text).await?;
        let counts: Value = serde_json::from_str(&text)?;
        let count = |name: &str| counts[name].as_u64().context("a number");
        Ok((count("connections")?, count("requests")?))
    }
}

fn manifests(origin: &str) -> String {
    format!(
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: public }}\nspec: {{ address: 127.0.0.1, port: 0 }}\n---\n\
         apiVersion: gateway/v1\nkind: Upstream\nmetadata: {{ name: origin }}\nspec: {{ targets: [{{ address: '{origin}' }}] }}\n---\n\
         apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: one }}\nspec:\n  matches: [{{ path: {{ exact: / }} }}]\n  \
         forward: {{ backends: [{{ upstream: origin }}] }}\n"
    )
}

#[tokio::test]
async fn every_kind_of_load_arrives_at_the_origin_without_an_error() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    let mut sent = 0;
    for options in
        ["", "--rate 200", "--post 65536", "--reconnect", "--warmup 0.1", "--protocol http2 --streams 3"]
    {
        let report = setup.generate(options).await?;
        assert_eq!(report["errors"], 0, "{options}: {report}");
        let requests = report["requests"].as_u64().context("requests")?;
        assert!(requests > 0 && report["p99"].as_f64() >= report["p50"].as_f64(), "{options}: {report}");
        if options == "--rate 200" {
            assert!(requests + report["unsent"].as_u64().context("unsent")? <= 61, "{report}");
        }
        sent += requests;
    }
    // The origin may have seen more: what was answered in the warm-up is not in the reports.
    let (connections, requests) = setup.seen().await?;
    assert!(requests >= sent && connections < requests, "{connections} {requests} {sent}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_exactly_what_was_asked_for_is_an_error() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    for (options, kind) in [("--routes 10 --hosts 2", "status"), ("--expect 1000", "body")] {
        let report = setup.generate(options).await?;
        assert_eq!(report["requests"], 0, "{options}: {report}");
        assert!(report["errors"].as_u64() > Some(0), "{options}: {report}");
        assert_eq!(report["errors"], report["failures"][kind], "{options}: {report}");
    }
    let nobody = Setup { proxy: SocketAddr::from(([127, 0, 0, 1], 1)), ..setup };
    let report = nobody.generate("").await?;
    assert!(report["failures"]["connect"].as_u64() > Some(0), "{report}");
    Ok(())
}

#[tokio::test]
async fn held_connections_stay_open_until_standard_input_ends() -> anyhow::Result<()> {
    let setup = Setup::start().await?;
    let report = setup.generate("--hold --connections 100").await?;
    assert_eq!((&report["held"], &report["errors"]), (&100.into(), &0.into()), "{report}");
    Ok(())
}

#[tokio::test]
async fn the_drivers_own_tests_hold() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("load");
    let mut command = Command::new("python3");
    command.args(["-B", "-m", "unittest", "driver.tests"]).current_dir(folder).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.context("it did not end")??;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn the_driver_prints_a_table_and_writes_it_as_json() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let run = Path::new(env!("CARGO_MANIFEST_DIR")).join("load/run");
    let out = directory.path().join("result");
    let output = Command::new(run)
        .args([
            "--peers=",
            "--floor",
            "--variants=plain,newconn,policies,growth",
            "--rounds=1",
            "--minutes=0.01",
            "--seconds=0.3",
            "--warmup=0.1",
        ])
        .args(["--paced-seconds=0.3", "--syscalls=off"])
        .arg(format!("--cache={}", directory.path().join("peers").display()))
        .arg(format!("--out={}", out.display()))
        .arg(format!("--ours={}", program("gateway-data-plane")?.display()))
        .arg(format!("--load={}", program("gateway-load")?.display()))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE * 4, output).await.context("it did not end")??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");

    let written: Value = serde_json::from_slice(&tokio::fs::read(out.with_extension("json")).await?)?;
    let table = String::from_utf8(output.stdout)?;
    assert_eq!(tokio::fs::read_to_string(out.with_extension("md")).await?, table);
    for variant in ["plain", "newconn", "policies"] {
        let found = &written["variants"][variant];
        let cell = &found["cells"]["ours"][0];
        assert_eq!((&cell["errors"], cell["perSecond"].as_f64() > Some(0.0)), (&0.into(), true), "{said}");
        // CPU time comes in ticks of 10 ms: on a busy machine a run as short as this may get less than one.
        assert!(cell["cpu"].is_number() && cell["loadedBytes"].as_u64() > Some(1 << 20), "{cell}");
        assert!(found["rate"].as_f64() > Some(0.0) && cell["p50"].as_f64() > Some(0.0), "{found}");
        let row = table.lines().find(|line| line.starts_with(&format!("| {variant} |")));
        assert!(row.is_some_and(|row| row.matches('|').count() == 6), "{table}");
    }
    for variant in ["plain", "newconn"] {
        let floor = &written["variants"][variant]["cells"]["floor"][0];
        assert_eq!((&floor["errors"], floor["perSecond"].as_f64() > Some(0.0)), (&0.into(), true), "{said}");
    }
    assert_eq!(table.lines().filter(|line| line.starts_with("| floor |")).count(), 2, "{table}");
    let grown = &written["variants"]["growth"]["cells"]["ours"][0];
    let samples = grown["memory"].as_array().map(Vec::len);
    assert!(samples > Some(20) && grown["errors"] == 0, "looked at many times: {grown}");
    assert_eq!(table.lines().filter(|line| line.starts_with("| ours |")).count(), 4, "{table}");
    Ok(())
}

#[tokio::test]
async fn the_benchmark_of_the_stream_measures_every_row() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("result");
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("load/sync"))
        .args(["--routes=120", "--clients=20", "--changes=5", "--at-once=3", "--stalled=3"])
        .arg(format!("--out={}", out.display()))
        .arg(format!("--control-plane={}", program("gateway-control-plane")?.display()))
        .arg(format!("--data-plane={}", program("gateway-data-plane")?.display()))
        .arg(format!("--load={}", program("gateway-load")?.display()))
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(PATIENCE * 2, output).await.context("it did not end")??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let written: Value = serde_json::from_slice(&tokio::fs::read(out.with_extension("json")).await?)?;
    let size = &written["sizes"]["120"];
    assert_eq!(size["failure"], Value::Null, "{size}");
    // What does not depend on how fast this machine is.
    let change = &size["change"];
    let overhead =
        change["receivedBytes"].as_f64().zip(change["objectBytes"].as_f64()).map(|(all, own)| all - own);
    assert!(overhead > Some(0.0) && overhead <= Some(96.0), "{change}");
    assert_eq!((&change["transactions"], &change["diverged"]), (&1.0.into(), &0.0.into()), "{change}");
    let restart = &size["restart"];
    assert_eq!(
        (&restart["resourceBytes"], &restart["modes"]["in_sync"]),
        (&0.into(), &20.into()),
        "{restart}"
    );
    let table = String::from_utf8(output.stdout)?;
    for measure in [
        "commit to the last of 20 data planes, p50",
        "bytes of a change beyond the object's",
        "control-plane CPU of a change and data plane",
        "data-plane apply of a change, p50",
        "divergences",
        "a discovered endpoint changes",
        "control-plane memory of a data plane",
        "control-plane memory of a route",
        "control-plane restart, from its start until all are back",
        "bytes of objects sent after it",
        "memory peak of it to what it was",
        "start of a data plane with nothing, until it serves",
        "everything to 3 at once: memory",
        "3 that stopped reading: memory",
        "start of a data plane without a control plane",
    ] {
        assert!(table.lines().any(|line| line.contains(measure)), "no {measure} in {table}");
    }
    Ok(())
}
