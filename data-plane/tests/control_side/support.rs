//! A data plane in the test's process, a client that reads raw responses, and a control plane played by the test.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use gateway_data_plane::config::{Config, Source};
use gateway_data_plane::{RunError, Running, run};
use gateway_proto::digest::RootHash;
use gateway_proto::kind::{Key, Resource};
use gateway_proto::wire;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Far longer than anything here takes: only a fault gets there.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something, but not for ever.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

/// Asks until the answer is the one wanted.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    within(what, async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Status and whole response of a GET.
pub(crate) async fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    request(address, &format!("GET {path} HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n")).await
}

/// Status and whole response of a request that asks for the connection to be closed.
pub(crate) async fn request(address: SocketAddr, text: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(text.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let status = response.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or_else(|| std::io::Error::other(format!("no status in {response:?}")))?, response))
}

/// A listener on any free port of loopback.
pub(crate) fn listener(name: &str) -> String {
    listener_at(name, "127.0.0.1", 0)
}

pub(crate) fn listener_at(name: &str, address: &str, port: u16) -> String {
    format!(
        "---\napiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: {name} }}\nspec: {{ address: {address}, port: {port} }}\n"
    )
}

/// A route that answers by itself.
pub(crate) fn respond(path: &str, body: &str) -> String {
    let name = path.trim_matches('/');
    format!(
        "---\napiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: {name} }}\nspec:\n  matches: [{{ path: {{ exact: {path} }} }}]\n  respond: {{ body: '{body}' }}\n"
    )
}

/// A data plane with a folder of its own.
pub(crate) struct Plane {
    pub(crate) running: Running,
    pub(crate) dir: TempDir,
}

/// Settings of a data plane on manifests in `dir`.
pub(crate) fn on_files(dir: &TempDir, manifests: &str) -> Config {
    let path = manifest_path(dir);
    std::fs::write(&path, manifests).expect("written");
    let mut config = Config::new(Source::Manifests(path), dir.path().join("state"));
    config.workers = 2.try_into().ok();
    config
}

pub(crate) fn manifest_path(dir: &TempDir) -> PathBuf {
    dir.path().join("gateway.yaml")
}

/// A data plane on manifests.
pub(crate) async fn standalone(manifests: &str) -> Plane {
    standalone_with(manifests, |_| {}).await.expect("it starts")
}

pub(crate) async fn standalone_with(
    manifests: &str,
    change: impl FnOnce(&mut Config),
) -> Result<Plane, RunError> {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = on_files(&dir, manifests);
    change(&mut config);
    Ok(Plane { running: run(config).await?, dir })
}

impl Plane {
    /// Puts other manifests in place, the way editors do.
    pub(crate) fn write(&self, manifests: &str) {
        let beside = self.dir.path().join("gateway.new");
        std::fs::write(&beside, manifests).expect("written");
        std::fs::rename(&beside, manifest_path(&self.dir)).expect("renamed");
    }

    /// Waits for a revision to be in service.
    pub(crate) async fn revision(&self, revision: u64) {
        let mut state = self.running.state();
        let reached = state.wait_for(|state| state.cursor.revision >= revision);
        drop(within("the revision", reached).await.expect("it runs"));
    }

    pub(crate) async fn listener(&self, name: &str) -> SocketAddr {
        within("the listener", self.running.listener(name)).await
    }
}

/// The test as a control plane.
pub(crate) struct ControlPlane {
    pub(crate) address: SocketAddr,
    streams: mpsc::Receiver<Stream>,
    _server: Aborted,
}

struct Aborted(tokio::task::JoinHandle<()>);

impl Drop for Aborted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// One data plane's stream.
pub(crate) struct Stream {
    pub(crate) hello: wire::Hello,
    inbound: Streaming<wire::DataPlaneMessage>,
    outbound: mpsc::Sender<Result<wire::ControlPlaneMessage, Status>>,
}

struct Service(mpsc::Sender<Stream>);

#[tonic::async_trait]
impl wire::sync_server::Sync for Service {
    type StreamStream = ReceiverStream<Result<wire::ControlPlaneMessage, Status>>;

