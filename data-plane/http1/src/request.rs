//! Request heads: [`parse`] fills a reused [`RequestHead`] or says why the request is refused.
//!
//! A whole head costs one pass. A partial one goes to the scanner, which looks at each byte once. Errors are always
//! found by the second way, so that they are the same however the input was split.
//!
//! What is refused, and with which status, is listed at [`ParseError`]; after any of it the connection
//! has to be closed, because nobody can say where the next request begins.

use crate::field::is_token;
use crate::head::Status;
use crate::scan::{Part, Scan};
use crate::target::{self, Form, Target};
use crate::tokens::{Facts, line_end};
use crate::{Field, Framing, Limits, Method, ParseError, Span, Version, word};

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
    if head.scan.is_new() && read(buf, limits, head).is_ok() {
        return Ok(Status::Complete);
    }
    match head.scan.run(buf, limits.max_head_bytes, Part::Request) {
        Ok(None) => Ok(Status::Partial),
        Ok(Some(end)) => read(&buf[..end], limits, head).map(|()| Status::Complete),
        Err(error) => {
            head.scan = Scan::default();
            Err(error)
        }
    }
}

/// Reads a head that is whole. What it says of one that is not, or of line ends and control bytes, is beside the point:
/// the scanner judges those.
fn read(buf: &[u8], limits: &Limits, head: &mut RequestHead) -> Result<(), ParseError> {
    // RFC 9112 §2.2: one empty line is skipped, for the sake of old clients.
    let start = if buf.starts_with(b"\r\n") { 2 } else { 0 };
    let line = Line::read(buf, start)?;
    let mut facts = Facts::default();
    let len = facts.collect(buf, line.end, limits.max_fields, &mut head.fields)?;
    if len > limits.max_head_bytes {
        return Err(ParseError::HeadTooLarge);
    }
    head.len = len;
    head.version = line.version;
    head.method = line.method;
    head.method_span = line.method_span;
    if line.target.len() > limits.max_target_bytes {
        return Err(ParseError::TargetTooLong);
    }
    head.target = target::parse(buf, line.target, head.method)?;
    head.authority = authority(buf, head.version, &head.target, &facts)?;
    head.framing = facts.framing(buf, head.version)?;
    if head.method == Method::Connect && !matches!(head.framing, Framing::None | Framing::Length(0)) {
        return Err(ParseError::BodyForbidden);
    }
    head.keep_alive = facts.persistent(head.version);
    head.expect_continue = facts.expects_continue && head.version == Version::Http11;
    head.accepts_trailers = facts.accepts_trailers;
    head.upgrade = facts.upgrade(head.version);
    Ok(())
}

/// `method SP target SP version CRLF` (RFC 9112 §3).
struct Line {
    method: Method,
    method_span: Span,
    /// Not judged yet.
    target: Span,
    version: Version,
    /// Where the next line begins.
    end: usize,
}

impl Line {
    #[inline]
    fn read(buf: &[u8], start: usize) -> Result<Self, ParseError> {
        const MALFORMED: ParseError = ParseError::RequestLine;
        let line = &buf[start..];
        let (method, rest) = line.split_at(word::find(line, b' ').ok_or(MALFORMED)?);
        let method_span = Span::new(start, start + method.len());
        let target_start = method_span.end() + 1;
        let target = Span::new(target_start, target_start + word::find(&rest[1..], b' ').ok_or(MALFORMED)?);
        let known = Method::from_bytes(method);
        if target.is_empty() || (known == Method::Other && !is_token(method)) {
            return Err(MALFORMED);
        }
        let version = Version::read(buf, target.end() + 1).ok_or(MALFORMED)?;
        let end = line_end(buf, target.end() + 1 + Version::LEN).map_err(|_| MALFORMED)?;
        Ok(Line { method: known, method_span, target, version: version.ok_or(ParseError::Version)?, end })
    }
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
