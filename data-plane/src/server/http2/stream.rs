//! One stream of an HTTP/2 connection: hyper's request becomes the same head that HTTP/1.1 requests have, and the
//! stream a [`Client`].

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use gateway_engine::head::{Head, HeadParts, RequestLine};
use gateway_engine::reject::Reason;
use gateway_http1::body::parse_trailers;
use gateway_http1::write::{announce, has_body};
use gateway_http1::{Framing, KnownField, Method, Version};
use http::header::{CONTENT_LENGTH, COOKIE, HOST, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use hyper::body::{Body as _, Incoming};
use tokio::time::Instant;

use super::Opened;
use super::pipe::{Outgoing, Writer, pipe};
use super::serving::Answer;
use crate::proxy::client::{Asked, Client, Gone, Opening, Unsendable};
use crate::proxy::{self, Job, identity};
use crate::relay::{Sink, Source, SourceError, Step};
use crate::runtime::Worker;
use crate::server::http1::{LINGER, MAX_LINGER_BYTES};
use crate::server::listener::Door;
use crate::wheel::Timer;

/// Serves the stream's request.
pub(super) async fn serve(worker: Rc<Worker>, door: Rc<Door>, request: Request<Incoming>, opened: Opened) {
    let Opened { caller, answer, timer, count } = opened;
    let Some(view) = door.view(&worker) else { return };
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
    let asked = Asked {
        method: Method::from_bytes(parts.method.as_str().as_bytes()),
        framing: framing(&parts.headers, &body),
        trailers: parts.headers.get_all(TE).iter().any(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers")),
        upgrade: None,
        peer: caller.ip,
        scheme: caller.scheme,
        trusted,
        started: Instant::now(),
    };
    let mut stream = Stream {
        body,
        current: Bytes::new(),
        ended: false,
        trailers: Vec::new(),
        opened: None,
        answer,
        writer: None,
        method: asked.method,
        received: 0,
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

/// The head as policies see it. Everything is copied: hyper's form of a head has no text to point into.
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
    let mut cookies = Vec::new();
    for (name, value) in &head.headers {
        let known = KnownField::classify(name.as_str().as_bytes());
        let hidden = known.is_hop_by_hop() || (!trusted && identity::names_client(known));
        // hyper answers an expectation itself, by asking for the body.
        if hidden || matches!(known, KnownField::XRequestId | KnownField::Host | KnownField::Expect) {
            continue;
        }
        if name == COOKIE {
            // RFC 9113 §8.2.3: HTTP/1.1 has one Cookie field.
            cookies.extend_from_slice(if cookies.is_empty() { b"" } else { b"; " });
            cookies.extend_from_slice(value.as_bytes());
            continue;
        }
        let (name, value) = (parts.copy(name.as_str().as_bytes()), parts.copy(value.as_bytes()));
        parts.push(name, value, known as u8);
    }
    if !cookies.is_empty() {
        let (name, value) = (parts.copy(b"cookie"), parts.copy(&cookies));
        parts.push(name, value, KnownField::Cookie as u8);
    }
    Ok(())
}

/// How the body is framed towards the target. hyper holds the client to the length it announced.
fn framing(headers: &HeaderMap, body: &Incoming) -> Framing {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    match length {
        Some(length) => Framing::Length(length),
        None if body.is_end_stream() => Framing::None,
        None => Framing::Chunked,
    }
}

/// A stream and the request on it.
#[derive(Debug)]
struct Stream {
    body: Incoming,
    current: Bytes,
    /// There is no more of the body, or nobody cares.
    ended: bool,
    trailers: Vec<u8>,
    /// The response; goes out with what follows it.
    opened: Option<Response<Outgoing>>,
    answer: Rc<Answer>,
    writer: Option<Writer>,
    method: Method,
    received: u64,
    sent: u64,
}

impl Stream {
    /// Hands the response to hyper.
    fn begin_response(&mut self) {
        if let Some(response) = self.opened.take() {
            self.answer.give(response);
        }
    }

    fn note_trailers(&mut self, trailers: &HeaderMap) {
        for (name, value) in trailers {
            if KnownField::classify(name.as_str().as_bytes()).is_forbidden_in_trailers() {
                continue;
            }
            self.trailers.extend_from_slice(name.as_str().as_bytes());
            self.trailers.extend_from_slice(b": ");
            self.trailers.extend_from_slice(value.as_bytes());
            self.trailers.extend_from_slice(b"\r\n");
        }
        if !self.trailers.is_empty() {
            self.trailers.extend_from_slice(b"\r\n");
        }
    }
}

impl Source for Stream {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        while !self.ended {
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                None => self.ended = true,
                Some(Err(error)) => return Poll::Ready(Err(SourceError::Io(io::Error::other(error)))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        self.received += data.len() as u64;
                        self.current = data;
                        return Poll::Ready(Ok(Step::Data));
                    }
                    Err(frame) => {
                        if let Ok(trailers) = frame.into_trailers() {
                            self.note_trailers(&trailers);
                        }
                    }
                },
            }
        }
        Poll::Ready(Ok(Step::End))
    }

    fn data(&self) -> &[u8] {
        &self.current
    }

    fn consume(&mut self, count: usize) {
        self.current.advance(count);
    }

    fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

impl Sink for Stream {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let Some(writer) = &self.writer else {
            // A response without a body, as to HEAD.
            return Poll::Ready(Ok(data.len()));
        };
        let Poll::Ready(taken) = writer.poll_send(cx, data) else {
            self.begin_response();
            return Poll::Pending;
        };
        let count = taken?;
        self.sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        let mut map = None;
        if !trailers.is_empty() {
            let mut fields = Vec::new();
            parse_trailers(trailers, &mut fields).map_err(io::Error::other)?;
            let pairs = fields.iter().filter_map(|field| {
                let name = HeaderName::from_bytes(field.name.of(trailers)).ok()?;
                Some((name, HeaderValue::from_bytes(field.value.of(trailers)).ok()?))
            });
            map = Some(pairs.collect());
        }
        if let Some(writer) = &self.writer {
            writer.end(map);
        }
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.begin_response();
        Poll::Ready(Ok(()))
    }
}

