//! Real services as child processes on free ports in temporary directories. `tests/run` installs their packages.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::process::{Process, free_port};
use crate::wait;

/// A PostgreSQL server of this test's own. It refuses to run as root, so root runs it as the `postgres` user.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    binaries: PathBuf,
    directory: TempDir,
    process: Option<Process>,
    databases: AtomicU32,
}

impl Postgres {
    /// Makes a cluster and starts it; durable (`fsync = on`) as in production, because tests kill it.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not come up.
    pub async fn start() -> anyhow::Result<Self> {
        let binaries = binaries()?;
        let directory = tempfile::Builder::new().prefix("gateway-pg-").tempdir()?;
        if nix::unistd::geteuid().is_root() {
            let status = Command::new("chown").arg("postgres:").arg(directory.path()).status().await?;
            anyhow::ensure!(status.success(), "cannot hand {} to postgres", directory.path().display());
        }
        let mut postgres =
            Postgres { port: free_port()?, binaries, directory, process: None, databases: AtomicU32::new(0) };
        let data = postgres.data();
        let output = postgres
            .command("initdb")
            .args(["-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8", "-D"])
            .arg(&data)
            .output()
            .await?;
        anyhow::ensure!(output.status.success(), "initdb: {}", String::from_utf8_lossy(&output.stderr));
        postgres.resume().await?;
        Ok(postgres)
    }

    /// Starts the server again on the same port and data, after [`Postgres::kill`].
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn resume(&mut self) -> anyhow::Result<()> {
        let port = self.port.to_string();
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data()).args(["-p", &port, "-k"]).arg(self.directory.path());
        for setting in ["listen_addresses=127.0.0.1", "shared_buffers=32MB", "max_connections=200"] {
            command.args(["-c", setting]);
        }
        let process = Process::spawn("postgres", command)?;
        self.process = Some(process);
        wait::until("postgres to accept connections", || async {
            let ready = self
                .command("pg_isready")
                .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"])
                .output()
                .await
                .map_err(|error| error.to_string())?;
            if ready.status.success() {
                Ok(())
            } else {
                Err(String::from_utf8_lossy(&ready.stdout).into_owned())
            }
        })
        .await
        .with_context(|| self.process.as_ref().map(Process::tail).unwrap_or_default())
    }

    /// Ends the server at once, sessions and all, without a word to its clients.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("postgres is not running")?;
        // SIGQUIT is PostgreSQL's own crash: no checkpoint, recovery at the next start, no orphaned backends.
        process.signal(Signal::SIGQUIT)?;
        process.exited().await?;
        Ok(())
    }

    /// Ends the server in good order, with its clients' sessions (a fast shutdown); [`Postgres::resume`] starts it.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let mut process = self.process.take().context("postgres is not running")?;
        process.signal(Signal::SIGINT)?;
        process.exited().await?;
        Ok(())
    }

    /// Sends a signal to the server and every process that serves a session: SIGSTOP makes all of it stand still.
    ///
    /// # Errors
    /// When it is not running.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let server = self.process.as_ref().and_then(Process::id).context("postgres is not running")?;
        let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"))?;
        for id in std::iter::once(server.to_string().as_str()).chain(children.split_whitespace()) {
            // A session that has ended meanwhile stands still as well.
            let _gone = kill(Pid::from_raw(id.parse()?), signal);
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// Makes a fresh, empty database and returns its URL.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = format!("gateway_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let port = self.port.to_string();
        let output = self
            .command("createdb")
            .args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres", &name])
            .output()
            .await?;
        anyhow::ensure!(output.status.success(), "createdb: {}", String::from_utf8_lossy(&output.stderr));
        Ok(format!("postgres://postgres@127.0.0.1:{port}/{name}"))
    }

    /// What a database answers to a statement: a line per row, without headers.
    ///
    /// # Errors
    /// When it refuses.
    pub async fn query(&self, database: &str, statement: &str) -> anyhow::Result<String> {
        let output = self.command("psql").args([database, "-XAtc", statement]).output().await?;
        anyhow::ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    }

    /// Keeps everybody else from writing to a table (reading goes on) until the value is dropped.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn hold(&self, database: &str, table: &str) -> anyhow::Result<Held> {
        let mut psql = self.command("psql");
        let mut session = psql
            .args([database, "-X"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let input = session.stdin.as_mut().context("stdin is piped")?;
        input.write_all(format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE;\n").as_bytes()).await?;
        let held = Held(session);
        self.locks(database, "mode = 'ExclusiveLock' AND granted AND relation IS NOT NULL").await?;
        Ok(held)
    }

    /// Waits until somebody waits for a table that is held.
    ///
    /// # Errors
    /// When nobody does.
    pub async fn somebody_waits(&self, database: &str) -> anyhow::Result<()> {
        self.locks(database, "NOT granted").await
    }

    async fn locks(&self, database: &str, condition: &str) -> anyhow::Result<()> {
        let statement = format!("SELECT count(*) FROM pg_locks WHERE {condition}");
        wait::until(&format!("a lock: {condition}"), || async {
            match self.query(database, &statement).await {
                Ok(count) if count == "0" => Err("there is none".to_owned()),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{error:#}")),
            }
        })
        .await
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn command(&self, binary: &str) -> Command {
        let path = self.binaries.join(binary);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if nix::unistd::geteuid().is_root() {
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
        }
        command.arg(path).current_dir(self.directory.path());
        command
    }
}

/// A table that is held; its session ends with the value.
#[derive(Debug)]
pub struct Held(#[expect(dead_code, reason = "killed on drop")] Child);

/// Debian keeps the server's programs out of the PATH, one folder a version; the newest one is taken.
fn binaries() -> anyhow::Result<PathBuf> {
    let root = Path::new("/usr/lib/postgresql");
    let mut versions: Vec<PathBuf> = std::fs::read_dir(root)
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    versions.retain(|path| path.join("initdb").exists());
    versions.sort();
    match versions.pop() {
        Some(path) => Ok(path),
        None => bail!(
            "PostgreSQL is not installed under {}: run tests/run, or apt-get install postgresql",
            root.display()
        ),
    }
}
