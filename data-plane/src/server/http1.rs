//! A client's HTTP/1.1 connection: one small task that waits without a buffer, reads a head, has it served, and
//! begins anew. A connection whose first bytes are the HTTP/2 preface is handed to [`super::http2`] with those bytes.
//!
//! Invariant: after anything that leaves the position of the next request unknown the connection is closed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use gateway_engine::head::{Head, Text};
use gateway_engine::reject::Reason;
use gateway_http1::field::list;
use gateway_http1::request::{self, RequestHead};
use gateway_http1::write::{announce, has_body};
use gateway_http1::{Framing, Limits, Method, ParseError, Status, Version};
use tokio::task::coop::consume_budget;

use super::http2;
use crate::buffer;
use crate::proxy::client::{After, Asked, Client, Gone, Opening, Unsendable};
use crate::proxy::exchange::Exchange;
use crate::proxy::heads::{self, Reply};
use crate::proxy::{self, Job, identity};
use crate::relay::{Sink, Source, SourceError, Step};
use crate::runtime::{Phase, Presence, Worker};
use crate::server::listener::{Door, View};
use crate::stream::Stream;
use crate::wheel::Timer;
use crate::wire::Wire;

/// What an HTTP/2 client sends first (RFC 9113 §3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Fields of a request.
const MAX_FIELDS: usize = 128;
/// How long a connection that is closed with bytes unread is kept, so that the client can read what it was told.
pub(super) const LINGER: Duration = Duration::from_secs(2);
/// How long a connection that has not asked anything yet may do so when its listener closes.
pub(super) const LAST_CALL: Duration = Duration::from_millis(500);
/// Bytes thrown away meanwhile.
pub(super) const MAX_LINGER_BYTES: usize = 1 << 20;

/// Serves a connection until either side ends it. A block rather than an `async fn`, which would keep what it is given
/// twice: as arguments and as variables. A waiting connection is mostly the size of this.
pub(super) fn serve(
    worker: Rc<Worker>,
    door: Rc<Door>,
    stream: impl Into<Stream>,
    peer: SocketAddr,
    presence: Presence,
) -> impl Future<Output = ()> {
    let mut connection = Connection {
        wire: Wire::new(stream, worker.buffers.none()),
        head_len: 0,
        opened: 0,
        method: Method::Get,
        version: Version::Http11,
        next: Next::Serve,
    };
    async move {
        let timer = poll_fn(|cx| Poll::Ready(worker.wheel.timer(cx.waker()))).await;
        let (mut first, mut since) = (true, Since::Now);
        while connection.next == Next::Serve {
            let Some(view) = wait(&mut connection.wire, &worker, &door, &timer, first, since).await else {
                break;
            };
            let mut exchange = worker.take_exchange();
            connection.wire.begin(std::mem::take(&mut exchange.to_client));
            let asked = Asked::nothing(peer.ip(), connection.wire.scheme());
            let mut job = Job { worker: &worker, door: &door, timer: &timer, exchange: &mut exchange, asked };
            let read = serve_one(&mut connection, &mut job, view, first).await;
            exchange.to_client = connection.wire.take_back();
            worker.return_exchange(exchange);
            first &= read == Seen::Nothing;
            since = if read == Seen::Nothing { Since::Before } else { Since::Now };
        }
        match connection.next {
            Next::Http2 => Box::pin(http2::serve(&worker, &door, connection.wire, peer, timer)).await,
            Next::Linger => Box::pin(linger(connection.wire, &timer)).await,
            Next::Serve | Next::Close => connection.wire.into_stream().close(),
        }
        drop(presence);
    }
}

/// What to do with the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next request.
    Serve,
    /// Nothing is unread.
    Close,
    /// Close, but let the client read first.
    Linger,
    /// It speaks HTTP/2.
    Http2,
}

/// Since when a request is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Now,
    /// What came was nothing to the point (a TLS record without data).
    Before,
}

/// Waits for a request without holding memory. `None`: the connection is over.
async fn wait(
    wire: &mut Wire,
    worker: &Rc<Worker>,
    door: &Rc<Door>,
    timer: &Timer,
    first: bool,
    since: Since,
) -> Option<Rc<View>> {
    if wire.buffer.is_empty() {
        if since == Since::Now {
            let patience = door.look(worker, |view| {
                let http = &view.listener.http;
                if first { http.header_timeout } else { http.idle_timeout }
            })?;
            timer.set(Some(patience).filter(|patience| !patience.is_zero()));
        }
        let (mut hurried, mut waiting) = (false, false);
        // Woken, most likely by what it waits for: a look is cheaper than to begin waiting again.
        let readable = poll_fn(|cx| {
            if std::mem::replace(&mut waiting, true) && wire.is_told() {
                return Poll::Ready(true);
            }
            match wire.poll_readable(cx) {
                Poll::Ready(readable) => Poll::Ready(readable.is_ok()),
                Poll::Pending if timer.expired() => Poll::Ready(false),
                Poll::Pending if door.is_closing() || worker.phase() == Phase::Closing => {
                    // One that was accepted but never served may have a request on its way.
                    if !first {
                        return Poll::Ready(false);
                    }
                    if !std::mem::replace(&mut hurried, true) {
                        timer.set(Some(LAST_CALL));
                    }
                    Poll::Pending
                }
                Poll::Pending => Poll::Pending,
            }
        });
        if !readable.await {
            return None;
        }
        wire.make_room();
    } else {
        // It came with the one before: no read took its share of this task's turn.
        consume_budget().await;
    }
    door.view(worker)
}

