//! One request on a session, and its response: what the proxy sends the one to and reads the other from.
//!
//! Until the response's head is there everything that was sent is kept, up to [`KEEP`] bytes of body, so that a request
//! that the target did not touch can be sent again.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_engine::head::HeadParts;
use gateway_engine::reject::Reason;
use gateway_http1::response::ResponseHead;
use gateway_http1::write::has_body;
use gateway_http1::{Framing, KnownField, Method};
use h2::client::ResponseFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, StatusCode};

use super::Lease;
use crate::http2::body::{Incoming, Outgoing};
use crate::http2::fields;
use crate::relay::{Sink, Source, SourceError, Step};

/// Bytes of a request's body that are kept to be sent again.
const KEEP: usize = 64 * 1024;

/// A request and its response.
#[derive(Debug)]
pub(crate) struct Call {
    lease: Lease,
    request: Request<()>,
    /// The request is no more than its head.
    bare: bool,
    progress: Progress,
    outgoing: Outgoing,
    /// The body so far, for as long as it is wanted and not too much.
    kept: Option<Vec<Bytes>>,
    /// The end of the body was taken, with these trailers.
    ended: Option<Option<HeaderMap>>,
    sent: u64,
    /// What had been received on the session when the request was sent.
    received_before: u64,
    /// The target said that it did not touch the request.
    refused: bool,
    /// The target reset the request's own stream: the session lives.
    reset: bool,
}

#[derive(Debug)]
enum Progress {
    /// The head was not sent.
    Waiting,
    /// It cannot be, or is over.
    Shut(Reason),
    /// The head of the response is waited for.
    Asked(ResponseFuture),
    /// An interim response is there.
    Interim(ResponseFuture, HeaderMap),
    /// The final head is there.
    Answered(HeaderMap, Incoming),
}

/// What is left in between.
const OVER: Progress = Progress::Shut(Reason::UpstreamReset);

impl Call {
    /// A request that was not sent yet.
    pub(crate) fn new(lease: Lease, request: Request<()>, framing: Framing) -> Self {
        Call {
            lease,
            request,
            bare: framing == Framing::None,
            progress: Progress::Waiting,
            outgoing: Outgoing::default(),
            kept: Some(Vec::new()),
            ended: None,
            sent: 0,
            received_before: 0,
            refused: false,
            reset: false,
        }
    }

    /// Others were on the session before.
    pub(crate) fn is_reused(&self) -> bool {
        self.lease.reused
    }

    /// Nothing was sent.
    pub(crate) fn is_untouched(&self) -> bool {
        matches!(self.progress, Progress::Waiting | Progress::Shut(_))
    }

    /// The target did not and will not look at it.
    pub(crate) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Its own stream was reset, not the session broken.
    pub(crate) fn is_reset(&self) -> bool {
        self.reset
    }

    /// Everything that was sent is still there to be sent again.
    pub(crate) fn is_replayable(&self) -> bool {
        self.kept.is_some()
    }

    /// Bytes of bodies sent and received so far.
    pub(crate) fn progress(&self) -> u64 {
        let sent = self.sent + self.outgoing.passed_on();
        match &self.progress {
            Progress::Answered(_, incoming) => sent + incoming.progress(),
            _ => sent,
        }
    }

    /// Begins anew on another session.
    pub(crate) fn restart(&mut self, lease: Lease) {
        let kept = self.kept.get_or_insert_default().concat();
        self.lease = lease;
        self.progress = Progress::Waiting;
        self.outgoing = Outgoing::beginning_with(kept.into());
        if let Some(trailers) = &self.ended {
            self.outgoing.end(trailers.clone());
        }
        (self.refused, self.reset) = (false, false);
    }

    /// No response came in time. If nothing at all came, the session may be dead: the next request takes another.
    pub(crate) fn gave_up_waiting(&self) {
        if self.lease.received() == self.received_before {
            self.lease.retire();
        }
    }

    /// Sends the head, once.
    fn begin(&mut self) -> io::Result<()> {
        if !matches!(self.progress, Progress::Waiting) {
            return Ok(());
        }
        self.received_before = self.lease.received();
        match self.lease.begin(self.request.clone(), self.bare) {
            Ok((response, stream)) => {
                self.progress = Progress::Asked(response);
                if !self.bare {
                    self.outgoing.follow(stream);
                }
                Ok(())
            }
            Err(why) => {
                self.progress = Progress::Shut(why.unwrap_or(Reason::UpstreamReset));
                self.refused = why.is_none();
                Err(io::ErrorKind::NotConnected.into())
            }
        }
    }

