//! A client's HTTP/2 connection (by prior knowledge): hyper speaks the protocol, every stream becomes a task of its
//! own that goes the same way as an HTTP/1.1 request.
//!
//! The bytes that told the protocol are replayed to hyper. A connection without streams is closed gracefully after the
//! listener's idle timeout; one whose listener goes away gets a GOAWAY and finishes its streams.

mod pipe;
mod stream;

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::Response;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::spawn_local;

use crate::runtime::Worker;
use crate::server::listener::Door;
use crate::wheel::Timer;
use crate::wire::Wire;
use pipe::Outgoing;

/// Serves a connection whose preface is in the wire's buffer.
pub(super) async fn serve(worker: &Rc<Worker>, door: &Rc<Door>, wire: Wire, peer: SocketAddr, timer: Timer) {
    let Some(view) = door.view(worker) else { return };
    let http = &view.listener.http;
    let idle = Some(http.idle_timeout).filter(|timeout| !timeout.is_zero());
    let mut builder = hyper::server::conn::http2::Builder::new(OnThisThread);
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(http.max_concurrent_streams)
        .max_header_list_size(http.max_header_bytes);
    drop(view);
    let replayed = wire.buffer.filled().to_vec();
    let io = TokioIo::new(Replay { replayed, at: 0, stream: wire.into_stream() });
    let streams = Rc::new(Cell::new(0_usize));
    let service = service_fn(|request| {
        let (head, answer) = oneshot::channel();
        let open = Open::new(&streams);
        spawn_local(stream::serve(Rc::clone(worker), Rc::clone(door), request, peer, head, open));
        respond(answer)
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut leaving = false;
    timer.set(idle);
    // An error is the client's: it broke the protocol or went away.
    let _clients_fault = poll_fn(|cx| {
        if !leaving && (door.is_leaving(worker) || (timer.expired() && streams.get() == 0)) {
            leaving = true;
            connection.as_mut().graceful_shutdown();
        }
        let before = streams.get();
        let polled = connection.as_mut().poll(cx);
        // Each sign of life begins the time anew.
        if before != streams.get() || streams.get() > 0 {
            timer.set(idle);
        }
        polled
    })
    .await;
}

/// The response that a stream's task begins. If it ends without one, the stream is reset.
async fn respond(answer: oneshot::Receiver<Response<Outgoing>>) -> Result<Response<Outgoing>, io::Error> {
    answer.await.map_err(|_gone| io::ErrorKind::ConnectionAborted.into())
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
    stream: TcpStream,
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
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl AsyncWrite for Replay {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
