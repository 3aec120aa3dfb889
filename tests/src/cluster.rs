//! A gateway that is run as in earnest: several control planes on one PostgreSQL, data planes that know all of them, and
//! a relay on every link between two parts, so that each part can be killed, paused, cut off and restarted.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use http::{Request, header};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::chaos::{Relay, Weather};
use crate::client::{Admin, Http};
use crate::process::{Process, free_port, program};
use crate::services::Postgres;
use crate::wait;

/// What may break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// PostgreSQL.
    Store,
    /// One of the control planes.
    ControlPlane(usize),
    /// One of the data planes.
    DataPlane(usize),
}

/// How it breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Ended without warning, and started again.
    Kill,
    /// Stands still (SIGSTOP), and goes on.
    Pause,
    /// Its connections to the other parts are reset, and new ones refused.
    Cut,
    /// Its connections stand, and carry nothing.
    Stall,
    /// Ended in good order, and started again.
    Restart,
}

/// Every fault.
pub const FAULTS: [Fault; 5] = [Fault::Kill, Fault::Pause, Fault::Cut, Fault::Stall, Fault::Restart];

/// A plane: how it is started, and its process while it runs.
#[derive(Debug)]
pub struct Member {
    name: String,
    program: &'static str,
    arguments: Vec<String>,
    admin: SocketAddr,
    process: Option<Process>,
    /// What its former processes complained of.
    said: Vec<String>,
}

/// All of it.
#[derive(Debug)]
pub struct Cluster {
    /// The store.
    pub postgres: Postgres,
    control_planes: Vec<Member>,
    data_planes: Vec<Member>,
    token: String,
    /// From each control plane to the store.
    store_links: Vec<Relay>,
    /// From each data plane (inner) to each control plane (outer).
    links: Vec<Vec<Relay>>,
    _directory: TempDir,
}

