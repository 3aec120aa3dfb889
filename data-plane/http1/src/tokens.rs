//! Field lines, read in one pass: names, values, known names, and the facts that both kinds of message draw from them
//! ([`Facts`]). Strict by construction: a line is `token ":" OWS value OWS CRLF` (RFC 9112 §5) or the head is refused.
//!
//! Each byte is looked at once, mostly eight at a time ([`crate::word`]). Why a line is refused is not judged here
//! beyond "no field line": line ends and control bytes have their own errors, which [`crate::scan`] finds.

use crate::field::{self, Field, KnownField, is_token};
use crate::head::{MAX_CONNECTION_OPTIONS, MAX_FIELDS, ParseError, Version};
use crate::{Framing, Span, word};

/// No field line, or none that ends.
#[derive(Debug)]
pub(crate) struct Malformed;

/// Hands over the fields of the section that begins at `at`, one by one; returns where it ends, its empty line included.
// Inlined always: a call would pass every field through memory.
#[inline(always)]
pub(crate) fn read<E: From<Malformed>>(
    buf: &[u8],
    mut at: usize,
    mut take: impl FnMut(Field) -> Result<(), E>,
) -> Result<usize, E> {
    loop {
        let line = &buf[at..];
        if line.first() == Some(&b'\r') {
            return Ok(line_end(buf, at)?);
        }
        let colon = word::find(line, b':').ok_or(Malformed)?;
        let name = &line[..colon];
        let known = KnownField::classify(name);
        if known == KnownField::Other && !is_token(name) {
            return Err(Malformed.into());
        }
        let mut start = colon + 1;
        while matches!(line.get(start), Some(b' ' | b'\t')) {
            start += 1;
        }
        let mut end = start + word::find_control(&line[start..]).ok_or(Malformed)?;
        let next = line_end(buf, at + end)?;
        while end > start && matches!(line[end - 1], b' ' | b'\t') {
            end -= 1;
        }
        let usual = line[colon..start] == *b": " && at + end + 2 == next;
        let (name, value) = (Span::new(at, at + colon), Span::new(at + start, at + end));
        take(Field { name, value, known, nominated: false, usual })?;
        at = next;
    }
}

impl From<Malformed> for ParseError {
    fn from(_: Malformed) -> Self {
        ParseError::FieldLine
    }
}

/// Where the next line begins, if this one ends at `at`.
#[inline]
pub(crate) fn line_end(buf: &[u8], at: usize) -> Result<usize, Malformed> {
    match buf.get(at..) {
        Some([b'\r', b'\n', ..]) => Ok(at + 2),
        _ => Err(Malformed),
    }
}

/// What the fields of one head say about framing and the connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// The only `Host`.
    pub(crate) host: Option<Span>,
    pub(crate) host_duplicate: bool,
    length: Option<Span>,
    length_duplicate: bool,
    coding: Option<Span>,
    coding_duplicate: bool,
    upgrade: Option<Span>,
    upgrade_duplicate: bool,
    has_connection: bool,
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    connection_upgrade: bool,
    /// `TE: trailers`
    pub(crate) accepts_trailers: bool,
    /// `Expect: 100-continue`
    pub(crate) expects_continue: bool,
}

impl Facts {
    /// Reads the field lines of a head that begin at `at`, into `fields`; where the head ends.
    pub(crate) fn collect(
        &mut self,
        buf: &[u8],
        at: usize,
        max_fields: usize,
        fields: &mut Vec<Field>,
    ) -> Result<usize, ParseError> {
        let max = max_fields.min(MAX_FIELDS);
        fields.clear();
        let end = read(buf, at, |field| {
            if fields.len() == max {
                return Err(ParseError::TooManyFields);
            }
            self.note(field.known, field.value, buf);
            fields.push(field);
            Ok(())
        })?;
        if self.has_connection {
            self.read_connection(buf, fields)?;
        }
        Ok(end)
    }

    #[inline]
    fn note(&mut self, known: KnownField, value: Span, buf: &[u8]) {
        match known {
            KnownField::Host => self.host_duplicate |= self.host.replace(value).is_some(),
            KnownField::ContentLength => self.length_duplicate |= self.length.replace(value).is_some(),
            KnownField::TransferEncoding => self.coding_duplicate |= self.coding.replace(value).is_some(),
            KnownField::Upgrade => self.upgrade_duplicate |= self.upgrade.replace(value).is_some(),
            KnownField::Connection => self.has_connection = true,
            KnownField::Te => self.accepts_trailers |= lists(value.of(buf), b"trailers"),
            KnownField::Expect => self.expects_continue |= lists(value.of(buf), b"100-continue"),
            _ => {}
        }
    }