    async fn stream(
        &self,
        request: Request<Streaming<wire::DataPlaneMessage>>,
    ) -> Result<Response<Self::StreamStream>, Status> {
        let mut inbound = request.into_inner();
        let (outbound, messages) = mpsc::channel(16);
        let streams = self.0.clone();
        tokio::spawn(async move {
            let Ok(Some(first)) = inbound.message().await else { return };
            let Some(wire::data_plane_message::Message::Hello(hello)) = first.message else { return };
            let _test_is_over = streams.send(Stream { hello, inbound, outbound }).await;
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn enroll(
        &self,
        _: Request<wire::EnrollRequest>,
    ) -> Result<Response<wire::IssuedCertificate>, Status> {
        Err(Status::unimplemented("nobody joins here"))
    }
}

impl ControlPlane {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    pub(crate) async fn start_with(tls: Option<Identity>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, streams) = mpsc::channel(4);
        let mut server = Server::builder();
        if let Some(identity) = tls {
            server =
                server.tls_config(ServerTlsConfig::new().identity(identity)).expect("a sound certificate");
        }
        let server = server
            .add_service(wire::sync_server::SyncServer::new(Service(sender)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = Aborted(tokio::spawn(async move { server.await.expect("served") }));
        ControlPlane { address, streams, _server: server }
    }

    /// Settings of a data plane that follows this one.
    pub(crate) fn config(&self, dir: &TempDir) -> Config {
        follow(&[self.address], dir)
    }

    /// The next data plane that connects.
    pub(crate) async fn accept(&mut self) -> Stream {
        within("a data plane", self.streams.recv()).await.expect("the service runs")
    }
}

/// Settings of a data plane that follows these control planes.
pub(crate) fn follow(addresses: &[SocketAddr], dir: &TempDir) -> Config {
    let urls = addresses.iter().map(|address| format!("http://{address}").parse().expect("a URL")).collect();
    let mut config = Config::new(Source::ControlPlane(urls), dir.path().join("state"));
    config.workers = 1.try_into().ok();
    config
}

impl Stream {
    pub(crate) async fn send(&self, message: wire::control_plane_message::Message) {
        let message = wire::ControlPlaneMessage { message: Some(message) };
        self.outbound.send(Ok(message)).await.expect("the data plane listens");
    }

    pub(crate) async fn welcome(&self, mode: wire::sync_mode::Value, heartbeat_ms: u32) {
        let welcome = wire::Welcome { mode: mode.into(), heartbeat_ms, ..Default::default() };
        self.send(wire::control_plane_message::Message::Welcome(welcome)).await;
    }

    /// The next message; none: the data plane has left.
    pub(crate) async fn next(&mut self) -> Option<wire::data_plane_message::Message> {
        within("a message", self.inbound.message()).await.ok().flatten().and_then(|message| message.message)
    }

    /// The next acknowledgement.
    pub(crate) async fn ack(&mut self) -> wire::Ack {
        loop {
            match self.next().await.expect("the data plane is there") {
                wire::data_plane_message::Message::Ack(ack) => return ack,
                wire::data_plane_message::Message::Heartbeat(_) => {}
                other => panic!("expected an Ack, got {other:?}"),
            }
        }
    }

    /// The next status.
    pub(crate) async fn status(&mut self) -> wire::Status {
        loop {
            match self.next().await.expect("the data plane is there") {
                wire::data_plane_message::Message::Status(status) => return status,
                wire::data_plane_message::Message::Heartbeat(_) => {}
                other => panic!("expected a Status, got {other:?}"),
            }
        }
    }

    /// Sends a transaction, an object per chunk.
    pub(crate) async fn transaction(
        &self,
        number: u64,
        base: Option<&wire::Cursor>,
        target: &wire::Cursor,
        content: &Content,
    ) {
        let mut said =
            Some(wire::Chunk { base_sum: base.map(low), target: Some(target.clone()), ..Default::default() });
        let mut chunk = |upserts, tombstones, last| wire::Chunk {
            transaction: number,
            upserts,
            tombstones,
            last,
            ..said.take().unwrap_or_default()
        };
        for resource in &content.upserts {
            let upsert = wire::Upsert {
                kind: resource.kind().as_str().into(),
                body: resource.encode(),
                ..Default::default()
            };
            self.send(wire::control_plane_message::Message::Chunk(chunk(vec![upsert], Vec::new(), false)))
                .await;
        }
        let tombstones = content.deletes.iter().map(Into::into).collect();
        self.send(wire::control_plane_message::Message::Chunk(chunk(Vec::new(), tombstones, true))).await;
    }
}

/// What names it as a base.
pub(crate) fn low(cursor: &wire::Cursor) -> u64 {
    RootHash::from_slice(&cursor.root_hash).expect("a root").low()
}

/// What a transaction changes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    pub(crate) upserts: Vec<Resource>,
    pub(crate) deletes: Vec<Key>,
}

impl Content {
    /// The objects of manifests.
    pub(crate) fn of(manifests: &str) -> Self {
        let resolver = gateway_engine::manifest::Resolver::literal();
        let documents =
            gateway_engine::manifest::parse("test", manifests.as_bytes(), &resolver).expect("sound");
        let upserts = documents.into_iter().map(|document| document.resource.canonical());
        Content { upserts: upserts.collect(), deletes: Vec::new() }
    }

    /// Root hash of these objects.
    pub(crate) fn root(&self) -> RootHash {
        self.upserts.iter().map(Resource::hash).collect()
    }
}

pub(crate) fn cursor(epoch: &str, revision: u64, root: RootHash) -> wire::Cursor {
    wire::Cursor { epoch: epoch.into(), revision, root_hash: root.to_bytes().to_vec() }
}
