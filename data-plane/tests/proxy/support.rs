//! A gateway on manifests, and raw TCP peers that see and say exact bytes. Every wait is bounded.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use gateway_data_plane::config::Source;
use gateway_data_plane::{Config, Running};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Longer than any timeout under test and shorter than the defaults of most; reached only by a bug.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited too long: {what}"),
    }
}

pub(crate) const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// The same, and the last on its connection.
pub(crate) const LAST: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok";

/// A data plane with one listener, `default/public`.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    _directory: TempDir,
}

impl Gateway {
    /// `documents`: without `apiVersion`, separated by `---`.
    pub(crate) async fn start(http: &str, documents: &str) -> Self {
        Self::start_with(http, documents, |_| {}).await
    }

    pub(crate) async fn start_with(http: &str, documents: &str, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let listener = format!(
            "kind: Listener\nmetadata: {{ name: public }}\nspec: {{ address: 127.0.0.1, port: 0, http: {http} }}"
        );
        let manifest: Vec<String> = std::iter::once(listener.as_str())
            .chain(documents.split("---\n").filter(|document| !document.trim().is_empty()))
            .map(|document| format!("apiVersion: gateway/v1\n{document}"))
            .collect();
        let file = directory.path().join("gateway.yaml");
        std::fs::write(&file, manifest.join("\n---\n")).expect("written");
        let mut config = Config::new(Source::Manifests(file), directory.path().join("state"));
        config.workers = NonZeroUsize::new(1);
        change(&mut config);
        let running = match gateway_data_plane::run(config).await {
            Ok(running) => running,
            Err(error) => panic!("{error}\n{}", manifest.join("\n---\n")),
        };
        let address = within("the listener is bound", running.listener("default/public")).await;
        Gateway { running, address, _directory: directory }
    }

    pub(crate) async fn connect(&self) -> Peer {
        Peer::new(within("connected", TcpStream::connect(self.address)).await.expect("connected"))
    }

    /// Waits until the worker has seen everything that was sent to it before: it serves in turn, and answers this last.
    pub(crate) async fn turn(&self) {
        assert_eq!(self.ask("GET / HTTP/1.1\r\n\r\n").await.status(), "400", "no host");
    }

