//! An in-memory connection for hyper, and a way to run its futures without a runtime: they are polled
//! as long as they wake themselves, so a test ends the moment nothing can happen any more.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use hyper::HeaderMap;
use hyper::rt::{Read, ReadBufCursor, Write};

use crate::ours::Fields;

/// What the peer sends, and when.
pub(crate) struct Wire<'a> {
    input: &'a [u8],
    /// Nothing can be read before something was written: a client's connection.
    answers: bool,
}

impl<'a> Wire<'a> {
    /// A client's bytes on a connection that stays open.
    pub(crate) fn to_server(input: &'a [u8]) -> Self {
        Self { input, answers: false }
    }

    /// A server's answer, after which the connection ends.
    pub(crate) fn to_client(input: &'a [u8]) -> Self {
        Self { input, answers: true }
    }
}

/// Shared by both directions of one connection.
pub(crate) struct Io {
    input: Vec<u8>,
    at: usize,
    answers: bool,
    written: bool,
    reader: Option<Waker>,
}

impl From<Wire<'_>> for Io {
    fn from(wire: Wire<'_>) -> Self {
        Self { input: wire.input.to_vec(), at: 0, answers: wire.answers, written: false, reader: None }
    }
}

impl Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.answers && !self.written {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let len = (self.input.len() - self.at).min(buf.remaining());
        if len == 0 && !self.answers {
            return Poll::Pending; // open, and nothing will come
        }
        buf.put_slice(&self.input[self.at..self.at + len]);
        self.at += len;
        Poll::Ready(Ok(()))
    }
}

impl Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.written = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Polls until the future is ready or nothing wakes it any more.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> Option<T> {
    let flag = Arc::new(Flag(AtomicBool::new(true)));
    let waker = Waker::from(flag.clone());
    let mut future = pin!(future);
    while flag.0.swap(false, Ordering::Relaxed) {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(value);
        }
    }
    None
}

/// hyper's fields in our shape.
pub(crate) fn fields(map: &HeaderMap) -> Fields {
    let mut fields = Fields::new();
    for (name, value) in map {
        fields.entry(name.as_str().to_owned()).or_default().push(value.as_bytes().to_vec());
    }
    fields
}

/// The trailers that we do not drop.
pub(crate) fn trailers(map: &HeaderMap) -> Fields {
    let mut trailers = fields(map);
    trailers
        .retain(|name, _| !gateway_http1::KnownField::classify(name.as_bytes()).is_forbidden_in_trailers());
    trailers
}
