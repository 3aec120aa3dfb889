//! A whole gateway as separate processes: one control plane, any number of data planes, a store.
//! `Stack::new().postgres().planes(2).start().await` starts the real binaries on free ports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::Context as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::client::Admin;
use crate::process::{Process, free_port, program};
use crate::services::Postgres;
use crate::wait;

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct StackBuilder {
    postgres: bool,
    planes: usize,
}

/// A running gateway.
#[derive(Debug)]
pub struct Stack {
    /// The database server, if it is PostgreSQL.
    pub postgres: Option<Postgres>,
    /// The control plane; `None` while it is killed.
    pub control_plane: Option<Process>,
    /// The data planes, `dp-0`, `dp-1`, ...
    pub data_planes: Vec<Process>,
    directory: TempDir,
    database_url: String,
    admin_address: SocketAddr,
    stream_address: SocketAddr,
    token: String,
}

impl Stack {
    /// One control plane on SQLite with one data plane, unless told otherwise.
    #[expect(
        clippy::new_ret_no_self,
        reason = "the builder reads as a sentence: Stack::new().postgres().planes(2)"
    )]
    pub fn new() -> StackBuilder {
        StackBuilder { postgres: false, planes: 1 }
    }

    /// The admin API, as the first admin token.
    pub fn admin(&self) -> Admin {
        Admin::new(self.admin_address, self.token.clone())
    }

    /// Address of the stream, for a data plane or a relay of a test's own.
    pub fn stream_address(&self) -> SocketAddr {
        self.stream_address
    }

    /// URL of the admin API.
    pub fn server(&self) -> String {
        format!("http://{}", self.admin_address)
    }

    /// The first admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A folder for files of the test.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// URL of the store.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// Has the control plane work on another store from its next start on.
    pub fn on_store(&mut self, database_url: String) {
        self.database_url = database_url;
    }

    /// The control plane's `--discovery-file-dir`.
    pub fn discovery(&self) -> PathBuf {
        self.directory.path().join("discovery")
    }

    /// The file with the key that seals secrets.
    pub fn master_key(&self) -> PathBuf {
        let own = if self.postgres.is_some() { "master-key" } else { "control-plane/master-key" };
        self.directory.path().join(own)
    }

    /// Runs `gatewayctl` against this stack.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn gatewayctl(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let output = tokio::process::Command::new(program("gatewayctl")?)
            .args(arguments)
            .env("GATEWAY_SERVER", self.server())
            .env("GATEWAY_TOKEN", &self.token)
            .env("NO_COLOR", "1")
            .env("HOME", self.directory.path())
            .env("XDG_CONFIG_HOME", self.directory.path())
            .current_dir(self.directory.path())
            .kill_on_drop(true)
            .output();
        tokio::time::timeout(crate::PATIENCE * 4, output)
            .await
            .context("gatewayctl did not end")?
            .context("gatewayctl")
    }

    /// Starts the control plane, again on the same addresses and store if it was killed.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start_control_plane(&mut self) -> anyhow::Result<()> {
        let state = self.directory.path().join("control-plane");
        let arguments = [
            format!("--admin-listen={}", self.admin_address),
            format!("--stream-listen={}", self.stream_address),
            format!("--database-url={}", self.database_url),
            format!("--state-dir={}", state.display()),
            format!("--discovery-file-dir={}", self.discovery().display()),
            "--log-format=json".to_owned(),
        ];
        // On SQLite one is made with the store.
        let key =
            self.postgres.is_some().then(|| format!("--master-key-file={}", self.master_key().display()));
        let arguments: Vec<String> = arguments.into_iter().chain(key).collect();
        let path = program("gateway-control-plane")?;
        let mut process = Process::start("control plane", &path.to_string_lossy(), &arguments, &[])?;
        let http = crate::client::Http::default();
        let ready = wait::until("the control plane to be ready", || async {
            match http.get(self.admin_address, "localhost", "/readyz").await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.status().to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        ready.await.with_context(|| process.tail())?;
        let token =
            tokio::fs::read_to_string(state.join("admin-token")).await.context("the first admin token")?;
        token.trim().clone_into(&mut self.token);
        // One look at its state, so that a crash right after readiness is not taken for success.
        process.line("a log line", |_| Some(())).await?;
        self.control_plane = Some(process);
        Ok(())
    }

    /// Kills the control plane without warning.
    ///
    /// # Errors
    /// When it is not running.
    pub async fn kill_control_plane(&mut self) -> anyhow::Result<()> {
        self.control_plane.take().context("no control plane is running")?.kill().await
    }

    /// Starts one more data plane, connected to `control_plane`; returns its index.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_data_plane(&mut self, control_plane: SocketAddr) -> anyhow::Result<usize> {
        let index = self.data_planes.len();
        let process = self.data_plane_process(index, control_plane)?;
        self.data_planes.push(process);
        Ok(index)
    }

    /// Starts data plane `index` again on the same state folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart_data_plane(&mut self, index: usize, control_plane: SocketAddr) -> anyhow::Result<()> {
        self.data_planes[index] = self.data_plane_process(index, control_plane)?;
        Ok(())
    }

    fn data_plane_process(&self, index: usize, control_plane: SocketAddr) -> anyhow::Result<Process> {
        let arguments = [
            format!("--control-plane=http://{control_plane}"),
            format!("--node=dp-{index}"),
            "--admin-listen=127.0.0.1:0".to_owned(),
            format!("--state-dir={}", self.data_plane_state(index).display()),
            "--log-format=json".to_owned(),
            "--workers=2".to_owned(),
        ];
        let path = program("gateway-data-plane")?;
        Process::start(&format!("data plane {index}"), &path.to_string_lossy(), &arguments, &[])
    }

    /// State folder of data plane `index`.
    pub fn data_plane_state(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("data-plane-{index}"))
    }

    /// Waits until every data plane serves at least `revision`.
    ///
    /// # Errors
    /// When one does not.
    pub async fn applied(&self, revision: u64) -> anyhow::Result<()> {
        let admin = self.admin();
        let expected = self.data_planes.len();
        wait::until(&format!("{expected} data planes at revision {revision}"), || async {
            let planes = admin.get("/v1/data-planes").await.map_err(|error| format!("{error:#}"))?;
            let there = planes["items"].as_array().map_or(0, |items| {
                items
                    .iter()
                    .filter(|it| it["connected"] == true && it["appliedRevision"].as_u64() >= Some(revision))
                    .count()
            });
            if there >= expected { Ok(()) } else { Err(planes.to_string()) }
        })
        .await
    }

    /// Address that data plane `index` has bound `listener` (`namespace/name`) to.
    ///
    /// # Errors
    /// When it does not bind it.
    pub async fn listener(&self, index: usize, listener: &str) -> anyhow::Result<SocketAddr> {
        let admin = self.admin();
        wait::until(&format!("dp-{index} to bind {listener}"), || async {
            let planes = admin.get("/v1/data-planes").await.map_err(|error| format!("{error:#}"))?;
            bound(&planes, &format!("dp-{index}"), listener).ok_or_else(|| planes.to_string())
        })
        .await
    }

    /// Addresses of `listener` on every data plane.
    ///
    /// # Errors
    /// When one does not bind it.
    pub async fn listeners(&self, listener: &str) -> anyhow::Result<Vec<SocketAddr>> {
        let mut addresses = Vec::new();
        for index in 0..self.data_planes.len() {
            addresses.push(self.listener(index, listener).await?);
        }
        Ok(addresses)
    }

    /// WARN and ERROR lines of every process that no entry of `expected` occurs in, by process.
    pub fn complaints(&self, expected: &[&str]) -> BTreeMap<String, Vec<String>> {
        let control = self.control_plane.iter().map(|process| ("control plane".to_owned(), process));
        let planes =
            self.data_planes.iter().enumerate().map(|(index, process)| (format!("dp-{index}"), process));
        control
            .chain(planes)
            .map(|(name, process)| (name, process.complaints(expected)))
            .filter(|(_, lines)| !lines.is_empty())
            .collect()
    }
}