impl Client for Stream {
    fn head_bytes(&self) -> &[u8] {
        b""
    }

    fn release_head(&mut self) {}

    fn interim(&mut self, _head: &Head<'_>) -> Result<(), Unsendable> {
        // hyper has no way to send them; they may always be left out (RFC 9110 §15.2).
        Ok(())
    }

    fn open(&mut self, head: &Head<'_>, opening: Opening<'_>) -> Result<(), Unsendable> {
        let (writer, body) = pipe();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(head.status()).map_err(|_| Unsendable)?;
        let headers = response.headers_mut();
        // All values in one piece of memory, which they share.
        let mut values = BytesMut::with_capacity(head.iter().map(|(_, value, _)| value.len()).sum());
        for (name, value, _) in head.iter() {
            let known = KnownField::classify(name);
            if known.is_hop_by_hop() || known.is_framing() {
                continue;
            }
            let name = HeaderName::from_bytes(name).map_err(|_| Unsendable)?;
            values.extend_from_slice(value);
            let value = values.split().freeze();
            headers.append(name, HeaderValue::from_maybe_shared(value).map_err(|_| Unsendable)?);
        }
        if let Framing::Length(length) = announce(self.method, head.status(), Version::Http11, opening.length)
        {
            headers.insert(CONTENT_LENGTH, length.into());
        }
        if has_body(self.method, head.status()) {
            self.writer = Some(writer);
        } else {
            writer.end(None);
        }
        self.opened = Some(response);
        Ok(())
    }

    fn retract(&mut self) -> bool {
        self.writer = None;
        self.sent = 0;
        self.opened.take().is_some()
    }

    fn become_tunnel(&mut self) {}

    fn poll_end(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<Gone> {
        if self.answer.is_unwanted() {
            return Poll::Ready(Gone::Dead);
        }
        match &self.writer {
            Some(writer) => writer.poll_unread(cx).map(|()| Gone::Dead),
            None => Poll::Pending,
        }
    }

    fn abort(&mut self) {
        self.ended = true;
        self.opened = None;
        self.writer = None;
    }

    fn progress(&self) -> u64 {
        self.received + self.sent
    }

    fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.received), std::mem::take(&mut self.sent))
    }
}
