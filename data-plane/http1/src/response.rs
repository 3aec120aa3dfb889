//! Response heads: [`parse`] fills a reused [`ResponseHead`] or says why the response is refused.
//!
//! The counterpart of [`crate::request`], for what an upstream sends. A refused response is a 502 to
//! the client, and the upstream connection is closed. What a body is depends on the request's method
//! (RFC 9112 §6.3), so the caller names it; matching responses with requests and counting interim
//! responses is the caller's task too.

use std::mem::MaybeUninit;

use crate::head::{MAX_FIELDS, Status};
use crate::scan::{Part, Scan};
use crate::tokens::Facts;
use crate::{Field, Framing, Limits, Method, ParseError, Span, Version};

/// A response head as positions in the caller's buffer; reused like a
/// [`RequestHead`](crate::request::RequestHead).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// 100–999. RFC 9110 §15 asks to treat 600 and above like 5xx; they are passed on as they are.
    pub status: u16,
    /// The reason phrase, possibly empty. May hold HTAB and bytes ≥ 0x80.
    pub reason: Span,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// All fields in the order in which they were sent.
    pub fields: Vec<Field>,
    /// Bytes that the head takes, its empty line included.
    pub len: usize,
    /// Where the body that follows ends; `None` for HEAD, 1xx, 204, 304 and a tunnel.
    pub framing: Framing,
    /// The announced length, also where no body follows (HEAD, 304).
    pub content_length: Option<u64>,
    /// Whether the connection can be used again after the body. Never with `UntilClose`, 101 or a
    /// tunnel.
    pub keep_alive: bool,
    /// The value of `Upgrade`, when `Connection` names it and the version is 1.1. A 101 without it is
    /// not one that the gateway can act on.
    pub upgrade: Option<Span>,
    /// 1xx but 101: another head follows for the same request.
    pub interim: bool,
    /// 101, or 2xx to CONNECT: after the head the connection speaks another protocol.
    pub tunnel: bool,
    scan: Scan,
}

impl ResponseHead {
    /// An empty head. Allocates with the first response.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets a partial head, see [`RequestHead::reset`](crate::request::RequestHead::reset).
    pub fn reset(&mut self) {
        self.fields.clear();
        self.scan = Scan::default();
    }
}

/// Reads one response head from the start of `buf`, the answer to a request with `request_method`.
///
/// The contract is that of [`request::parse`](crate::request::parse): on `Partial` call again with the
/// same bytes and more.
pub fn parse(
    buf: &[u8],
    limits: &Limits,
    request_method: Method,
    head: &mut ResponseHead,
) -> Result<Status, ParseError> {
    if head.scan.is_new() && matches!(read(buf, limits, request_method, head), Ok(Status::Complete)) {
        return Ok(Status::Complete);
    }
    match head.scan.run(buf, limits.max_head_bytes, Part::Response) {
        Ok(None) => Ok(Status::Partial),
        Ok(Some(end)) => match read(&buf[..end], limits, request_method, head)? {
            Status::Complete => Ok(Status::Complete),
            Status::Partial => Err(ParseError::StatusLine),
        },
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

/// Reads a head that is whole, or says `Partial`.
fn read(
    buf: &[u8],
    limits: &Limits,
    request_method: Method,
    head: &mut ResponseHead,
) -> Result<Status, ParseError> {
    // httparse would skip empty lines.
    if matches!(buf.first(), Some(b'\r' | b'\n')) {
        return Err(ParseError::EmptyLine);
    }
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let table = &mut storage[..limits.max_fields.min(MAX_FIELDS)];
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut response, buf, table) {
        Ok(httparse::Status::Complete(len)) => len,
        Ok(httparse::Status::Partial) => return Ok(Status::Partial),
        Err(error) => return Err(refusal(error, buf)),
    };
    if len > limits.max_head_bytes {
        return Err(ParseError::HeadTooLarge);
    }
    if !buf[..len].ends_with(b"\r\n\r\n") {
        return Err(ParseError::LineEnd);
    }
    let (Some(status), Some(minor)) = (response.code, response.version) else {
        return Err(ParseError::StatusLine);
    };
    if status < 100 {
        return Err(ParseError::StatusLine);
    }
    let facts = Facts::collect(buf, response.headers, &mut head.fields)?;
    head.len = len;
    head.status = status;
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    // "HTTP/1.1 200" is 12 bytes; one SP follows, or the line ends.
    let line_end = head.fields.first().map_or(len - 2, |first| first.name.start()) - 2;
    head.reason = Span::new(line_end.min(13), line_end);
    head.tunnel = status == 101 || (request_method == Method::Connect && (200..300).contains(&status));
    head.interim = status < 200 && status != 101;
    let announced = facts.framing(buf, head.version)?;
    head.content_length = if let Framing::Length(length) = announced { Some(length) } else { None };
    head.framing = framing(status, request_method, announced)?;
    head.keep_alive = facts.persistent(head.version) && head.framing != Framing::UntilClose && !head.tunnel;
    head.upgrade = facts.upgrade(head.version);
    Ok(Status::Complete)
}

/// Where the body ends, RFC 9112 §6.3, from what the fields announce.
fn framing(status: u16, method: Method, announced: Framing) -> Result<Framing, ParseError> {
    let until_close = |framing| if framing == Framing::None { Framing::UntilClose } else { framing };
    match status {
        // RFC 9110 §8.6 and RFC 9112 §6.1 forbid both fields here. `Content-Length: 0` is common and
        // harmless; anything else means that a body may follow which must not.
        100..200 | 204 => match announced {
            Framing::None | Framing::Length(0) => Ok(Framing::None),
            _ => Err(ParseError::BodyForbidden),
        },
        304 => Ok(Framing::None),
        _ if method == Method::Head => Ok(Framing::None),
        200..300 if method == Method::Connect => Ok(Framing::None),
        _ => Ok(until_close(announced)),
    }
}

/// The reason for a head that httparse refuses.
fn refusal(error: httparse::Error, buf: &[u8]) -> ParseError {
    match error {
        httparse::Error::TooManyHeaders => ParseError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ParseError::FieldLine,
        httparse::Error::Version => match buf {
            [b'H', b'T', b'T', b'P', b'/', major, b'.', minor, b' ', ..]
                if major.is_ascii_digit() && minor.is_ascii_digit() =>
            {
                ParseError::Version
            }
            _ => ParseError::StatusLine,
        },
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => ParseError::StatusLine,
    }
}