impl Cluster {
    /// Starts everything, and waits until it is ready.
    ///
    /// # Errors
    /// When a part does not come up.
    pub async fn start(control_planes: usize, data_planes: usize) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("gateway-cluster-").tempdir()?;
        let postgres = Postgres::start().await?;
        let token = "0123456789abcdef".repeat(4);
        std::fs::write(directory.path().join("admin-token"), &token)?;
        std::fs::write(directory.path().join("master-key"), &token)?;
        let database = postgres.database().await?;
        let mut cluster = Cluster {
            postgres,
            control_planes: Vec::new(),
            data_planes: Vec::new(),
            token,
            store_links: Vec::new(),
            links: Vec::new(),
            _directory: directory,
        };
        for index in 0..control_planes {
            cluster.add_control_plane(index, &database, data_planes).await?;
        }
        for index in 0..data_planes {
            cluster.add_data_plane(index).await?;
        }
        Ok(cluster)
    }

    async fn add_control_plane(
        &mut self,
        index: usize,
        database: &str,
        data_planes: usize,
    ) -> anyhow::Result<()> {
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (admin, stream) = (loopback(free_port()?), loopback(free_port()?));
        let store = Relay::start(self.postgres.address()).await?;
        let relayed = store.address().to_string();
        let database = database.replace(&self.postgres.address().to_string(), &relayed);
        let directory = self._directory.path();
        let arguments = vec![
            format!("--admin-listen={admin}"),
            format!("--stream-listen={stream}"),
            format!("--database-url={database}"),
            format!("--state-dir={}", directory.join(format!("control-plane-{index}")).display()),
            format!("--master-key-file={}", directory.join("master-key").display()),
            format!("--admin-token-file={}", directory.join("admin-token").display()),
            "--log-format=json".to_owned(),
        ];
        let mut links = Vec::new();
        for _ in 0..data_planes {
            links.push(Relay::start(stream).await?);
        }
        self.store_links.push(store);
        self.links.push(links);
        let member = Member::new(format!("control plane {index}"), "gateway-control-plane", arguments, admin);
        self.control_planes.push(member);
        self.control_planes[index].start_ready().await
    }

    async fn add_data_plane(&mut self, index: usize) -> anyhow::Result<()> {
        let admin = SocketAddr::from(([127, 0, 0, 1], free_port()?));
        // Each prefers another control plane as the first.
        let count = self.links.len();
        let urls = (0..count).map(|n| format!("http://{}", self.links[(index + n) % count][index].address()));
        let arguments = vec![
            format!("--control-plane={}", urls.collect::<Vec<_>>().join(",")),
            format!("--node=dp-{index}"),
            format!("--admin-listen={admin}"),
            format!("--state-dir={}", self._directory.path().join(format!("data-plane-{index}")).display()),
            "--log-format=json".to_owned(),
            "--workers=1".to_owned(),
        ];
        let mut member = Member::new(format!("data plane {index}"), "gateway-data-plane", arguments, admin);
        member.start()?;
        self.data_planes.push(member);
        Ok(())
    }

    /// How many control planes and data planes there are.
    pub fn size(&self) -> (usize, usize) {
        (self.control_planes.len(), self.data_planes.len())
    }

    /// The admin API of a control plane.
    pub fn admin(&self, control_plane: usize) -> Admin {
        Admin::new(self.control_planes[control_plane].admin, self.token.as_str())
    }

    /// Address that a data plane has bound the listener `namespace/name` to since it was started.
    ///
    /// # Errors
    /// When it does not bind it.
    pub async fn listener(&mut self, data_plane: usize, name: &str) -> anyhow::Result<SocketAddr> {
        let process = self.data_planes[data_plane].process.as_mut().context("it does not run")?;
        let bound = |line: &str| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["listener"] == name).then(|| line["fields"]["address"].as_str()?.parse().ok())?
        };
        process.line("a bound listener", bound).await
    }

    /// What a data plane says that it serves (`/config` of its admin port).
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn config(&self, data_plane: usize) -> anyhow::Result<Value> {
        let answer = Http::default().get(self.data_planes[data_plane].admin, "any", "/config").await?;
        Ok(serde_json::from_slice(answer.body())?)
    }

    /// A value of a control plane's `/metrics`.
    ///
    /// # Errors
    /// When it does not tell.
    pub async fn metric(&self, control_plane: usize, name: &str) -> anyhow::Result<f64> {
        let request = Request::get(format!("http://{}/metrics", self.control_planes[control_plane].admin))
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token));
        let answer = Http::default().send(request.body(Default::default())?).await?;
        let text = String::from_utf8_lossy(answer.body()).into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        line.with_context(|| format!("no {name} in {text}"))
    }

    /// WARN and ERROR lines of every process there was that hold one of these texts.
    pub fn complaints(&self, of: &[&str]) -> Vec<String> {
        let members = self.control_planes.iter().chain(&self.data_planes);
        let all = members.flat_map(|member| {
            let present = member.process.as_ref().map(|process| process.complaints(&[])).unwrap_or_default();
            member.said.iter().cloned().chain(present).map(|line| format!("{}: {line}", member.name))
        });
        all.filter(|line| of.iter().any(|text| line.contains(text))).collect()
    }

    /// Breaks a part.
    ///
    /// # Errors
    /// When it cannot be broken: it is already.
    pub async fn break_down(&mut self, part: Part, fault: Fault) -> anyhow::Result<()> {
        match (part, fault) {
            (_, Fault::Cut) => self.weather(part, Weather::Cut),
            (_, Fault::Stall) => self.weather(part, Weather::Stalled),
            (Part::Store, Fault::Kill) => self.postgres.kill().await?,
            (Part::Store, Fault::Restart) => self.postgres.stop().await?,
            (Part::Store, Fault::Pause) => self.postgres.signal(Signal::SIGSTOP)?,
            (_, Fault::Kill) => self.member(part)?.kill().await?,
            (_, Fault::Restart) => self.member(part)?.terminate().await?,
            (_, Fault::Pause) => self.member(part)?.signal(Signal::SIGSTOP)?,
        }
        Ok(())
    }

    /// Mends what [`Cluster::break_down`] broke, and waits until it runs.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn mend(&mut self, part: Part, fault: Fault) -> anyhow::Result<()> {
        match (part, fault) {
            (_, Fault::Cut | Fault::Stall) => self.weather(part, Weather::Clear),
            (Part::Store, Fault::Kill | Fault::Restart) => self.postgres.resume().await?,
            (Part::Store, Fault::Pause) => self.postgres.signal(Signal::SIGCONT)?,
            (_, Fault::Pause) => self.member(part)?.signal(Signal::SIGCONT)?,
            (Part::ControlPlane(_), Fault::Kill | Fault::Restart) => self.member(part)?.start_ready().await?,
            (Part::DataPlane(_), Fault::Kill | Fault::Restart) => self.member(part)?.start()?,
        }
        Ok(())
    }

    fn member(&mut self, part: Part) -> anyhow::Result<&mut Member> {
        match part {
            Part::Store => anyhow::bail!("the store is no plane"),
            Part::ControlPlane(index) => Ok(&mut self.control_planes[index]),
            Part::DataPlane(index) => Ok(&mut self.data_planes[index]),
        }
    }

    /// On every link of a part.
    fn weather(&self, part: Part, weather: Weather) {
        let links: Vec<&Relay> = match part {
            Part::Store => self.store_links.iter().collect(),
            Part::ControlPlane(index) => self.links[index].iter().chain([&self.store_links[index]]).collect(),
            Part::DataPlane(index) => self.links.iter().map(|links| &links[index]).collect(),
        };
        links.into_iter().for_each(|link| link.set(weather));
    }
}

impl Member {
    fn new(name: String, program: &'static str, arguments: Vec<String>, admin: SocketAddr) -> Self {
        Member { name, program, arguments, admin, process: None, said: Vec::new() }
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let path = program(self.program)?;
        let path: &Path = &path;
        self.process = Some(Process::start(&self.name, &path.to_string_lossy(), &self.arguments, &[])?);
        Ok(())
    }

    async fn start_ready(&mut self) -> anyhow::Result<()> {
        self.start()?;
        let http = Http::default();
        let what = format!("{} to be ready", self.name);
        let ready = wait::until(&what, || async {
            match http.get(self.admin, "any", "/readyz").await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                Ok(answer) => Err(answer.status().to_string()),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        ready.await.with_context(|| self.process.as_ref().map(Process::tail).unwrap_or_default())
    }

    fn take(&mut self) -> anyhow::Result<Process> {
        self.process.take().with_context(|| format!("{} does not run", self.name))
    }

    async fn kill(&mut self) -> anyhow::Result<()> {
        let mut process = self.take()?;
        process.kill().await?;
        self.said.extend(process.complaints(&[]));
        Ok(())
    }

    async fn terminate(&mut self) -> anyhow::Result<()> {
        let mut process = self.take()?;
        let status = process.terminate().await?;
        anyhow::ensure!(status.success(), "{} ended with {status}: {}", self.name, process.tail());
        self.said.extend(process.complaints(&[]));
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        self.process.as_ref().with_context(|| format!("{} does not run", self.name))?.signal(signal)
    }
}
