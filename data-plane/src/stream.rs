//! What a connection runs over: a socket, bare or under TLS. [`crate::wire`] and HTTP/2 read and write through this and
//! need not know which it is.
//!
//! Invariant: nothing is copied or allocated for a bare socket.

pub(crate) mod socket;
pub(crate) mod tls;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use gateway_engine::context::Scheme;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::buffer::Buffer;
use socket::Socket;
use tls::Session;

/// A connection's bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As they are on the network.
    Plain(Socket),
    /// Under TLS. Boxed: what a session needs would make every connection large.
    Tls(Box<Session>),
}

impl Stream {
    /// What the other side spoke.
    pub(crate) const fn scheme(&self) -> Scheme {
        match self {
            Stream::Plain(_) => Scheme::Http,
            Stream::Tls(_) => Scheme::Https,
        }
    }

    /// A TLS record has begun to arrive: nothing can be read of it yet.
    pub(crate) fn is_mid_record(&self) -> bool {
        match self {
            Stream::Plain(_) => false,
            Stream::Tls(session) => session.is_mid_record(),
        }
    }

    /// Nothing was seen on it since it was last read from: no end, no bytes that nobody asked for.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.is_quiet(),
            Stream::Tls(session) => session.is_quiet(),
        }
    }

    /// There may be something to read, as far as the reactor has told of it.
    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        match self {
            Stream::Plain(socket) => socket.is_told(),
            // What is read of it may be of no use: polling knows.
            Stream::Tls(_) => false,
        }
    }

    /// Waits until there may be something to read.
    #[inline]
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => socket.poll_readable(cx),
            Stream::Tls(session) => session.poll_readable(cx),
        }
    }

    /// Notices that the other side is done, or the connection broken, while nobody reads.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Stream::Plain(socket) => socket.poll_ended(cx),
            Stream::Tls(session) => session.poll_ended(cx),
        }
    }

    /// Reads once, whatever fits into the buffer, which gets at least `room` bytes in size as soon as there is
    /// something to read; 0: the other side is done.
    #[inline]
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => socket.poll_read(cx, buffer, room),
            Stream::Tls(session) => {
                if buffer.capacity() < room || buffer.is_full() {
                    ready!(session.poll_readable(cx))?;
                    buffer.make_room(room);
                }
                let count = ready!(session.poll_read(cx, &mut ReadBuf::new(buffer.spare())))?;
                buffer.advance(count);
                Poll::Ready(Ok(count))
            }
        }
    }

    /// Takes some of the bytes, not none. They are on their way when [`Stream::poll_flush`] says so.
    #[inline]
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self {
            Stream::Plain(socket) => socket.poll_write(cx, slices),
            Stream::Tls(session) => session.poll_write(cx, slices),
        }
    }

    /// Hands what was taken over to the system.
    #[inline]
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(session) => session.poll_flush(cx),
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Plain(socket) => Poll::Ready(socket.shutdown()),
            Stream::Tls(session) => session.poll_shutdown(cx),
        }
    }

    /// Ends it in good order, as far as that takes no waiting. What is dropped otherwise was cut: under TLS the other side
    /// can tell.
    pub(crate) fn close(self) {
        if let Stream::Tls(session) = self {
            session.close();
        }
    }

    /// Sees to it that dropping it is a reset: the other side cannot take what it got for the whole.
    pub(crate) fn reset(&mut self) {
        match self {
            Stream::Plain(socket) => socket.reset(),
            Stream::Tls(session) => session.reset(),
        }
    }
}

#[cfg(test)]
impl Stream {
    /// Our side's address.
    pub(crate) fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        match self {
            Stream::Plain(socket) => socket.local_addr(),
            Stream::Tls(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Stream::Plain(socket)
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Stream::Plain(Socket::new(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Stream::Plain(socket) => {
                let count = ready!(socket.poll_read_into(cx, out.initialize_unfilled()))?;
                out.advance(count);
                Poll::Ready(Ok(()))
            }
            Stream::Tls(session) => session.poll_read(cx, out).map_ok(drop),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Stream::poll_write(&mut self, cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_flush(&mut self, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Stream::poll_shutdown(&mut self, cx)
    }
}