    /// Waits for a head, interim or final: what there is to know of it is put into `parsed`.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        method: Method,
        parsed: &mut ResponseHead,
    ) -> Poll<Result<(), Reason>> {
        let response = match &mut self.progress {
            Progress::Asked(response) => response,
            Progress::Shut(reason) => return Poll::Ready(Err(*reason)),
            _ => return Poll::Ready(Err(Reason::UpstreamReset)),
        };
        let outcome = match response.poll_informational(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Some(outcome)) => outcome.map(|interim| interim.map(|()| None)),
            Poll::Ready(None) => {
                ready!(Pin::new(response).poll(cx)).map(|last| last.map(|body| Some(Incoming::new(body))))
            }
        };
        Poll::Ready(match outcome {
            // RFC 9113 §8.6: there is nothing to switch to.
            Ok(head) if head.status() == StatusCode::SWITCHING_PROTOCOLS => Err(Reason::UpstreamProtocol),
            Ok(head) => {
                self.take(head, method, parsed);
                Ok(())
            }
            Err(error) => Err(self.fault(&error)),
        })
    }

    fn take(&mut self, head: Response<Option<Incoming>>, method: Method, parsed: &mut ResponseHead) {
        let (head, body) = head.into_parts();
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let status = head.status.as_u16();
        let empty = has_body(method, status) && body.as_ref().is_some_and(Incoming::is_none);
        parsed.reset();
        parsed.status = status;
        parsed.interim = body.is_none();
        parsed.tunnel = false;
        parsed.upgrade = None;
        parsed.content_length = length.or(empty.then_some(0));
        let before = std::mem::replace(&mut self.progress, OVER);
        self.progress = match (body, before) {
            (Some(mut body), _) => {
                // To HEAD h2 itself takes none.
                if matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
                    body.ignore();
                }
                Progress::Answered(head.headers, body)
            }
            (None, Progress::Asked(response)) => Progress::Interim(response, head.headers),
            (None, before) => before,
        };
        if !parsed.interim {
            // Nothing is sent again from here on.
            self.kept = None;
        }
    }

    /// Fills in the fields of the head that is there, without what is the gateway's own to say.
    pub(crate) fn fill(&self, parsed: &ResponseHead, parts: &mut HeadParts) {
        parts.clear();
        parts.set_status(parsed.status);
        if let Progress::Interim(_, map) | Progress::Answered(map, _) = &self.progress {
            fields::fill(map, parts, |known| known.is_framing() || known == KnownField::XRequestId);
        }
    }

    /// The head that was there is done with.
    pub(crate) fn release_head(&mut self) {
        match std::mem::replace(&mut self.progress, OVER) {
            Progress::Interim(response, _) => self.progress = Progress::Asked(response),
            Progress::Answered(_, incoming) => {
                self.progress = Progress::Answered(HeaderMap::new(), incoming);
            }
            other => self.progress = other,
        }
    }

    /// What it means that no response came.
    fn fault(&mut self, error: &h2::Error) -> Reason {
        tracing::debug!(%error, "no response on an HTTP/2 stream");
        // RFC 9113 §8.7: refused, or above the last stream of a GOAWAY.
        self.reset = error.is_reset();
        let refused = self.reset && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        let left_out = error.is_go_away();
        self.refused = error.is_remote() && (refused || left_out);
        if self.refused && (left_out || !self.lease.is_one_too_many()) {
            self.lease.retire();
        }
        if error.is_library() { Reason::UpstreamProtocol } else { Reason::UpstreamReset }
    }
}

impl Source for Call {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        match &mut self.progress {
            Progress::Answered(_, incoming) => incoming.poll_step(cx),
            _ => Poll::Ready(Err(io::Error::from(io::ErrorKind::NotConnected).into())),
        }
    }

    fn data(&self) -> &[u8] {
        match &self.progress {
            Progress::Answered(_, incoming) => incoming.data(),
            _ => b"",
        }
    }

    fn consume(&mut self, count: usize) {
        if let Progress::Answered(_, incoming) = &mut self.progress {
            incoming.consume(count);
        }
    }

    fn trailers(&self) -> &[u8] {
        match &self.progress {
            Progress::Answered(_, incoming) => incoming.trailers(),
            _ => b"",
        }
    }
}

impl Sink for Call {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.begin()?;
        ready!(self.outgoing.poll_pass_on(cx))?;
        let piece = self.outgoing.hold(data);
        let count = piece.len();
        if let Some(kept) = &mut self.kept {
            kept.push(piece.clone());
        }
        self.sent += count as u64;
        if self.sent > KEEP as u64 {
            self.kept = None;
        }
        Poll::Ready(Ok(count))
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        if !self.bare {
            let trailers = fields::read_trailers(trailers)?;
            self.ended = Some(trailers.clone());
            self.outgoing.end(trailers);
        }
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin()?;
        self.outgoing.poll_pass_on(cx)
    }
}
