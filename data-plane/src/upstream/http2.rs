//! Connections to one address that speaks HTTP/2, for one worker: sessions, each with many requests at a time. A request
//! takes part in the first that has room; when none has, another is opened, up to [`MAX_SESSIONS`], and beyond that
//! requests wait for a stream of the least busy.
//!
//! A session is connected and driven by a task of its own. It takes no more requests when its target says goodbye, refuses
//! a stream, or is silent for a whole request timeout; what is under way on it goes on.
//!
//! Invariant: only a session in its pool's list keeps h2's connection open by itself; one that left it ends with its last
//! stream.

pub(crate) mod call;

use std::cell::{Cell, OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use gateway_engine::reject::Reason;
use gateway_engine::upstream::Upstream;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use tokio::sync::Notify;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::pool;
use crate::buffer;
use crate::http2::transport::Transport;
use crate::stream::Stream;

/// Connections to one address.
const MAX_SESSIONS: usize = 16;
/// Requests at a time on one connection; fewer where the target says so.
const MAX_STREAMS: usize = 128;
/// The same until the target has said how many it takes (RFC 9113 §6.5.2 recommends no fewer); fewer where it said so on
/// another connection.
const FIRST_STREAMS: usize = 100;
/// What a target may send of one response before it is asked for more.
const STREAM_WINDOW: u32 = 128 * 1024;
/// The same of all responses: no less, so that one that nobody reads does not hold up the others.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MAX_STREAMS as u32;
/// What h2 charges for small pieces of responses that wait to be read: 256 bytes each, less their length. Enough for all
/// windows to be filled in pieces of 16 bytes, so that clients who do not read cost others no session: 240 MiB on one with
/// 128 of them, 1.9 MiB each.
const SMALL_PIECES: usize = 15 * CONNECTION_WINDOW as usize;
/// What is taken of a request's body before the target takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// Largest head of a response.
const MAX_HEAD: u32 = 60 * 1024;

/// The sessions of one address.
#[derive(Debug, Default)]
pub(crate) struct Sessions(RefCell<Vec<Rc<Session>>>);

/// One connection.
#[derive(Debug)]
pub(crate) struct Session {
    state: RefCell<State>,
    /// Requests that it takes until its target has said how many.
    first: usize,
    /// Told when it is connected, or will not be.
    settled: Notify,
    /// Requests on it.
    leases: Cell<usize>,
    /// It has had one before.
    used: Cell<bool>,
    idle_since: Cell<Instant>,
    /// Counts what is received on it.
    received: OnceCell<Rc<Cell<u64>>>,
}

#[derive(Debug)]
enum State {
    Connecting,
    Open(SendRequest<Bytes>),
    /// It could not be connected, or its other side does not speak HTTP/2.
    Failed(Reason),
    /// It takes no more requests.
    Retired,
}

impl Sessions {
    /// A place for a request: on the session with room that is first in the list, on a new one, or in the queue of the
    /// least busy.
    pub(super) fn lease(&self, address: SocketAddr, spec: &Upstream, buffers: &Rc<buffer::Pool>) -> Lease {
        let mut sessions = self.0.borrow_mut();
        sessions.retain(|session| session.is_usable());
        let session = match sessions.iter().find(|session| session.has_room()) {
            Some(session) => Rc::clone(session),
            None if sessions.len() < MAX_SESSIONS => {
                let most = sessions.iter().map(|session| session.most()).min();
                let first = most.unwrap_or(FIRST_STREAMS).clamp(1, FIRST_STREAMS);
                let session = Session::connect(address, spec.connect_timeout, first, buffers);
                sessions.push(Rc::clone(&session));
                session
            }
            None => {
                let least = sessions.iter().min_by_key(|session| session.leases.get());
                Rc::clone(least.expect("there are as many as may be"))
            }
        };
        Lease::new(session, !spec.idle_timeout.is_zero())
    }

    /// Ends what had no request for `timeout`; whether anything is left.
    pub(super) fn sweep(&self, now: Instant, timeout: Duration) -> bool {
        let mut sessions = self.0.borrow_mut();
        sessions.retain(|session| {
            let idle = session.leases.get() == 0 && now.duration_since(session.idle_since.get()) >= timeout;
            !idle && session.is_usable()
        });
        !sessions.is_empty()
    }
}

impl Session {
    fn connect(address: SocketAddr, timeout: Duration, first: usize, buffers: &Rc<buffer::Pool>) -> Rc<Self> {
        let session = Rc::new(Session {
            state: RefCell::new(State::Connecting),
            first,
            settled: Notify::new(),
            leases: Cell::new(0),
            used: Cell::new(false),
            idle_since: Cell::new(Instant::now()),
            received: OnceCell::new(),
        });
        spawn_local(run(Rc::downgrade(&session), address, timeout, first, Rc::clone(buffers)));
        session
    }

    /// It may take another request, now or when one of those on it is over.
    fn is_usable(&self) -> bool {
        match &mut *self.state.borrow_mut() {
            State::Connecting => true,
            // It is never pending: nothing was sent by this very handle.
            State::Open(sender) => {
                !matches!(sender.poll_ready(&mut Context::from_waker(Waker::noop())), Poll::Ready(Err(_)))
            }
            State::Failed(_) | State::Retired => false,
        }
    }

    fn has_room(&self) -> bool {
        self.leases.get() < self.most()
    }

    /// Requests that it takes at a time.
    fn most(&self) -> usize {
        match &*self.state.borrow() {
            State::Connecting => self.first,
            State::Open(sender) => sender.current_max_send_streams().min(MAX_STREAMS),
            State::Failed(_) | State::Retired => 0,
        }
    }

    fn settle(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.settled.notify_waiters();
    }

    /// Gives no more places.
    fn retire(&self) {
        let mut state = self.state.borrow_mut();
        if matches!(*state, State::Open(_)) {
            *state = State::Retired;
        }
    }
}

/// A request's place on a session.
#[derive(Debug)]
pub(crate) struct Lease {
    session: Rc<Session>,
    /// The session has had requests before.
    reused: bool,
    /// The session may wait for the next one.
    keep: bool,
}

impl Lease {
    fn new(session: Rc<Session>, keep: bool) -> Self {
        session.leases.set(session.leases.get() + 1);
        let reused = session.used.replace(true);
        Lease { session, reused, keep }
    }

    /// Waits until the session is connected.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) async fn connected(&self) -> Result<(), Reason> {
        loop {
            let settled = self.session.settled.notified();
            match &*self.session.state.borrow() {
                State::Connecting => {}
                State::Open(_) | State::Retired => return Ok(()),
                State::Failed(reason) => return Err(*reason),
            }
            settled.await;
        }
    }

    /// Begins the request's stream.
    ///
    /// # Errors
    /// When the session takes no more; why, if it never will.
    fn begin(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Option<Reason>> {
        // Of its own handle: that of the session stays free of what waits for a stream.
        let mut sender = match &*self.session.state.borrow() {
            State::Open(sender) => sender.clone(),
            State::Failed(reason) => return Err(Some(*reason)),
            State::Connecting | State::Retired => return Err(None),
        };
        sender.send_request(request, ends).map_err(|_closing| None)
    }

    /// Bytes received on the session so far.
    fn received(&self) -> u64 {
        self.session.received.get().map_or(0, |received| received.get())
    }

    /// More requests are on the session than its target takes at a time, as when they came before it said how many.
    fn is_one_too_many(&self) -> bool {
        self.session.leases.get() > self.session.most()
    }

    /// The session takes no more requests.
    fn retire(&self) {
        self.session.retire();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.session.leases.set(self.session.leases.get() - 1);
        self.session.idle_since.set(Instant::now());
        if !self.keep && self.session.leases.get() == 0 {
            self.session.retire();
        }
    }
}

/// Connects a session and drives its connection to the end.
async fn run(
    session: Weak<Session>,
    address: SocketAddr,
    timeout: Duration,
    first: usize,
    buffers: Rc<buffer::Pool>,
) {
    let settle = |state| {
        if let Some(session) = session.upgrade() {
            session.settle(state);
        }
    };
    let stream = match tokio::time::timeout(timeout, pool::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%address, %error, "cannot connect");
            return settle(State::Failed(Reason::UpstreamConnectFailed));
        }
        Err(_) => return settle(State::Failed(Reason::UpstreamTimeout)),
    };
    let transport = Transport::new(Stream::from(stream), buffers.none(), buffers.none());
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_max_send_streams(first)
        .data_frame_budget(SMALL_PIECES)
        .max_send_buffer_size(SEND_BUFFER)
        .max_header_list_size(MAX_HEAD)
        .enable_push(false);
    let began = transport.drive(builder.handshake(transport.clone())).await;
    let Ok((sender, connection)) = began else {
        return settle(State::Failed(Reason::UpstreamConnectFailed));
    };
    match session.upgrade() {
        Some(session) => {
            let _only_once = session.received.set(transport.received());
            session.settle(State::Open(sender));
        }
        // Nobody wants it any more.
        None => return,
    }
    match transport.drive(connection).await {
        Ok(()) => settle(State::Retired),
        Err(error) => {
            tracing::debug!(%address, %error, "an HTTP/2 connection to a target broke");
            let malformed = error.is_library();
            settle(if malformed { State::Failed(Reason::UpstreamProtocol) } else { State::Retired });
        }
    }
}
