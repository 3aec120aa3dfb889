//! A client's HTTP/2 connection (agreed on by TLS, or by prior knowledge): hyper speaks the protocol, every stream
//! goes the same way as an HTTP/1.1 request.
//!
//! The bytes that told the protocol are replayed to hyper. A connection without streams is closed gracefully after the
//! listener's idle timeout, before its first one after the header timeout; one whose listener goes away gets a GOAWAY
//! and finishes its streams. Whoever does not answer a GOAWAY is left without an answer too.

mod pipe;
mod serving;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use gateway_engine::context::Scheme;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use crate::runtime::Worker;
use crate::server::listener::Door;
use crate::stream::Stream;
use crate::wheel::Timer;
use crate::wire::Wire;
use serving::{Answer, Serving};

/// How long a connection that was told to end, and has no streams, may go without a byte being sent on it. Its client
/// says that it has understood, or reads the end of its last response.
const GRACE: Duration = Duration::from_secs(1);
/// Times that it is given that long.
const MAX_GRACES: u32 = 30;

/// Serves a connection whose preface is in the wire's buffer.
pub(super) async fn serve(worker: &Rc<Worker>, door: &Rc<Door>, wire: Wire, peer: SocketAddr, timer: Timer) {
    let caller = Caller { ip: peer.ip(), scheme: wire.scheme() };
    let Some(view) = door.view(worker) else { return };
    let http = &view.listener.http;
    let [idle, first] =
        [http.idle_timeout, http.header_timeout].map(|timeout| Some(timeout).filter(|it| !it.is_zero()));
    let mut builder = hyper::server::conn::http2::Builder::new(OnThisThread);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(http.max_concurrent_streams)
        .max_header_list_size(http.max_header_bytes);
    drop(view);
    let replayed = wire.buffer.filled().to_vec();
    let written = Rc::new(Cell::new(0_u64));
    let stream = wire.into_stream();
    let io = TokioIo::new(Replay { replayed, at: 0, stream, written: Rc::clone(&written) });
    let streams = Rc::new(Cell::new(0_usize));
    let service = service_fn(|request| {
        let (answer, timer) = (Rc::<Answer>::default(), Rc::new(worker.wheel.timer(Waker::noop())));
        let stream = Opened {
            caller,
            answer: Rc::clone(&answer),
            timer: Rc::clone(&timer),
            count: Open::new(&streams),
        };
        let work = stream::serve(Rc::clone(worker), Rc::clone(door), request, stream);
        Serving::new(work, answer, timer)
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut leaving: Option<Leave> = None;
    timer.set([idle, first].into_iter().flatten().min());
    // An error is the client's: it broke the protocol or went away.
    let _clients_fault = poll_fn(|cx| {
        let over = timer.expired() && streams.get() == 0;
        match &mut leaving {
            Some(leave) if over => {
                if !leave.may_stay(written.get()) {
                    return Poll::Ready(Ok(()));
                }
                timer.set(Some(GRACE));
            }
            None if over || door.is_leaving(worker) => {
                leaving = Some(Leave::default());
                connection.as_mut().graceful_shutdown();
                timer.set(Some(GRACE));
            }
            _ => {}
        }
        let before = streams.get();
        let polled = connection.as_mut().poll(cx);
        // Each sign of life begins the time anew.
        if before != streams.get() || streams.get() > 0 {
            timer.set(if leaving.is_some() { Some(GRACE) } else { idle });
        }
        polled
    })
    .await;
}

/// Who is at the other end, and what it spoke.
#[derive(Clone, Copy, Debug)]
struct Caller {
    ip: IpAddr,
    scheme: Scheme,
}

/// A connection that was told to end.
#[derive(Debug, Default)]
struct Leave {
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
    caller: Caller,
    answer: Rc<Answer>,
    timer: Rc<Timer>,
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

/// Runs hyper's tasks on this worker.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future + 'static> hyper::rt::Executor<F> for OnThisThread {
    fn execute(&self, task: F) {
        spawn_local(async {
            task.await;
        });
    }
}

/// A connection that gives what was already read once more.
#[derive(Debug)]
struct Replay {
    replayed: Vec<u8>,
    at: usize,
    stream: Stream,
    /// Bytes sent.
    written: Rc<Cell<u64>>,
}

impl Replay {
    fn note(&self, outcome: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(count)) = outcome {
            self.written.set(self.written.get() + *count as u64);
        }
    }
}

impl AsyncRead for Replay {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.at < self.replayed.len() {
            let count = out.remaining().min(self.replayed.len() - self.at);
            out.put_slice(&self.replayed[self.at..self.at + count]);
            self.at += count;
            if self.at == self.replayed.len() {
                (self.replayed, self.at) = (Vec::new(), 0);
            }
            return Poll::Ready(Ok(()));
        }
        AsyncRead::poll_read(Pin::new(&mut self.stream), cx, out)
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes);
        self.note(&outcome);
        outcome
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(&outcome);
        outcome
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}
