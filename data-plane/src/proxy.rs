//! The life of a request, top to bottom: [`handle`] is one straight line that every protocol's server calls with a
//! parsed head. Who asks, where to, may they, on which connection, there and back, and what is left to be counted.
//!
//! It owns no sockets and no state: the client is a [`client::Client`], connections come from [`crate::upstream`],
//! decisions from the engine, storage from the [`exchange::Exchange`]. Nothing here is parsed twice or allocated on the
//! plain path.
//!
//! Invariant: the response side of the policies runs over every response that has a head, also over refusals; the
//! request is counted and logged once, when its last byte is gone.

pub(crate) mod client;
pub(crate) mod date;
pub(crate) mod exchange;
mod forward;
pub(crate) mod heads;
pub(crate) mod identity;
mod plan;
mod report;
pub(crate) mod response;
mod retry;
mod target;
mod upgrade;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use gateway_engine::head::Head;
use gateway_engine::reject::Reason;
use gateway_engine::upstream::Protocol;
use gateway_http1::Framing;
use gateway_http1::write::has_body;
use tokio::time::Instant;

use crate::relay::Relay;
use crate::runtime::Worker;
use crate::server::listener::{Door, View};
use crate::telemetry::metrics::Phase;
use crate::upstream::Picked;
use crate::upstream::http2::call::Call;
use crate::wheel::Timer;
use client::{After, Asked, Client, Opening};
use exchange::Exchange;
use forward::{Fault, Forwarding, State, Timeouts};
use plan::{Course, Plan};
use report::{Facts, Kept, Ledger};
use target::Target;

/// A request and what it is served with.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) worker: &'a Rc<Worker>,
    pub(crate) door: &'a Rc<Door>,
    pub(crate) timer: &'a Timer,
    /// Its head is filled in, its id chosen.
    pub(crate) exchange: &'a mut Exchange,
    pub(crate) asked: Asked,
}

impl Job<'_> {
    /// A phase of the request is over.
    #[inline]
    fn lap(&self, phase: Phase) {
        self.exchange.stopwatch.lap(&self.worker.metrics, phase);
    }
}

/// Serves one request to its last byte. Afterwards the client knows whether its connection can go on.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps what it is given twice")]
pub(crate) fn handle<C: Client>(
    job: &mut Job<'_>,
    view: Rc<View>,
    client: &mut C,
) -> impl Future<Output = ()> {
    async move {
        let _in_flight = job.worker.metrics.request_started();
        job.exchange.stopwatch.start(&job.worker.metrics, job.asked.started);
        job.lap(Phase::ReadHead);
        let mut ledger = Ledger::default();
        let (course, plan) = plan::plan(job, &view, client.head_bytes(), &mut ledger.target);
        job.lap(Phase::RequestPolicies);
        client.release_head();
        match plan {
            Plan::Answer => answer(job, &course, After::Keep, client, &mut ledger).await,
            Plan::Refuse(reason) => refuse(job, &course, reason, After::Keep, client, &mut ledger).await,
            Plan::Forward => match forward::unless_withdrawn(client, obtain(job, &mut ledger)).await {
                Err(fault) => {
                    job.lap(Phase::Connect);
                    fail(job, &course, fault, client, &mut ledger).await;
                }
                Ok(connection) => {
                    job.lap(Phase::Connect);
                    let mut passage = Passage::new(job, &course, connection, client);
                    match passage.begin(job, &course, &mut ledger).await {
                        Err(fault) => {
                            let client = passage.give_up(job);
                            fail(job, &course, fault, client, &mut ledger).await;
                        }
                        Ok(Poll::Pending) => {
                            // It takes longer than its head: such an exchange does not hold on to a configuration.
                            let kept = Kept::new(&course, &view);
                            drop(view);
                            passage.finish(&mut ledger).await;
                            let client = passage.leave(job, &mut ledger);
                            return report::finish(job, kept.facts(), client.take_counts(), &ledger);
                        }
                        Ok(Poll::Ready(())) => {
                            passage.leave(job, &mut ledger);
                        }
                    }
                }
            },
        }
        report::finish(job, Facts::new(&course, &view), client.take_counts(), &ledger);
    }
}

/// A connection to a target.
struct Connected {
    target: Target,
    /// Others were on it before.
    reused: bool,
}

/// Takes a connection from the pool, or makes one.
async fn obtain(job: &mut Job<'_>, ledger: &mut Ledger) -> Result<Connected, Fault> {
    let picked = ledger.target.as_mut().expect("the plan was to ask it");
    if picked.upstream.spec().protocol == Protocol::Http2 {
        return Box::pin(join(job, picked)).await;
    }
    if let Some(wire) = picked.pool.take() {
        return Ok(Connected { target: Target::Http1(wire), reused: true });
    }
    // Boxed: most requests find a connection in the pool, and idle clients should not pay for this state.
    let wire = Box::pin(forward::connect(picked, &job.worker.buffers, job.timer)).await?;
    Ok(Connected { target: Target::Http1(Box::new(wire)), reused: false })
}

