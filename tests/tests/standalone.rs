//! A data plane alone, on manifests: reload, drain, and bodies of any size in constant memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use gateway_tests::client::Http;
use gateway_tests::process::{Process, program};
use gateway_tests::upstream::{Seen, Upstream};
use gateway_tests::{full_profile, wait};
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A data plane in `--manifests` mode with its files.
struct Standalone {
    process: Process,
    directory: TempDir,
}

impl Standalone {
    async fn start(manifest: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        tokio::fs::write(directory.path().join("gateway.yaml"), manifest).await?;
        let mut arguments = vec![
            format!("--manifests={}", directory.path().join("gateway.yaml").display()),
            format!("--state-dir={}", directory.path().join("state").display()),
            "--admin-listen=127.0.0.1:0".to_owned(),
            "--log-format=json".to_owned(),
            "--workers=2".to_owned(),
        ];
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        let path = program("gateway-data-plane")?;
        let process = Process::start("data plane", &path.to_string_lossy(), &arguments, &[])?;
        Ok(Standalone { process, directory })
    }

    fn manifest(&self) -> PathBuf {
        self.directory.path().join("gateway.yaml")
    }

    async fn address(&mut self) -> anyhow::Result<SocketAddr> {
        self.process
            .line("a bound listener", |line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                line["fields"]["listener"].as_str()?;
                line["fields"]["address"].as_str()?.parse().ok()
            })
            .await
    }
}

fn manifest(upstream: SocketAddr, prefix: &str) -> String {
    format!(
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: public }}\nspec: {{ address: 127.0.0.1, port: 0 }}\n---\n\
         apiVersion: gateway/v1\nkind: Upstream\nmetadata: {{ name: echo }}\nspec: {{ targets: [{{ address: '{upstream}' }}] }}\n---\n\
         apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: echo }}\nspec:\n  matches: [{{ path: {{ prefix: {prefix} }} }}]\n  \
         forward: {{ backends: [{{ upstream: echo }}] }}\n"
    )
}

async fn status(address: SocketAddr, path: &str, expected: u16) -> anyhow::Result<()> {
    let http = Http::default();
    wait::until(&format!("{path} to answer {expected}"), || async {
        match http.get(address, "any", path).await {
            Ok(answer) if answer.status() == expected => Ok(()),
            Ok(answer) => Err(answer.status().to_string()),
            Err(error) => Err(format!("{error:#}")),
        }
    })
    .await
}

/// Writes beside and renames, as editors and ConfigMap mounts do.
async fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    tokio::fs::write(&beside, text).await?;
    tokio::fs::rename(&beside, path).await?;
    Ok(())
}

#[tokio::test]
async fn a_changed_manifest_is_served_and_a_bad_one_is_refused_with_the_old_one_kept() -> anyhow::Result<()> {
    let echo = Upstream::start("echo").await?;
    let mut plane = Standalone::start(&manifest(echo.address(), "/one"), &[]).await?;
    let address = plane.address().await?;
    status(address, "/one", 200).await?;
    status(address, "/two", 404).await?;

    replace(&plane.manifest(), &manifest(echo.address(), "/two")).await?;
    status(address, "/two", 200).await?;
    status(address, "/one", 404).await?;

    replace(
        &plane.manifest(),
        "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: x }\nspec: { priorty: 1 }\n",
    )
    .await?;
    plane.process.line("the refusal", |line| line.contains("priorty").then_some(())).await?;
    status(address, "/two", 200).await?;

    replace(&plane.manifest(), &manifest(echo.address(), "/three")).await?;
    plane.process.signal(Signal::SIGHUP)?;
    status(address, "/three", 200).await
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_exits_0() -> anyhow::Result<()> {
    let echo = Upstream::start("echo").await?;
    let mut plane = Standalone::start(&manifest(echo.address(), "/"), &["--drain-timeout=20s"]).await?;
    let address = plane.address().await?;
    status(address, "/x", 200).await?;
    let before = echo.served();
    let held = tokio::spawn(async move { Http::default().get(address, "any", "/hold").await });
    wait::until("the request to arrive", || async {
        if echo.served() > before { Ok(()) } else { Err(echo.served()) }
    })
    .await?;
    plane.process.signal(Signal::SIGTERM)?;
    wait::until("the port to close", || async {
        match TcpStream::connect(address).await {
            Ok(_) => Err("still open"),
            Err(_) => Ok(()),
        }
    })
    .await?;
    echo.release();
    let answer = held.await??;
    assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (200, b"held".as_ref()));
    assert_eq!(plane.process.exited().await?.code(), Some(0), "{}", plane.process.tail());
    assert!(TcpStream::connect(address).await.is_err());
    Ok(())
}

#[tokio::test]
async fn large_bodies_stream_both_ways_in_constant_memory() -> anyhow::Result<()> {
    let bytes: u64 = if full_profile() { 1 << 30 } else { 64 << 20 };
    let echo = Upstream::start("echo").await?;
    let mut plane = Standalone::start(&manifest(echo.address(), "/"), &[]).await?;
    let address = plane.address().await?;
    status(address, "/x", 200).await?;
    let before = resident(&plane)?;

    // Up.
    let mut stream = TcpStream::connect(address).await?;
    let head =
        format!("POST /up HTTP/1.1\r\nhost: a\r\ncontent-length: {bytes}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..bytes >> 20 {
        stream.write_all(&piece).await?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let body = answer.windows(4).position(|it| it == b"\r\n\r\n").context("a head")? + 4;
    let text = String::from_utf8_lossy(&answer[body..]).into_owned();
    // The echo's answer may come chunked: the JSON object is what counts.
    let json = &text[text.find('{').context("an object")?..=text.rfind('}').context("an object")?];
    assert_eq!(Seen::parse(json.as_bytes())?.body_bytes, bytes);

    // Down.
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET /bytes/{bytes} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let (mut total, mut buffer) = (0_u64, vec![0; 1 << 20]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => break,
            count => total += count as u64,
        }
    }
    assert!(total > bytes && total < bytes + 4096, "{total}");

    let after = resident(&plane)?;
    assert!(after < before + (8 << 20), "resident memory went from {before} to {after}");
    Ok(())
}

/// Resident memory of the process, in bytes.
fn resident(plane: &Standalone) -> anyhow::Result<u64> {
    let id = plane.process.id().context("it runs")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
