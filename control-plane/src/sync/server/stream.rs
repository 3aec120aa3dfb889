//! One stream, from Hello to its end. Everything happens in one task, so that what the session decides and what is
//! on the wire cannot disagree.

use std::collections::VecDeque;
use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use gateway_proto::buckets::BucketSet;
use gateway_proto::identity::{MAX_NAME, is_name};
use gateway_proto::kind::{Key, Kind};
use gateway_proto::{SYNC_PROTOCOL, wire};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tonic::{Status, Streaming};
use uuid::Uuid;
use wire::control_plane_message::Message as Say;
use wire::data_plane_message::Message as Hear;

use super::badge::{Badge, Caller};
use super::credentials::Lane;
use super::turns::Place;
use super::{Streams, endpoints};
use crate::discovery::board::Board;
use crate::nodes::Ticket;
use crate::nodes::report::MAX_LISTENERS;
use crate::publish::encode::{Frame, full_piece};
use crate::publish::{Cursor, View, Views};
use crate::sync::header::Header;
use crate::sync::session::{Acknowledged, Content, HEARTBEAT_MS, Next, Session, Transaction};

/// Time to say Hello.
const HELLO: Duration = Duration::from_secs(10);
/// Our heartbeat, and how often the bounds below are looked at.
const BEAT: Duration = Duration::from_millis(HEARTBEAT_MS as u64);
/// A data plane that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_millis(HEARTBEAT_MS as u64 * 3);
/// A data plane that takes no piece or does not acknowledge for so long is frozen.
const STUCK: Duration = Duration::from_secs(60);
/// Time that data planes have to leave when this process ends.
const LEAVE: Duration = Duration::from_secs(1);
/// Longest text beside names, in bytes; most labels.
const MAX_TEXT: usize = 256;
const MAX_LABELS: usize = 64;

type Inbound = Streaming<wire::DataPlaneMessage>;
type Out = mpsc::Sender<Result<Frame, Status>>;

/// Numbers the streams of this process.
static NUMBER: AtomicU64 = AtomicU64::new(1);

struct Talk<'a> {
    streams: &'a Streams,
    ticket: Ticket,
    badge: Badge,
    group: String,
    from: SocketAddr,
    session: Session,
    /// The epoch that its Welcome named.
    said: Uuid,
    view: Arc<View>,
    /// Small messages to be sent before anything else; never more than a few.
    small: VecDeque<Say>,
    sending: Option<Sending>,
    /// Credentials go beside all this.
    lane: Lane,
    /// And endpoints.
    endpoints: endpoints::Lane,
    turn: Turn,
    /// When something was last taken from us, while there was something to take.
    progress: Instant,
    /// When the open transaction was sent.
    sent: Instant,
    heard: Instant,
}

/// A transaction on its way.
struct Sending {
    header: Header,
    source: Source,
    /// A place among the large transfers, given back with the last piece.
    _place: Option<Place>,
}

enum Source {
    View { view: Arc<View>, of: Option<Box<BucketSet>>, from: Key },
    Pieces(VecDeque<Bytes>),
}

