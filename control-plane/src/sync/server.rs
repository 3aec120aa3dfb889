//! Moves the bytes of the streams: one task per data plane that reads its messages, asks its `Session` what to
//! send, and sends that piece by piece as fast as the data plane takes it.
//!
//! Invariants: nothing is queued for a data plane but the piece it is about to get; one that takes or acknowledges
//! nothing for a minute is cut; a second stream of the same node ends the first, unless it is of another process that was
//! started before it: of two data planes of one name the one that was started last is served, and the other told so.

mod accept;
mod badge;
mod credentials;
mod endpoints;
mod gate;
mod strangers;
mod stream;
mod turns;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_proto::wire;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::{Request, Status, Streaming};

use super::codec::SyncService;
use crate::credentials::Credentials;
use crate::nodes::Nodes;
use crate::publish::Publisher;
use crate::publish::encode::Frame;
use crate::telemetry::Metrics;
use accept::Opening;
use badge::Caller;
pub use gate::Gate;
use turns::Turns;

/// Streams at the same time.
const MAX_STREAMS: usize = 10_000;
/// How often a silent connection is asked whether it still lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);

/// Every stream of this process.
#[derive(Debug)]
pub struct Streams {
    publisher: Arc<Publisher>,
    credentials: Arc<Credentials>,
    nodes: Arc<Nodes>,
    metrics: Arc<Metrics>,
    gate: Arc<Gate>,
    open: Arc<Semaphore>,
    turns: Arc<Turns>,
    /// Ends the stream of a node; the number tells streams of one node apart.
    by_node: Mutex<HashMap<String, Open>>,
    stop: CancellationToken,
}

/// The stream of a node.
#[derive(Debug)]
struct Open {
    number: u64,
    /// Of the process behind it.
    instance: String,
    from: SocketAddr,
    end: CancellationToken,
}

impl Streams {
    /// None yet.
    pub fn new(
        publisher: Arc<Publisher>,
        credentials: Arc<Credentials>,
        nodes: Arc<Nodes>,
        metrics: Arc<Metrics>,
        gate: Gate,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Streams {
            publisher,
            credentials,
            nodes,
            metrics,
            gate: Arc::new(gate),
            open: Arc::new(Semaphore::new(MAX_STREAMS)),
            turns: Arc::new(Turns::new()),
            by_node: Mutex::default(),
            stop,
        })
    }

    /// Takes a stream.
    ///
    /// # Errors
    /// `resource_exhausted` when there are too many, `unauthenticated` without the certificate that is needed here.
    pub fn open(
        self: Arc<Self>,
        request: Request<Streaming<wire::DataPlaneMessage>>,
    ) -> Result<ReceiverStream<Result<Frame, Status>>, Status> {
        let opening = opening(&request)?;
        let (from, peer) = (opening.from(), opening.peer());
        self.gate.admit(peer.as_deref(), from)?;
        let turn = Arc::clone(&self.open)
            .try_acquire_owned()
            .map_err(|_| Status::resource_exhausted(format!("there are already {MAX_STREAMS} streams")))?;
        opening.opened();
        let (out, frames) = mpsc::channel(1);
        let inbound = request.into_inner();
        tokio::spawn(async move {
            let _turn = turn;
            stream::run(&self, inbound, out, Caller { from, peer }).await;
        });
        Ok(ReceiverStream::new(frames))
    }

    /// Turns a join token into a certificate.
    ///
    /// # Errors
    /// `unauthenticated` when the token is no good, `permission_denied` for another group.
    pub async fn enroll(
        &self,
        request: Request<wire::EnrollRequest>,
    ) -> Result<wire::IssuedCertificate, Status> {
        let from = opening(&request)?.from();
        self.gate.enroll(request.get_ref(), from).await
    }

    /// Makes a stream the one of its node; of two of one process, the older one is ended.
    ///
    /// # Errors
    /// `already_exists` when a process of the same name that was started later is there.
    fn enter(&self, hello: &wire::Hello, number: u64, from: SocketAddr) -> Result<CancellationToken, Status> {
        let wire::Hello { node, instance, .. } = hello;
        let end = self.stop.child_token();
        if let Some(rival) = self.nodes.rival(node, instance) {
            return Err(self.twin(node, from, &rival));
        }
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = by_node.get(node).filter(|open| open.instance > *instance) {
            let other = other.from.to_string();
            return Err(self.twin(node, from, &other));
        }
        if by_node.get(node).is_some_and(|open| open.number > number) {
            end.cancel();
            return Ok(end);
        }
        let open = Open { number, instance: instance.clone(), from, end: end.clone() };
        if let Some(older) = by_node.insert(node.clone(), open) {
            older.end.cancel();
            let what = if older.instance == *instance {
                "a data plane has moved to a new stream"
            } else {
                "a data plane that was started later takes the place of one of the same name"
            };
            tracing::info!(node, %from, before = %older.from, "{what}");
        }
        Ok(end)
    }

    /// Refuses a data plane whose name another one has that was started later.
    fn twin(&self, node: &str, from: SocketAddr, other: &str) -> Status {
        self.metrics.twins.inc();
        self.nodes.twin(node, from.to_string());
        tracing::warn!(node, %from, other, "two data planes have this name: the one that was started last is served, give each its own --node");
        Status::already_exists(format!(
            "the data plane at {other} has the node name {node} as well and was started later: give each its own --node"
        ))
    }

    fn leave(&self, node: &str, number: u64) {
        let mut by_node = self.by_node.lock().unwrap_or_else(PoisonError::into_inner);
        if by_node.get(node).is_some_and(|open| open.number == number) {
            by_node.remove(node);
        }
    }
}

/// What is known of the connection that a call came on.
fn opening<T>(request: &Request<T>) -> Result<&Opening, Status> {
    request.extensions().get::<Opening>().ok_or_else(|| Status::internal("a call without a connection"))
}

/// Serves streams on a bound socket until `stop`.
///
/// # Errors
/// When the socket fails.
pub async fn serve(listener: TcpListener, streams: Arc<Streams>) -> Result<(), tonic::transport::Error> {
    let stop = streams.stop.clone();
    let incoming = accept::places(listener, Arc::clone(&streams.gate), streams.metrics.turned_away.clone());
    Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .max_concurrent_streams(16)
        .tcp_nodelay(true)
        .add_service(SyncService(streams))
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await
}