    /// Reads the options of all `Connection` fields and marks the fields that they name.
    fn read_connection(&mut self, buf: &[u8], fields: &mut [Field]) -> Result<(), ParseError> {
        let mut options = 0;
        for at in 0..fields.len() {
            if fields[at].known != KnownField::Connection {
                continue;
            }
            for option in field::list(fields[at].value.of(buf)) {
                options += 1;
                if options > MAX_CONNECTION_OPTIONS {
                    return Err(ParseError::ConnectionOptions);
                }
                match option.len() {
                    5 if option.eq_ignore_ascii_case(b"close") => self.close = true,
                    10 if option.eq_ignore_ascii_case(b"keep-alive") => self.keep_alive = true,
                    7 if option.eq_ignore_ascii_case(b"upgrade") => self.connection_upgrade = true,
                    _ => nominate(buf, option, fields),
                }
            }
        }
        Ok(())
    }

    /// Whether the sender lets the connection live on (RFC 9112 §9.3). `close` beats `keep-alive`.
    pub(crate) const fn persistent(&self, version: Version) -> bool {
        !self.close && (self.keep_alive || matches!(version, Version::Http11))
    }

    /// The `Upgrade` value, where it is one: one field, named by `Connection`, in HTTP/1.1
    /// (RFC 9110 §7.8). Ignoring any other is always allowed.
    pub(crate) fn upgrade(&self, version: Version) -> Option<Span> {
        let counts = self.connection_upgrade && !self.upgrade_duplicate && version == Version::Http11;
        self.upgrade.filter(|value| counts && !value.is_empty())
    }

    /// What `Content-Length` and `Transfer-Encoding` say together: `None`, `Length` or `Chunked`.
    pub(crate) fn framing(&self, buf: &[u8], version: Version) -> Result<Framing, ParseError> {
        match (self.length, self.coding) {
            (None, None) => Ok(Framing::None),
            (Some(_), Some(_)) => Err(ParseError::LengthAndCoding),
            (Some(_), None) if self.length_duplicate => Err(ParseError::ContentLengthDuplicate),
            (Some(length), None) => content_length(length.of(buf)).map(Framing::Length),
            (None, Some(_)) if version == Version::Http10 => Err(ParseError::TransferEncodingVersion),
            (None, Some(_)) if self.coding_duplicate => Err(ParseError::TransferEncoding),
            (None, Some(coding)) => transfer_encoding(coding.of(buf)),
        }
    }
}

/// Whether an element of a list is this word, in any case.
fn lists(value: &[u8], word: &[u8]) -> bool {
    field::list(value).any(|element| element.eq_ignore_ascii_case(word))
}

fn nominate(buf: &[u8], option: &[u8], fields: &mut [Field]) {
    for field in fields {
        if field.name.len() == option.len()
            && !field.known.is_for_every_hop()
            && field.name.of(buf).eq_ignore_ascii_case(option)
        {
            field.nominated = true;
        }
    }
}

/// `1*DIGIT` below 2^63: no sign, no whitespace, no list (RFC 9110 §8.6).
fn content_length(value: &[u8]) -> Result<u64, ParseError> {
    let number = value.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then_some(u64::from(digit & 0x0f))?;
        number.checked_mul(10)?.checked_add(digit)
    });
    match number {
        Some(number) if !value.is_empty() && number <= i64::MAX as u64 => Ok(number),
        _ => Err(ParseError::ContentLength),
    }
}

/// Exactly `chunked`, in any case. A list of registered codings that ends with the only `chunked` is
/// well formed but not implemented (501, RFC 9112 §6.1); anything else is an attack or a defect.
fn transfer_encoding(value: &[u8]) -> Result<Framing, ParseError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(Framing::Chunked);
    }
    let mut codings = value.rsplit(|&b| b == b',').map(field::trim);
    let registered = |coding: &[u8]| {
        [&b"gzip"[..], b"x-gzip", b"deflate", b"compress", b"x-compress"]
            .iter()
            .any(|name| name.eq_ignore_ascii_case(coding))
    };
    let last_is_chunked = codings.next().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
    if last_is_chunked && codings.all(registered) {
        return Err(ParseError::TransferCodingUnknown);
    }
    Err(ParseError::TransferEncoding)
}