    /// Waits for as long as the listener's `headerTimeout`, by the gateway's own clock: it closes a connection that
    /// says nothing.
    pub(crate) async fn header_timeout(&self) {
        assert_eq!(self.connect().await.rest().await, (Vec::new(), true));
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn counts(&self, line: &str) {
        within(line, async {
            loop {
                let admin = TcpStream::connect(self.running.admin()).await.expect("connected");
                let mut admin = Peer::new(admin);
                admin.send("GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
                let (metrics, _) = admin.rest().await;
                if String::from_utf8_lossy(&metrics).lines().any(|it| it == line) {
                    return;
                }
            }
        })
        .await;
    }

    /// Waits until nobody can connect any more.
    pub(crate) async fn port_is_closed(address: SocketAddr) {
        within("the port is closed", async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// Sends a request on a connection of its own and returns the response head and body, read to the end.
    pub(crate) async fn ask(&self, request: &str) -> Reply {
        let mut client = self.connect().await;
        client.send(request).await;
        client.reply().await
    }
}

/// A gateway that sends everything to one target.
pub(crate) struct Proxy {
    pub(crate) gateway: Gateway,
    pub(crate) target: Target,
}

/// A request under way: its client, and the target's connection with the head it has read.
pub(crate) struct Exchange {
    pub(crate) client: Peer,
    pub(crate) upstream: Peer,
    pub(crate) head: String,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::with("{}", "").await
    }

    /// `http`: the listener's settings; `route`: more of the route's spec, in lines of their own.
    pub(crate) async fn with(http: &str, route: &str) -> Self {
        Self::before(Target::bind().await, http, "{}", route).await
    }

    /// `timeouts`: those of the upstream.
    pub(crate) async fn with_upstream(timeouts: &str) -> Self {
        Self::before(Target::bind().await, "{}", timeouts, "").await
    }

    async fn before(target: Target, http: &str, timeouts: &str, route: &str) -> Self {
        let documents = format!("{}{route}", forwarding(&target.address.to_string(), timeouts));
        Proxy { gateway: Gateway::start(http, &documents).await, target }
    }

    /// A request of a new client that comes to the target on a new connection.
    pub(crate) async fn exchange(&self, request: impl AsRef<[u8]>) -> Exchange {
        let mut client = self.gateway.connect().await;
        client.send(request).await;
        let (upstream, head) = self.target.request().await;
        Exchange { client, upstream, head }
    }

    /// A client that was served over a connection which is now in the pool, and that connection.
    pub(crate) async fn pooled(&self) -> (Peer, Peer) {
        let Exchange { mut client, mut upstream, .. } = self.exchange(GET).await;
        upstream.send(OK).await;
        assert_eq!(client.reply().await.body, "ok");
        (client, upstream)
    }

    /// The client can ask again, and is answered over a new connection to the target, the last time.
    pub(crate) async fn goes_on(&self, client: &mut Peer) {
        client.send(GET).await;
        self.target.request().await.0.send(LAST).await;
        assert_eq!(client.reply().await.body, "ok", "the client's connection goes on");
    }
}

/// An upstream with one target, and a route that sends everything there.
pub(crate) fn forwarding(address: &str, timeouts: &str) -> String {
    format!(
        "kind: Upstream\nmetadata: {{ name: target }}\nspec: {{ targets: [{{ address: '{address}' }}], timeouts: {timeouts} }}\n---\n\
         kind: Route\nmetadata: {{ name: all }}\nspec:\n  forward: {{ backends: [{{ upstream: target }}] }}\n"
    )
}

/// Where requests end up: the test plays the target.
pub(crate) struct Target {
    listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        Target { listener, address }
    }

    pub(crate) async fn accept(&self) -> Peer {
        Peer::new(within("the gateway connects", self.listener.accept()).await.expect("accepted").0)
    }

    /// The next new connection, and the head of the request on it.
    pub(crate) async fn request(&self) -> (Peer, String) {
        let mut upstream = self.accept().await;
        let head = upstream.head().await;
        (upstream, head)
    }

    /// Nobody has connected: the next in the queue is a connection made here.
    pub(crate) async fn is_left_alone(&self) -> bool {
        let mark = TcpStream::connect(self.address).await.expect("connected");
        let next = self.accept().await;
        mark.local_addr().expect("connected") == next.stream.peer_addr().expect("connected")
    }
}

/// One end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

/// A response as the client saw it.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn status(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }

    /// The slug of a problem document.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.field("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(problem["status"].to_string(), self.status());
        assert_eq!(problem["requestId"].as_str(), self.field("x-request-id"));
        problem["type"].as_str().expect("a slug").to_owned()
    }
}

/// The first value of a field in a head.
pub(crate) fn field<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

impl Peer {
    pub(crate) fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        Peer { stream, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sent", self.stream.write_all(bytes.as_ref())).await.expect("the other side reads");
    }

    /// Sends what the other side may stop reading.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        // The other side may have closed by now: that is what the test is about.
        let _refused = within("sent or refused", self.stream.write_all(bytes.as_ref())).await;
    }

    /// Everything up to and with `end`.
    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.unread.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("ASCII");
            }
            assert!(self.more().await, "closed before {end:?}: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// A head with its empty line.
    pub(crate) async fn head(&mut self) -> String {
        self.until("\r\n\r\n").await
    }

    /// So many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(
                self.more().await,
                "closed before {count} bytes: {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// Everything until the other side closes, and whether it closed cleanly.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            match within("the end", self.stream.read_buf(&mut self.unread)).await {
                Ok(0) => return (std::mem::take(&mut self.unread), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.unread), false),
            }
        }
    }

    /// The other side closed, cleanly or not, without saying anything more.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.rest().await.0.is_empty()
    }

    /// A response with a body of a known length, or none.
    pub(crate) async fn reply(&mut self) -> Reply {
        let head = self.head().await;
        let length = field(&head, "content-length").map_or(0, |length| length.parse().expect("a number"));
        let body = String::from_utf8(self.bytes(length).await).expect("text");
        Reply { head, body }
    }

    async fn more(&mut self) -> bool {
        within("more bytes", self.stream.read_buf(&mut self.unread)).await.is_ok_and(|count| count > 0)
    }
}