/// Takes part in a connection that many requests share.
async fn join(job: &mut Job<'_>, picked: &mut Picked) -> Result<Connected, Fault> {
    let lease = forward::join(picked, &job.worker.buffers).await?;
    let request = job.exchange.to_session.take().expect("the plan was to ask by HTTP/2");
    let call = Call::new(lease, request, job.asked.framing);
    Ok(Connected { reused: call.is_reused(), target: Target::Http2(Box::new(call)) })
}

/// A request on its way to a target, then its response on the way back, or a tunnel.
struct Passage<'a, C> {
    forwarding: Forwarding<'a, C>,
    tunnel: bool,
    /// The target said that its connection may be used again.
    keep_alive: bool,
}

impl<'a, C: Client> Passage<'a, C> {
    fn new<'j: 'a>(job: &mut Job<'j>, course: &Course<'_>, connected: Connected, client: &'a mut C) -> Self {
        let mut target = connected.target;
        if let Target::Http1(wire) = &mut target {
            wire.begin(std::mem::take(&mut job.exchange.to_target));
            wire.announce_body(job.asked.framing);
        }
        let forwarding = Forwarding {
            client,
            target,
            timer: job.timer,
            timeouts: Timeouts { request: course.request_timeout(), idle: course.idle_timeout() },
            method: job.asked.method,
            upload: match job.asked.framing {
                Framing::None => Relay::of_nothing(),
                _ => Relay::new(course.max_body).guarding_identity(course.guards_identity()),
            },
            download: Relay::new(u64::MAX),
            state: State::new(connected.reused),
        };
        Passage { forwarding, tunnel: false, keep_alive: false }
    }

    /// Sends the request, opens the response, and moves what is there of its body; whether that was all. A body that
    /// turns out to be none before a byte of the response was sent is a failure like that of its head.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps what it is given twice")]
    fn begin(
        &mut self,
        job: &mut Job<'_>,
        course: &Course<'_>,
        ledger: &mut Ledger,
    ) -> impl Future<Output = Result<Poll<()>, Fault>> {
        async move {
            let Exchange { parsed_response, response, .. } = &mut *job.exchange;
            let picked = ledger.target.as_mut().expect("it was connected to");
            let buffers = &job.worker.buffers;
            let head =
                forward::await_head(&mut self.forwarding, picked, buffers, parsed_response, response).await;
            job.lap(Phase::Upstream);
            let now = Instant::now();
            report::attempt(job, picked, head.is_ok().then_some(job.exchange.parsed_response.status), now);
            head?;
            open(job, course, &mut self.forwarding, ledger, now)?;
            self.keep_alive = job.exchange.parsed_response.keep_alive;
            self.tunnel = job.exchange.parsed_response.tunnel;
            if self.tunnel {
                return Ok(Poll::Pending);
            }
            match poll_fn(|cx| Poll::Ready(self.forwarding.poll_body(cx))).await {
                Poll::Ready(Err(fault @ Fault::Target(_))) if self.forwarding.client.retract() => Err(fault),
                polled => Ok(polled.map(|outcome| self.settle(outcome, ledger))),
            }
        }
    }

    /// Moves the rest as it comes.
    async fn finish(&mut self, ledger: &mut Ledger) {
        if self.tunnel {
            return Box::pin(upgrade::tunnel(&mut self.forwarding)).await;
        }
        let outcome = poll_fn(|cx| self.forwarding.poll_body(cx)).await;
        self.settle(outcome, ledger);
    }

    fn settle(&mut self, outcome: Result<(), Fault>, ledger: &mut Ledger) {
        if let Err(fault) = outcome {
            ledger.broke_off(fault);
            self.keep_alive = false;
            self.forwarding.client.abort();
        }
    }