/// A place among the large transfers that is waited for, or had.
enum Turn {
    None,
    Waited(BoxFuture<'static, Place>),
    Had(Place),
}

/// Serves one stream and says why it ended, if it was not the data plane's own doing.
pub(super) async fn run(streams: &Streams, mut inbound: Inbound, out: Out, caller: Caller) {
    let from = caller.from;
    let Err(status) = talk(streams, &mut inbound, &out, caller).await else { return };
    tracing::info!(%from, reason = status.message(), "stream to a data plane ended");
    // A frozen data plane does not take this either.
    let _ = timeout(LEAVE, out.send(Err(status))).await;
}

async fn talk(streams: &Streams, inbound: &mut Inbound, out: &Out, caller: Caller) -> Result<(), Status> {
    let from = caller.from;
    let first = timeout(HELLO, inbound.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no Hello in time"))??;
    let Some(wire::DataPlaneMessage { message: Some(Hear::Hello(hello)) }) = first else {
        return Err(Status::failed_precondition("the first message must be Hello"));
    };
    check(&hello)?;
    streams.gate.is(caller.peer.as_deref(), &hello, from)?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let stop = streams.enter(&hello, number, from)?;
    let mut keys = streams.credentials.watch();
    let mut boards = streams.publisher.watch_endpoints();
    boards.mark_unchanged();
    let mut views = streams.publisher.watch();
    let view = Arc::clone(views.borrow_and_update().of(&hello.group));
    if let Some(cursor) = hello.cursor.as_ref().and_then(Cursor::read) {
        streams.publisher.recall(&view, cursor).await;
    }
    let (session, mut welcome) = Session::hello(&hello, &view);
    let endpoints = endpoints::Lane::new(streams.publisher.endpoints(&view), &hello.endpoints);
    welcome.endpoints = endpoints.root();
    let ticket = streams.nodes.arrive(&hello, number, from, caller.peer.as_deref());
    tracing::info!(node = hello.node, group = hello.group, %from, mode = welcome.mode().as_str_name(), "data plane connected");
    streams.metrics.streams.inc();
    let now = Instant::now();
    let mut talk = Talk {
        streams,
        ticket,
        badge: Badge::new(caller, &hello, &streams.gate),
        group: hello.group,
        from,
        session,
        said: view.head().epoch,
        view,
        small: VecDeque::from([Say::Welcome(welcome)]),
        sending: None,
        lane: Lane::new(Arc::clone(&streams.credentials), hello.credentials.as_ref()),
        endpoints,
        turn: Turn::None,
        progress: now,
        sent: now,
        heard: now,
    };
    talk.report();
    let ended = tokio::select! {
        ended = talk.go_on(inbound, out, &mut views, (&mut keys, &mut boards)) => ended,
        () = stop.cancelled() => Ok(()),
    };
    streams.metrics.streams.dec();
    streams.leave(&hello.node, number);
    streams.nodes.leave(&talk.ticket);
    if !stop.is_cancelled() {
        return ended;
    }
    if !streams.stop.is_cancelled() {
        return Err(Status::aborted(format!(
            "a later stream of the node {} has taken the place of this one",
            hello.node
        )));
    }
    let drain = wire::Drain { within_ms: u32::try_from(LEAVE.as_millis()).unwrap_or(u32::MAX) };
    let _ = timeout(LEAVE, out.send(Ok(message(Say::Drain(drain))))).await;
    // It closes the stream when it has another one; or we do.
    let _ = timeout(LEAVE, async { while let Ok(Some(_)) = inbound.message().await {} }).await;
    Ok(())
}

fn check(hello: &wire::Hello) -> Result<(), Status> {
    if hello.protocol != SYNC_PROTOCOL {
        return Err(Status::failed_precondition(format!(
            "this control plane speaks protocol {SYNC_PROTOCOL}, the data plane {}: update the older one",
            hello.protocol
        )));
    }
    for (what, name) in [("--node", &hello.node), ("--group", &hello.group)] {
        if !is_name(name) {
            return Err(Status::invalid_argument(format!(
                "{what} is {}, expected 1 to {MAX_NAME} letters, digits, dots, dashes and underscores",
                shortened(name)
            )));
        }
    }
    if hello.labels.len() > MAX_LABELS || hello.listeners.len() > MAX_LISTENERS {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_LABELS} labels and {MAX_LISTENERS} listeners are taken"
        )));
    }
    let labels = hello.labels.iter().flat_map(|(name, value)| [(name, MAX_NAME), (value, MAX_TEXT)]);
    let bound = hello.listeners.iter().flat_map(|it| [(&it.name, MAX_TEXT), (&it.address, MAX_TEXT)]);
    let own = [(&hello.zone, MAX_NAME), (&hello.build, MAX_NAME), (&hello.instance, MAX_NAME)];
    match own
        .into_iter()
        .chain(labels)
        .chain(bound)
        .find(|(text, most)| text.len() > *most || !is_plain(text))
    {
        None => Ok(()),
        Some((text, most)) => Err(Status::invalid_argument(format!(
            "zone, build, labels and listeners are at most {most} bytes without control characters, not {}",
            shortened(text)
        ))),
    }
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

/// Enough of a wrong text to know it again.
fn shortened(text: &str) -> String {
    format!("{:?}", text.chars().take(32).collect::<String>())
}

fn message(say: Say) -> Frame {
    Frame::Message(wire::ControlPlaneMessage { message: Some(say) })
}

