//! Request targets and hosts (RFC 9112 §3.2, RFC 3986): which form, and where its parts lie.
//!
//! Checks bytes and shape only. Percent triplets, dot segments and case are the router's business; the
//! parts are handed over as they were sent. Bytes outside of visible ASCII, `#`, `<`, `>`, and the
//! backtick in a path or `"` in a query are refused: no URI has them and hyper refuses them on h2.

use crate::{Method, ParseError, Span};

/// The four forms of RFC 9112 §3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://authority/path?query` (scheme http or https, in any case)
    Absolute,
    /// `host:port`, with CONNECT only
    Authority,
    /// `*`, with OPTIONS only
    Asterisk,
}

/// A request target, taken apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// Which form it has.
    pub form: Form,
    /// The whole target.
    pub span: Span,
    /// The scheme of an absolute form; empty otherwise.
    pub scheme: Span,
    /// `host [":" port]` of an absolute or authority form; empty otherwise.
    pub authority: Span,
    /// The path, beginning with `/`; `*` for the asterisk form. Empty for the authority form, and for
    /// an absolute form without a path, which means `/` (`*` with OPTIONS, RFC 9112 §3.2.4).
    pub path: Span,
    /// What follows the first `?`, without it. `Some` of an empty span when the target ends with `?`.
    pub query: Option<Span>,
}

/// Reads the target that lies at `span`.
pub(crate) fn parse(buf: &[u8], span: Span, method: Method) -> Result<Target, ParseError> {
    let text = span.of(buf);
    let bare = Target { span, ..Target::default() };
    if method == Method::Connect {
        // §3.2.3: authority-form is used with CONNECT, only there, and has a port.
        if text.starts_with(b"/") || text == b"*" {
            return Err(ParseError::TargetForm);
        }
        return match host(text) {
            Some(Host { port: Some(_), .. }) => Ok(Target { form: Form::Authority, authority: span, ..bare }),
            _ => Err(ParseError::TargetForm),
        };
    }
    if text.starts_with(b"/") {
        let (path, query) = path_and_query(buf, span)?;
        return Ok(Target { form: Form::Origin, path, query, ..bare });
    }
    if text == b"*" {
        // §3.2.4: only a server-wide OPTIONS.
        if method != Method::Options {
            return Err(ParseError::TargetForm);
        }
        return Ok(Target { form: Form::Asterisk, path: span, ..bare });
    }
    absolute(buf, bare)
}

/// `scheme "://" authority [path] ["?" query]`, RFC 9112 §3.2.2.
fn absolute(buf: &[u8], bare: Target) -> Result<Target, ParseError> {
    let text = bare.span.of(buf);
    let scheme = [&b"http"[..], b"https"].into_iter().find(|scheme| {
        text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
            && text[scheme.len()..].starts_with(b"://")
    });
    let Some(scheme) = scheme else {
        // `host:port` is well formed, but not for this method.
        return Err(if host(text).is_some() { ParseError::TargetForm } else { ParseError::Target });
    };
    let rest = scheme.len() + 3;
    let len = text[rest..].iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(text.len() - rest);
    let start = bare.span.start();
    let authority = Span::new(start + rest, start + rest + len);
    if host(authority.of(buf)).is_none() {
        return Err(ParseError::Host);
    }
    let (path, query) = path_and_query(buf, Span::new(authority.end(), bare.span.end()))?;
    let scheme = Span::new(start, start + scheme.len());
    Ok(Target { form: Form::Absolute, scheme, authority, path, query, ..bare })
}

fn path_and_query(buf: &[u8], span: Span) -> Result<(Span, Option<Span>), ParseError> {
    let text = span.of(buf);
    let path_len = text.iter().position(|&b| CLASS[b as usize] & PATH == 0).unwrap_or(text.len());
    let path = Span::new(span.start(), span.start() + path_len);
    match text.get(path_len) {
        None => Ok((path, None)),
        Some(b'?') => {
            let query = &text[path_len + 1..];
            if query.iter().any(|&b| CLASS[b as usize] & QUERY == 0) {
                return Err(ParseError::Target);
            }
            Ok((path, Some(Span::new(path.end() + 1, span.end()))))
        }
        Some(_) => Err(ParseError::Target),
    }
}

/// A checked `host [":" port]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Host<'a> {
    /// Name, IPv4 address, or IPv6 address with its brackets. Not empty.
    pub(crate) name: &'a [u8],
    /// `None` also for an empty one (`host:`, RFC 3986 §3.2.3).
    pub(crate) port: Option<u16>,
}

/// Reads `host [":" port]`; `None` when it is none, is empty, or carries userinfo.
///
/// Narrower than RFC 3986 in one point: no percent triplets. They only serve names that are not DNS
/// names, and readers differ on whether they are decoded before they are compared.
pub(crate) fn host(text: &[u8]) -> Option<Host<'_>> {
    let (name, rest) = if text.first() == Some(&b'[') {
        let end = text.iter().position(|&b| b == b']')?;
        let inside = std::str::from_utf8(&text[1..end]).ok()?;
        inside.parse::<std::net::Ipv6Addr>().ok()?;
        text.split_at(end + 1)
    } else {
        let end = text.iter().position(|&b| CLASS[b as usize] & HOST == 0).unwrap_or(text.len());
        text.split_at(end)
    };
    if name.is_empty() {
        return None;
    }
    let port = match rest {
        [] | [b':'] => None,
        [b':', digits @ ..] => Some(digits.iter().try_fold(0u16, |number, digit| {
            let digit = digit.is_ascii_digit().then_some(u16::from(digit & 0x0f))?;
            number.checked_mul(10)?.checked_add(digit)
        })?),
        _ => return None,
    };
    Some(Host { name, port })
}

/// Whether two authorities of one scheme name the same origin: the names in any case, a missing or
/// empty port as the scheme's default (RFC 9110 §4.2.3).
pub(crate) fn same_origin(a: &[u8], b: &[u8], default_port: u16) -> bool {
    let (Some(a), Some(b)) = (host(a), host(b)) else { return false };
    a.name.eq_ignore_ascii_case(b.name) && a.port.unwrap_or(default_port) == b.port.unwrap_or(default_port)
}

const PATH: u8 = 1;
const QUERY: u8 = 2;
const HOST: u8 = 4;

/// What each byte may be part of.
static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        let b = byte as u8;
        if !matches!(b, b'#' | b'<' | b'>' | b'`' | b'?') {
            table[byte] |= PATH;
        }
        if !matches!(b, b'#' | b'<' | b'>' | b'"') {
            table[byte] |= QUERY;
        }
        // unreserved and sub-delims, RFC 3986 §2
        if b.is_ascii_alphanumeric()
            || matches!(b, b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')')
            || matches!(b, b'*' | b'+' | b',' | b';' | b'=')
        {
            table[byte] |= HOST;
        }
        byte += 1;
    }
    table
}

#[cfg(test)]
mod tests;
