//! The instruction guard: counts what the hot path executes and holds it against `baseline.toml`. See `run`.
//!
//! Parts (`parts.rs`) run in this program under callgrind, which counts only while [`counted_by_the_guard`] runs; the
//! whole request (`whole.rs`) runs in the real data plane, once with few and once with many requests, so that what
//! starting costs cancels out.

mod baseline;
mod parts;
mod whole;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail};

use baseline::Baseline;

/// Where the counts are kept.
const BASELINE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.toml");
/// Where collecting begins and ends: callgrind is told this name.
const COUNTED: &str = "*counted_by_the_guard*";
/// A whole request in the program that deploy/build makes.
const SHIPPED: &str = "request/shipped";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Baseline::read(Path::new(BASELINE))?.without(SHIPPED).check(&measure()?),
        ["--shipped"] => Baseline::read(Path::new(BASELINE))?.check(&measure_with_shipped()?),
        ["--write"] => Baseline::write(Path::new(BASELINE), &measure_with_shipped()?),
        ["part", name] => parts::run(name),
        _ => bail!("usage: tests/guard/run [--shipped | --write]"),
    }
}

/// Instructions of one pass of each case, by name.
fn measure() -> anyhow::Result<Vec<(String, u64)>> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut counts = Vec::new();
    for (name, passes) in parts::ALL {
        let mut command = callgrind(folder.path(), Some(COUNTED));
        let status = command.arg(&program).args(["part", name]).stdout(Stdio::null()).status();
        if !status.context("cannot start valgrind")?.success() {
            bail!("{name} failed: {}", log(folder.path())?);
        }
        counts.push((name.to_owned(), collected(folder.path())? / passes));
    }
    let data_plane = program.with_file_name("gateway-data-plane");
    counts.push(("request/plain".to_owned(), whole::instructions(&data_plane, folder.path())?));
    Ok(counts)
}

/// The same, and a whole request in the program as it is shipped.
fn measure_with_shipped() -> anyhow::Result<Vec<(String, u64)>> {
    let mut counts = measure()?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let target = program.ancestors().nth(2).context("this program is not in a target folder")?;
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let shipped = whole::instructions(&target.join("shipped/gateway-data-plane"), folder.path())?;
    counts.push((SHIPPED.to_owned(), shipped));
    Ok(counts)
}

/// Runs `passes` passes, counted.
#[inline(never)]
fn counted_by_the_guard(passes: u64, mut pass: impl FnMut()) {
    for _ in 0..passes {
        pass();
    }
}

/// Valgrind, to be given a program; it writes into a folder.
fn callgrind(folder: &Path, only: Option<&str>) -> Command {
    let mut command = Command::new("valgrind");
    command
        .arg("--tool=callgrind")
        .arg(format!("--log-file={}", folder.join("log").display()))
        .arg(format!("--callgrind-out-file={}", folder.join("out").display()));
    if let Some(only) = only {
        command.arg(format!("--toggle-collect={only}"));
    }
    command
}

fn log(folder: &Path) -> anyhow::Result<String> {
    let path: PathBuf = folder.join("log");
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// The sum that valgrind's log ends with (`==1== Collected : 123`).
fn collected(folder: &Path) -> anyhow::Result<u64> {
    let log = log(folder)?;
    let line = log.lines().find_map(|line| line.split_once("Collected :"));
    let (_, sum) = line.with_context(|| format!("valgrind counted nothing: {log}"))?;
    sum.trim().parse().with_context(|| format!("valgrind's count {sum:?} is no number"))
}
