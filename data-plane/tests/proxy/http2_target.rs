//! A target that speaks HTTP/2 by prior knowledge, played by the test: real connections, streams that are answered when
//! the test says so.

use std::net::SocketAddr;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::support::{Gateway, within};

/// A gateway that sends everything to one HTTP/2 target.
pub(crate) struct Proxy {
    pub(crate) gateway: Gateway,
    pub(crate) target: Target,
}

impl Proxy {
    pub(crate) async fn start() -> Self {
        Self::with("{}", "").await
    }

    /// With timeouts of the upstream, and what else the route says.
    pub(crate) async fn with(timeouts: &str, route: &str) -> Self {
        let target = Target::bind().await;
        let gateway = Gateway::start("{}", &documents(target.address, timeouts, route)).await;
        Proxy { gateway, target }
    }
}

/// The upstream, and a route that sends everything there.
pub(crate) fn documents(address: SocketAddr, timeouts: &str, route: &str) -> String {
    format!(
        "kind: Upstream\nmetadata: {{ name: target }}\n\
         spec: {{ protocol: http2, targets: [{{ address: '{address}' }}], timeouts: {timeouts} }}\n---\n\
         kind: Route\nmetadata: {{ name: all }}\nspec:\n  forward: {{ backends: [{{ upstream: target }}] }}\n{route}"
    )
}

pub(crate) struct Target {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Target {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        Target { listener, address }
    }

    pub(crate) async fn accept(&self) -> TcpStream {
        within("the gateway connects", self.listener.accept()).await.expect("accepted").0
    }

    /// The next connection.
    pub(crate) async fn session(&self) -> Session {
        self.session_of(&Builder::new()).await
    }

    pub(crate) async fn session_of(&self, settings: &Builder) -> Session {
        let stream = self.accept().await;
        let mut connection = within("a handshake", settings.handshake(stream)).await.expect("HTTP/2");
        let (given, streams) = mpsc::channel(64);
        let (ended, end) = mpsc::channel(1);
        let driving = tokio::spawn(async move {
            while let Some(Ok((request, respond))) = connection.accept().await {
                let (head, body) = request.into_parts();
                let asked = Asked { request: Request::from_parts(head, ()), body, respond };
                if given.send(asked).await.is_err() {
                    break;
                }
            }
            drop(ended);
        });
        Session { streams, end, driving }
    }

    /// The first request on the next connection.
    pub(crate) async fn request(&self) -> (Session, Asked) {
        let mut session = self.session().await;
        let asked = session.request().await;
        (session, asked)
    }
}

/// A connection of the gateway's.
pub(crate) struct Session {
    streams: mpsc::Receiver<Asked>,
    end: mpsc::Receiver<()>,
    driving: JoinHandle<()>,
}

impl Session {
    pub(crate) async fn request(&mut self) -> Asked {
        within("a request", self.streams.recv()).await.expect("still connected")
    }

    /// Cuts the connection.
    pub(crate) async fn cut(self) {
        self.driving.abort();
        assert!(self.driving.await.is_err(), "it was at work");
    }

    /// Waits until the gateway has closed it.
    pub(crate) async fn is_closed(&mut self) -> bool {
        within("closed", self.end.recv()).await.is_none()
    }
}

/// A request on a stream.
pub(crate) struct Asked {
    pub(crate) request: Request<()>,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Asked {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.request.headers().get(name).map(|value| value.to_str().expect("text"))
    }

    /// The whole body and its trailers.
    pub(crate) async fn read(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let mut whole = Vec::new();
        while let Some(piece) = within("more of the body", self.body.data()).await {
            let piece = piece.expect("not broken off");
            whole.extend_from_slice(&piece);
            self.body.flow_control().release_capacity(piece.len()).expect("counted");
        }
        (whole, within("trailers", self.body.trailers()).await.expect("not broken off"))
    }

    /// Answers with a head that has these fields; the body follows.
    pub(crate) fn begin(&mut self, fields: &[(&str, &str)]) -> SendStream<Bytes> {
        let mut response = Response::builder();
        for (name, value) in fields {
            response = response.header(*name, *value);
        }
        self.respond.send_response(response.body(()).expect("a head"), false).expect("sent")
    }

    /// Answers with `ok`.
    pub(crate) fn answer(&mut self) {
        self.begin(&[]).send_data(Bytes::from_static(b"ok"), true).expect("sent");
    }
}
