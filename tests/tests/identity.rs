//! Who data planes are, with real processes: they join with a token, come back with what they were given, are renewed
//! and follow a change of CA without losing their stream; who has no certificate, another's, or one that is over, gets
//! nothing and is in the audit log.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use bytes::Bytes;
use gateway_tests::certs::Certs;
use gateway_tests::client::{Admin, Http};
use gateway_tests::process::{Process, free_port, program};
use gateway_tests::services::Postgres;
use gateway_tests::wait;
use http_body_util::Full;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A control plane whose stream is reachable from elsewhere, and what belongs to it.
struct Gateway {
    directory: TempDir,
    /// Ends with it.
    postgres: Option<Postgres>,
    database_url: String,
    replicas: Vec<Replica>,
    token: String,
    certs: Option<Certs>,
}

struct Replica {
    process: Process,
    admin: SocketAddr,
    stream: u16,
}

impl Gateway {
    async fn start(on_postgres: bool, certs: Option<Certs>, more: &[String]) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("gateway-identity-").tempdir()?;
        let postgres = if on_postgres { Some(Postgres::start().await?) } else { None };
        let database_url = match &postgres {
            Some(postgres) => postgres.database().await?,
            None => format!("sqlite://{}", directory.path().join("gateway.db").display()),
        };
        std::fs::write(directory.path().join("master-key"), "0123456789abcdef".repeat(4))?;
        let (replicas, token) = (Vec::new(), String::new());
        let mut gateway = Gateway { directory, postgres, database_url, replicas, token, certs };
        gateway.replica(more).await?;
        Ok(gateway)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One more control plane.
    async fn replica(&mut self, more: &[String]) -> anyhow::Result<usize> {
        let index = self.replicas.len();
        let (admin, stream) = (SocketAddr::from(([127, 0, 0, 1], free_port()?)), free_port()?);
        let state = self.path(&format!("cp-{index}"));
        let mut arguments = vec![
            format!("--admin-listen={admin}"),
            // On every address: nobody without a certificate is taken here.
            format!("--stream-listen=0.0.0.0:{stream}"),
            format!("--database-url={}", self.database_url),
            format!("--state-dir={}", state.display()),
            format!("--master-key-file={}", self.path("master-key").display()),
            "--log-format=json".to_owned(),
        ];
        arguments.extend_from_slice(more);
        if let Some(certs) = &self.certs {
            arguments.push(format!("--tls-cert={}", certs.certificate().display()));
            arguments.push(format!("--tls-key={}", certs.key().display()));
        }
        let path = program("gateway-control-plane")?;
        let mut process =
            Process::start(&format!("control plane {index}"), &path.to_string_lossy(), &arguments, &[])?;
        process.line("that it listens", |line| line.contains("stream listens").then_some(())).await?;
        if index == 0 {
            let token =
                wait::until("a token", || tokio::fs::read_to_string(state.join("admin-token"))).await?;
            token.trim().clone_into(&mut self.token);
        }
        self.replicas.push(Replica { process, admin, stream });
        Ok(index)
    }

    fn admin(&self, replica: usize) -> Admin {
        Admin::new(self.replicas[replica].admin, self.token.clone())
    }

    /// Runs gatewayctl; whether it ended well, and all it said.
    async fn ctl(&self, arguments: &[&str]) -> anyhow::Result<(bool, String)> {
        let scheme = if self.certs.is_some() { "https" } else { "http" };
        let mut command = tokio::process::Command::new(program("gatewayctl")?);
        command.args(arguments).env("GATEWAY_TOKEN", &self.token).env("NO_COLOR", "1");
        command.env("GATEWAY_SERVER", format!("{scheme}://localhost:{}", self.replicas[0].admin.port()));
        if let Some(certs) = &self.certs {
            command.env("GATEWAY_CA_FILE", certs.ca());
        }
        let home = self.directory.path();
        let output = command.env("HOME", home).env("XDG_CONFIG_HOME", home).output().await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    }

