//! One request on its way to a target and its response on the way back: the request's body and the response move at
//! the same time, in one task, with one timer.
//!
//! Order: [`connect`] or a pooled connection, [`await_head`] (sends the request, passes interim responses on, repeats
//! it where [`super::retry`] allows), then the caller opens the response, then [`Forwarding::poll_body`].
//! A client that says it will send no more is served on as long as the target does not pause for long: it may have
//! gone, and a target should not work for nobody.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_engine::head::{Head, HeadParts};
use gateway_engine::reject::Reason;
use gateway_http1::Method;
use gateway_http1::response::ResponseHead;

use super::client::{Client, Gone};
use super::retry::Attempt;
use super::target::Target;
use crate::buffer::Pool;
use crate::relay::{Broken, Relay, SourceError, Waiting};
use crate::upstream::http2::Lease;
use crate::upstream::{Picked, pool};
use crate::wheel::{self, Timer};
use crate::wire::{self, Wire};

/// Interim responses to one request.
const MAX_INTERIM: u32 = 32;
/// How long a target takes before the client is looked at: most answer sooner, and most clients wait.
const UNWATCHED: Duration = wheel::TICK;
/// How long a target may pause once the client has said that it will send no more.
const GRACE: Duration = Duration::from_secs(1);
/// Addresses of a named target that are tried.
const MAX_ADDRESSES: usize = 3;

/// Why an exchange ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// There is nobody left to answer.
    ClientGone,
    /// The client is at fault: answered, and its connection closed.
    Client(Reason),
    /// The target is.
    Target(Reason),
}

/// The route's bounds on time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the end of the request's body to the response's head.
    pub(crate) request: Option<Duration>,
    /// Without a byte either way.
    pub(crate) idle: Option<Duration>,
}

/// An exchange at work.
#[derive(Debug)]
pub(crate) struct Forwarding<'a, C> {
    pub(crate) client: &'a mut C,
    pub(crate) target: Target,
    pub(crate) timer: &'a Timer,
    pub(crate) timeouts: Timeouts,
    pub(crate) method: Method,
    pub(crate) upload: Relay,
    pub(crate) download: Relay,
    pub(crate) state: State,
}

/// What happened so far.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The connection comes from the pool.
    reused: bool,
    /// A byte of the response came.
    heard: bool,
    /// Nothing more is sent to the target.
    uploaded: bool,
    /// It is time to look whether the client is still there.
    watching: bool,
    /// The rest of the request's body is waited for.
    waiting: bool,
    /// Because it takes no more.
    refused: bool,
    /// The response's body is on its way.
    returning: bool,
    /// The client will send no more.
    half_closed: bool,
    interims: u32,
    /// How often the request was sent before.
    repeats: u32,
}

impl State {
    /// At the beginning, on a connection that comes from the pool or not.
    pub(crate) fn new(reused: bool) -> Self {
        State { reused, ..State::default() }
    }
}

