//! A child process that belongs to a test: its lines are kept, it can be stopped, paused and killed, and it never
//! outlives the test (killed on drop, and by the kernel when the test process itself is killed).

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

use crate::wait;

/// Lines kept of one process; a process that says more is in trouble anyway.
const KEEP_LINES: usize = 20_000;

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    /// Starts `program` with `args`, in an environment without any `GATEWAY_*` of the caller.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, program: &str, args: &[String], env: &[(&str, &str)]) -> anyhow::Result<Self> {
        // setpriv makes the kernel end the child with us, also when the test runner kills us.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]).args(args);
        for (key, _) in std::env::vars_os() {
            if key.to_string_lossy().starts_with("GATEWAY_") {
                command.env_remove(key);
            }
        }
        command.envs(env.iter().copied());
        Self::spawn(name, command)
    }

    pub(crate) fn spawn(name: &str, mut command: Command) -> anyhow::Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().context("stdout is piped")?, Arc::clone(&lines));
        collect(child.stderr.take().context("stderr is piped")?, Arc::clone(&lines));
        Ok(Process { name: name.to_owned(), child, lines })
    }

    /// Everything it has said so far, on both outputs.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("no holder panics").clone()
    }

    /// Waits for a line that `find` accepts.
    ///
    /// # Errors
    /// When it exits first or stays silent; the message holds its last lines.
    pub async fn line<T>(&mut self, what: &str, find: impl Fn(&str) -> Option<T>) -> anyhow::Result<T> {
        let lines = Arc::clone(&self.lines);
        let name = self.name.clone();
        let exited = |child: &mut Child| child.try_wait().ok().flatten();
        let found = wait::until(&format!("{name}: {what}"), || {
            let found = lines.lock().expect("no holder panics").iter().find_map(|line| find(line));
            let status = exited(&mut self.child);
            async move {
                match (found, status) {
                    (Some(found), _) => Ok(Some(found)),
                    (None, Some(_)) => Ok(None),
                    (None, None) => Err("no such line yet"),
                }
            }
        })
        .await
        .with_context(|| self.tail())?;
        found.with_context(|| format!("{name} exited before {what}: {}", self.tail()))
    }

    /// How a data plane was welcomed by control planes so far (`in_sync`, `delta`, ...), and by which (URL).
    pub fn welcomes(&self) -> Vec<(String, String)> {
        let welcome = |line: String| {
            let line: serde_json::Value = serde_json::from_str(&line).ok()?;
            let field = |name: &str| line["fields"][name].as_str().map(str::to_owned);
            Some((field("mode")?, field("control_plane")?))
        };
        self.lines().into_iter().filter_map(welcome).collect()
    }

    /// The last lines, for a message.
    pub fn tail(&self) -> String {
        let lines = self.lines();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    ///
    /// # Errors
    /// When it has exited.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().with_context(|| format!("{} has exited", self.name))?;
        kill(Pid::from_raw(i32::try_from(id)?), signal)?;
        Ok(())
    }

    /// Kills it without warning (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("cannot kill {}", self.name))
    }

    /// Asks it to end (SIGTERM) and waits for it.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(&mut self) -> anyhow::Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.exited().await
    }

    /// Waits for it to end by itself.
    ///
    /// # Errors
    /// When it does not.
    pub async fn exited(&mut self) -> anyhow::Result<ExitStatus> {
        let ended = wait::within("its end", self.child.wait()).await;
        Ok(ended.with_context(|| format!("{}: {}", self.name, self.tail()))??)
    }

    /// WARN and ERROR lines that no entry of `expected` occurs in.
    pub fn complaints(&self, expected: &[&str]) -> Vec<String> {
        let loud = |line: &String| {
            [" WARN ", " ERROR ", "\"level\":\"WARN\"", "\"level\":\"ERROR\"", "panicked at"]
                .iter()
                .any(|mark| line.contains(mark))
        };
        self.lines()
            .into_iter()
            .filter(loud)
            .filter(|line| !expected.iter().any(|text| line.contains(text)))
            .collect()
    }
}

fn collect(from: impl AsyncRead + Unpin + Send + 'static, into: Arc<Mutex<Vec<String>>>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let mut kept = into.lock().expect("no holder panics");
            if kept.len() < KEEP_LINES {
                kept.push(line);
            }
        }
    });
}

/// Path of one of the workspace's own programs, next to the running test.
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let test = std::env::current_exe()?;
    let path =
        test.parent().and_then(|deps| deps.parent()).context("a test lives in target/*/deps")?.join(name);
    if path.exists() {
        return Ok(path);
    }
    bail!("{} is missing: run `cargo build --workspace --bins` first (tests/run does)", path.display())
}

/// A loopback port that was free a moment ago, below the range that the kernel gives to outgoing connections, so
/// that no connection takes it in between.
///
/// # Errors
/// When there is none.
pub fn free_port() -> anyhow::Result<u16> {
    // Tests run as processes of their own: the process id spreads them over the range.
    let seed = std::process::id().wrapping_mul(2_654_435_761);
    let next = NEXT_PORT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    for offset in 0..10_000_u32 {
        let port = 12_000 + (seed % 20_000 + next * 7 + offset) % 20_000;
        let port = u16::try_from(port)?;
        if std::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port between 12000 and 32000")
}

static NEXT_PORT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
