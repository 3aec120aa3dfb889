//! What an HTTP/2 connection reads from and writes to. Frames are gathered, so that all that one turn of the connection
//! has to say leaves in one send and, under TLS, in one record; large data is written from where it lies.
//!
//! Invariant: whoever polls the connection calls [`Transport::poll_send`] after it, in the same turn. That is why
//! flushing is nothing here.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::{self, Buffer};
use crate::stream::Stream;

/// A handle of it: one is h2's, one belongs to whoever drives the connection.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    ends: RefCell<Ends>,
    received: Rc<Cell<u64>>,
    sent: Cell<u64>,
}

#[derive(Debug)]
struct Ends {
    stream: Stream,
    /// Read before it was known to be HTTP/2.
    replayed: Buffer,
    /// Written and not yet sent.
    gathered: Buffer,
    /// Sending failed: h2 hears of it when it reads or writes next.
    failed: Option<io::ErrorKind>,
}

impl Transport {
    /// Over a connection from which `replayed` was read already; `gathered` has no memory yet.
    pub(crate) fn new(stream: Stream, replayed: Buffer, gathered: Buffer) -> Self {
        let ends = Ends { stream, replayed, gathered, failed: None };
        Transport(Rc::new(Inner { ends: RefCell::new(ends), received: Rc::default(), sent: Cell::new(0) }))
    }

    /// Counts the bytes that are received.
    pub(crate) fn received(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.0.received)
    }

    /// Bytes sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.0.sent.get()
    }

    /// Sends what was gathered.
    pub(crate) fn poll_send(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut ends = self.0.ends.borrow_mut();
        match ready!(ends.poll_send(cx, &self.0.sent)) {
            Ok(()) => Poll::Ready(()),
            Err(error) => {
                ends.failed = Some(error.kind());
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    /// Ends it in good order, as far as that takes no waiting.
    pub(crate) fn close(self) {
        if let Some(inner) = Rc::into_inner(self.0) {
            inner.ends.into_inner().stream.close();
        }
    }

    /// Drives a connection, or its beginning, to its end.
    pub(crate) async fn drive<F: Future>(&self, work: F) -> F::Output {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            let _goes_on = self.poll_send(cx);
            polled
        })
        .await
    }
}

impl Ends {
    fn check(&self) -> io::Result<()> {
        self.failed.map_or(Ok(()), |kind| Err(kind.into()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, sent: &Cell<u64>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let count = ready!(self.stream.poll_write(cx, &[IoSlice::new(self.gathered.filled())]))?;
            self.gathered.consume(count);
            sent.set(sent.get() + count as u64);
        }
        if self.gathered.capacity() > 0 {
            self.gathered.release();
        }
        self.stream.poll_flush(cx)
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
        sent: &Cell<u64>,
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        if self.gathered.capacity() == 0 {
            self.gathered.make_room(buffer::SMALL);
        }
        let total: usize = pieces.iter().map(|piece| piece.len()).sum();
        loop {
            if self.gathered.spare().len() >= total {
                for piece in pieces {
                    self.gathered.spare()[..piece.len()].copy_from_slice(piece);
                    self.gathered.advance(piece.len());
                }
                return Poll::Ready(Ok(total));
            }
            let gathered = self.gathered.filled().len();
            let mut slices = [IoSlice::new(&[]); 4];
            slices[0] = IoSlice::new(self.gathered.filled());
            let more = pieces.iter().filter(|piece| !piece.is_empty()).take(slices.len() - 1);
            let mut used = 1;
            for piece in more {
                slices[used] = IoSlice::new(piece);
                used += 1;
            }
            let from = usize::from(gathered == 0);
            let count = ready!(self.stream.poll_write(cx, &slices[from..used]))?;
            sent.set(sent.get() + count as u64);
            self.gathered.consume(count.min(gathered));
            if count > gathered {
                return Poll::Ready(Ok(count - gathered));
            }
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Ends { stream, replayed, failed, .. } = &mut *self.0.ends.borrow_mut();
        if let Some(kind) = *failed {
            return Poll::Ready(Err(kind.into()));
        }
        let before = out.filled().len();
        if replayed.is_empty() {
            ready!(Pin::new(stream).poll_read(cx, out))?;
        } else {
            let count = out.remaining().min(replayed.filled().len());
            out.put_slice(&replayed.filled()[..count]);
            replayed.consume(count);
            if replayed.is_empty() {
                replayed.release();
            }
        }
        let count = out.filled().len() - before;
        self.0.received.set(self.0.received.get() + count as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.ends.borrow_mut().poll_write(cx, pieces, &self.0.sent)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut ends = self.0.ends.borrow_mut();
        ready!(ends.poll_send(cx, &self.0.sent))?;
        ends.stream.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::buffer::Pool;

    /// Our end with `replayed` read already, and the other side's.
    fn connected(replayed: &[u8]) -> (Transport, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let theirs = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        ours.set_nonblocking(true).expect("a socket");
        let ours = tokio::net::TcpStream::from_std(ours).expect("registered");
        let pool = Pool::new();
        let mut before = pool.take(buffer::SMALL);
        before.spare()[..replayed.len()].copy_from_slice(replayed);
        before.advance(replayed.len());
        (Transport::new(ours.into(), before, pool.none()), theirs)
    }

    async fn write(transport: &mut Transport, pieces: &[&[u8]]) -> usize {
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        poll_fn(|cx| Pin::new(&mut *transport).poll_write_vectored(cx, &slices)).await.expect("taken")
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_in_one_send() {
        let (mut transport, mut theirs) = connected(b"");
        theirs.set_nonblocking(true).expect("a socket");
        for piece in [&b"a"[..], b"b", b"c"] {
            assert_eq!(write(&mut transport, &[piece, piece]).await, 2);
        }
        let mut got = [0; 10];
        assert!(theirs.read(&mut got).is_err(), "not before the end of the turn");
        poll_fn(|cx| transport.poll_send(cx)).await;
        theirs.set_nonblocking(false).expect("a socket");
        assert_eq!((theirs.read(&mut got).expect("sent"), &got[..6]), (6, &b"aabbcc"[..]));
        assert_eq!(transport.sent(), 6);
        assert_eq!(transport.0.ends.borrow().gathered.capacity(), 0, "no buffer while nothing waits");
    }

    #[tokio::test]
    async fn what_is_large_is_sent_behind_what_was_gathered() {
        let (mut transport, mut theirs) = connected(b"");
        assert_eq!(write(&mut transport, &[b"head"]).await, 4);
        let large = vec![b'x'; buffer::SMALL];
        let sent = write(&mut transport, &[&large]).await;
        poll_fn(|cx| transport.poll_send(cx)).await;
        let mut got = vec![0; 4 + sent];
        theirs.read_exact(&mut got).expect("sent");
        assert!(got.starts_with(b"headx") && sent > 0);
        assert_eq!(transport.sent(), got.len() as u64);
    }

    #[tokio::test]
    async fn what_was_read_before_is_read_first() {
        let (mut transport, _theirs) = connected(b"PRI");
        for expected in [&b"PR"[..], b"I"] {
            let mut got = [0; 2];
            let mut out = ReadBuf::new(&mut got);
            poll_fn(|cx| Pin::new(&mut transport).poll_read(cx, &mut out)).await.expect("there");
            assert_eq!(out.filled(), expected);
        }
        assert_eq!(transport.received().get(), 3);
    }
}
