//! The README's commands, run as they stand there, in order: a command that is not run here is not in the README.
//! `cargo run --release -p gatewayctl -- dev` runs as the program already built; `tests/run` is what runs this.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context as _;
use gateway_tests::process::{Process, program};
use tempfile::TempDir;
use tokio::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// Lines of the `sh` blocks of a Markdown file.
fn commands(markdown: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in markdown.lines() {
        if line.starts_with("```") {
            inside = line == "```sh";
        } else if inside && !line.trim().is_empty() {
            lines.push(line.trim().to_owned());
        }
    }
    lines
}

/// The program a line names, wherever this build put it.
fn resolved(line: &str) -> anyhow::Result<Vec<String>> {
    let mut words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    if let Some(name) = words[0].strip_prefix("target/release/") {
        words[0] = program(name)?.to_string_lossy().into_owned();
    }
    Ok(words)
}

async fn run(line: &str, home: &Path) -> anyhow::Result<String> {
    let words = resolved(line)?;
    let output = Command::new(&words[0])
        .args(&words[1..])
        .current_dir(root())
        .env("HOME", home)
        .env("XDG_CONFIG_HOME", home)
        .env("BACKEND", "127.0.0.1:9101")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| line.to_owned())?;
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    anyhow::ensure!(output.status.success(), "{line}: {:?}\n{text}", output.status.code());
    Ok(text)
}

#[tokio::test]
async fn every_command_of_the_readme_works() -> anyhow::Result<()> {
    let home = TempDir::new()?;
    let readme = std::fs::read_to_string(root().join("README.md"))?;
    let mut dev = None;
    for line in commands(&readme) {
        if line == "tests/run" {
            continue;
        }
        if line == "cargo run --release -p gatewayctl -- dev" {
            dev = Some(start_dev(home.path()).await?);
            continue;
        }
        let text = run(&line, home.path()).await?;
        if line.starts_with("curl") {
            assert!(text.starts_with("HTTP/1.1 200 OK"), "{line}: {text}");
        }
    }
    let mut dev = dev.context("the README starts with dev")?;
    dev.signal(nix::sys::signal::Signal::SIGINT)?;
    assert!(dev.exited().await?.success(), "{}", dev.tail());
    Ok(())
}

async fn start_dev(home: &Path) -> anyhow::Result<Process> {
    let home = home.to_string_lossy().into_owned();
    // In a folder of its own: `dev` keeps its state in ./.gateway.
    let shell = format!("cd '{home}' && exec '{}' dev", program("gatewayctl")?.display());
    let environment = [("HOME", home.as_str()), ("XDG_CONFIG_HOME", home.as_str())];
    let mut dev = Process::start("dev", "sh", &["-c".to_owned(), shell], &environment)?;
    dev.line("three lines to try", |line| line.contains("curl").then_some(())).await?;
    Ok(dev)
}