    /// Gives back what was lent; the target's connection to its pool, if it can be used again.
    #[inline(always)] // it is taken apart, not copied
    fn leave(self, job: &mut Job<'_>, ledger: &mut Ledger) -> &'a mut C {
        let reusable = self.keep_alive && self.forwarding.is_target_reusable();
        let Forwarding { client, target, .. } = self.forwarding;
        // A session goes on by itself.
        let Target::Http1(mut wire) = target else { return client };
        job.exchange.to_target = wire.take_back();
        if let Some(picked) = &ledger.target
            && reusable
            && wire.is_body_read()
            && wire.buffer.is_empty()
            && !picked.upstream.spec().idle_timeout.is_zero()
        {
            wire.buffer.release();
            picked.pool.put(wire, *ledger.ended.insert(Instant::now()));
            picked.upstream.note_pooled();
        }
        client
    }

    /// The same after a failure: the connection is closed.
    fn give_up(self, job: &mut Job<'_>) -> &'a mut C {
        if let Target::Http1(mut wire) = self.forwarding.target {
            job.exchange.to_target = wire.take_back();
        }
        self.forwarding.client
    }
}

/// The response head: what came from the target, less what belongs to its hop, through the policies.
fn open<C: Client>(
    job: &mut Job<'_>,
    course: &Course<'_>,
    forwarding: &mut Forwarding<'_, C>,
    ledger: &mut Ledger,
    now: Instant,
) -> Result<(), Fault> {
    const MALFORMED: Fault = Fault::Target(Reason::UpstreamProtocol);
    let upgrade = match (
        job.exchange.parsed_response.tunnel,
        job.asked.upgrade,
        job.exchange.parsed_response.upgrade,
    ) {
        (false, ..) => None,
        (true, Some(_), Some(protocol)) => Some(protocol),
        // Nobody asked for it, or it does not say what it is.
        (true, ..) => return Err(MALFORMED),
    };
    forwarding.target.fill_head(&job.exchange.parsed_response, &mut job.exchange.response);
    let wire = forwarding.target.head_bytes();
    course.pass_back(job, wire, now);
    let keep = forwarding.upload.is_done() && !job.door.is_leaving(job.worker);
    let parsed = &job.exchange.parsed_response;
    let opening = Opening {
        length: parsed.content_length,
        after: if keep { After::Keep } else { After::Close },
        upgrade: upgrade.map(|protocol| protocol.of(wire)),
    };
    let head = Head::new(wire, &mut job.exchange.response);
    ledger.status = head.status();
    // The target's was sound: what cannot be sent is made here.
    forwarding.client.open(&head, opening).map_err(|_unsendable| Fault::Target(Reason::InternalError))?;
    forwarding.target.release_head(parsed);
    job.lap(Phase::ResponseHead);
    Ok(())
}

/// Nothing came back that could be passed on.
async fn fail<C: Client>(
    job: &mut Job<'_>,
    course: &Course<'_>,
    fault: Fault,
    client: &mut C,
    ledger: &mut Ledger,
) {
    let (reason, after) = match fault {
        Fault::ClientGone => {
            ledger.status = 0;
            ledger.reason = Some(Reason::ClientClosed);
            return client.abort();
        }
        // What follows a body that is no body, or was not read, cannot be known.
        Fault::Client(reason) => (reason, After::Close),
        Fault::Target(reason) => (reason, After::Keep),
    };
    // What it may hold of the target's response points into a buffer that is gone.
    job.exchange.response.clear();
    refuse(job, course, reason, after, client, ledger).await;
}

/// Refuses the request. The response side of the policies applies.
async fn refuse<C: Client>(
    job: &mut Job<'_>,
    course: &Course<'_>,
    reason: Reason,
    after: After,
    client: &mut C,
    ledger: &mut Ledger,
) {
    ledger.reason = Some(reason);
    let Exchange { id, response, body, .. } = &mut *job.exchange;
    response::refuse(reason, id, response, body);
    answer(job, course, after, client, ledger).await;
}

/// Sends the response that the exchange holds.
async fn answer<C: Client>(
    job: &mut Job<'_>,
    course: &Course<'_>,
    after: After,
    client: &mut C,
    ledger: &mut Ledger,
) {
    let after = match after {
        After::Keep if !job.door.is_leaving(job.worker) => response::drain(client).await,
        _ => After::Close,
    };
    course.pass_back(job, b"", Instant::now());
    job.lap(Phase::ResponseHead);
    let Exchange { response, body, .. } = &mut *job.exchange;
    let head = Head::new(b"", response);
    ledger.status = head.status();
    let opening = Opening { length: Some(body.len() as u64), after, upgrade: None };
    if client.open(&head, opening).is_err() {
        // The policies' doing: it goes out without them.
        ledger.reason = Some(Reason::InternalError);
        ledger.status = open_bare(job, Reason::InternalError, After::Close, client);
    }
    let body = if has_body(job.asked.method, ledger.status) { &*job.exchange.body } else { b"" };
    job.timer.set(course.idle_timeout());
    if response::send(client, body, job.timer).await.is_err() {
        ledger.reason.get_or_insert(Reason::ClientClosed);
        client.abort();
    }
}

/// Opens a refusal in which no policy has a say; its status.
fn open_bare<C: Client>(job: &mut Job<'_>, reason: Reason, after: After, client: &mut C) -> u16 {
    let Exchange { id, response, body, .. } = &mut *job.exchange;
    response.clear();
    response::refuse(reason, id, response, body);
    let mut head = Head::new(b"", response);
    head.add("x-request-id", id.as_bytes());
    job.worker.date.with(Instant::now(), |date| head.add("date", date));
    let opening = Opening { length: Some(body.len() as u64), after, upgrade: None };
    client.open(&head, opening).expect("nothing in it but what is made here");
    head.status()
}

/// Answers what could not be read as a request. No policy has a say, because nothing is known of it; the caller closes
/// the connection.
pub(crate) async fn refuse_unread<C: Client>(job: &mut Job<'_>, reason: Reason, client: &mut C) {
    const PATIENCE: Duration = Duration::from_secs(2);
    let _in_flight = job.worker.metrics.request_started();
    job.exchange.id.clear();
    job.worker.ids.next(&mut job.exchange.id);
    open_bare(job, reason, After::Close, client);
    job.timer.set(Some(PATIENCE));
    // Whether it gets there is the client's loss.
    let _unread = response::send(client, &job.exchange.body, job.timer).await;
    report::finish_unread(job, client.take_counts(), reason);
}