    /// A file with a new join token.
    async fn join_token(&self, name: &str, more: &[&str]) -> anyhow::Result<PathBuf> {
        let (done, said) = self.ctl(&[&["-q", "join-token", "create", name], more].concat()).await?;
        anyhow::ensure!(done, "{said}");
        let file = self.path(&format!("token-{name}"));
        std::fs::write(&file, said.lines().find(|line| line.starts_with("gwj_")).context(said.clone())?)?;
        Ok(file)
    }

    fn data_plane(&self, node: &str, replicas: &[usize], more: &[String]) -> anyhow::Result<Process> {
        let url = |replica: &usize| format!("https://localhost:{}", self.replicas[*replica].stream);
        let urls = replicas.iter().map(url).collect::<Vec<_>>().join(",");
        let mut arguments = vec![
            format!("--control-plane={urls}"),
            format!("--node={node}"),
            "--admin-listen=127.0.0.1:0".to_owned(),
            format!("--state-dir={}", self.path(node).display()),
            "--log-format=json".to_owned(),
            "--workers=1".to_owned(),
        ];
        arguments.extend_from_slice(more);
        Process::start(node, &program("gateway-data-plane")?.to_string_lossy(), &arguments, &[])
    }

    async fn plane(&self, node: &str) -> anyhow::Result<Option<Value>> {
        let (done, said) = self.ctl(&["nodes", "-o", "json"]).await?;
        anyhow::ensure!(done, "{said}");
        let planes: Value = serde_json::from_str(&said)?;
        let items = planes["items"].as_array().context("a list")?;
        Ok(items.iter().find(|plane| plane["id"] == node).cloned())
    }