/// Opens a connection to the target, trying its other addresses if it has a name. `picked` ends as the one connected.
pub(crate) async fn connect(picked: &mut Picked, buffers: &Rc<Pool>, timer: &Timer) -> Result<Wire, Fault> {
    let tries = picked.upstream.addresses(picked.target).clamp(1, MAX_ADDRESSES);
    let mut fault = Reason::UpstreamConnectFailed;
    for _ in 0..tries {
        timer.set(Some(picked.upstream.spec().connect_timeout));
        let mut connecting = pin!(pool::connect(picked.address));
        let outcome = poll_fn(|cx| match connecting.as_mut().poll(cx) {
            Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
            Poll::Pending if timer.expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
        match outcome {
            Some(Ok(stream)) => return Ok(Wire::new(stream, buffers.none())),
            Some(Err(error)) => {
                tracing::debug!(upstream = %picked.upstream.spec().name, address = %picked.address, %error, "cannot connect");
                fault = Reason::UpstreamConnectFailed;
            }
            None => fault = Reason::UpstreamTimeout,
        }
        match picked.upstream.another(picked) {
            Some(other) => *picked = other,
            None => break,
        }
    }
    Err(Fault::Target(fault))
}

/// Waits for a connection no longer than the client does.
pub(crate) async fn unless_withdrawn<T>(
    client: &mut impl Client,
    connecting: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    let mut connecting = pin!(connecting);
    poll_fn(|cx| match connecting.as_mut().poll(cx) {
        Poll::Pending => client.poll_withdrawn(cx).map(|()| Err(Fault::ClientGone)),
        connected => connected,
    })
    .await
}

/// Gets a place on a session with the target, trying its other addresses if it has a name. `picked` ends as the one
/// connected.
pub(crate) async fn join(picked: &mut Picked, buffers: &Rc<Pool>) -> Result<Lease, Fault> {
    let mut tries = picked.upstream.addresses(picked.target).clamp(1, MAX_ADDRESSES);
    loop {
        let lease = picked.lease(buffers);
        let Err(reason) = lease.connected().await else { return Ok(lease) };
        tries -= 1;
        match picked.upstream.another(picked) {
            Some(other) if tries > 0 => *picked = other,
            _ => return Err(Fault::Target(reason)),
        }
    }
}

/// Sends the request and waits for the head of the final response, which is left in the target's buffer.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps what it is given twice")]
pub(crate) fn await_head<C: Client>(
    forwarding: &mut Forwarding<'_, C>,
    picked: &mut Picked,
    buffers: &Rc<Pool>,
    parsed: &mut ResponseHead,
    scratch: &mut HeadParts,
) -> impl Future<Output = Result<(), Fault>> {
    async move {
        loop {
            let fault = match poll_fn(|cx| forwarding.poll_head(cx, parsed, scratch)).await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            if fault != Fault::Target(Reason::UpstreamReset) || !forwarding.attempt().may_repeat() {
                return Err(fault);
            }
            match &mut forwarding.target {
                Target::Http1(wire) => {
                    wire.restart(Box::pin(connect(picked, buffers, forwarding.timer)).await?);
                }
                Target::Http2(call) => call.restart(Box::pin(join(picked, buffers)).await?),
            }
            parsed.reset();
            forwarding.upload.restart();
            let State { half_closed, repeats, .. } = forwarding.state;
            forwarding.state = State { half_closed, repeats: repeats + 1, ..State::default() };
        }
    }
}

impl<C: Client> Forwarding<'_, C> {
    fn attempt(&self) -> Attempt {
        Attempt {
            reused: self.state.reused && !self.target.is_reset(),
            heard: self.state.heard,
            untouched: self.target.is_untouched(),
            replayable: self.target.is_replayable(),
            refused: self.target.is_refused(),
            repeats: self.state.repeats,
            idempotent: self.method.is_idempotent(),
        }
    }

    /// The whole request was taken, and the target's connection is at the start of the next.
    pub(crate) fn is_target_reusable(&self) -> bool {
        self.upload.is_done() && !self.state.refused
    }

    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        parsed: &mut ResponseHead,
        scratch: &mut HeadParts,
    ) -> Poll<Result<(), Fault>> {
        if (self.state.uploaded || self.state.waiting) && self.timer.expired() {
            if !(self.state.uploaded && self.is_watched_later()) {
                return Poll::Ready(Err(self.late()));
            }
            self.state.watching = true;
            self.timer.set(self.timeouts.request.map(|request| request - UNWATCHED));
        }
        self.poll_upload(cx)?;
        loop {
            match self.target.poll_head(cx, self.method, parsed, &mut self.state.heard) {
                Poll::Ready(Ok(())) if parsed.interim => self.pass_interim(parsed, scratch)?,
                Poll::Ready(outcome) => return Poll::Ready(outcome.map_err(Fault::Target)),
                Poll::Pending => break,
            }
        }
        self.watch_client(cx)?;
        Poll::Pending
    }

    /// Moves the response's body, and what is left of the request's.
    pub(crate) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if self.state.returning && self.timer.expired() {
            // Who does not take the response has lost interest.
            let client = self.state.half_closed || self.download.waiting() == Waiting::Sink;
            let fault = if client { Fault::ClientGone } else { Fault::Target(Reason::UpstreamTimeout) };
            return Poll::Ready(Err(fault));
        }
        let before = self.client.progress() + self.target.progress();
        let first = !std::mem::replace(&mut self.state.returning, true);
        if !self.state.uploaded && self.poll_upload(cx).is_err() {
            // The response goes on by itself; the connections cannot be used again.
            self.state.uploaded = true;
            self.state.refused = true;
        }
        match self.download.poll(cx, &mut self.target, self.client) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Broken::Sink)) => return Poll::Ready(Err(Fault::ClientGone)),
            Poll::Ready(Err(Broken::Source(error))) => {
                let reason =
                    if wire::is_cut_short(&error) { Reason::UpstreamReset } else { Reason::UpstreamProtocol };
                return Poll::Ready(Err(Fault::Target(reason)));
            }
            // There is no limit on this side.
            Poll::Ready(Err(Broken::TooLarge)) => {
                return Poll::Ready(Err(Fault::Target(Reason::UpstreamProtocol)));
            }
            Poll::Pending => {}
        }
        if first || self.client.progress() + self.target.progress() != before {
            self.timer.set(if self.state.half_closed { Some(GRACE) } else { self.timeouts.idle });
        }
        self.watch_client(cx)?;
        Poll::Pending
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.state.uploaded {
            return Ok(());
        }
        let before = self.client.progress() + self.target.progress();
        match self.upload.poll(cx, self.client, &mut self.target) {
            Poll::Ready(Ok(())) => self.end_upload(),
            // It may have answered before it stopped listening: the answer decides.
            Poll::Ready(Err(Broken::Sink)) => {
                self.state.refused = true;
                self.end_upload();
            }
            Poll::Ready(Err(Broken::TooLarge)) => return Err(Fault::Client(Reason::BodyTooLarge)),
            Poll::Ready(Err(Broken::Source(SourceError::Io(_)))) => return Err(Fault::ClientGone),
            Poll::Ready(Err(Broken::Source(error))) if wire::is_cut_short(&error) => {
                return Err(Fault::ClientGone);
            }
            Poll::Ready(Err(Broken::Source(_))) => return Err(Fault::Client(Reason::BadRequest)),
            Poll::Pending => {
                let moved = self.client.progress() + self.target.progress() != before;
                if moved || !std::mem::replace(&mut self.state.waiting, true) {
                    self.timer.set(self.timeouts.idle);
                }
            }
        }
        Ok(())
    }

    fn end_upload(&mut self) {
        self.state.uploaded = true;
        self.timer.set(if self.is_watched_later() { Some(UNWATCHED) } else { self.timeouts.request });
    }

    /// The timer is set to begin watching the client, and the target's time is longer than that.
    fn is_watched_later(&self) -> bool {
        !self.state.watching && self.timeouts.request.is_none_or(|request| request > UNWATCHED)
    }

    fn pass_interim(&mut self, parsed: &mut ResponseHead, scratch: &mut HeadParts) -> Result<(), Fault> {
        const MALFORMED: Fault = Fault::Target(Reason::UpstreamProtocol);
        self.state.interims += 1;
        if self.state.interims > MAX_INTERIM {
            return Err(MALFORMED);
        }
        self.target.fill_head(parsed, scratch);
        let passed = self.client.interim(&Head::new(self.target.head_bytes(), scratch));
        // It points into what is about to be consumed.
        scratch.clear();
        passed.map_err(|_unsendable| MALFORMED)?;
        self.target.release_head(parsed);
        parsed.reset();
        Ok(())
    }

    /// Once nothing is expected from the client: notices that it went away.
    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        if self.state.interims > 0 && matches!(self.client.poll_flush(cx), Poll::Ready(Err(_))) {
            return Err(Fault::ClientGone);
        }
        if self.client.poll_withdrawn(cx).is_ready() {
            return Err(Fault::ClientGone);
        }
        let looks = self.state.watching || self.state.returning;
        if !self.state.uploaded || self.state.half_closed || !looks {
            return Ok(());
        }
        match self.client.poll_gone(cx) {
            Poll::Ready(Gone::Dead) => Err(Fault::ClientGone),
            Poll::Ready(Gone::HalfClosed) => {
                self.state.half_closed = true;
                self.timer.set(Some(GRACE));
                Ok(())
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Whose fault it is that no response came in time.
    fn late(&self) -> Fault {
        if self.state.half_closed {
            Fault::ClientGone
        } else if !self.state.uploaded && self.upload.waiting() == Waiting::Source {
            Fault::Client(Reason::ClientTimeout)
        } else {
            self.target.gave_up_waiting();
            Fault::Target(Reason::UpstreamTimeout)
        }
    }
}
