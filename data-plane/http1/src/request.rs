//! Request heads: [`parse`] fills a reused [`RequestHead`] or says why the request is refused.
//!
//! A whole head costs one pass of the tokenizer plus checks of single bytes. A partial one goes to the
//! scanner, which looks at each byte once. Errors are always found by the second way, so that they are
//! the same however the input was split.
//!
//! What is refused, and with which status, is listed at [`ParseError`]; after any of it the connection
//! has to be closed, because nobody can say where the next request begins.

use std::mem::MaybeUninit;

use crate::head::{MAX_FIELDS, Status};
use crate::scan::{Part, Scan};
use crate::target::{self, Form, Target};
use crate::tokens::Facts;
use crate::{Field, Framing, Limits, Method, ParseError, Span, Version};

/// A request head as positions in the caller's buffer. Keep one per connection (or borrow one per
/// request) and pass it to every call: its vector is reused, and it remembers how far a partial head
/// was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// The well-known method, or `Other`.
    pub method: Method,
    /// The method's text.
    pub method_span: Span,
    /// The request target, taken apart.
    pub target: Target,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// All fields in the order in which they were sent.
    pub fields: Vec<Field>,
    /// Bytes that the head takes, an empty line before it and the one after it included: the body
    /// begins here.
    pub len: usize,
    /// `None`, `Length` or `Chunked`.
    pub framing: Framing,
    /// Whether the client lets the connection live on after the response.
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body. Never set in HTTP/1.0
    /// (RFC 9110 §10.1.1). Other expectations are left for the upstream to judge.
    pub expect_continue: bool,
    /// `TE: trailers` was sent.
    pub accepts_trailers: bool,
    /// The value of `Upgrade`, when `Connection` names it and the version is 1.1.
    pub upgrade: Option<Span>,
    /// The effective `host [":" port]`: the target's authority, else the value of `Host`. Empty only
    /// in HTTP/1.0.
    pub authority: Span,
    scan: Scan,
}

impl RequestHead {
    /// An empty head. Allocates with the first request.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets a partial head: needed only when the head is to be used for another connection before
    /// [`parse`] returned `Complete` or an error. The vector keeps its capacity.
    pub fn reset(&mut self) {
        self.fields.clear();
        self.scan = Scan::default();
    }
}

/// Reads one request head from the start of `buf`.
///
/// After [`Status::Partial`] call again with the same `head` and a buffer that begins with the same
/// bytes (its address may change). After [`Status::Complete`] all fields of `head` describe `buf` and
/// `buf[head.len..]` is the body or the next request. After an error, and after `Partial`, the public
/// fields have no meaning.
pub fn parse(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Status, ParseError> {
    if head.scan.is_new() && matches!(read(buf, limits, head), Ok(Status::Complete)) {
        return Ok(Status::Complete);
    }
    match head.scan.run(buf, limits.max_head_bytes, Part::Request) {
        Ok(None) => Ok(Status::Partial),
        Ok(Some(end)) => match read(&buf[..end], limits, head)? {
            Status::Complete => Ok(Status::Complete),
            Status::Partial => Err(ParseError::RequestLine),
        },
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

/// Reads a head that is whole, or says `Partial`.
fn read(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<Status, ParseError> {
    let skipped = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    // httparse would skip any number of empty lines, also bare LF.
    if matches!(buf.get(skipped), Some(b'\r' | b'\n')) {
        return Err(ParseError::EmptyLine);
    }
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let table = &mut storage[..limits.max_fields.min(MAX_FIELDS)];
    let len = match request.parse_with_uninit_headers(&buf[skipped..], table) {
        Ok(httparse::Status::Complete(len)) => skipped + len,
        Ok(httparse::Status::Partial) => return Ok(Status::Partial),
        Err(error) => return Err(refusal(error, &buf[skipped..])),
    };
    if len > limits.max_head_bytes {
        return Err(ParseError::HeadTooLarge);
    }
    if !buf[..len].ends_with(b"\r\n\r\n") {
        return Err(ParseError::LineEnd);
    }
    let (Some(method), Some(path), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(ParseError::RequestLine);
    };
    let facts = Facts::collect(buf, request.headers, &mut head.fields)?;
    head.len = len;
    head.version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    head.method = Method::from_bytes(method.as_bytes());
    head.method_span = Span::locate(buf, method.as_bytes());
    if path.len() > limits.max_target_bytes {
        return Err(ParseError::TargetTooLong);
    }
    head.target = target::parse(buf, Span::locate(buf, path.as_bytes()), head.method)?;
    head.authority = authority(buf, head.version, &head.target, &facts)?;
    head.framing = facts.framing(buf, head.version)?;
    if head.method == Method::Connect && !matches!(head.framing, Framing::None | Framing::Length(0)) {
        return Err(ParseError::BodyForbidden);
    }
    head.keep_alive = facts.persistent(head.version);
    head.expect_continue = facts.expects_continue && head.version == Version::Http11;
    head.accepts_trailers = facts.accepts_trailers;
    head.upgrade = facts.upgrade(head.version);
    Ok(Status::Complete)
}

/// RFC 9112 §3.2: one valid `Host` in 1.1, and no contradiction with the target.
fn authority(buf: &[u8], version: Version, target: &Target, facts: &Facts) -> Result<Span, ParseError> {
    if facts.host_duplicate {
        return Err(ParseError::HostDuplicate);
    }
    let Some(host) = facts.host else {
        return if version == Version::Http11 { Err(ParseError::HostMissing) } else { Ok(target.authority) };
    };
    if target::host(host.of(buf)).is_none() {
        return Err(ParseError::Host);
    }
    let default_port = match target.form {
        Form::Origin | Form::Asterisk => return Ok(host),
        Form::Authority => 443,
        Form::Absolute if target.scheme.len() == "https".len() => 443,
        Form::Absolute => 80,
    };
    if !target::same_origin(target.authority.of(buf), host.of(buf), default_port) {
        return Err(ParseError::HostConflict);
    }
    Ok(target.authority)
}

/// The reason for a head that httparse refuses. Line ends and control bytes were judged before, by
/// the scanner.
fn refusal(error: httparse::Error, text: &[u8]) -> ParseError {
    match error {
        httparse::Error::TooManyHeaders => ParseError::TooManyFields,
        httparse::Error::HeaderName | httparse::Error::HeaderValue => ParseError::FieldLine,
        httparse::Error::Version => {
            let line = text.split(|&b| b == b'\r').next().unwrap_or_default();
            let mut words = line.split(|&b| b == b' ').skip(2);
            match (words.next(), words.next()) {
                (Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor]), None)
                    if major.is_ascii_digit() && minor.is_ascii_digit() =>
                {
                    ParseError::Version
                }
                _ => ParseError::RequestLine,
            }
        }
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            ParseError::RequestLine
        }
    }
}