    /// Waits for a data plane that is connected and as `is` wants it.
    async fn see(&self, node: &str, what: &str, is: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        wait::until(&format!("{node}: {what}"), || async {
            match self.plane(node).await {
                Ok(Some(plane)) if plane["connected"] == true && is(&plane) => Ok(plane),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    /// Waits for an entry of the audit log.
    async fn audited(&self, action: &str, status: u64, words: &str) -> anyhow::Result<()> {
        wait::until(&format!("{action} {status} {words} in the audit log"), || async {
            let log = self.admin(0).get("/v1/audit").await.map_err(|error| format!("{error:#}"))?;
            let items = log["items"].as_array().cloned().unwrap_or_default();
            let is_it = |entry: &Value| {
                entry["action"] == action
                    && entry["status"] == status
                    && entry["object"].as_str().is_some_and(|object| object.contains(words))
            };
            if items.iter().any(is_it) { Ok(()) } else { Err(log.to_string()) }
        })
        .await
    }
}

fn token_file(path: &Path) -> String {
    format!("--join-token-file={}", path.display())
}

async fn refusal(process: &mut Process, words: &str) -> anyhow::Result<()> {
    process.line(words, |line| line.contains(words).then_some(())).await
}

/// Metrics of a data plane.
async fn metrics(process: &mut Process) -> anyhow::Result<String> {
    let address: SocketAddr = process
        .line("its admin port", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["fields"]["admin"].as_str()?.parse().ok()
        })
        .await?;
    let answer = Http::default().get(address, "localhost", "/metrics").await?;
    Ok(String::from_utf8(answer.body().to_vec())?)
}

fn listener(name: &str, group: &str) -> Value {
    json!({ "apiVersion": "gateway/v1", "kind": "Listener", "metadata": { "name": name },
            "spec": { "address": "127.0.0.1", "port": 0, "dataPlanes": { "group": group } } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_plane_joins_once_and_comes_back_with_its_certificate() -> anyhow::Result<()> {
    let gateway = Gateway::start(false, None, &[]).await?;
    gateway.admin(0).apply(&[listener("inner", "core"), listener("outer", "edge")]).await?;
    let token = gateway.join_token("edge", &["--group", "edge"]).await?;
    let joining = [token_file(&token), "--group=edge".to_owned()];
    let mut plane = gateway.data_plane("dp-0", &[0], &joining)?;
    let seen =
        gateway.see("dp-0", "its listener", |plane| plane["listeners"]["default/outer"].is_string()).await?;
    assert!(seen["listeners"]["default/inner"].is_null(), "only what its group takes: {seen}");
    let left = seen["certificate"]["expiresInSeconds"].as_i64().context("a certificate")?;
    assert!((86_000..=86_400).contains(&left), "{seen}");
    let (_, wide) = gateway.ctl(&["nodes", "-o", "wide"]).await?;
    assert!(wide.contains("CERTIFICATE") && wide.contains(&format!("{}", left / 1000)), "{wide}");
    let text = metrics(&mut plane).await?;
    let line = text.lines().find(|line| line.starts_with("gateway_certificate_expiry_seconds "));
    let seconds: f64 = line.and_then(|line| line.split(' ').nth(1)).context("a figure")?.parse()?;
    assert!((86_000.0..=86_400.0).contains(&seconds), "{seconds}");
    gateway.audited("enroll", 200, "dp-0 with edge").await?;

    let kept = gateway.path("dp-0").join("identity.pem");
    assert_eq!(std::fs::metadata(&kept)?.permissions().mode() & 0o777, 0o600);
    assert!(!gateway.path("dp-0").join("identity-request.pem").exists());
    let key = std::fs::read_to_string(&kept)?.lines().nth(1).context("a key")?.to_owned();
    let stored = std::fs::read(gateway.path("gateway.db"))?;
    assert!(!stored.windows(key.len()).any(|window| window == key.as_bytes()));

    // Used up: for another, and whatever it calls itself.
    for node in ["dp-1", "dp-0-again"] {
        let mut other = gateway.data_plane(node, &[0], &joining)?;
        refusal(&mut other, "the join token is used up").await?;
    }
    gateway.audited("enroll", 401, "used up").await?;
    // A restart needs no token, only the file that it was told of.
    plane.kill().await?;
    let mut plane = gateway.data_plane("dp-0", &[0], &joining)?;
    refusal(&mut plane, "connected to the control plane").await?;
    assert!(!plane.lines().iter().any(|line| line.contains("joined:")), "{}", plane.tail());

    let wrong = gateway.join_token("wrong", &["--group", "core"]).await?;
    let mut other = gateway.data_plane("dp-2", &[0], &[token_file(&wrong), "--group=edge".to_owned()])?;
    refusal(&mut other, "start it with --group core").await?;
    gateway.audited("enroll", 403, "is for the group").await?;
    let (_, list) = gateway.ctl(&["join-token", "list"]).await?;
    assert!(list.contains("0/1") && list.contains("1/1") && !list.contains("gwj_"), "{list}");

    let (done, _) = gateway.ctl(&["join-token", "revoke", "wrong"]).await?;
    assert!(done);
    let mut other = gateway.data_plane("dp-3", &[0], &[token_file(&wrong), "--group=core".to_owned()])?;
    refusal(&mut other, "unknown or was revoked").await?;
    let brief = gateway.join_token("brief", &["--ttl", "1ms"]).await?;
    let mut other = gateway.data_plane("dp-4", &[0], &[token_file(&brief)])?;
    refusal(&mut other, "the join token expired at").await?;
    gateway.audited("enroll", 401, "expired at").await?;
    nobody_comes_in_without(&gateway).await
}

async fn nobody_comes_in_without(gateway: &Gateway) -> anyhow::Result<()> {
    let mut clear = gateway.data_plane("clear", &[0], &[])?;
    refusal(&mut clear, "cannot connect").await?;
    let stranger = Gateway::start(false, None, &[]).await?;
    let token = stranger.join_token("x", &[]).await?;
    let mut lost = gateway.data_plane("lost", &[0], &[token_file(&token)])?;
    refusal(&mut lost, "does not show the CA that the join token carries").await?;
    std::fs::write(&token, "gwj_nonsense")?;
    let mut broken = gateway.data_plane("broken", &[0], &[token_file(&token)])?;
    assert!(!broken.exited().await?.success());
    // Its last words may be read after it has ended.
    wait::until("why it ended", || async {
        let said = broken.lines().join("\n");
        if said.contains("checksum is wrong") && !said.contains("nonsense") { Ok(()) } else { Err(said) }
    })
    .await?;
    let planes = gateway.admin(0).get("/v1/data-planes").await?;
    let names: Vec<_> = planes["items"].as_array().context("a list")?.iter().map(|it| &it["id"]).collect();
    assert_eq!(names, ["dp-0"], "{planes}");
    Ok(())
}

/// A certificate of an own PKI, with its key in the same file.
fn certificate(authority: &rcgen::Issuer<'_, KeyPair>, uri: Option<&str>, file: &Path) -> anyhow::Result<()> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names =
        uri.map(|uri| anyhow::Ok(SanType::URI(uri.try_into()?))).transpose()?.into_iter().collect();
    let made = params.signed_by(&key, authority)?;
    Ok(std::fs::write(file, format!("{}{}", key.serialize_pem(), made.pem()))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_of_an_own_pki_are_taken_for_what_their_certificates_say() -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let root_key = KeyPair::generate()?;
    let mut root = CertificateParams::new(Vec::new())?;
    root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    root.distinguished_name.push(rcgen::DnType::CommonName, "corp CA");
    let client_ca = folder.path().join("corp.pem");
    std::fs::write(&client_ca, root.self_signed(&root_key)?.pem())?;
    let authority = rcgen::Issuer::new(root, root_key);
    let more = [format!("--tls-client-ca={}", client_ca.display())];
    let gateway = Gateway::start(false, Some(Certs::new()?), &more).await?;
    let ca = format!("--tls-ca={}", gateway.certs.as_ref().context("given")?.ca().display());
    let showing = |file: &Path| {
        [ca.clone(), format!("--tls-cert={}", file.display()), format!("--tls-key={}", file.display())]
    };
    let own = |name: &str, uri: Option<&str>| {
        let file = folder.path().join(name);
        certificate(&authority, uri, &file).map(|()| file)
    };

    let good = own("good.pem", Some("spiffe://corp.example/group/default/node/good"))?;
    let _good = gateway.data_plane("good", &[0], &showing(&good))?;
    let seen = gateway.see("good", "its certificate", |plane| plane["certificate"].is_object()).await?;
    assert_eq!(seen["certificate"]["ca"], "", "{seen}");

    let mut thief = gateway.data_plane("thief", &[0], &showing(&good))?;
    refusal(&mut thief, "the certificate is for the node").await?;
    let edge = own("good2.pem", Some("spiffe://corp.example/group/edge/node/good2"))?;
    let mut elsewhere = gateway.data_plane("good2", &[0], &showing(&edge))?;
    refusal(&mut elsewhere, "the certificate is for the group").await?;
    let mut unnamed = gateway.data_plane("unnamed", &[0], &showing(&own("unnamed.pem", None)?))?;
    refusal(&mut unnamed, "the certificate names no data plane").await?;
    let mut bare = gateway.data_plane("bare", &[0], std::slice::from_ref(&ca))?;
    refusal(&mut bare, "data planes need a certificate here").await?;
    let stranger_key = KeyPair::generate()?;
    let mut stranger = CertificateParams::new(Vec::new())?;
    stranger.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let stranger = rcgen::Issuer::new(stranger, stranger_key);
    let foreign = folder.path().join("foreign.pem");
    certificate(&stranger, Some("spiffe://corp.example/group/default/node/foreign"), &foreign)?;
    let mut foreign = gateway.data_plane("foreign", &[0], &showing(&foreign))?;
    refusal(&mut foreign, "no stream to the control plane").await?;
    let over = folder.path().join("over.pem");
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.subject_alt_names =
        vec![SanType::URI("spiffe://corp.example/group/default/node/over".try_into()?)];
    (params.not_before, params.not_after) =
        (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(2021, 1, 1));
    let expired = params.signed_by(&key, &authority)?;
    std::fs::write(&over, format!("{}{}", key.serialize_pem(), expired.pem()))?;
    let mut late = gateway.data_plane("over", &[0], &showing(&over))?;
    refusal(&mut late, "no stream to the control plane").await?;
    wait::until("the control plane to say why", || async {
        let lines = gateway.replicas[0].process.lines();
        let is_it = |line: &String| line.contains("certificate was refused") && line.contains("expired");
        if lines.iter().any(is_it) { Ok(()) } else { Err(lines.join("\n")) }
    })
    .await?;

    // Beside them, one that joins: it checks the server by the file it was given.
    let token = gateway.join_token("both", &[]).await?;
    let _joined = gateway.data_plane("joined", &[0], &[ca.clone(), token_file(&token)])?;
    gateway.see("joined", "its certificate", |plane| plane["certificate"]["ca"] != "").await?;
    // What it was given is no good for another node, nor is its own file's content in other hands.
    let stolen = gateway.path("joined").join("identity.pem");
    let mut thief = gateway.data_plane("thief-2", &[0], &showing(&stolen))?;
    refusal(&mut thief, "the certificate is for the node").await?;
    let (_, listed) = gateway.ctl(&["nodes"]).await?;
    for nobody in ["thief", "unnamed", "bare", "foreign", "over", "good2"] {
        assert!(!listed.contains(nobody), "{listed}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_data_plane_is_cut_and_comes_back_with_a_new_token() -> anyhow::Result<()> {
    let gateway = Gateway::start(false, None, &[]).await?;
    let token = gateway.join_token("first", &[]).await?;
    let mut plane = gateway.data_plane("dp-0", &[0], &[token_file(&token)])?;
    gateway.see("dp-0", "connected", |_| true).await?;
    let (done, said) = gateway.ctl(&["nodes", "revoke", "dp-0"]).await?;
    assert!(done && said.contains("refused from now on"), "{said}");
    refusal(&mut plane, "the certificate was revoked at").await?;
    gateway.audited("stream.open", 401, "revoked").await?;
    gateway.audited("data_plane.revoke", 204, "dp-0").await?;
    let (_, state) = gateway.ctl(&["nodes", "-o", "json"]).await?;
    let state: Value = serde_json::from_str(&state)?;
    assert_eq!(state["items"][0]["connected"], false, "{state}");

    let second = gateway.join_token("second", &[]).await?;
    std::fs::rename(second, &token)?;
    gateway.see("dp-0", "back, without a restart", |_| true).await?;
    assert!(plane.lines().iter().filter(|line| line.contains("joined:")).count() == 2, "{}", plane.tail());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_on_one_replica_cuts_the_stream_of_another() -> anyhow::Result<()> {
    let mut gateway = Gateway::start(true, None, &[]).await?;
    let other = gateway.replica(&[]).await?;
    let token = gateway.join_token("one", &[]).await?;
    let mut plane = gateway.data_plane("dp-0", &[other], &[token_file(&token)])?;
    gateway.see("dp-0", "connected", |_| true).await?;
    let (done, said) = gateway.ctl(&["nodes", "revoke", "dp-O"]).await?;
    assert!(!done && said.contains("was ever seen") && said.contains("--force"), "{said}");
    let (done, said) = gateway.ctl(&["nodes", "revoke", "dp-0"]).await?;
    assert!(done, "{said}");
    refusal(&mut plane, "the certificate was revoked at").await?;
    // On either, also after a restart.
    plane.kill().await?;
    for replica in [0, other] {
        let mut again = gateway.data_plane("dp-0", &[replica], &[token_file(&token)])?;
        refusal(&mut again, "the certificate was revoked at").await?;
        again.kill().await?;
    }
    wait::until("it to be away", || async {
        let state = gateway.ctl(&["nodes"]).await.map_err(|error| format!("{error:#}"))?.1;
        if state.contains("away") { Ok(()) } else { Err(state) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_back_right_after_its_revocation_uses_its_token_once() -> anyhow::Result<()> {
    let gateway = Gateway::start(false, None, &[]).await?;
    let token = gateway.join_token("three", &["--uses", "3"]).await?;
    let mut plane = gateway.data_plane("dp-0", &[0], &[token_file(&token)])?;
    let before = gateway.see("dp-0", "connected", |_| true).await?;
    let (done, said) = gateway.ctl(&["nodes", "revoke", "dp-0"]).await?;
    assert!(done, "{said}");
    refusal(&mut plane, "the certificate was revoked at").await?;
    gateway.see("dp-0", "another stream", |plane| plane["address"] != before["address"]).await?;
    let (_, list) = gateway.ctl(&["join-token", "list"]).await?;
    assert!(list.contains("2/3"), "{list}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_the_store_is_back_and_its_stream_stays_meanwhile() -> anyhow::Result<()>
{
    let mut gateway = Gateway::start(true, None, &["--node-certificate-ttl=16s".to_owned()]).await?;
    let token = gateway.join_token("one", &[]).await?;
    let plane = gateway.data_plane("dp-0", &[0], &[token_file(&token)])?;
    let first = gateway.see("dp-0", "a certificate", |plane| plane["certificate"].is_object()).await?;
    gateway.postgres.as_mut().context("one")?.kill().await?;
    let renewing = "cannot renew a certificate";
    gateway.replicas[0].process.line(renewing, |line| line.contains(renewing).then_some(())).await?;
    gateway.postgres.as_mut().context("one")?.resume().await?;
    gateway
        .see("dp-0", "a later certificate", |plane| {
            plane["certificate"]["expires"].as_str() > first["certificate"]["expires"].as_str()
        })
        .await?;
    let complaints = plane.complaints(&[]);
    assert!(complaints.is_empty(), "the stream was lost: {complaints:?}");
    assert!(
        !plane.lines().iter().any(|line| line.contains("no stream to the control plane")),
        "{}",
        plane.tail()
    );
    Ok(())
}

/// Certificates live for six seconds here: two data planes are renewed again and again, and follow a change of CA,
/// without losing their stream once.
async fn renewal_and_rotation(on_postgres: bool) -> anyhow::Result<()> {
    let more = ["--node-certificate-ttl=6s".to_owned()];
    let mut gateway = Gateway::start(on_postgres, None, &more).await?;
    let replicas = if on_postgres { vec![0, gateway.replica(&more).await?] } else { vec![0] };
    let token = gateway.join_token("fleet", &["--uses", "2"]).await?;
    let mut planes = Vec::new();
    for (node, replica) in [("dp-0", &replicas[..1]), ("dp-1", &replicas[replicas.len() - 1..])] {
        planes.push(gateway.data_plane(node, replica, &[token_file(&token)])?);
    }
    let mut first = Vec::new();
    for node in ["dp-0", "dp-1"] {
        let seen = gateway.see(node, "a certificate", |plane| plane["certificate"].is_object()).await?;
        first.push(seen["certificate"].clone());
    }
    assert_eq!(first[0]["ca"], first[1]["ca"], "one CA, whichever replica signs");
    let later =
        |plane: &Value, than: &Value| plane["certificate"]["expires"].as_str() > than["expires"].as_str();
    for (node, before) in ["dp-0", "dp-1"].into_iter().zip(&first) {
        let renewed = gateway.see(node, "a renewed certificate", |plane| later(plane, before)).await?;
        gateway.see(node, "and again", |plane| later(plane, &renewed["certificate"])).await?;
    }

    let (done, said) = gateway.ctl(&["ca", "rotate"]).await?;
    assert!(done && said.contains("next") && said.contains("active"), "{said}");
    gateway.audited("ca.rotate", 200, "").await?;
    let (done, said) = gateway.ctl(&["ca", "rotate"]).await?;
    assert!(!done && said.contains("being replaced already"), "{said}");
    for node in ["dp-0", "dp-1"] {
        gateway
            .see(node, "a certificate of the new CA", |plane| plane["certificate"]["ca"] != first[0]["ca"])
            .await?;
    }
    let one = wait::until("the old CA to go", || async {
        let status =
            gateway.admin(replicas.len() - 1).get("/v1/ca").await.map_err(|error| format!("{error:#}"))?;
        if status["roots"].as_array().is_some_and(|roots| roots.len() == 1) {
            Ok(status)
        } else {
            Err(status.to_string())
        }
    })
    .await?;
    assert_ne!(one["roots"][0]["sha256"], first[0]["ca"]);
    for node in ["dp-0", "dp-1"] {
        let seen = gateway.see(node, "still there", |_| true).await?;
        gateway.see(node, "renewed by the new CA", |plane| later(plane, &seen["certificate"])).await?;
    }
    for plane in &mut planes {
        let complaints = plane.complaints(&[]);
        assert!(complaints.is_empty(), "a stream was lost: {complaints:?}");
        let text = metrics(plane).await?;
        assert!(text.contains("gateway_control_plane_connected 1"), "{text}");
    }
    for replica in &gateway.replicas {
        let complaints = replica.process.complaints(&[]);
        assert!(complaints.is_empty(), "{complaints:?}");
    }
    control_plane_metrics(&gateway).await?;
    what_is_over_is_refused(&gateway, &mut planes[0], &token).await
}

async fn control_plane_metrics(gateway: &Gateway) -> anyhow::Result<()> {
    let request = http::Request::get(format!("http://{}/metrics", gateway.replicas[0].admin))
        .header(http::header::AUTHORIZATION, format!("Bearer {}", gateway.token))
        .body(Full::<Bytes>::default())?;
    let answer = Http::default().send(request).await?;
    let text = String::from_utf8(answer.body().to_vec())?;
    for (metric, range) in [
        (r#"gateway_ca_expiry_seconds{state="active"}"#, 300_000_000..=316_000_000),
        (r#"gateway_stream_certificate_expiry_seconds{of="control_plane"}"#, 0..=6),
        (r#"gateway_stream_certificate_expiry_seconds{of="data_planes"}"#, 0..=6),
    ] {
        let line = text.lines().find_map(|line| line.strip_prefix(metric)).context(text.clone())?;
        let seconds: i64 = line.trim().parse()?;
        assert!(range.contains(&seconds), "{metric} {seconds}");
    }
    Ok(())
}

async fn what_is_over_is_refused(gateway: &Gateway, plane: &mut Process, token: &Path) -> anyhow::Result<()> {
    plane.kill().await?;
    let seen = gateway.plane("dp-0").await?.context("known")?;
    assert!(seen["certificate"]["expires"].is_string());
    wait::until("its certificate to end", || async {
        let plane = gateway.plane("dp-0").await.map_err(|error| format!("{error:#}"))?;
        let left = plane.as_ref().and_then(|plane| plane["certificate"]["expiresInSeconds"].as_i64());
        if left.is_some_and(|left| left < 0) { Ok(()) } else { Err(format!("{plane:?}")) }
    })
    .await?;
    let mut late = gateway.data_plane("dp-0", &[0], &[token_file(token)])?;
    // The token is of the old CA, and used up.
    refusal(&mut late, "does not show the CA that the join token carries").await?;
    std::fs::rename(gateway.join_token("late", &[]).await?, token)?;
    gateway.see("dp-0", "back, without a restart", |_| true).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_the_ca_are_renewed_under_open_streams_on_sqlite() -> anyhow::Result<()> {
    renewal_and_rotation(false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_the_ca_are_renewed_under_open_streams_on_postgres() -> anyhow::Result<()> {
    renewal_and_rotation(true).await
}