impl Talk<'_> {
    async fn go_on(
        &mut self,
        inbound: &mut Inbound,
        out: &Out,
        views: &mut watch::Receiver<Arc<Views>>,
        (keys, boards): (&mut watch::Receiver<Cursor>, &mut watch::Receiver<Arc<Board>>),
    ) -> Result<(), Status> {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat.tick().await;
        let news = self.badge.review(&self.streams.gate)?;
        self.small.extend(news);
        loop {
            if self.sending.is_none() && self.small.is_empty() && !self.session.is_waiting() {
                self.go_to_next().await;
            }
            if self.lane.wake() {
                self.small.push_back(Say::CompareCredentials(wire::CompareCredentials {}));
            }
            if self.endpoints.wake() {
                self.small.push_back(Say::CompareEndpoints(wire::CompareEndpoints {}));
            }
            let in_lanes = self.lane.has_output() || self.endpoints.has_output();
            let has_output = in_lanes || !self.small.is_empty() || self.sending.is_some();
            tokio::select! {
                heard = inbound.message() => match heard? {
                    Some(heard) => self.hear(heard).await?,
                    None => return Ok(()),
                },
                changed = views.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane ends"))?;
                    self.view = Arc::clone(views.borrow_and_update().of(&self.group));
                    self.endpoints.aim(self.streams.publisher.endpoints(&self.view));
                    self.report();
                }
                () = self.badge.changed() => {
                    let news = self.badge.review(&self.streams.gate)?;
                    self.small.extend(news);
                }
                changed = boards.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane ends"))?;
                    boards.mark_unchanged();
                    self.endpoints.aim(self.streams.publisher.endpoints(&self.view));
                }
                // What they are now is looked at above.
                changed = keys.changed() => {
                    changed.map_err(|_| Status::unavailable("the control plane ends"))?;
                }
                place = self.turn.wait() => self.turn = Turn::Had(place),
                place = out.reserve(), if has_output => {
                    let place = place.map_err(|_| Status::cancelled("the data plane left"))?;
                    if let Some(frame) = self.frame() {
                        place.send(Ok(frame));
                    }
                }
                _ = beat.tick() => self.beat(has_output)?,
            }
        }
    }

    /// Asks the session what is next. What is large waits for its turn first, and may be something else by then.
    async fn go_to_next(&mut self) {
        if let Some(held) = self.session.held() {
            self.streams.publisher.recall(&self.view, held).await;
        }
        if self.session.might_shrink(&self.view) && self.streams.publisher.is_shrink_allowed(&self.view).await
        {
            self.session.allow_shrink();
        }
        match (self.session.weight(&self.view), &self.turn) {
            (0, _) => self.turn = Turn::None,
            (_, Turn::Had(_)) => {}
            (weight, Turn::None) => {
                self.turn = Turn::Waited(Box::pin(Arc::clone(&self.streams.turns).take(weight)));
                return;
            }
            (_, Turn::Waited(_)) => return,
        }
        match self.session.next(&self.view) {
            Some(Next::Transaction(next)) => self.begin(next),
            Some(Next::Compare) => {
                self.sent = Instant::now();
                self.small.push_back(Say::Compare(wire::Compare {}));
            }
            None => {}
        }
    }

    fn begin(&mut self, next: Transaction) {
        let from = Key::new(Kind::ALL[0], "", "");
        let header = Header::of(&next, self.said);
        let (mode, source) = match next.content {
            Content::Full(view) => ("full", Source::View { view, of: None, from }),
            Content::Buckets(view, of) => ("buckets", Source::View { view, of: Some(of), from }),
            Content::Shared(delta) => ("delta", Source::Pieces(delta.pieces.iter().cloned().collect())),
            Content::Own(pieces) => ("delta", Source::Pieces(pieces.into())),
        };
        self.streams.metrics.pushes.with_label_values(&[mode]).inc();
        self.progress = Instant::now();
        let _place = match std::mem::replace(&mut self.turn, Turn::None) {
            Turn::Had(mut place) => {
                place.begin();
                Some(place)
            }
            Turn::None | Turn::Waited(_) => None,
        };
        self.sending = Some(Sending { header, source, _place });
    }

    /// The next frame that has somewhere to go.
    fn frame(&mut self) -> Option<Frame> {
        self.progress = Instant::now();
        let frame = match self.small.pop_front() {
            Some(say) => message(say),
            // A revocation waits for nothing else.
            None if self.lane.has_output() && !self.lane.is_large() => message(self.lane.next()?),
            None if self.endpoints.has_output() && !(self.endpoints.is_large() && self.sending.is_some()) => {
                self.endpoints.next()?
            }
            None if self.lane.has_output() && self.sending.is_none() => message(self.lane.next()?),
            None => {
                let sending = self.sending.as_mut()?;
                let (piece, last) = sending.piece();
                let header = sending.header.next(last);
                if last {
                    self.sending = None;
                    self.sent = Instant::now();
                }
                Frame::Chunk { header, piece }
            }
        };
        self.streams.metrics.bytes.inc_by(frame.encoded_len() as u64);
        Some(frame)
    }

    async fn hear(&mut self, heard: wire::DataPlaneMessage) -> Result<(), Status> {
        self.heard = Instant::now();
        match heard.message {
            Some(Hear::Ack(ack)) => self.hear_ack(&ack)?,
            Some(Hear::Status(status)) => {
                self.session.status(&status);
                self.streams.nodes.refused(&self.ticket, &status.rejects);
                self.streams.nodes.bound(&self.ticket, &status.listeners);
            }
            Some(Hear::Heartbeat(heartbeat)) => {
                if self.session.heartbeat(&heartbeat, &self.view) {
                    self.diverged("said by its heartbeat");
                }
                if self.lane.heartbeat(heartbeat.credentials.as_ref()) {
                    self.diverged("said of its credentials by its heartbeat");
                }
                if self.endpoints.heartbeat(&heartbeat.endpoints) {
                    self.diverged("said of its endpoints by its heartbeat");
                }
                self.streams.nodes.parked(&self.ticket, &heartbeat.parked);
            }
            Some(Hear::Buckets(buckets)) => {
                let taken = self.session.compared(&buckets);
                taken.map_err(|error| Status::failed_precondition(error.to_string()))?;
            }
            Some(Hear::Renew(renew)) => {
                let issued = self.badge.renew(&self.streams.gate, &renew).await?;
                self.small.extend(issued);
            }
            Some(Hear::Trusts(trusts)) => {
                let trusts = self.badge.has(&trusts);
                self.streams.nodes.trusts(&self.ticket, trusts);
            }
            Some(Hear::Credentials(held)) => {
                let taken = self.lane.hear(&held);
                taken.map_err(|error| Status::failed_precondition(error.to_string()))?;
            }
            Some(Hear::Endpoints(held)) => {
                let diverges = self.endpoints.hear(&held);
                if diverges.map_err(|error| Status::failed_precondition(error.to_string()))? {
                    self.diverged("said of its endpoints by its answer");
                }
            }
            Some(Hear::Hello(_)) => return Err(Status::failed_precondition("Hello is said once")),
            // A message of a later version: not for us.
            None => {}
        }
        self.report();
        Ok(())
    }

    fn hear_ack(&mut self, ack: &wire::Ack) -> Result<(), Status> {
        if self.sending.is_some() {
            return Err(Status::failed_precondition("acknowledged a transaction that was not sent whole"));
        }
        let before = self.session.parked();
        let what = self.session.ack(ack).map_err(|error| Status::failed_precondition(error.to_string()))?;
        self.streams.metrics.ack_seconds.observe(self.sent.elapsed().as_secs_f64());
        match what {
            Acknowledged::InSync => {}
            Acknowledged::Refused => {
                let more = self.session.parked().saturating_sub(before);
                self.streams.metrics.rejects.inc_by(more as u64);
            }
            Acknowledged::Diverged => self.diverged("said by its acknowledgement"),
        }
        self.streams.nodes.acknowledged(&self.ticket, ack);
        Ok(())
    }

    fn diverged(&self, how: &str) {
        self.streams.metrics.divergences.inc();
        tracing::error!(node = self.ticket.node(), how, "a data plane does not hold what it should");
    }

    fn beat(&mut self, has_output: bool) -> Result<(), Status> {
        let waits = Waits {
            silent: self.heard.elapsed(),
            untaken: if has_output { self.progress.elapsed() } else { Duration::ZERO },
            unacknowledged: [self.unacknowledged(), self.lane.unanswered(), self.endpoints.unanswered()]
                .into_iter()
                .max()
                .unwrap_or_default(),
        };
        if let Some(reason) = waits.over() {
            return Err(Status::deadline_exceeded(reason));
        }
        if let Some(rival) = self.streams.nodes.rival(self.ticket.node(), self.ticket.instance()) {
            return Err(self.streams.twin(self.ticket.node(), self.from, &rival));
        }
        if self.small.is_empty() {
            let (cursor, credentials) = (Some(self.view.head().into()), self.lane.head());
            let heartbeat = wire::Heartbeat { cursor, credentials, ..Default::default() };
            if !has_output {
                self.progress = Instant::now();
            }
            self.small.push_back(Say::Heartbeat(heartbeat));
        }
        Ok(())
    }

    fn unacknowledged(&self) -> Duration {
        let is_owed = self.session.is_waiting() && self.sending.is_none();
        if is_owed { self.sent.elapsed() } else { Duration::ZERO }
    }

    fn report(&self) {
        let revision = self.session.held().map_or(0, |held| held.revision);
        self.streams.nodes.holds(&self.ticket, revision, self.session.is_in_sync(&self.view));
    }
}

