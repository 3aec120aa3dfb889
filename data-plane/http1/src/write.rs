//! Heads, written into a reused vector: [`HeadWriter`].
//!
//! Nothing that is written can end a line or a head early: names must be tokens and values free of
//! control bytes, or the call fails and the vector is as it was. Fields that came from a parsed head
//! passed the same rules already and are copied as they are ([`HeadWriter::parsed`]).
//! Framing fields come from [`HeadWriter::framing`] only.

use thiserror::Error;

use crate::field::is_token;
use crate::{Field, Framing, KnownField, Method, Version, word};

/// Why something cannot be part of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum WriteError {
    /// A method or field name that is not a token (RFC 9110 §5.6.2).
    #[error("not a token")]
    Name,
    /// A field value with control bytes (RFC 9110 §5.5).
    #[error("control byte in a field value")]
    Value,
    /// A target with bytes other than visible ASCII, or an empty one.
    #[error("malformed request target")]
    Target,
    /// A status outside 100–999.
    #[error("not a status code")]
    Status,
    /// `Content-Length` or `Transfer-Encoding` as an ordinary field.
    #[error("framing fields are written by framing() only")]
    Framing,
}

/// Writes one head. Every method appends; [`HeadWriter::finish`] ends the head. A failed call appends
/// nothing.
#[derive(Debug)]
#[must_use = "a head without finish() has no end"]
pub struct HeadWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> HeadWriter<'a> {
    /// Begins an HTTP/1.1 request to `path`, with `?query` if there is one (without the `?`). For the
    /// asterisk and authority forms `path` is the whole target.
    pub fn request(
        out: &'a mut Vec<u8>,
        method: &[u8],
        path: &[u8],
        query: Option<&[u8]>,
    ) -> Result<Self, WriteError> {
        if !is_token(method) {
            return Err(WriteError::Name);
        }
        if path.is_empty() || !is_visible(path) || !is_visible(query.unwrap_or_default()) {
            return Err(WriteError::Target);
        }
        out.reserve(method.len() + path.len() + query.map_or(0, <[u8]>::len) + 16);
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(path);
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        Ok(Self { out })
    }

    /// Begins an HTTP/1.1 response with the status's registered reason. The status line says 1.1 to
    /// HTTP/1.0 clients too (RFC 9110 §6.2); what differs for them is the framing, see [`announce`].
    pub fn response(out: &'a mut Vec<u8>, status: u16) -> Result<Self, WriteError> {
        if !(100..=999).contains(&status) {
            return Err(WriteError::Status);
        }
        if status == 200 {
            out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
            return Ok(Self { out });
        }
        out.extend_from_slice(b"HTTP/1.1 ");
        push_decimal(u64::from(status), out);
        out.push(b' ');
        out.extend_from_slice(reason(status).as_bytes());
        out.extend_from_slice(b"\r\n");
        Ok(Self { out })
    }

    /// Appends a field after checking it.
    pub fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), WriteError> {
        if KnownField::classify(name).is_framing() {
            return Err(WriteError::Framing);
        }
        push_field(name, value, self.out)
    }

    /// Appends a field as it was parsed from `buf`. Framing fields are left out: write
    /// [`HeadWriter::framing`].
    pub fn parsed(&mut self, buf: &[u8], field: &Field) {
        debug_assert!(is_token(field.name.of(buf)) && is_value(field.value.of(buf)));
        if field.known.is_framing() {
            return;
        }
        let gap = field.name.end()..field.value.start();
        if buf.get(gap) == Some(b": ") {
            // The usual spelling: one copy of name, colon, space and value.
            self.out.extend_from_slice(&buf[field.name.start()..field.value.end()]);
            self.out.extend_from_slice(b"\r\n");
        } else {
            push_line(field.name.of(buf), field.value.of(buf), self.out);
        }
    }

    /// Appends a field whose name is known to be sound and no framing field's: it was parsed, or is a constant. The
    /// value is checked.
    pub fn known_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), WriteError> {
        debug_assert!(is_token(name) && !KnownField::classify(name).is_framing());
        if !is_value(value) {
            return Err(WriteError::Value);
        }
        push_line(name, value, self.out);
        Ok(())
    }

    /// Appends whole field lines in the form `name: value` with their CRLF, as they were parsed or made of sound parts.
    /// None of them may be a framing field.
    #[inline]
    pub fn lines(&mut self, lines: &[u8]) {
        debug_assert!(lines.is_empty() || lines.ends_with(b"\r\n"));
        self.out.extend_from_slice(lines);
    }

    /// Appends the field that announces `framing`; `None` and `UntilClose` have none.
    pub fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::None | Framing::UntilClose => {}
            Framing::Length(length) => {
                self.out.extend_from_slice(b"content-length: ");
                push_decimal(length, self.out);
                self.out.extend_from_slice(b"\r\n");
            }
            Framing::Chunked => self.out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        }
    }

    /// Ends the head.
    pub fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Whether a response of this `status` to a request of this `method` is followed by a body
/// (RFC 9112 §6.3).
pub const fn has_body(method: Method, status: u16) -> bool {
    !(matches!(method, Method::Head)
        || matches!(status, 100..=199 | 204 | 304)
        || (matches!(method, Method::Connect) && matches!(status, 200..=299)))
}

/// What the head of a response announces for a body of `length` bytes (`None` if unknown) to a client
/// that spoke `version`: nothing where RFC 9110 §8.6 forbids it, no chunked coding for HTTP/1.0
/// (RFC 9112 §6.1: the close ends the body). Whether a body follows at all is [`has_body`].
pub const fn announce(method: Method, status: u16, version: Version, length: Option<u64>) -> Framing {
    match (status, length) {
        (100..=199 | 204, _) => Framing::None,
        (200..=299, _) if matches!(method, Method::Connect) => Framing::None,
        (_, Some(length)) => Framing::Length(length),
        (304, None) => Framing::None,
        (_, None) => match (method, version) {
            (Method::Head, _) => Framing::None,
            (_, Version::Http10) => Framing::UntilClose,
            (_, Version::Http11) => Framing::Chunked,
        },
    }
}

/// Appends one checked field line.
pub(crate) fn push_field(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), WriteError> {
    if !is_token(name) {
        return Err(WriteError::Name);
    }
    if !is_value(value) {
        return Err(WriteError::Value);
    }
    push_line(name, value, out);
    Ok(())
}

fn push_line(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Whether `value` has no control bytes but HTAB. Values are short: eight bytes at a time, the last eight once more.
fn is_value(value: &[u8]) -> bool {
    let Some(last) = value.last_chunk() else { return has_no_control(value) };
    let mut words = value.as_chunks().0.iter().chain([last]);
    words.all(|word| word::controls(u64::from_le_bytes(*word)) == 0 || has_no_control(word))
}

fn has_no_control(value: &[u8]) -> bool {
    !value.iter().any(|&byte| word::is_control(byte))
}

fn is_visible(text: &[u8]) -> bool {
    text.iter().fold(true, |clean, &b| clean & (b > b' ' && b < 0x7f))
}

fn push_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// The registered reason phrase, empty for others (RFC 9110 §15 and the IANA registry).
const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        102 => "Processing",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        207 => "Multi-Status",
        208 => "Already Reported",
        226 => "IM Used",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        305 => "Use Proxy",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        423 => "Locked",
        424 => "Failed Dependency",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        506 => "Variant Also Negotiates",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        510 => "Not Extended",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests;
