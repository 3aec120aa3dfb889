//! A gateway with an https listener, certificates for it, and clients that speak TLS. Every wait is bounded.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_data_plane::config::Source;
use gateway_data_plane::{Config, Running};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => panic!("waited too long: {what}"),
    }
}

pub(crate) const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An authority that clients trust.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Authority(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// A Certificate object for these names.
    pub(crate) fn certificate(&self, name: &str, dns_names: &[&str]) -> String {
        let key = KeyPair::generate().expect("a key");
        let dns_names: Vec<String> = dns_names.iter().map(ToString::to_string).collect();
        let params = CertificateParams::new(dns_names).expect("names");
        let cert = params.signed_by(&key, &self.0).expect("signed").pem();
        let mut document = format!("kind: Certificate\nmetadata: {{ name: {name} }}\nspec:\n");
        for (field, pem) in [("cert", cert), ("key", key.serialize_pem())] {
            let indented = pem.lines().fold(String::new(), |text, line| text + "    " + line + "\n");
            let _infallible = write!(document, "  {field}: |\n{indented}");
        }
        document
    }

    pub(crate) fn client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        protocols: &[&str],
    ) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
        let mut config = builder.expect("versions").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Client(TlsConnector::from(Arc::new(config)))
    }
}

/// Connects as one client does: tickets are kept.
pub(crate) struct Client(TlsConnector);

impl Client {
    pub(crate) async fn try_connect(&self, address: SocketAddr, name: &'static str) -> io::Result<Peer> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from(name).expect("a name");
        let stream = within("the handshake", self.0.connect(name, stream)).await?;
        Ok(Peer { stream, unread: Vec::new() })
    }

    pub(crate) async fn connect(&self, gateway: &Gateway, name: &'static str) -> Peer {
        self.try_connect(gateway.address, name).await.expect("a handshake")
    }
}

/// A client's end of a connection.
pub(crate) struct Peer {
    pub(crate) stream: TlsStream<TcpStream>,
    unread: Vec<u8>,
}

impl Peer {
    pub(crate) fn handshake(&self) -> HandshakeKind {
        self.stream.get_ref().1.handshake_kind().expect("over")
    }

    /// The first DNS name in the certificate that the gateway showed.
    pub(crate) fn is_for(&self, name: &'static str) -> bool {
        let chain = self.stream.get_ref().1.peer_certificates().expect("shown");
        let leaf = webpki::EndEntityCert::try_from(&chain[0]).expect("a certificate");
        leaf.verify_is_valid_for_subject_name(&ServerName::try_from(name).expect("a name")).is_ok()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sent", self.stream.write_all(bytes.as_ref())).await.expect("the gateway reads");
        within("flushed", self.stream.flush()).await.expect("the gateway reads");
    }

    pub(crate) async fn until(&mut self, end: &str) -> String {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.unread.split_off(at + end.len());
                return String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("ASCII");
            }
            let count = within("more", self.stream.read_buf(&mut self.unread)).await.expect("intact");
            assert!(count > 0, "closed before {end:?}: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    /// So many bytes.
    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let read = within("more", self.stream.read_buf(&mut self.unread)).await.expect("intact");
            assert!(read > 0, "closed too early");
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    /// A response with a body of two bytes.
    pub(crate) async fn is_answered_ok(&mut self) {
        let head = self.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(self.bytes(2).await, b"ok");
    }

    /// Everything until the gateway says that it will send no more; an error if it just closes.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if within("the end", self.stream.read_buf(&mut self.unread)).await? == 0 {
                return Ok(std::mem::take(&mut self.unread));
            }
        }
    }
}

/// A data plane with one https listener, `default/public`, and a route that sends everything to a target.
pub(crate) struct Gateway {
    pub(crate) running: Running,
    pub(crate) address: SocketAddr,
    pub(crate) target: TcpListener,
    directory: TempDir,
    listener: String,
}

impl Gateway {
    /// With certificate `c` for `a.example`.
    pub(crate) async fn simple(authority: &Authority) -> Self {
        Self::start("{ certificates: [c] }", "{}", &[authority.certificate("c", &["a.example"])]).await
    }

    pub(crate) async fn start(tls: &str, http: &str, certificates: &[String]) -> Self {
        Self::start_with(tls, http, certificates, |_| {}).await
    }