/// Whether there was anything to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Something,
}

/// Reads one request head and has the request served.
async fn serve_one(connection: &mut Connection, job: &mut Job<'_>, view: Rc<View>, first: bool) -> Seen {
    let http = &view.listener.http;
    let patience = Some(http.header_timeout).filter(|timeout| !timeout.is_zero());
    let limits = Limits {
        max_head_bytes: http.max_header_bytes as usize,
        max_target_bytes: http.max_uri_bytes as usize,
        max_fields: MAX_FIELDS,
    };
    let parsed = &mut job.exchange.parsed_request;
    let timer = job.timer;
    let mut waiting = false;
    let read = poll_fn(|cx| {
        let read = poll_head(cx, &mut connection.wire, &limits, parsed, first);
        if read.is_ready() {
            return read;
        }
        // Most heads come in one piece and need no timer.
        if !std::mem::replace(&mut waiting, true) {
            timer.set(patience);
        } else if timer.expired() {
            return Poll::Ready(Err(Reason::ClientTimeout));
        }
        Poll::Pending
    })
    .await;
    match read {
        Ok(Read::Head) => {
            connection.begin(job, &view);
            proxy::handle(job, view, connection).await;
            // A response that came early has been announced as the last. Should anything slip through: where the
            // next request begins is known only after the body of this one.
            if connection.next == Next::Serve && !connection.wire.is_body_read() {
                connection.next = Next::Linger;
            }
        }
        Ok(Read::Nothing) => return Seen::Nothing,
        Ok(Read::End) => connection.next = Next::Close,
        Ok(Read::Preface) => connection.next = Next::Http2,
        Err(reason) => {
            // The head that was begun, if any, is the client's affair; nothing of it is known.
            (connection.method, connection.head_len) = (Method::Get, 0);
            proxy::refuse_unread(job, reason, connection).await;
            connection.next = Next::Linger;
        }
    }
    Seen::Something
}

/// What was read.
enum Read {
    /// A whole request head.
    Head,
    /// Nothing, although it seemed so: a fresh connection is taken for readable until it is tried.
    Nothing,
    /// The client closed instead.
    End,
    /// The HTTP/2 preface.
    Preface,
}

fn poll_head(
    cx: &mut Context<'_>,
    wire: &mut Wire,
    limits: &Limits,
    parsed: &mut RequestHead,
    first: bool,
) -> Poll<Result<Read, Reason>> {
    loop {
        if !wire.buffer.is_empty() {
            let filled = wire.buffer.filled();
            let common = filled.len().min(PREFACE.len());
            let may_be_http2 = first && common > 3 && filled[..common] == PREFACE[..common];
            if may_be_http2 && common == PREFACE.len() {
                return Poll::Ready(Ok(Read::Preface));
            }
            match request::parse(filled, limits, parsed) {
                _ if may_be_http2 => {}
                Ok(Status::Complete) => return Poll::Ready(Ok(Read::Head)),
                Ok(Status::Partial) => {}
                Err(error) => return Poll::Ready(Err(reason(error))),
            }
        }
        // A head that does not fit moves to the next size, at last to one that the limit cannot exceed.
        let room = match wire.buffer.capacity() {
            buffer::SMALL if wire.buffer.is_full() => buffer::LARGE,
            buffer::LARGE if wire.buffer.is_full() => limits.max_head_bytes + buffer::SMALL,
            size => size.max(buffer::SMALL),
        };
        match wire.poll_fill(cx, room) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Ok(Read::End)),
            // Who has not said anything, not even a piece of a record, is not waited for with a buffer.
            Poll::Pending if wire.buffer.is_empty() && !wire.is_mid_record() => {
                return Poll::Ready(Ok(Read::Nothing));
            }
            Poll::Pending => return Poll::Pending,
        }
    }
}

const fn reason(error: ParseError) -> Reason {
    match error.status() {
        414 => Reason::UriTooLong,
        431 => Reason::HeadTooLarge,
        501 => Reason::NotImplemented,
        505 => Reason::VersionNotSupported,
        _ => Reason::BadRequest,
    }
}

