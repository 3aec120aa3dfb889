//! The side of an exchange that faces the target, in whatever protocol it speaks: a connection of its own that speaks
//! HTTP/1.1, or a stream of a connection that speaks HTTP/2.

use std::io;
use std::task::{Context, Poll};

use gateway_engine::head::HeadParts;
use gateway_engine::reject::Reason;
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::{Limits, Method, Status};

use super::heads;
use crate::buffer;
use crate::relay::{Sink, Source, SourceError, Step};
use crate::upstream::http2::call::Call;
use crate::wire::Wire;

/// Bounds of a target's response head.
const LIMITS: Limits = Limits { max_head_bytes: 60 * 1024, max_target_bytes: 0, max_fields: 256 };

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Target {
    /// Boxed since it was connected: it goes back to its pool as it is.
    Http1(Box<Wire>),
    /// Boxed: it is larger.
    Http2(Box<Call>),
}

impl Target {
    /// Waits for a head, interim or final. `heard` is set with the first byte of it.
    #[inline]
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: Method,
        parsed: &mut ResponseHead,
        heard: &mut bool,
    ) -> Poll<Result<(), Reason>> {
        match self {
            Target::Http1(wire) => poll_head(cx, wire, method, parsed, heard),
            Target::Http2(call) => {
                let polled = call.poll_head(cx, method, parsed);
                *heard |= matches!(polled, Poll::Ready(Ok(())));
                polled
            }
        }
    }

    /// Fills in the head that is there.
    pub(super) fn fill_head(&self, parsed: &ResponseHead, parts: &mut HeadParts) {
        match self {
            Target::Http1(_) => heads::fill_response(parsed, parts),
            Target::Http2(call) => call.fill(parsed, parts),
        }
    }

    /// The bytes that the texts of the head that is there point into.
    pub(super) fn head_bytes(&self) -> &[u8] {
        match self {
            Target::Http1(wire) => wire.buffer.filled(),
            Target::Http2(_) => b"",
        }
    }

    /// The head that was there is done with; what follows, if anything, is framed so.
    pub(super) fn release_head(&mut self, parsed: &ResponseHead) {
        match self {
            Target::Http1(wire) => {
                wire.buffer.consume(parsed.len);
                if !parsed.interim {
                    wire.expect_body(parsed.framing);
                }
            }
            Target::Http2(call) => call.release_head(),
        }
    }

    /// No byte of the request left.
    pub(super) fn is_untouched(&self) -> bool {
        match self {
            Target::Http1(wire) => wire.is_untouched(),
            Target::Http2(call) => call.is_untouched(),
        }
    }

    /// The target said that it did not look at the request.
    pub(super) fn is_refused(&self) -> bool {
        match self {
            Target::Http1(_) => false,
            Target::Http2(call) => call.is_refused(),
        }
    }

    /// The connection was not to blame: the target broke off this request alone.
    pub(super) fn is_reset(&self) -> bool {
        match self {
            Target::Http1(_) => false,
            Target::Http2(call) => call.is_reset(),
        }
    }

    /// Everything that left is still here.
    pub(super) fn is_replayable(&self) -> bool {
        match self {
            Target::Http1(wire) => wire.is_replayable(),
            Target::Http2(call) => call.is_replayable(),
        }
    }

    /// Bytes that moved, either way.
    #[inline]
    pub(super) fn progress(&self) -> u64 {
        match self {
            Target::Http1(wire) => wire.progress(),
            Target::Http2(call) => call.progress(),
        }
    }

    /// Nothing came back in time.
    pub(super) fn gave_up_waiting(&self) {
        if let Target::Http2(call) = self {
            call.gave_up_waiting();
        }
    }
}

fn poll_head(
    cx: &mut Context<'_>,
    wire: &mut Wire,
    method: Method,
    parsed: &mut ResponseHead,
    heard: &mut bool,
) -> Poll<Result<(), Reason>> {
    loop {
        if !wire.buffer.is_empty() {
            match response::parse(wire.buffer.filled(), &LIMITS, method, parsed) {
                Ok(Status::Complete) => return Poll::Ready(Ok(())),
                Ok(Status::Partial) => {}
                Err(error) => {
                    tracing::debug!(%error, "a target's response head is refused");
                    return Poll::Ready(Err(Reason::UpstreamProtocol));
                }
            }
        }
        let full = wire.buffer.is_full() && !wire.buffer.is_empty();
        match wire.poll_fill(cx, if full { buffer::LARGE } else { buffer::SMALL }) {
            Poll::Ready(Ok(1..)) => *heard = true,
            Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Err(Reason::UpstreamReset)),
            Poll::Pending => return Poll::Pending,
        }
    }
}

impl Source for Target {
    #[inline]
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        match self {
            Target::Http1(wire) => wire.poll_step(cx),
            Target::Http2(call) => call.poll_step(cx),
        }
    }

    #[inline]
    fn data(&self) -> &[u8] {
        match self {
            Target::Http1(wire) => wire.data(),
            Target::Http2(call) => call.data(),
        }
    }

    #[inline]
    fn consume(&mut self, count: usize) {
        match self {
            Target::Http1(wire) => wire.consume(count),
            Target::Http2(call) => call.consume(count),
        }
    }

    fn trailers(&self) -> &[u8] {
        match self {
            Target::Http1(wire) => wire.trailers(),
            Target::Http2(call) => call.trailers(),
        }
    }
}

impl Sink for Target {
    #[inline]
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Target::Http1(wire) => wire.poll_send(cx, data),
            Target::Http2(call) => call.poll_send(cx, data),
        }
    }

    #[inline]
    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        match self {
            Target::Http1(wire) => wire.end(trailers),
            Target::Http2(call) => call.end(trailers),
        }
    }

    #[inline]
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Target::Http1(wire) => wire.poll_flush(cx),
            Target::Http2(call) => call.poll_flush(cx),
        }
    }
}
