//! The socket under a connection, as the reactor knows it: reads and writes go to the system straight, and the reactor
//! is only asked to wake the task once the system has nothing more to give or to take.
//!
//! That saves most of what a runtime's own read and write cost, which register first and try then. What they do besides
//! stays: a call that did less than it was asked to ends the readiness without asking the system again to hear so, and
//! every read takes from the task's budget, so that one connection cannot keep a worker to itself.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncWrite as _, Interest};
use tokio::net::TcpStream;
use tokio::task::coop;

use crate::buffer::Buffer;

/// A connected socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    /// There may be something to read that the reactor does not know of any more: the next read does not wait for it.
    untold: bool,
}

impl Socket {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Socket { stream, untold: false }
    }

    /// Nothing was seen on it since it was last read from: no end, no bytes that nobody asked for. Asks the system
    /// only when the reactor has seen something.
    pub(crate) fn is_quiet(&self) -> bool {
        // Readiness is also left over when a read filled its buffer exactly.
        let look = || (&*SockRef::from(&self.stream)).read(&mut [0]);
        matches!(self.stream.try_io(Interest::READABLE, look), Err(error) if would_block(&error))
    }

    /// Waits until there is something to read.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.untold { Poll::Ready(Ok(())) } else { self.stream.poll_read_ready(cx) }
    }

    /// Notices that the other side is done, or the connection broken, without reading what it said before.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.stream.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        // That there is more to read is no news: forgotten, so that news wake this task. An end is never forgotten.
        self.untold = true;
        let nothing_read = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _forgotten = self.stream.try_io(Interest::READABLE, nothing_read);
        self.stream.poll_read_ready(cx).map(drop)
    }

    /// Reads once, whatever fits into the buffer, which gets at least `room` bytes in size as soon as there is
    /// something to read; 0: the other side is done.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        self.poll_read_by(cx, |mut socket| {
            if buffer.capacity() < room || buffer.is_full() {
                buffer.make_room(room);
            }
            let spare = buffer.spare();
            debug_assert!(!spare.is_empty(), "the caller bounds what it lets pile up");
            let asked = spare.len();
            let count = socket.read(spare)?;
            buffer.advance(count);
            Ok((count, asked))
        })
    }

    /// The same into memory of somebody else's.
    pub(super) fn poll_read_into(&mut self, cx: &mut Context<'_>, out: &mut [u8]) -> Poll<io::Result<usize>> {
        self.poll_read_by(cx, |mut socket| Ok((socket.read(out)?, out.len())))
    }

    /// Reads by a call that says how much it read of what it asked for.
    #[inline]
    fn poll_read_by(
        &mut self,
        cx: &mut Context<'_>,
        mut read: impl FnMut(&socket2::Socket) -> io::Result<(usize, usize)>,
    ) -> Poll<io::Result<usize>> {
        let budget = ready!(coop::poll_proceed(cx));
        let stream = &self.stream;
        let mut fill = || read(&SockRef::from(stream));
        loop {
            let read = if self.untold {
                let read = fill();
                self.untold = matches!(read, Ok((count, asked)) if count == asked);
                unless_blocked(read.map(|(count, _)| count))
            } else {
                attempt(stream, Interest::READABLE, &mut fill)
            };
            if let Some(count) = read? {
                budget.made_progress();
                return Poll::Ready(Ok(count));
            }
            ready!(stream.poll_read_ready(cx))?;
        }
    }

    /// Writes once, as much as the system takes, not none.
    pub(crate) fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut write = || {
            let mut socket = &*SockRef::from(&self.stream);
            let count = match parts {
                [one] => socket.write(one)?,
                many => socket.write_vectored(many)?,
            };
            Ok((count, parts.iter().map(|part| part.len()).sum()))
        };
        loop {
            match attempt(&self.stream, Interest::WRITABLE, &mut write)? {
                Some(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(count) => return Poll::Ready(Ok(count)),
                None => ready!(self.stream.poll_write_ready(cx))?,
            }
        }
    }

    /// Writes what the system takes at once.
    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.try_write(bytes)
    }

    #[cfg(test)]
    pub(super) fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.stream.local_addr()
    }

    /// Says that nothing more will be sent.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Closes so that the other side cannot take what it got for the whole: a reset.
    pub(crate) fn reset(&self) {
        // At worst it is closed in the ordinary way.
        let _ordinary_close = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
    }
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