    pub(crate) async fn start_with(
        tls: &str,
        http: &str,
        certificates: &[String],
        change: impl FnOnce(&mut Config),
    ) -> Self {
        let target = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = target.local_addr().expect("bound");
        let listener = format!(
            "kind: Listener\nmetadata: {{ name: public }}\n\
             spec: {{ address: 127.0.0.1, port: 0, protocol: https, tls: {tls}, http: {http} }}\n---\n\
             kind: Upstream\nmetadata: {{ name: target }}\nspec: {{ targets: [{{ address: '{address}' }}] }}\n---\n\
             kind: Route\nmetadata: {{ name: all }}\nspec: {{ forward: {{ backends: [{{ upstream: target }}] }} }}\n"
        );
        let directory = tempfile::tempdir().expect("a temporary directory");
        write(&directory, &listener, certificates);
        let mut config = Config::new(Source::Manifests(file(&directory)), directory.path().join("state"));
        config.workers = NonZeroUsize::new(2);
        change(&mut config);
        let running = gateway_data_plane::run(config).await.unwrap_or_else(|error| panic!("{error}"));
        let address = within("bound", running.listener("default/public")).await;
        Gateway { running, address, target, directory, listener }
    }

    /// Puts other certificates into service.
    pub(crate) async fn change(&self, certificates: &[String]) {
        self.apply(&self.listener, certificates).await;
    }

    /// Has the listener speak `http` or `https`, on the port that it has.
    pub(crate) async fn speak(&self, protocol: &str, certificates: &[String]) {
        let mut listener = self.listener.replace("protocol: https", &format!("protocol: {protocol}"));
        if protocol == "http" {
            listener = listener.replace("tls: { certificates: [c] }, ", "");
        }
        self.apply(&listener, certificates).await;
    }

    async fn apply(&self, listener: &str, certificates: &[String]) {
        let mut state = self.running.state();
        state.mark_unchanged();
        write(&self.directory, listener, certificates);
        self.running.reload();
        within("applied", state.changed()).await.expect("it runs");
    }

    /// The next connection to the target.
    pub(crate) async fn upstream(&self) -> Upstream {
        let (stream, _) = within("the gateway connects", self.target.accept()).await.expect("accepted");
        Upstream { stream, unread: Vec::new() }
    }

    /// Waits until the metrics have this line.
    pub(crate) async fn counts(&self, line: &str) {
        within(line, async {
            loop {
                let mut admin = TcpStream::connect(self.running.admin()).await.expect("connected");
                let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                admin.write_all(request.as_bytes()).await.expect("sent");
                let mut metrics = String::new();
                admin.read_to_string(&mut metrics).await.expect("text");
                if metrics.lines().any(|it| it == line) {
                    return;
                }
            }
        })
        .await;
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("gateway.yaml")
}

fn write(directory: &TempDir, listener: &str, certificates: &[String]) {
    let documents = listener.split("---\n").chain(certificates.iter().map(String::as_str));
    let documents: Vec<String> =
        documents.map(|document| format!("apiVersion: gateway/v1\n{document}")).collect();
    std::fs::write(file(directory), documents.join("\n---\n")).expect("written");
}

/// The target's end of a connection, in clear text.
pub(crate) struct Upstream {
    pub(crate) stream: TcpStream,
    unread: Vec<u8>,
}

impl Upstream {
    /// The head of the next request.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|window| window == b"\r\n\r\n") {
                let rest = self.unread.split_off(at + 4);
                return String::from_utf8(std::mem::replace(&mut self.unread, rest)).expect("ASCII");
            }
            let count = within("a request", self.stream.read_buf(&mut self.unread)).await.expect("intact");
            assert!(count > 0, "closed: {:?}", String::from_utf8_lossy(&self.unread));
        }
    }

    pub(crate) async fn bytes(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            let read = within("more", self.stream.read_buf(&mut self.unread)).await.expect("intact");
            assert!(read > 0, "closed too early");
        }
        let rest = self.unread.split_off(count);
        std::mem::replace(&mut self.unread, rest)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sent", self.stream.write_all(bytes.as_ref())).await.expect("the gateway reads");
    }
}

pub(crate) const BOTH: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
pub(crate) const ONLY_12: &[&SupportedProtocolVersion] = &[&TLS12];
pub(crate) const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];
