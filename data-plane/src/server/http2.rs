//! A client's HTTP/2 connection (agreed on by TLS, or by prior knowledge): every stream goes the same way as an HTTP/1.1
//! request, in a task of its own.
//!
//! The bytes that told the protocol are replayed. A connection without streams is closed gracefully after the listener's
//! idle timeout, before its first one after the header timeout; one whose listener goes away gets a GOAWAY and finishes its
//! streams. Whoever does not answer a GOAWAY is left without an answer too.

mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use gateway_engine::context::Scheme;
use h2::server::{Builder, Handshake, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use tokio::task::spawn_local;
use tokio::time::Instant;

use crate::http2::transport::Transport;
use crate::runtime::Worker;
use crate::server::listener::Door;
use crate::wheel::Timer;
use crate::wire::Wire;

/// What a client may send of one request's body before it is asked for more.
const STREAM_WINDOW: u32 = 256 * 1024;
/// The same of all bodies on a connection.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What h2 charges for small pieces of bodies that wait to be read: 256 bytes each, less their length. Enough for a stream
/// whose whole window came in pieces of 16 bytes, so that a target that pauses does not cost the client its connection.
/// With the window this bounds what a connection can make the gateway keep of bodies: 5 MiB.
const SMALL_PIECES: usize = 15 * STREAM_WINDOW as usize;
/// What is taken of a response before the client takes it.
const SEND_BUFFER: usize = 64 * 1024;
/// How long a connection that was told to end, and has no streams, may go without a byte being sent on it. Its client
/// says that it has understood, or reads the end of its last response.
const GRACE: Duration = Duration::from_secs(1);
/// Times that it is given that long.
const MAX_GRACES: u32 = 30;

/// Serves a connection whose preface is in the wire's buffer.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    door: &Rc<Door>,
    mut wire: Wire,
    peer: SocketAddr,
    timer: Timer,
) {
    let caller = Caller { ip: peer.ip(), scheme: wire.scheme() };
    let Some(view) = door.view(worker) else { return };
    let http = &view.listener.http;
    let [idle, first] =
        [http.idle_timeout, http.header_timeout].map(|timeout| Some(timeout).filter(|it| !it.is_zero()));
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(http.max_concurrent_streams)
        .max_header_list_size(http.max_header_bytes)
        .data_frame_budget(SMALL_PIECES)
        .max_send_buffer_size(SEND_BUFFER);
    let http_streams = http.max_concurrent_streams as usize;
    drop(view);
    let replayed = std::mem::replace(&mut wire.buffer, worker.buffers.none());
    let transport = Transport::new(wire.into_stream(), replayed, worker.buffers.none());
    let mut connection = Connection {
        state: State::Beginning(builder.handshake(transport.clone())),
        transport,
        streams: Rc::default(),
        most: http_streams.saturating_mul(2),
        seen: 0,
        leaving: None,
        idle,
    };
    timer.set([idle, first].into_iter().flatten().min());
    poll_fn(|cx| {
        let leave = door.is_leaving(worker);
        connection.poll(cx, &timer, leave, |stream| {
            spawn_local(stream::serve(Rc::clone(worker), Rc::clone(door), caller, stream));
        })
    })
    .await;
    let Connection { state, transport, .. } = connection;
    drop(state);
    transport.close();
}

/// A connection at work.
struct Connection {
    state: State,
    transport: Transport,
    /// How many streams are open.
    streams: Rc<Cell<usize>>,
    /// How many may be. The protocol's own bound, which h2 holds the client to, forgets a stream as soon as the client
    /// resets it; here it counts until its task has let go of it.
    most: usize,
    /// How many were when it was looked at last.
    seen: usize,
    leaving: Option<Leave>,
    idle: Option<Duration>,
}

enum State {
    Beginning(Handshake<Transport, Bytes>),
    Open(h2::server::Connection<Transport, Bytes>),
}

impl Connection {
    /// Ready once it is over. What broke it is the client's affair: it broke the protocol or went away.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        timer: &Timer,
        leave: bool,
        open: impl FnMut(Opened),
    ) -> Poll<()> {
        self.begin_time_anew(timer);
        let over = timer.expired() && self.streams.get() == 0;
        match &mut self.leaving {
            Some(leaving) if over => {
                if !leaving.may_stay(self.transport.sent()) {
                    return Poll::Ready(());
                }
                timer.set(Some(GRACE));
            }
            None if over || leave => {
                self.leaving = Some(Leave { since: Instant::now(), graces: 0, written: 0 });
                if let State::Open(connection) = &mut self.state {
                    connection.graceful_shutdown();
                }
                timer.set(Some(GRACE));
            }
            _ => {}
        }
        let polled = self.poll_streams(cx, open);
        let _goes_on = self.transport.poll_send(cx);
        self.begin_time_anew(timer);
        polled
    }

    /// There are more than may be, or the client goes on opening streams although it was told to leave.
    fn takes_no_more(&self) -> bool {
        let deaf = |leaving: &Leave| leaving.since.elapsed() > GRACE;
        self.streams.get() >= self.most || self.leaving.as_ref().is_some_and(deaf)
    }

    /// Streams that are open, began or ended are signs of life.
    fn begin_time_anew(&mut self, timer: &Timer) {
        let streams = self.streams.get();
        if streams > 0 || std::mem::replace(&mut self.seen, streams) != streams {
            self.seen = streams;
            timer.set(if self.leaving.is_some() { Some(GRACE) } else { self.idle });
        }
    }

    fn poll_streams(&mut self, cx: &mut Context<'_>, mut open: impl FnMut(Opened)) -> Poll<()> {
        loop {
            match &mut self.state {
                State::Beginning(handshake) => match Pin::new(handshake).poll(cx) {
                    Poll::Ready(Ok(mut connection)) => {
                        if self.leaving.is_some() {
                            connection.graceful_shutdown();
                        }
                        self.state = State::Open(connection);
                    }
                    Poll::Ready(Err(_)) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
                State::Open(connection) => match connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((_, mut respond)))) if self.takes_no_more() => {
                        respond.send_reset(Reason::REFUSED_STREAM);
                    }
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        open(Opened { request, respond, count: Open::new(&self.streams) });
                    }
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                },
            }
        }
    }
}

/// Who is at the other end, and what it spoke.
#[derive(Clone, Copy, Debug)]
struct Caller {
    ip: IpAddr,
    scheme: Scheme,
}

/// A connection that was told to end.
#[derive(Debug)]
struct Leave {
    since: Instant,
    graces: u32,
    written: u64,
}

impl Leave {
    /// Once more: bytes were sent since it was last asked.
    fn may_stay(&mut self, written: u64) -> bool {
        self.graces += 1;
        std::mem::replace(&mut self.written, written) != written && self.graces < MAX_GRACES
    }
}

/// A stream that was opened.
#[derive(Debug)]
struct Opened {
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    count: Open,
}

/// A stream that is counted.
#[derive(Debug)]
struct Open(Rc<Cell<usize>>);

impl Open {
    fn new(streams: &Rc<Cell<usize>>) -> Self {
        streams.set(streams.get() + 1);
        Open(Rc::clone(streams))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