/// How long a data plane has let us wait.
struct Waits {
    silent: Duration,
    untaken: Duration,
    unacknowledged: Duration,
}

impl Waits {
    /// Why it is cut.
    fn over(&self) -> Option<&'static str> {
        [
            (self.silent > SILENCE, "the data plane says nothing any more"),
            (self.untaken > STUCK, "the data plane takes nothing any more"),
            (self.unacknowledged > STUCK, "the data plane does not acknowledge"),
        ]
        .into_iter()
        .find_map(|(over, reason)| over.then_some(reason))
    }
}

impl Turn {
    /// Ready when what is waited for is there.
    async fn wait(&mut self) -> Place {
        match self {
            Turn::Waited(turn) => turn.await,
            Turn::None | Turn::Had(_) => pending().await,
        }
    }
}

impl Sending {
    /// The next piece, and whether it is the last; a transaction without objects is one empty piece.
    fn piece(&mut self) -> (Bytes, bool) {
        match &mut self.source {
            Source::Pieces(pieces) => (pieces.pop_front().unwrap_or_default(), pieces.is_empty()),
            Source::View { view, of, from } => {
                let (piece, next) = full_piece(view, of.as_deref(), from);
                let last = next.is_none();
                if let Some(next) = next {
                    *from = next;
                }
                (piece, last)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hello_is_taken_within_bounds_only() {
        let sound = || wire::Hello {
            node: "Node_1.a-b".into(),
            group: "default".into(),
            protocol: SYNC_PROTOCOL,
            ..Default::default()
        };
        check(&sound()).expect("sound");
        let listener = |name: &str| wire::BoundListener { name: name.into(), ..Default::default() };
        let changes: [fn(&mut wire::Hello); 7] = [
            |hello| hello.node = "a\0b".into(),
            |hello| hello.group = "a/b".into(),
            |hello| hello.node = "x".repeat(129),
            |hello| hello.zone = "z".repeat(129),
            |hello| hello.build = "\u{1b}[2J".into(),
            |hello| hello.labels = [("a".to_owned(), "x".repeat(257))].into(),
            |hello| hello.labels = (0..65).map(|n| (n.to_string(), String::new())).collect(),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut hello = sound();
            change(&mut hello);
            assert_eq!(check(&hello).expect_err("refused").code(), tonic::Code::InvalidArgument, "{at}");
        }
        let long = wire::Hello { listeners: vec![listener(&"x".repeat(257))], ..sound() };
        assert!(check(&long).is_err());
        let many = wire::Hello { listeners: vec![listener("a"); MAX_LISTENERS + 1], ..sound() };
        assert!(check(&many).is_err());
    }

    #[test]
    fn a_frozen_data_plane_is_cut_by_what_it_owes() {
        let (ok, late) = (Duration::from_secs(29), Duration::from_secs(61));
        for (silent, untaken, unacknowledged, expected) in [
            (ok, ok, ok, None),
            (late, ok, ok, Some("says nothing")),
            (ok, late, ok, Some("takes nothing")),
            (ok, ok, late, Some("does not acknowledge")),
            (SILENCE, STUCK, STUCK, None),
        ] {
            let reason = Waits { silent, untaken, unacknowledged }.over();
            assert_eq!(reason.is_some(), expected.is_some());
            assert!(reason.unwrap_or_default().contains(expected.unwrap_or_default()));
        }
    }
}
