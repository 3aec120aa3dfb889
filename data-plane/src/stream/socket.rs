//! The socket under a connection, as the reactor knows it: reads and writes go to the system straight, and the reactor
//! is only asked to wake the task once the system has nothing more to give or to take.
//!
//! That saves most of what a runtime's own read and write cost, which register first and try then. What they do besides
//! stays: a call that did less than it was asked to ends the readiness without asking the system again to hear so, and
//! every read takes from the task's budget, so that one connection cannot keep a worker to itself.
//!
//! A socket that was just accepted is not even registered until it has to be waited for: a client that sends one request
//! and goes costs the reactor nothing, and two system calls less.
//!
//! The calls are rustix's, which go past the C library: that makes each one a place where a thread may be cancelled,
//! which no thread here ever is.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, sockopt};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::coop;

use crate::buffer::Buffer;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    link: Link,
    /// There may be something to read that the reactor does not know of (any more): the next read does not wait for it.
    untold: bool,
}

#[derive(Debug)]
enum Link {
    /// The reactor does not know it.
    Fresh(std::net::TcpStream),
    Known(TcpStream),
    /// It could not be registered: that was told, and the connection is over.
    Lost,
}

impl Socket {
    /// One that the reactor knows.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Socket { link: Link::Known(stream), untold: false }
    }

    /// One that was accepted, in nonblocking mode: most likely its first words are already there.
    pub(crate) fn accepted(stream: std::net::TcpStream) -> Self {
        Socket { link: Link::Fresh(stream), untold: true }
    }

    /// As the reactor knows it: registered, if need be.
    #[inline]
    fn known(&mut self) -> io::Result<&TcpStream> {
        if !matches!(self.link, Link::Known(_)) {
            self.register()?;
        }
        match &self.link {
            Link::Known(stream) => Ok(stream),
            Link::Fresh(_) | Link::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    #[cold]
    fn register(&mut self) -> io::Result<()> {
        if let Link::Fresh(_) = &self.link
            && let Link::Fresh(stream) = std::mem::replace(&mut self.link, Link::Lost)
        {
            self.link = Link::Known(TcpStream::from_std(stream)?);
        }
        Ok(())
    }

    /// Nothing was seen on it since it was last read from: no end, no bytes that nobody asked for. Asks the system
    /// only when the reactor has seen something.
    pub(crate) fn is_quiet(&self) -> bool {
        let Link::Known(stream) = &self.link else { return false };
        // Readiness is also left over when a read filled its buffer exactly.
        let look = || receive(stream.as_fd(), &mut [0]);
        matches!(stream.try_io(Interest::READABLE, look), Err(error) if would_block(&error))
    }

    /// The reactor has told of something to read. Asks nobody.
    #[inline]
    pub(crate) fn is_told(&self) -> bool {
        match &self.link {
            Link::Known(stream) => stream.try_io(Interest::READABLE, || Ok(())).is_ok(),
            Link::Fresh(_) | Link::Lost => false,
        }
    }

    /// Waits until there is something to read.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.untold { Poll::Ready(Ok(())) } else { self.known()?.poll_read_ready(cx) }
    }

    /// Notices that the other side is done, or the connection broken, without reading what it said before.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(stream) = self.known() else { return Poll::Ready(()) };
        if stream.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        // That there is more to read is no news: forgotten, so that news wake this task. An end is never forgotten.
        let nothing_read = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _forgotten = stream.try_io(Interest::READABLE, nothing_read);
        let ended = stream.poll_read_ready(cx).map(drop);
        self.untold = true;
        ended
    }

    /// Reads once, whatever fits into the buffer, which gets at least `room` bytes in size as soon as there is
    /// something to read; 0: the other side is done.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_by(cx, |socket| {
            if buffer.capacity() < room || buffer.is_full() {
                buffer.make_room(room);
            }
            let spare = buffer.spare();
            debug_assert!(!spare.is_empty(), "the caller bounds what it lets pile up");
            let asked = spare.len();
            let count = receive(socket, spare)?;
            buffer.advance(count);
            Ok((count, asked))
        })
    }

    /// The same into memory of somebody else's.
    pub(super) fn poll_read_into(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_by(cx, |socket| Ok((receive(socket, out)?, out.len())))
    }

    /// Reads by a call that says how much it read of what it asked for.
    #[inline]
    fn poll_read_by(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(BorrowedFd<'_>) -> io::Result<(usize, usize)>,
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        loop {
            let read = if self.untold {
                let read = self.descriptor().and_then(&mut read);
                self.untold = matches!(read, Ok((count, asked)) if count == asked);
                unless_blocked(read.map(|(count, _)| count))
            } else {
                let stream = self.known()?;
                attempt(stream, Interest::READABLE, || read(stream.as_fd()))
            };
            if let Some(count) = read? {
                budget.made_progress();
                return Poll::Ready(Ok(count));
            }
            ready!(self.known()?.poll_read_ready(cx))?;
        }
    }

    /// Writes once, as much as the system takes, not none.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = |socket: BorrowedFd<'_>| {
            let count = match parts {
                [one] => send(socket, one)?,
                many => send_vectored(socket, many)?,
            };
            Ok((count, parts.iter().map(|part| part.len()).sum()))
        };
        loop {
            let written = match &self.link {
                Link::Known(stream) => attempt(stream, Interest::WRITABLE, || write(stream.as_fd())),
                _ => unless_blocked(self.descriptor().and_then(write).map(|(count, _)| count)),
            };
            match written? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(count) => return Poll::Ready(Ok(count)),
                None => ready!(self.known()?.poll_write_ready(cx))?,
            }
        }
    }

    /// Writes what the system takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        send(self.descriptor()?, bytes)
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        let address = rustix::net::getsockname(self.descriptor()?)?;
        address.try_into().map_err(|_not_ip| io::ErrorKind::Unsupported.into())
    }

    /// Says that nothing more will be sent.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.descriptor()?, Shutdown::Write)?)
    }

    /// Closes so that the other side cannot take what it got for the whole: a reset.
    pub(crate) fn reset(&self) {
        // At worst it is closed in the ordinary way.
        let set = |socket| Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?);
        let _ordinary_close = self.descriptor().and_then(set);
    }

    /// As the system knows it.
    fn descriptor(&self) -> io::Result<BorrowedFd<'_>> {
        match &self.link {
            Link::Fresh(stream) => Ok(stream.as_fd()),
            Link::Known(stream) => Ok(stream.as_fd()),
            Link::Lost => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

#[inline]
fn receive(socket: BorrowedFd<'_>, out: &mut [u8]) -> io::Result<usize> {
    let (count, _of_the_message) = rustix::net::recv(socket, out, RecvFlags::empty())?;
    Ok(count)
}

#[inline]
fn send(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

#[inline]
fn send_vectored(socket: BorrowedFd<'_>, parts: &[IoSlice<'_>]) -> io::Result<usize> {
    let nothing_beside = &mut SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(socket, parts, nothing_beside, SendFlags::NOSIGNAL)?)
}