/// Ends our side and throws away what still comes: a close with bytes unread would be a reset, and could take the
/// response from the client before it is read (RFC 9112 §9.6).
async fn linger(mut wire: Wire, timer: &Timer) {
    timer.set(Some(LINGER));
    let mut left = MAX_LINGER_BYTES;
    poll_fn(|cx| {
        if timer.expired() || wire.poll_shutdown(cx).map(|ended| ended.is_err()) == Poll::Ready(true) {
            return Poll::Ready(());
        }
        loop {
            let unread = wire.buffer.filled().len();
            wire.buffer.consume(unread);
            match wire.poll_fill(cx, buffer::SMALL) {
                Poll::Ready(Ok(count @ 1..)) if count < left => left -= count,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// A connection and the request that it is at.
#[derive(Debug)]
struct Connection {
    wire: Wire,
    /// Bytes of the request head that are still in the buffer.
    head_len: usize,
    /// Where the response begins in what is sent.
    opened: u64,
    method: Method,
    version: Version,
    next: Next,
}

impl Connection {
    /// Takes up the request whose head was parsed.
    fn begin(&mut self, job: &mut Job<'_>, view: &View) {
        let Exchange { parsed_request: parsed, request, id, method, .. } = &mut *job.exchange;
        let wire = self.wire.buffer.filled();
        let trusted = view.listener.http.trusts(job.asked.peer);
        let given = heads::fill_request(parsed, trusted, request);
        id.clear();
        match given.and_then(|given| identity::sane_id(given.of(wire))) {
            Some(given) => id.push_str(given),
            None => job.worker.ids.next(id),
        }
        if job.worker.log.enabled() {
            method.clear();
            method.push_str(&String::from_utf8_lossy(parsed.method_span.of(wire)));
        }
        // A client that would like h2c keeps what it has: the upgrade is refused by ignoring it (RFC 9110 §7.8).
        let upgrade = parsed
            .upgrade
            .filter(|protocol| !list(protocol.of(wire)).any(|name| name.eq_ignore_ascii_case(b"h2c")))
            .map(|span| Text::wire(span.start() as u32, span.len() as u32));
        let asked = &mut job.asked;
        (asked.method, asked.framing) = (parsed.method, parsed.framing);
        (asked.trailers, asked.upgrade, asked.trusted) = (parsed.accepts_trailers, upgrade, trusted);
        self.method = parsed.method;
        self.version = parsed.version;
        self.head_len = parsed.len;
        self.wire.expect_body(parsed.framing);
        self.next = if parsed.keep_alive { Next::Serve } else { Next::Close };
    }
}

impl Client for Connection {
    fn head_bytes(&self) -> &[u8] {
        self.wire.buffer.filled()
    }

    fn release_head(&mut self) {
        self.wire.buffer.consume(self.head_len);
        self.head_len = 0;
    }

    fn interim(&mut self, head: &Head<'_>) -> Result<(), Unsendable> {
        // RFC 9110 §15.2: not to a client that speaks 1.0.
        if self.version == Version::Http10 {
            return Ok(());
        }
        let reply = Reply { announce: Framing::None, connection: None, upgrade: None };
        heads::write_response(head, reply, self.wire.gather()).map_err(|_| Unsendable)
    }

    fn open(&mut self, head: &Head<'_>, opening: Opening<'_>) -> Result<(), Unsendable> {
        let status = head.status();
        let announced = announce(self.method, status, self.version, opening.length);
        if opening.after == After::Close && self.next == Next::Serve {
            self.next = Next::Linger;
        }
        if announced == Framing::UntilClose {
            self.next = Next::Close;
        }
        let connection: Option<&[u8]> = match (opening.upgrade, self.next, self.version) {
            (Some(_), ..) => Some(b"upgrade"),
            (None, Next::Serve, Version::Http11) => None,
            (None, Next::Serve, Version::Http10) => Some(b"keep-alive"),
            (None, ..) => Some(b"close"),
        };
        let reply = Reply { announce: announced, connection, upgrade: opening.upgrade };
        self.opened = self.wire.position();
        if heads::write_response(head, reply, self.wire.gather()).is_err() {
            self.wire.retract(self.opened);
            return Err(Unsendable);
        }
        self.wire.announce_body(if has_body(self.method, status) { announced } else { Framing::None });
        Ok(())
    }

    fn retract(&mut self) -> bool {
        self.wire.retract(self.opened)
    }

    fn become_tunnel(&mut self) {
        self.next = Next::Close;
        self.wire.expect_body(Framing::UntilClose);
        self.wire.announce_body(Framing::UntilClose);
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wire.poll_shutdown(cx).map(drop)
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        // Pipelined requests wait in the buffer; once it is full no more of them are read until they are served.
        while !self.wire.buffer.is_full() || self.wire.buffer.is_empty() {
            match self.wire.poll_fill(cx, buffer::SMALL) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Gone::HalfClosed),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(Gone::Dead),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.wire.poll_ended(cx).map(|()| Gone::HalfClosed)
    }

    fn abort(&mut self) {
        self.next = Next::Close;
        self.wire.reset();
    }

    fn progress(&self) -> u64 {
        self.wire.progress()
    }

    fn take_counts(&mut self) -> (u64, u64) {
        self.wire.take_counts()
    }
}

impl Source for Connection {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        self.wire.poll_step(cx)
    }

    fn data(&self) -> &[u8] {
        self.wire.data()
    }

    fn consume(&mut self, count: usize) {
        Source::consume(&mut self.wire, count);
    }

    fn trailers(&self) -> &[u8] {
        Source::trailers(&self.wire)
    }
}

impl Sink for Connection {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.wire.poll_send(cx, data)
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.wire.end(trailers)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }
}
