//! Several control planes on one PostgreSQL: data planes go from one to another without being sent anything, and one
//! replica at a time does the chores, also when the one that did is paused and wakes up.

use std::net::SocketAddr;
use std::path::PathBuf;

use gateway_tests::client::{Admin, Http, Load};
use gateway_tests::process::{Process, free_port, program};
use gateway_tests::services::Postgres;
use gateway_tests::upstream::{Seen, Upstream};
use gateway_tests::wait;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Two control planes on one store, and a folder for everything.
struct Replicas {
    directory: TempDir,
    postgres: Postgres,
    database: String,
    all: Vec<Replica>,
}

struct Replica {
    admin: SocketAddr,
    stream: SocketAddr,
    process: Process,
}

fn route(body: &str) -> Value {
    json!({"apiVersion": "gateway/v1", "kind": "Route", "metadata": {"name": "r"}, "spec": {"respond": {"body": body}}})
}

impl Replicas {
    async fn start(more: &[&str]) -> anyhow::Result<Self> {
        let postgres = Postgres::start().await?;
        let database = postgres.database().await?;
        let directory = tempfile::tempdir()?;
        std::fs::write(directory.path().join("master-key"), "0123456789abcdef".repeat(4))?;
        let mut replicas = Replicas { directory, postgres, database, all: Vec::new() };
        for index in 0..2 {
            let address = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], free_port()?)));
            let (admin, stream) = (address()?, address()?);
            let process = replicas.process(index, admin, stream, more)?;
            replicas.all.push(Replica { admin, stream, process });
        }
        for replica in &replicas.all {
            replicas.ready(replica.admin).await?;
        }
        Ok(replicas)
    }

    fn process(
        &self,
        index: usize,
        admin: SocketAddr,
        stream: SocketAddr,
        more: &[&str],
    ) -> anyhow::Result<Process> {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let mut arguments = vec![
            format!("--admin-listen={admin}"),
            format!("--stream-listen={stream}"),
            format!("--database-url={}", self.database),
            format!("--state-dir={}", path(&format!("control-plane-{index}"))),
            format!("--master-key-file={}", path("master-key")),
            "--log-format=json".to_owned(),
        ];
        arguments.extend(more.iter().map(|&it| it.to_owned()));
        let program = program("gateway-control-plane")?;
        Process::start(&format!("control plane {index}"), &program.to_string_lossy(), &arguments, &[])
    }

    async fn ready(&self, admin: SocketAddr) -> anyhow::Result<()> {
        let http = Http::default();
        wait::until("the control plane to be ready", || async {
            match http.get(admin, "localhost", "/readyz").await {
                Ok(answer) if answer.status() == 200 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// The admin API of one of them; the token is of the one that made the store.
    fn admin(&self, index: usize) -> anyhow::Result<Admin> {
        let token = |index: usize| -> PathBuf {
            self.directory.path().join(format!("control-plane-{index}/admin-token"))
        };
        let token = std::fs::read_to_string(token(0)).or_else(|_| std::fs::read_to_string(token(1)))?;
        Ok(Admin::new(self.all[index].admin, token.trim()))
    }

    /// A data plane that knows both.
    fn data_plane(&self) -> anyhow::Result<Process> {
        let urls: Vec<_> = self.all.iter().map(|replica| format!("http://{}", replica.stream)).collect();
        let arguments = [
            format!("--control-plane={}", urls.join(",")),
            "--node=dp".to_owned(),
            "--admin-listen=127.0.0.1:0".to_owned(),
            format!("--state-dir={}", self.directory.path().join("data-plane").display()),
            "--log-format=json".to_owned(),
        ];
        Process::start("data plane", &program("gateway-data-plane")?.to_string_lossy(), &arguments, &[])
    }

    /// Which of them a welcome came from.
    fn by(&self, url: &str) -> usize {
        let at = self.all.iter().position(|replica| url == format!("http://{}", replica.stream));
        at.unwrap_or_else(|| panic!("{url} is none of them"))
    }

    /// Which of them does the chores; exactly one.
    async fn leader(&self, among: &[usize]) -> anyhow::Result<usize> {
        wait::until("one to do the chores", || async {
            let mut leaders = Vec::new();
            for &index in among {
                if self.leads(index).await.map_err(|error| format!("{error:#}"))? {
                    leaders.push(index);
                }
            }
            if let [only] = leaders[..] { Ok(only) } else { Err(format!("{leaders:?}")) }
        })
        .await
    }

    async fn leads(&self, index: usize) -> anyhow::Result<bool> {
        Ok(self.admin(index)?.metrics("gateway_store_leader").await? > 0.0)
    }
}

async fn applied(admin: &Admin, revision: u64) -> anyhow::Result<()> {
    wait::until(&format!("the data plane at revision {revision}"), || async {
        let planes = admin.get("/v1/data-planes").await.map_err(|error| format!("{error:#}"))?;
        let plane = &planes["items"][0];
        let there = plane["inSync"] == true && plane["appliedRevision"].as_u64() >= Some(revision);
        if there { Ok(()) } else { Err(planes.to_string()) }
    })
    .await
}

async fn welcome(plane: &Process, number: usize) -> anyhow::Result<(String, String)> {
    wait::until(&format!("welcome {number}"), || async {
        plane.welcomes().get(number).cloned().ok_or("not yet")
    })
    .await
}

#[tokio::test]
async fn a_data_plane_goes_to_another_control_plane_and_is_sent_only_what_is_new() -> anyhow::Result<()> {
    let mut replicas = Replicas::start(&[]).await?;
    let listener = json!({"apiVersion": "gateway/v1", "kind": "Listener", "metadata": {"name": "public"},
        "spec": {"address": "127.0.0.1", "port": 0}});
    replicas.admin(0)?.apply(&[listener, route("one")]).await?;
    let plane = replicas.data_plane()?;
    applied(&replicas.admin(1)?, 1).await?;
    let mut from = replicas.by(&welcome(&plane, 0).await?.1);
    for round in 1..=2 {
        // Killed, not told to leave. Nothing changed: nothing is sent, because both have the same hashes.
        replicas.all[from].process.kill().await?;
        let (mode, url) = welcome(&plane, 2 * round - 1).await?;
        let to = replicas.by(&url);
        assert_eq!((to, &*mode), (1 - from, "in_sync"));
        // It leaves that one too, misses a change, and comes back for that alone.
        let (admin, stream) = (replicas.all[from].admin, replicas.all[from].stream);
        replicas.all[from].process = replicas.process(from, admin, stream, &[])?;
        replicas.ready(admin).await?;
        let revision = replicas.admin(from)?.apply(&[route(&format!("round {round}"))]).await?;
        applied(&replicas.admin(to)?, revision).await?;
        applied(&replicas.admin(from)?, revision).await?;
        replicas.all[to].process.signal(Signal::SIGTERM)?;
        let (mode, url) = welcome(&plane, 2 * round).await?;
        assert_eq!((replicas.by(&url), &*mode), (from, "in_sync"));
        replicas.all[to].process.exited().await?;
        let (admin, stream) = (replicas.all[to].admin, replicas.all[to].stream);
        replicas.all[to].process = replicas.process(to, admin, stream, &[])?;
        replicas.ready(admin).await?;
        from = replicas.by(&url);
    }
    Ok(())
}

#[tokio::test]
async fn a_paused_leader_is_replaced_and_does_no_chores_when_it_wakes() -> anyhow::Result<()> {
    let replicas = Replicas::start(&["--history-revisions=10"]).await?;
    let former = replicas.leader(&[0, 1]).await?;
    let later = 1 - former;
    replicas.all[former].process.signal(Signal::SIGSTOP)?;
    let admin = replicas.admin(later)?;
    for note in 0..15 {
        admin.apply(&[route(&note.to_string())]).await?;
    }
    assert_eq!(replicas.leader(&[later]).await?, later);
    wait::until("history to be cut", || async {
        match admin.call(http::Method::GET, "/v1/revisions/5", None).await {
            Ok((404, _)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    replicas.all[former].process.signal(Signal::SIGCONT)?;
    wait::until("the former to find out", || async {
        match replicas.leads(former).await {
            Ok(false) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    assert!(replicas.leads(later).await?, "the later one still does the chores");
    let fence = replicas.postgres.query(&replicas.database, "SELECT fence FROM leader").await?;
    assert_eq!(fence, "2");
    // It was behind what history keeps, and is not any more.
    let head = admin.get("/v1/revisions").await?["items"][0]["revision"].clone();
    let former = replicas.admin(former)?;
    wait::until("the former to catch up", || async {
        let route = former.get("/v1/routes/r").await.map_err(|error| format!("{error:#}"))?;
        let revision = route["metadata"]["revision"].as_str().and_then(|text| text.parse().ok());
        if revision == head.as_u64() { Ok(()) } else { Err(route.to_string()) }
    })
    .await
}

/// Each replica reads the source for itself; to a data plane they are one.
#[tokio::test]
async fn endpoints_stay_when_a_data_plane_goes_to_another_control_plane_and_change_from_there()
-> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let write = |target: &Upstream| -> anyhow::Result<()> {
        let text = format!("services:\n  users: [{{ address: \"{}\" }}]\n", target.address());
        std::fs::write(folder.path().join("new"), text)?;
        Ok(std::fs::rename(folder.path().join("new"), folder.path().join("services.yaml"))?)
    };
    let (one, two) = (Upstream::start("one").await?, Upstream::start("two").await?);
    write(&one)?;
    let mut replicas =
        Replicas::start(&[&format!("--discovery-file-dir={}", folder.path().display())]).await?;
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "gateway/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let objects = [
        object("Listener", "public", json!({"address": "127.0.0.1", "port": 0})),
        object("DiscoverySource", "files", json!({"file": {"path": "services.yaml"}})),
        object("Upstream", "users", json!({"discovery": {"source": "files", "service": "users"}})),
        object("Route", "users", json!({"forward": {"backends": [{"upstream": "users"}]}})),
    ];
    replicas.admin(0)?.apply(&objects).await?;
    let mut plane = replicas.data_plane()?;
    let address = plane
        .line("a bound listener", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["fields"]["listener"] == "default/public")
                .then(|| line["fields"]["address"].as_str()?.parse::<SocketAddr>().ok())?
        })
        .await?;
    let by = async |name: &str| {
        wait::until(&format!("{name} to answer"), || async {
            let answer =
                Http::default().get(address, "any", "/").await.map_err(|error| format!("{error:#}"))?;
            match Seen::parse(answer.body()) {
                Ok(seen) if seen.upstream == name => Ok(()),
                other => Err(format!("{} {other:?}", answer.status())),
            }
        })
        .await
    };
    by("one").await?;
    let load = Load::start(&[address], "any", "/", 2);
    load.more(20).await?;
    let from = replicas.by(&welcome(&plane, 0).await?.1);
    replicas.all[from].process.kill().await?;
    let (mode, url) = welcome(&plane, 1).await?;
    assert_eq!((replicas.by(&url), &*mode), (1 - from, "in_sync"));
    load.more(20).await?;
    by("one").await?;
    write(&two)?;
    by("two").await?;
    load.more(20).await?;
    let tally = load.finish().await;
    assert!(tally.failures.is_empty(), "{tally:?}");
    let diverged = replicas.admin(1 - from)?.metrics("gateway_stream_divergences_total").await?;
    assert!(diverged.abs() < f64::EPSILON, "{diverged}");
    Ok(())
}

#[tokio::test]
async fn a_control_plane_ends_although_its_store_does_not_answer() -> anyhow::Result<()> {
    let mut replicas = Replicas::start(&[]).await?;
    let Replicas { postgres, all, .. } = &mut replicas;
    postgres.signal(Signal::SIGSTOP)?;
    for replica in all.iter_mut() {
        replica.process.signal(Signal::SIGTERM)?;
    }
    for replica in all.iter_mut() {
        assert!(replica.process.exited().await?.success(), "{}", replica.process.tail());
    }
    postgres.signal(Signal::SIGCONT)
}
