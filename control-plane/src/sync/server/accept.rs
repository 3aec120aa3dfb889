//! Accepts the stream port's connections, at most so many at a time: beyond that they wait in the kernel's queue.
//! A data plane needs one; what opens more than that is no data plane of ours. One that opens no stream in time is
//! cut, so that silent connections do not keep the places of those that have something to say.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{Stream, unfold};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tonic::transport::server::Connected;

use super::MAX_STREAMS;

/// Connections at the same time: a second one a data plane while it moves.
const MAX_CONNECTIONS: usize = MAX_STREAMS + MAX_STREAMS / 4;
/// Wait after the socket refused to accept (no file descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// Time to open a stream, TLS handshake included.
const OPEN: Duration = Duration::from_secs(10);

/// A connection and its place among them.
pub(super) struct Placed {
    stream: TcpStream,
    opening: Opening,
    /// When it is cut; `None` once a stream was opened.
    due: Option<Pin<Box<Sleep>>>,
    _place: OwnedSemaphorePermit,
}

/// What a stream needs to know of its connection.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// The other end.
    peer: Option<SocketAddr>,
    opened: Arc<AtomicBool>,
}

impl Opening {
    /// Tells the connection that it carries a stream; the address of its other end.
    pub(super) fn opened(&self) -> Option<SocketAddr> {
        self.opened.store(true, Ordering::Relaxed);
        self.peer
    }
}

impl Placed {
    fn new(stream: TcpStream, peer: SocketAddr, time: Duration, place: OwnedSemaphorePermit) -> Self {
        let opening = Opening { peer: Some(peer), opened: Arc::default() };
        Placed { stream, opening, due: Some(Box::pin(sleep(time))), _place: place }
    }

    /// Ready when no stream was opened in time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = &mut self.due else { return Poll::Pending };
        if self.opening.opened.load(Ordering::Relaxed) {
            self.due = None;
            return Poll::Pending;
        }
        due.as_mut().poll(cx)
    }
}

/// Connections as they come and as there is room.
pub(super) fn places(listener: TcpListener) -> impl Stream<Item = io::Result<Placed>> {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    unfold((listener, places), |(listener, places)| async move {
        loop {
            let place = Arc::clone(&places).acquire_owned().await.ok()?;
            match listener.accept().await {
                Ok((stream, peer)) => {
                    // Only latency is lost without it.
                    let _ = stream.set_nodelay(true);
                    return Some((Ok(Placed::new(stream, peer, OPEN, place)), (listener, places)));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection of the stream");
                    sleep(PAUSE).await;
                }
            }
        }
    })
}

impl Connected for Placed {
    type ConnectInfo = Opening;

    fn connect_info(&self) -> Opening {
        self.opening.clone()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_late(cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "no stream was opened in time")));
        }
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_connection_that_opens_no_stream_in_time_is_cut_and_one_that_does_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connects");
        let (stream, peer) = listener.accept().await.expect("accepted");
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("a place");
        let mut placed = Placed::new(stream, peer, Duration::from_millis(20), place);
        let mut byte = [0];
        let cut = placed.read(&mut byte).await.expect_err("nothing was opened");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        let Placed { stream, _place, .. } = placed;
        let mut placed = Placed::new(stream, peer, Duration::ZERO, _place);
        assert_eq!(placed.connect_info().opened(), Some(peer));
        client.write_all(b"x").await.expect("sent");
        placed.read_exact(&mut byte).await.expect("long after its time");
    }
}