fn bound(planes: &Value, id: &str, listener: &str) -> Option<SocketAddr> {
    let plane = planes["items"].as_array()?.iter().find(|it| it["id"] == id)?;
    plane["listeners"][listener].as_str()?.parse().ok()
}

impl StackBuilder {
    /// On a PostgreSQL server of its own.
    #[must_use]
    pub fn postgres(mut self) -> Self {
        self.postgres = true;
        self
    }

    /// With so many data planes.
    #[must_use]
    pub fn planes(mut self, count: usize) -> Self {
        self.planes = count;
        self
    }

    /// Starts everything and waits until the data planes are connected.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start(self) -> anyhow::Result<Stack> {
        let directory = tempfile::Builder::new().prefix("gateway-stack-").tempdir()?;
        let postgres = if self.postgres { Some(Postgres::start().await?) } else { None };
        let database_url = match &postgres {
            Some(postgres) => postgres.database().await?,
            None => format!("sqlite://{}", directory.path().join("gateway.db").display()),
        };
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let mut stack = Stack {
            postgres,
            control_plane: None,
            data_planes: Vec::new(),
            directory,
            database_url,
            admin_address: loopback(free_port()?),
            stream_address: loopback(free_port()?),
            token: String::new(),
        };
        std::fs::create_dir(stack.discovery())?;
        if stack.postgres.is_some() {
            std::fs::write(stack.master_key(), "0123456789abcdef".repeat(4))?;
        }
        stack.start_control_plane().await?;
        for _ in 0..self.planes {
            stack.start_data_plane(stack.stream_address)?;
        }
        stack.applied(0).await?;
        Ok(stack)
    }
}
