//! Response heads: [`parse`] fills a reused [`ResponseHead`] or says why the response is refused.
//!
//! The counterpart of [`crate::request`], for what an upstream sends. A refused response is a 502 to
//! the client, and the upstream connection is closed. What a body is depends on the request's method
//! (RFC 9112 §6.3), so the caller names it; matching responses with requests and counting interim
//! responses is the caller's task too.

use crate::head::Status;
use crate::scan::{Part, Scan};
use crate::tokens::{Facts, line_end};
use crate::{Field, Framing, Limits, Method, ParseError, Span, Version, word};

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
    if head.scan.is_new() && read(buf, limits, request_method, head).is_ok() {
        return Ok(Status::Complete);
    }
    match head.scan.run(buf, limits.max_head_bytes, Part::Response) {
        Ok(None) => Ok(Status::Partial),
        Ok(Some(end)) => read(&buf[..end], limits, request_method, head).map(|()| Status::Complete),
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

/// Reads a head that is whole; of others see `request::read`.
fn read(
    buf: &[u8],
    limits: &Limits,
    request_method: Method,
    head: &mut ResponseHead,
) -> Result<(), ParseError> {
    let Line { version, status, reason, end } = Line::read(buf)?;
    let mut facts = Facts::default();
    let len = facts.collect(buf, end, limits.max_fields, &mut head.fields)?;
    if len > limits.max_head_bytes {
        return Err(ParseError::HeadTooLarge);
    }
    head.len = len;
    head.status = status;
    head.version = version;
    head.reason = reason;
    head.tunnel = status == 101 || (request_method == Method::Connect && (200..300).contains(&status));
    head.interim = status < 200 && status != 101;
    let announced = facts.framing(buf, head.version)?;
    head.content_length = if let Framing::Length(length) = announced { Some(length) } else { None };
    head.framing = framing(status, request_method, announced)?;
    head.keep_alive = facts.persistent(head.version) && head.framing != Framing::UntilClose && !head.tunnel;
    head.upgrade = facts.upgrade(head.version);
    Ok(())
}

/// `version SP status [SP reason] CRLF` (RFC 9112 §4); the last SP is required there, but its lack means nothing else.
struct Line {
    version: Version,
    status: u16,
    reason: Span,
    /// Where the next line begins.
    end: usize,
}

impl Line {
    #[inline]
    fn read(buf: &[u8]) -> Result<Self, ParseError> {
        const MALFORMED: ParseError = ParseError::StatusLine;
        let version = Version::read(buf, 0).ok_or(MALFORMED)?;
        let Some([b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..]) =
            buf.get(Version::LEN..)
        else {
            // Also of an unknown version no more is expected than that.
            return Err(match (version, buf.get(Version::LEN)) {
                (None, Some(b' ')) => ParseError::Version,
                _ => MALFORMED,
            });
        };
        let version = version.ok_or(ParseError::Version)?;
        let digit = |byte: &u8| u16::from(byte & 0x0f);
        let start = buf.len() - rest.len() + usize::from(rest.first() == Some(&b' '));
        // Without that SP the line ends here.
        let line = match rest {
            [b' ', text @ ..] => start + word::find_control(text).ok_or(MALFORMED)?,
            _ => start,
        };
        let end = line_end(buf, line).map_err(|_| MALFORMED)?;
        let status = digit(a) * 100 + digit(b) * 10 + digit(c);
        Ok(Line { version, status, reason: Span::new(start, line), end })
    }
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