/// Makes a system call that says how much it did of what it was asked, unless the reactor knows that it would block.
/// `None`: it would.
fn attempt(
    stream: &TcpStream,
    interest: Interest,
    mut call: impl FnMut() -> io::Result<(usize, usize)>,
) -> io::Result<Option<usize>> {
    let mut done = None;
    let outcome = stream.try_io(interest, || {
        let (count, asked) = call()?;
        done = Some(count);
        // Edge triggered: whatever comes now is told anew. An end (0) is not, and stays.
        if 0 < count && count < asked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match done {
        Some(count) => Ok(Some(count)),
        None => unless_blocked(outcome.map(|()| 0)),
    }
}

fn unless_blocked(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Err(error) if would_block(&error) => Ok(None),
        outcome => outcome.map(Some),
    }
}

fn would_block(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read as _, Write as _};
    use std::task::Waker;

    use super::*;
    use crate::buffer::{Pool, SMALL};

    /// A socket that was accepted after its client said this, and the client.
    fn accepted(said: &[u8]) -> (Socket, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mut theirs =
            std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        theirs.write_all(said).expect("sent");
        if !said.is_empty() {
            // Blocks until it is there.
            ours.peek(&mut [0]).expect("open");
        }
        ours.set_nonblocking(true).expect("a socket");
        (Socket::accepted(ours), theirs)
    }

    #[test]
    fn a_client_that_has_asked_is_answered_without_the_reactor() {
        // There is none: registering would panic.
        let (mut socket, mut theirs) = accepted(b"question");
        let mut buffer = Pool::new().none();
        let cx = &mut Context::from_waker(Waker::noop());
        assert!(socket.poll_readable(cx).is_ready());
        assert!(matches!(socket.poll_read(cx, &mut buffer, SMALL), Poll::Ready(Ok(8))));
        assert!(matches!(
            socket.poll_write(cx, &[IoSlice::new(b"ans"), IoSlice::new(b"wer")]),
            Poll::Ready(Ok(6))
        ));
        drop(socket);
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).expect("closed in order");
        assert_eq!(heard, "answer");
    }

    #[tokio::test]
    async fn a_client_that_has_not_asked_yet_or_asks_again_is_waited_for() {
        let (mut socket, mut theirs) = accepted(b"");
        let mut buffer = Pool::new().none();
        for said in [&b"first"[..], b"second"] {
            let waited = poll_fn(|cx| Poll::Ready(socket.poll_read(cx, &mut buffer, SMALL))).await;
            assert!(waited.is_pending());
            theirs.write_all(said).expect("sent");
            let read = poll_fn(|cx| socket.poll_read(cx, &mut buffer, SMALL)).await.expect("open");
            assert_eq!(buffer.filled(), said, "{read} bytes");
            buffer.consume(read);
        }
    }
}
