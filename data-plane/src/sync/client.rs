//! The stream to a control plane: connect, say Hello, apply what comes, acknowledge, keep alive, reconnect. Decisions
//! of the protocol are `session`'s; this file moves messages and time.
//!
//! Invariant: whatever happens here, what serves goes on serving; a lost stream only means no news.

use std::sync::Arc;
use std::time::Duration;

use gateway_proto::credential::Malformed;
use gateway_proto::{SYNC_PROTOCOL, wire};
use jiff::Timestamp;
use rand::RngExt as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};
use wire::data_plane_message::Message;
use wire::sync_mode::Value as Mode;

use super::bootstrap::Bootstrap;
use super::decode::decode;
use super::last_good::Saver;
use super::renewal::Renewal;
use super::session::{ProtocolError, Session, Step, Transaction};
use super::words;
use crate::admin::Identity;
use crate::apply::{Applier, OnViolation, RETRY_EVERY, Update};
use crate::config::ControlPlane;
use crate::credentials::Lane;
use crate::endpoints;
use crate::identity::{ANSWER_WITHIN, ConnectError, EnrollError, Passport, connect};
use crate::telemetry::Metrics;

/// Longest pause before the first and before any later attempt to reconnect; the pause itself is random below that.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// A stream that lasted so long was a good one: the next pause is short again.
const STABLE: Duration = Duration::from_secs(10);
/// Nothing heard for so many heartbeats: the stream is dead.
const SILENT_HEARTBEATS: u32 = 3;
/// Messages that may wait to be sent; a server that takes none is dead too.
const MAX_OUTBOUND: usize = 16;
/// Largest message taken: a chunk of one resource of 1 MiB, with room.
const MAX_MESSAGE: usize = 4 << 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("cannot connect: {0}")]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Join(#[from] EnrollError),
    #[error("{}", .0.message())]
    Status(#[from] Status),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("the control plane takes no messages")]
    Stuck,
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error(transparent)]
    Credentials(#[from] Malformed),
    #[error(transparent)]
    Endpoints(#[from] endpoints::Malformed),
}

/// A data plane's side of the stream.
#[derive(Debug)]
pub(crate) struct Client {
    urls: Vec<ControlPlane>,
    passport: Passport,
    /// Of this process, another for each start.
    instance: String,
    identity: Identity,
    metrics: Arc<Metrics>,
    saver: Saver,
    /// For a data plane that holds nothing while no control plane answers.
    bootstrap: Option<Bootstrap>,
}

/// An open stream that has been welcomed.
struct Stream {
    url: String,
    outbound: mpsc::Sender<wire::DataPlaneMessage>,
    inbound: Streaming<wire::ControlPlaneMessage>,
    session: Session,
    heartbeat: Duration,
}

/// A stream that is to be replaced by another.
struct Left {
    stream: Stream,
    /// By one to another control plane.
    elsewhere: bool,
}

impl Lost {
    /// Whether one side did not take the other's certificate.
    fn is_about_certificates(&self) -> bool {
        match self {
            Lost::Connect(error) => error.is_about_certificates(),
            Lost::Status(status) => status.code() == Code::Unauthenticated,
            _ => false,
        }
    }
}

impl Client {
    /// Of these control planes.
    pub(crate) fn new(
        urls: &[ControlPlane],
        passport: Passport,
        identity: Identity,
        metrics: Arc<Metrics>,
        saver: Saver,
    ) -> Self {
        metrics.control_plane_connected(false);
        // The time comes first: of two processes of one name, all control planes take the one that started last.
        let started = Timestamp::now().as_millisecond();
        let instance = format!("{started:016x}{:016x}", rand::rng().random::<u64>());
        Client { urls: urls.to_vec(), passport, instance, identity, metrics, saver, bootstrap: None }
    }

    /// With something to serve when nothing is held and no control plane answers.
    #[must_use]
    pub(crate) fn or(self, bootstrap: Option<Bootstrap>) -> Self {
        Client { bootstrap, ..self }
    }

    /// Follows the control planes. Never returns.
    pub(crate) async fn run(mut self, mut applier: Applier, mut lane: Lane) {
        let mut backoff = Backoff::default();
        // Logged once per outage.
        let mut is_known = false;
        // Data planes spread over the control planes.
        let mut turn = rand::rng().random_range(0..self.urls.len());
        let mut tried = 0;
        // A stream that is being left stays open until its successor is.
        let mut left = None;
        loop {
            let url = &self.urls[turn % self.urls.len()];
            let end = match self.open(url, &mut applier, &lane).await {
                Ok(stream) => {
                    drop(left.take());
                    is_known = false;
                    self.metrics.control_plane_connected(true);
                    let opened = Instant::now();
                    let end = self.follow(stream, &mut applier, &mut lane).await;
                    if opened.elapsed() > STABLE {
                        backoff = Backoff::default();
                    }
                    end
                }
                Err(lost) => Err(lost),
            };
            match end {
                Ok(Left { stream, elsewhere }) => {
                    left = Some(stream);
                    if !elsewhere {
                        continue;
                    }
                }
                Err(lost) => {
                    left = None;
                    if lost.is_about_certificates() {
                        self.passport.rejected();
                    }
                    self.metrics.control_plane_connected(false);
                    if !std::mem::replace(&mut is_known, true) {
                        tracing::warn!(control_plane = %url, error = %lost, "no stream to the control plane: serving on with what there is");
                    } else {
                        tracing::debug!(control_plane = %url, error = %lost, "still no stream to the control plane");
                    }
                    tried += 1;
                    if tried % self.urls.len() == 0 {
                        self.bootstrap(&mut applier).await;
                    }
                    pause(backoff.next(), &mut applier).await;
                    // What was tried again meanwhile is told by the next Hello.
                    let _told_then = lane.follow(applier.engine());
                }
            }
            turn += 1;
        }
    }

    /// No control plane answers: what else there is.
    async fn bootstrap(&mut self, applier: &mut Applier) {
        if applier.cursor().epoch.is_empty()
            && let Some(bootstrap) = &mut self.bootstrap
            && bootstrap.serve(applier).await
        {
            self.saver.save(applier);
        }
    }

    async fn open(&self, url: &ControlPlane, applier: &mut Applier, lane: &Lane) -> Result<Stream, Lost> {
        self.passport.join(url, Timestamp::now()).await?;
        let channel = connect(url, &self.passport).await?;
        let mut client = wire::sync_client::SyncClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        let (outbound, messages) = mpsc::channel(MAX_OUTBOUND);
        send(&outbound, Message::Hello(self.hello(applier, lane)))?;
        let opened = async {
            let mut inbound = client.stream(ReceiverStream::new(messages)).await?.into_inner();
            let first = inbound.message().await?.ok_or(Lost::Closed)?;
            Ok((inbound, first))
        };
        let (inbound, first) =
            timeout(ANSWER_WITHIN, opened).await.unwrap_or(Err(Lost::Silent(ANSWER_WITHIN)))?;
        let mut session = Session::default();
        let url = url.to_string();
        match session.receive(first, applier.cursor(), applier.held().refuses())? {
            Step::Welcome { mode, heartbeat, endpoints } => {
                applier.welcomed(&endpoints);
                let revision = applier.cursor().revision;
                if mode == Mode::Behind {
                    tracing::warn!(
                        control_plane = url,
                        revision,
                        "the control plane is older than what is served: keeping that"
                    );
                }
                tracing::info!(
                    control_plane = url,
                    revision,
                    mode = mode.as_str_name(),
                    "connected to the control plane"
                );
                Ok(Stream { url, outbound, inbound, session, heartbeat })
            }
            _ => Err(Lost::Protocol(ProtocolError::NotWelcomed)),
        }
    }

    /// Serves one stream; returns it when the server wants it left.
    async fn follow(&self, mut stream: Stream, applier: &mut Applier, lane: &mut Lane) -> Result<Left, Lost> {
        let mut renewal = Renewal::new(&self.passport, Timestamp::now());
        let mut heartbeat = interval_at(Instant::now() + stream.heartbeat, stream.heartbeat);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut retry = interval(RETRY_EVERY);
        retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let silence = stream.heartbeat * SILENT_HEARTBEATS;
        let mut heard = Instant::now();
        let mut leave_at = None;
        loop {
            tokio::select! {
                message = stream.inbound.message() => {
                    heard = Instant::now();
                    let message = message?.ok_or(Lost::Closed)?;
                    match stream.session.receive(message, applier.cursor(), applier.held().refuses())? {
                        Step::Wait | Step::Welcome { .. } => {}
                        Step::Apply(transaction) => {
                            self.apply(transaction, applier, &stream.outbound).await?;
                            follow_keys(lane, applier, &stream.outbound)?;
                            // Applying may have taken long: what arrived meanwhile was not heard.
                            heard = Instant::now();
                        }
                        Step::Tell => {
                            tracing::error!(control_plane = stream.url, revision = applier.cursor().revision, "what is held is not what the control plane has at this revision");
                            send(&stream.outbound, Message::Heartbeat(heartbeat_of(applier, lane)))?;
                        }
                        Step::Compare => {
                            let sums = applier.buckets().await.to_bytes();
                            send(&stream.outbound, Message::Buckets(wire::Buckets { cursor: words::cursor(applier.held()), sums }))?;
                        }
                        Step::Trust(trust) => say(&stream.outbound, renewal.trust(&trust, Timestamp::now()))?,
                        Step::Issued(issued) => {
                            if renewal.issued(issued) {
                                return Ok(Left { stream, elsewhere: false });
                            }
                        }
                        Step::Credentials(chunk) => {
                            if let Some(held) = lane.receive(chunk)? {
                                send(&stream.outbound, Message::Credentials(held))?;
                                applier.refresh_readiness();
                            }
                        }
                        Step::Endpoints(chunk) => {
                            if let Some(held) = applier.receive_endpoints(chunk)? {
                                send(&stream.outbound, Message::Endpoints(held))?;
                                self.saver.save_soon(applier);
                            }
                        }
                        Step::CompareEndpoints => {
                            send(&stream.outbound, Message::Endpoints(applier.endpoints().compared()))?;
                        }
                        Step::CompareCredentials => {
                            send(&stream.outbound, Message::Credentials(lane.compared()))?;
                        }
                        Step::Leave(within) => {
                            let within = rand::rng().random_range(Duration::ZERO..=within);
                            tracing::info!(control_plane = stream.url, "the control plane goes away: moving on");
                            leave_at = Some(Instant::now() + within);
                        }
                    }
                }
                _ = heartbeat.tick() => {
                    send(&stream.outbound, Message::Heartbeat(heartbeat_of(applier, lane)))?;
                }
                _ = retry.tick(), if applier.has_retryable() => {
                    if applier.retry().await {
                        send(&stream.outbound, Message::Status(status(applier)))?;
                        follow_keys(lane, applier, &stream.outbound)?;
                        self.saver.save(applier);
                    }
                }
                () = sleep_until(heard + silence) => return Err(Lost::Silent(silence)),
                () = sleep_until(leave_at.unwrap_or(heard)), if leave_at.is_some() => return Ok(Left { stream, elsewhere: true }),
                () = renewal.due() => say(&stream.outbound, renewal.ask(Timestamp::now()))?,
            }
        }
    }

    async fn apply(
        &self,
        transaction: Transaction,
        applier: &mut Applier,
        outbound: &mpsc::Sender<wire::DataPlaneMessage>,
    ) -> Result<(), Lost> {
        let number = transaction.number;
        let expected = transaction.target.root;
        // 100,000 objects take a while: not on the thread that answers health checks.
        let decode = move || decode(transaction.upserts, transaction.tombstones);
        let decoded = tokio::task::spawn_blocking(decode).await.expect("decoding does not panic");
        let update = Update {
            scope: transaction.scope,
            epoch: transaction.target.epoch,
            revision: transaction.target.revision,
            changes: decoded.changes,
            unreadable: decoded.unreadable,
            gone: decoded.gone,
            allow_shrink: transaction.allow_shrink,
            on_violation: OnViolation::Park,
        };
        let mut released = false;
        let mut ack = match applier.apply(update).await {
            Ok(applied) => {
                released = applied.released;
                let ack = words::applied(number, applier.held(), applied.took);
                let revision = applier.cursor().revision;
                for reject in &applied.refused {
                    tracing::error!(revision, "{reject}");
                }
                if ack.rejects.is_empty() && !released && applier.cursor().root != expected {
                    tracing::error!(
                        revision,
                        "what is held is not what was announced: the next heartbeat will tell"
                    );
                }
                tracing::info!(revision, rejects = ack.rejects.len(), "configuration applied");
                self.saver.save(applier);
                ack
            }
            Err(error) => {
                tracing::error!(transaction = number, %error, "transaction refused");
                words::refused(number, applier.held(), &error)
            }
        };
        ack.listeners = listeners(applier);
        send(outbound, Message::Ack(ack))?;
        if released {
            // The server would go on counting them as refused.
            send(outbound, Message::Status(status(applier)))?;
        }
        Ok(())
    }

    fn hello(&self, applier: &Applier, lane: &Lane) -> wire::Hello {
        wire::Hello {
            node: self.identity.node.clone(),
            group: self.identity.group.clone(),
            labels: self.identity.labels.clone(),
            zone: self.identity.zone.clone(),
            build: self.identity.version.to_owned(),
            protocol: SYNC_PROTOCOL,
            features: words::features(),
            cursor: words::cursor(applier.held()),
            parked: words::parked(applier.held()),
            listeners: listeners(applier),
            instance: self.instance.clone(),
            trusts: self.passport.trusts(),
            credentials: lane.cursor(),
            endpoints: applier.endpoints().root(),
        }
    }
}

/// What is held and done without, in every lane.
fn heartbeat_of(applier: &Applier, lane: &Lane) -> wire::Heartbeat {
    let endpoints = applier.endpoints().root();
    wire::Heartbeat { endpoints, ..words::heartbeat(applier.held(), lane.cursor()) }
}

/// Tells whether keys are needed, if that is something else than before.
fn follow_keys(
    lane: &mut Lane,
    applier: &Applier,
    outbound: &mpsc::Sender<wire::DataPlaneMessage>,
) -> Result<(), Lost> {
    match lane.follow(applier.engine()) {
        Some(held) => send(outbound, Message::Credentials(held)),
        None => Ok(()),
    }
}

/// Queues a message; a full queue means that the server has stopped reading.
fn send(outbound: &mpsc::Sender<wire::DataPlaneMessage>, message: Message) -> Result<(), Lost> {
    let message = wire::DataPlaneMessage { message: Some(message) };
    outbound.try_send(message).map_err(|error| match error {
        mpsc::error::TrySendError::Full(_) => Lost::Stuck,
        mpsc::error::TrySendError::Closed(_) => Lost::Closed,
    })
}

fn say(outbound: &mpsc::Sender<wire::DataPlaneMessage>, message: Option<Message>) -> Result<(), Lost> {
    message.map_or(Ok(()), |message| send(outbound, message))
}

fn listeners(applier: &Applier) -> Vec<wire::BoundListener> {
    let of = |(name, address): (String, std::net::SocketAddr)| wire::BoundListener {
        name,
        address: address.to_string(),
    };
    applier.listeners().into_iter().map(of).collect()
}

fn status(applier: &Applier) -> wire::Status {
    wire::Status {
        cursor: words::cursor(applier.held()),
        rejects: words::rejects(applier.held()),
        listeners: listeners(applier),
    }
}

/// Waits, and meanwhile tries again what may have become possible.
async fn pause(pause: Duration, applier: &mut Applier) {
    let until = Instant::now() + pause;
    let mut retry = interval_at(Instant::now() + RETRY_EVERY, RETRY_EVERY);
    loop {
        tokio::select! {
            () = sleep_until(until) => return,
            _ = retry.tick() => { applier.retry().await; }
        }
    }
}

/// Full-jitter backoff: random below a bound that doubles.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let bound = self.bound();
        self.attempts += 1;
        rand::rng().random_range(Duration::ZERO..=bound)
    }

    fn bound(&self) -> Duration {
        BACKOFF.0.saturating_mul(2_u32.saturating_pow(self.attempts)).min(BACKOFF.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_before_reconnecting_is_random_below_a_bound_that_grows_to_30_s() {
        let mut backoff = Backoff::default();
        let mut bounds = Vec::new();
        for _ in 0..40 {
            let bound = backoff.bound();
            assert!(backoff.next() <= bound);
            bounds.push(bound);
        }
        let mut pauses: Vec<Duration> = (0..200).map(|_| backoff.next()).collect();
        pauses.sort();
        // All the way from nothing to the bound; that 200 leave out a quarter at either end does not happen.
        assert!(pauses[0] < BACKOFF.1 / 4 && pauses[199] > BACKOFF.1 * 3 / 4, "{pauses:?}");
        assert_eq!(bounds[..4], [100, 200, 400, 800].map(Duration::from_millis));
        assert_eq!(bounds.last(), Some(&BACKOFF.1));
    }
}
