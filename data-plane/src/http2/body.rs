//! Bodies on a stream: one that comes in is a [`Source`], one that goes out has what a [`Sink`](crate::relay::Sink)
//! needs. Both hold one piece at most; what more there may be is bounded by the stream's window and h2's send buffer.
//! h2 is given no more than the window has room for: what it has taken is as good as sent.
//!
//! Invariant: room in the window is given back only for what has been taken on by the other side.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use h2::{RecvStream, SendStream};
use http::HeaderMap;

use super::fields;
use crate::relay::{Source, SourceError, Step};

/// Largest piece.
const PIECE: usize = 64 * 1024;

/// A body that comes in.
#[derive(Debug)]
pub(crate) struct Incoming {
    stream: RecvStream,
    current: Bytes,
    /// There is no more of it, or nobody cares.
    ended: bool,
    trailers: Vec<u8>,
    received: u64,
}

impl Incoming {
    pub(crate) fn new(stream: RecvStream) -> Self {
        Incoming { stream, current: Bytes::new(), ended: false, trailers: Vec::new(), received: 0 }
    }

    /// It had no more than its head.
    pub(crate) fn is_none(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Nobody wants the rest.
    pub(crate) fn ignore(&mut self) {
        self.ended = true;
    }

    /// Bytes of data since the last call.
    pub(crate) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.received)
    }

    /// Bytes of data so far.
    pub(crate) fn progress(&self) -> u64 {
        self.received
    }
}

impl Source for Incoming {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        while !self.ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) if data.is_empty() => {}
                Some(Ok(data)) => {
                    self.received += data.len() as u64;
                    self.current = data;
                    return Poll::Ready(Ok(Step::Data));
                }
                Some(Err(error)) => return Poll::Ready(Err(cut_off(&error).into())),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx)).map_err(|error| cut_off(&error))?;
                    self.ended = true;
                    if let Some(trailers) = trailers {
                        fields::write_trailers(&trailers, &mut self.trailers)?;
                    }
                }
            }
        }
        Poll::Ready(Ok(Step::End))
    }

    fn data(&self) -> &[u8] {
        &self.current
    }

    fn consume(&mut self, count: usize) {
        if count > 0 {
            self.current.advance(count);
            // A stream that is over has no window.
            let _over = self.stream.flow_control().release_capacity(count);
        }
    }

    fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

/// A body that goes out, once its head is sent. The last piece is held back until something follows it, so that it can
/// carry the end.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    stream: Option<SendStream<Bytes>>,
    held: Bytes,
    end: End,
    passed_on: u64,
}

#[derive(Debug, Default)]
enum End {
    #[default]
    Open,
    /// To be said, with these trailers.
    Due(Option<HeaderMap>),
    Said,
}

impl Outgoing {
    /// One of which `held` is to be sent first.
    pub(crate) fn beginning_with(held: Bytes) -> Self {
        Outgoing { held, ..Outgoing::default() }
    }

    /// The head was sent: this is where the rest goes.
    pub(crate) fn follow(&mut self, stream: SendStream<Bytes>) {
        self.stream = Some(stream);
    }

    /// Its head was sent, and did not end it.
    pub(crate) fn is_following(&self) -> bool {
        self.stream.is_some()
    }

    /// Nothing is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes that h2 was given.
    pub(crate) fn passed_on(&self) -> u64 {
        self.passed_on
    }

    /// Takes some of the data; nothing may be held.
    pub(crate) fn hold(&mut self, data: &[u8]) -> &Bytes {
        debug_assert!(self.held.is_empty(), "sent before");
        self.held = Bytes::copy_from_slice(&data[..data.len().min(PIECE)]);
        &self.held
    }

    /// Takes the end.
    pub(crate) fn end(&mut self, trailers: Option<HeaderMap>) {
        self.end = End::Due(trailers);
    }

    /// Nothing follows the head.
    pub(crate) fn is_only_the_end(&self) -> bool {
        self.held.is_empty() && matches!(self.end, End::Due(None))
    }

    /// Gives h2 what is held, as far as windows and its buffer allow, then the end. Before the head was sent there is
    /// nothing to do.
    pub(crate) fn poll_pass_on(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Outgoing { stream: Some(stream), held, end, passed_on } = self else {
            return Poll::Ready(Ok(()));
        };
        while !held.is_empty() {
            stream.reserve_capacity(held.len());
            if stream.capacity() == 0 && !matches!(ready!(stream.poll_capacity(cx)), Some(Ok(_))) {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let piece = held.split_to(stream.capacity().min(held.len()));
            *passed_on += piece.len() as u64;
            let last = held.is_empty() && matches!(end, End::Due(None));
            stream.send_data(piece, last).map_err(|_| io::ErrorKind::BrokenPipe)?;
            if last {
                *end = End::Said;
            }
        }
        if let End::Due(trailers) = end {
            let said = match trailers.take() {
                Some(trailers) => stream.send_trailers(trailers),
                None => stream.send_data(Bytes::new(), true),
            };
            *end = End::Said;
            said.map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ready once the other side, or its connection, does not want it any more.
    pub(crate) fn poll_unwanted(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }
}

fn cut_off(error: &h2::Error) -> io::Error {
    error.get_io().map_or(io::ErrorKind::ConnectionReset, io::Error::kind).into()
}
