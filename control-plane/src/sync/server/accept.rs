//! Accepts the stream port's connections, at most so many at a time: beyond that they wait in the kernel's queue.
//! A data plane needs one; what opens more than that is no data plane of ours. One that opens no stream in time is
//! cut, so that silent connections do not keep the places of those that have something to say; how many may try at a
//! time, `strangers.rs` says.
//!
//! Where clear text is allowed, the first byte tells whether a client speaks TLS: one port takes both. Whose
//! certificate a client shows is read here, once; what it may do with it is for the stream to say.

use std::future::Future as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use prometheus::IntCounter;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::either::Either;
use tonic::transport::server::Connected;

use super::strangers::{Stranger, Strangers};
use super::{Gate, MAX_STREAMS};
use crate::identity::Peer;

/// Connections at the same time: a second one a data plane while it moves.
const MAX_CONNECTIONS: usize = MAX_STREAMS + MAX_STREAMS / 4;
/// Wait after the socket refused to accept (no file descriptors left).
const PAUSE: Duration = Duration::from_millis(100);

/// Time to open a stream, TLS handshake included.
const OPEN: Duration = Duration::from_secs(10);

/// Connections that are ready and not yet taken over.
const READY: usize = 16;
/// First byte of a TLS client.
const HANDSHAKE: u8 = 22;

/// A connection and its place among them.
pub(super) struct Placed {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    opening: Opening,
    /// When it is cut, and its place among those who have not opened a stream; `None` once one was opened.
    due: Option<(Pin<Box<Sleep>>, Stranger)>,
    _place: OwnedSemaphorePermit,
}

/// What a stream needs to know of its connection.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// The other end.
    from: SocketAddr,
    /// Whose certificate it showed.
    peer: Option<Arc<Peer>>,
    opened: Arc<AtomicBool>,
}

impl Opening {
    /// Tells the connection that it carries a stream.
    pub(super) fn opened(&self) {
        self.opened.store(true, Ordering::Relaxed);
    }

    /// The address of its other end.
    pub(super) const fn from(&self) -> SocketAddr {
        self.from
    }

    /// Whose certificate it showed.
    pub(super) fn peer(&self) -> Option<Arc<Peer>> {
        self.peer.clone()
    }
}

impl Placed {
    fn new(
        stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
        from: SocketAddr,
        peer: Option<Arc<Peer>>,
        due: (Instant, Stranger),
        place: OwnedSemaphorePermit,
    ) -> Self {
        let opening = Opening { from, peer, opened: Arc::default() };
        let (due, stranger) = due;
        Placed { stream, opening, due: Some((Box::pin(sleep_until(due)), stranger)), _place: place }
    }

    /// Ready when no stream was opened in time.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some((due, _)) = &mut self.due else { return Poll::Pending };
        if self.opening.opened.load(Ordering::Relaxed) {
            self.due = None;
            return Poll::Pending;
        }
        due.as_mut().poll(cx)
    }
}

/// Connections as they come and as there is room, their handshakes done.
pub(super) fn places(
    listener: TcpListener,
    gate: Arc<Gate>,
    turned_away: IntCounter,
) -> ReceiverStream<io::Result<Placed>> {
    let (ready, incoming) = mpsc::channel(READY);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, &gate, &ready, &turned_away) => {}
            () = ready.closed() => {}
        }
    });
    ReceiverStream::new(incoming)
}

async fn accept(
    listener: TcpListener,
    gate: &Arc<Gate>,
    ready: &mpsc::Sender<io::Result<Placed>>,
    turned_away: &IntCounter,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let strangers = Strangers::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let (stream, from) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of the stream");
                sleep(PAUSE).await;
                continue;
            }
        };
        let Some(stranger) = strangers.admit(from) else {
            turned_away.inc();
            continue;
        };
        // Only latency is lost without it.
        let _ = stream.set_nodelay(true);
        let (gate, ready) = (Arc::clone(gate), ready.clone());
        tokio::spawn(async move {
            let due = Instant::now() + OPEN;
            match timeout_at(due, greet(stream, &gate)).await {
                Ok(Ok((stream, peer))) => {
                    // The server has ended when nobody takes it.
                    let _ = ready.send(Ok(Placed::new(stream, from, peer, (due, stranger), place))).await;
                }
                Ok(Err(error)) => gate.handshake_failed(from, &error),
                Err(_) => tracing::debug!(%from, "a handshake of the stream took too long"),
            }
        });
    }
}

type Greeted = (Either<TcpStream, Box<TlsStream<TcpStream>>>, Option<Arc<Peer>>);

async fn greet(stream: TcpStream, gate: &Gate) -> io::Result<Greeted> {
    let mut first = [0];
    if gate.takes_clear_text() && stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE {
        return Ok((Either::Left(stream), None));
    }
    // Whose certificate it is, is for what checked its signature to say: roots may change meanwhile.
    let trust = gate.trust();
    let stream = TlsAcceptor::from(trust.tls()).accept(stream).await?;
    let shown = stream.get_ref().1.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
    let peer = match shown {
        None => None,
        Some(certificate) => {
            let peer = trust.peer(certificate);
            let unread = || io::Error::new(io::ErrorKind::InvalidData, "the certificate cannot be read");
            Some(Arc::new(peer.ok_or_else(unread)?))
        }
    };
    Ok((Either::Right(Box::new(stream)), peer))
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
        let (stream, from) = listener.accept().await.expect("accepted");
        let places = Arc::new(Semaphore::new(1));
        let place = Arc::clone(&places).acquire_owned().await.expect("a place");
        let due = Instant::now() + Duration::from_millis(20);
        let strangers = Strangers::new();
        let stranger = || strangers.admit(from).expect("room");
        let mut placed = Placed::new(Either::Left(stream), from, None, (due, stranger()), place);
        let mut byte = [0];
        let cut = placed.read(&mut byte).await.expect_err("nothing was opened");
        assert_eq!(cut.kind(), io::ErrorKind::TimedOut);
        let Placed { stream, _place, .. } = placed;
        let mut placed = Placed::new(stream, from, None, (Instant::now(), stranger()), _place);
        placed.connect_info().opened();
        assert_eq!(placed.connect_info().from(), from);
        client.write_all(b"x").await.expect("sent");
        placed.read_exact(&mut byte).await.expect("long after its time");
        assert!(placed.due.is_none(), "it is no stranger any more");
    }
}
