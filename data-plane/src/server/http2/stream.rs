//! One stream of an HTTP/2 connection: the request that h2 read becomes the same head that HTTP/1.1 requests have, and
//! the stream a [`Client`].

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use gateway_engine::head::{Head, HeadParts, RequestLine};
use gateway_engine::reject::Reason;
use gateway_http1::write::{announce, has_body};
use gateway_http1::{Framing, KnownField, Method, Version};
use h2::server::SendResponse;
use http::header::{CONTENT_LENGTH, EXPECT, HOST, TE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::{Caller, Opened};
use crate::http2::body::{Incoming, Outgoing};
use crate::http2::fields;
use crate::proxy::client::{Asked, Client, Gone, Opening, Unsendable};
use crate::proxy::{self, Job, identity};
use crate::relay::{Sink, Source, SourceError, Step};
use crate::runtime::Worker;
use crate::server::http1::{LINGER, MAX_LINGER_BYTES};
use crate::server::listener::Door;
use crate::wheel::Timer;

/// Serves the stream's request.
pub(super) async fn serve(worker: Rc<Worker>, door: Rc<Door>, caller: Caller, opened: Opened) {
    let Opened { request, mut respond, count } = opened;
    let Some(view) = door.view(&worker) else { return };
    let (timer, withdrawn) =
        poll_fn(|cx| Poll::Ready((worker.wheel.timer(cx.waker()), respond.poll_reset(cx).is_ready()))).await;
    if withdrawn {
        // Before anything was done for it.
        return;
    }
    let mut exchange = worker.take_exchange();
    let (parts, body) = request.into_parts();
    let http = &view.listener.http;
    let trusted = http.trusts(caller.ip);
    let read = fill(&parts, trusted, http.max_uri_bytes as usize, &mut exchange.request);
    match parts.headers.get("x-request-id").and_then(|id| identity::sane_id(id.as_bytes())) {
        Some(given) => exchange.id.push_str(given),
        None => worker.ids.next(&mut exchange.id),
    }
    if worker.log.enabled() {
        exchange.method.clear();
        exchange.method.push_str(parts.method.as_str());
    }
    let incoming = Incoming::new(body);
    let asked = Asked {
        method: Method::from_bytes(parts.method.as_str().as_bytes()),
        framing: framing(&parts.headers, &incoming),
        trailers: parts.headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")),
        upgrade: None,
        peer: caller.ip,
        scheme: caller.scheme,
        trusted,
        started: Instant::now(),
    };
    drop(parts);
    let mut stream = Stream {
        incoming,
        respond,
        opened: None,
        has_body: false,
        outgoing: Outgoing::default(),
        method: asked.method,
        sent: 0,
    };
    let mut job = Job { worker: &worker, door: &door, timer: &timer, exchange: &mut exchange, asked };
    match read {
        Ok(()) => proxy::handle(&mut job, view, &mut stream).await,
        Err(reason) => proxy::refuse_unread(&mut job, reason, &mut stream).await,
    }
    worker.return_exchange(exchange);
    linger(&mut stream, &timer).await;
    drop(count);
}

/// Throws away what still comes of the request's body: many a client that is told to stop while it sends does not look
/// at the response that it has (RFC 9113 §8.1).
async fn linger(stream: &mut Stream, timer: &Timer) {
    timer.set(Some(LINGER));
    let mut left = MAX_LINGER_BYTES;
    poll_fn(|cx| {
        if timer.expired() {
            return Poll::Ready(());
        }
        loop {
            let count = stream.data().len();
            stream.consume(count);
            match stream.poll_step(cx) {
                Poll::Ready(Ok(Step::Data)) if stream.data().len() <= left => left -= stream.data().len(),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// The head as policies see it. Everything is copied: h2's form of a head has no text to point into.
fn fill(
    head: &http::request::Parts,
    trusted: bool,
    max_uri: usize,
    parts: &mut HeadParts,
) -> Result<(), Reason> {
    parts.clear();
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = head.headers.get(HOST).map(HeaderValue::as_bytes);
    // RFC 9113 §8.3.1: not to be taken for a request for another host than the one that is matched.
    if let (Some(authority), Some(host)) = (authority, host)
        && !authority.eq_ignore_ascii_case(host)
    {
        return Err(Reason::BadRequest);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    if target.len() > max_uri {
        return Err(Reason::UriTooLong);
    }
    let line = RequestLine {
        method: parts.copy(head.method.as_str().as_bytes()),
        target: parts.copy(target.as_bytes()),
        path: parts.copy(head.uri.path().as_bytes()),
        query: head.uri.query().map(|query| parts.copy(query.as_bytes())),
        authority: parts.copy(authority.or(host).unwrap_or_default()),
    };
    parts.set_request_line(line);
    fields::fill(&head.headers, parts, |known| {
        known == KnownField::XRequestId || (!trusted && identity::names_client(known))
    });
    if head.headers.get_all(EXPECT).iter().any(|it| !it.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(Reason::ExpectationFailed);
    }
    Ok(())
}

/// How the body is framed towards the target. h2 holds the client to the length it announced.
fn framing(headers: &HeaderMap, body: &Incoming) -> Framing {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) => Framing::Length(length),
        None if body.is_none() => Framing::None,
        None => Framing::Chunked,
    }
}

/// A stream and the request on it.
#[derive(Debug)]
struct Stream {
    incoming: Incoming,
    respond: SendResponse<Bytes>,
    /// The head of the response; goes out with what follows it.
    opened: Option<Response<()>>,
    /// Something may follow it.
    has_body: bool,
    outgoing: Outgoing,
    method: Method,
    sent: u64,
}

impl Stream {
    /// Sends the head of the response that was opened, if it was not yet.
    fn begin_response(&mut self) -> io::Result<()> {
        let Some(response) = self.opened.take() else { return Ok(()) };
        let ends = !self.has_body || self.outgoing.is_only_the_end();
        match self.respond.send_response(response, ends) {
            Ok(stream) if !ends => self.outgoing.follow(stream),
            Ok(_) => {}
            Err(_) => return Err(io::ErrorKind::BrokenPipe.into()),
        }
        Ok(())
    }
}

impl Source for Stream {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        self.incoming.poll_step(cx)
    }

    fn data(&self) -> &[u8] {
        self.incoming.data()
    }

    fn consume(&mut self, count: usize) {
        self.incoming.consume(count);
    }

    fn trailers(&self) -> &[u8] {
        self.incoming.trailers()
    }
}

impl Sink for Stream {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if !self.has_body {
            // As to HEAD.
            return Poll::Ready(Ok(data.len()));
        }
        if !self.outgoing.is_empty() {
            self.begin_response()?;
            ready!(self.outgoing.poll_pass_on(cx))?;
        }
        let count = self.outgoing.hold(data).len();
        self.sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.outgoing.end(fields::read_trailers(trailers)?);
        Ok(())
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin_response()?;
        self.outgoing.poll_pass_on(cx)
    }
}

impl Client for Stream {
    fn head_bytes(&self) -> &[u8] {
        b""
    }

    fn release_head(&mut self) {}

    fn interim(&mut self, head: &Head<'_>) -> Result<(), Unsendable> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| Unsendable)?;
        *response.headers_mut() = fields::map(head).map_err(|_unfit| Unsendable)?;
        // Whoever is gone does without.
        let _gone = self.respond.send_informational(response);
        Ok(())
    }

    fn open(&mut self, head: &Head<'_>, opening: Opening<'_>) -> Result<(), Unsendable> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| Unsendable)?;
        let mut map = fields::map(head).map_err(|_unfit| Unsendable)?;
        if let Framing::Length(length) = announce(self.method, head.status(), Version::Http11, opening.length)
        {
            map.insert(CONTENT_LENGTH, length.into());
        }
        *response.headers_mut() = map;
        self.has_body = has_body(self.method, head.status());
        self.opened = Some(response);
        Ok(())
    }

    fn retract(&mut self) -> bool {
        if self.opened.take().is_none() {
            return false;
        }
        self.outgoing = Outgoing::default();
        self.sent = 0;
        true
    }

    fn become_tunnel(&mut self) {}

    fn poll_end(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_withdrawn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_gone(cx).map(|_dead| ())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        let unwanted = match self.outgoing.is_following() {
            true => self.outgoing.poll_unwanted(cx),
            false => self.respond.poll_reset(cx).map(drop),
        };
        unwanted.map(|()| Gone::Dead)
    }

    fn abort(&mut self) {
        self.incoming.ignore();
        self.opened = None;
        self.outgoing = Outgoing::default();
        self.respond.send_reset(h2::Reason::INTERNAL_ERROR);
    }

    fn progress(&self) -> u64 {
        self.incoming.progress() + self.sent + self.outgoing.passed_on()
    }

    fn take_counts(&mut self) -> (u64, u64) {
        (self.incoming.take_count(), std::mem::take(&mut self.sent))
    }
}
