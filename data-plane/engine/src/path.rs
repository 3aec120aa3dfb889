//! The one form of paths and hosts (contract, "Matching, fixed once"): requests and patterns pass the same
//! functions, so that what is matched, what policies see and what goes upstream are the same text.
//!
//! Paths: a control byte, `\`, `#`, a bad triplet, `%00` or a `..` above the root is refused; triplets of unreserved
//! characters are decoded (RFC 3986 §6.2.2), all others upper-cased and kept; `//` merges; dot segments go (§5.2.4).
//! Bytes that no URI may hold raw (space, anything above ASCII) become triplets, so that the result is ASCII and
//! `/café` in a manifest equals `/caf%C3%A9` on the wire. Hosts: lower case, without port and trailing dot.
//!
//! Invariant: both functions are idempotent, and borrow when there is nothing to change.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Why a path is malformed. The request is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It does not begin with `/`.
    #[error("a path begins with '/'")]
    NotAbsolute,
    /// A byte below 0x20, or DEL.
    #[error("control characters are not allowed in a path")]
    Control,
    /// `\`, which some servers take for `/`.
    #[error("'\\' is not allowed in a path, write %5C")]
    Backslash,
    /// `#`: fragments are never sent.
    #[error("'#' is not allowed in a path, write %23")]
    Fragment,
    /// `?`: the query is no part of the path.
    #[error("'?' is not allowed in a path, write %3F")]
    Query,
    /// `%` without two hexadecimal digits.
    #[error("'%' needs two hexadecimal digits after it, write %25 for the character itself")]
    Triplet,
    /// `%00`.
    #[error("%00 is not allowed in a path")]
    Nul,
    /// `..` leads out of the root.
    #[error("'..' leads above the root")]
    AboveRoot,
}

/// Why a host is malformed. The request is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadHost {
    /// A character that no host holds.
    #[error("a host holds letters, digits, '-', '.' and '_' (international names in their xn-- form)")]
    Character,
    /// What follows the colon is no port.
    #[error("a port is a number up to 65535")]
    Port,
    /// Brackets without an IPv6 address in them.
    #[error("brackets hold an IPv6 address")]
    Literal,
    /// A dot with nothing before it: `a..b`, `.a`.
    #[error("a host has no empty label")]
    Label,
    /// Longer than any name may be.
    #[error("a host is at most 255 bytes long")]
    Long,
}

/// Brings a path (without query) into the one form. Borrows `path` if it is in that form already, else writes into
/// `scratch`, whose content is lost. An empty path is `/` (RFC 9110 §4.2.3). The result is ASCII.
///
/// # Errors
/// The first fault that was met.
pub fn normalize<'a>(path: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a str, BadPath> {
    let form: &[u8] = if path.is_empty() {
        b"/"
    } else if is_normal(path)? {
        path
    } else {
        rewrite(path, scratch)?;
        scratch
    };
    Ok(std::str::from_utf8(form).expect("only ASCII passes"))
}

/// Whether the path is in normal form: no triplet, no merge, no dot segment, nothing to encode. Errors are found here
/// as far as they show in single bytes.
fn is_normal(path: &[u8]) -> Result<bool, BadPath> {
    if path.first() != Some(&b'/') {
        return Err(BadPath::NotAbsolute);
    }
    if is_usual(path) { Ok(true) } else { judge(path) }
}

/// The same byte by byte.
fn judge(path: &[u8]) -> Result<bool, BadPath> {
    let mut normal = true;
    let mut previous = 0;
    for &byte in path {
        match byte {
            0..0x20 | 0x7f => return Err(BadPath::Control),
            b'\\' => return Err(BadPath::Backslash),
            b'#' => return Err(BadPath::Fragment),
            b'?' => return Err(BadPath::Query),
            b'%' | b' ' | 0x80.. => normal = false,
            // Also `/.well-known`: such paths take the slow way and come out unchanged.
            b'/' | b'.' if previous == b'/' => normal = false,
            _ => {}
        }
        previous = byte;
    }
    Ok(normal)
}

/// Whether there is nothing in the path that has to be looked at, as in most. Words of eight bytes that share one with
/// their neighbours, so that every pair is in some word.
fn is_usual(path: &[u8]) -> bool {
    let Some(last) = path.last_chunk() else {
        let mut word = [b'a'; 8];
        word[..path.len()].copy_from_slice(path);
        return is_usual_word(word);
    };
    let mut rest = path;
    while rest.len() > 8
        && let Some(word) = rest.first_chunk()
    {
        if !is_usual_word(*word) {
            return false;
        }
        rest = &rest[7..];
    }
    is_usual_word(*last)
}

/// Whether eight bytes are visible ASCII without `\`, `#`, `?` and `%`, and no `/` is followed by `/` or `.`.
fn is_usual_word(bytes: [u8; 8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = ONES << 7;
    let word = u64::from_le_bytes(bytes);
    // The high bit where a byte is below the limit or is this one; above the first of them there may be more.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let is = |word: u64, byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    // The same, exact for bytes of ASCII.
    let just = |byte: u8| !(word ^ (ONES * u64::from(byte))).wrapping_add(HIGH - ONES);
    // `?` and DEL differ in one bit.
    let odd = word | below(word, 0x21) | is(word | ONES << 6, 0x7f);
    let odd = odd | is(word, b'\\') | is(word, b'#') | is(word, b'%');
    let slash = just(b'/') & HIGH;
    let pairs = slash << 8 & (slash | just(b'.'));
    (odd | pairs) & HIGH == 0
}

fn rewrite(path: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    out.clear();
    out.reserve(path.len());
    out.push(b'/');
    let mut segment = 1; // where the segment being written begins in `out`
    let mut rest = &path[1..];
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'/' => end_segment(out, &mut segment)?,
            b'%' => {
                let value = triplet(rest)?;
                rest = &rest[2..];
                if is_unreserved(value) { out.push(value) } else { push_triplet(value, out) }
            }
            b' ' | 0x80.. => push_triplet(byte, out),
            _ => out.push(byte),
        }
    }
    if matches!(&out[segment..], b"." | b"..") {
        end_segment(out, &mut segment)?;
    }
    Ok(())
}

/// What a `/` after a segment does: keeps it, merges, or removes dot segments.
fn end_segment(out: &mut Vec<u8>, segment: &mut usize) -> Result<(), BadPath> {
    match &out[*segment..] {
        b"" => {}
        b"." => out.truncate(*segment),
        b".." => {
            let parent =
                out[..*segment - 1].iter().rposition(|&byte| byte == b'/').ok_or(BadPath::AboveRoot)?;
            out.truncate(parent + 1);
            *segment = parent + 1;
        }
        _ => {
            out.push(b'/');
            *segment = out.len();
        }
    }
    Ok(())
}

fn triplet(digits: &[u8]) -> Result<u8, BadPath> {
    let hex =
        |at: usize| digits.get(at).and_then(|&byte| char::from(byte).to_digit(16)).ok_or(BadPath::Triplet);
    match (hex(0)? << 4 | hex(1)?) as u8 {
        0 => Err(BadPath::Nul),
        value => Ok(value),
    }
}

fn push_triplet(value: u8, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', HEX[usize::from(value >> 4)], HEX[usize::from(value & 15)]]);
}

/// RFC 3986 §2.3.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// What a byte is to a host.
#[derive(Clone, Copy)]
enum HostByte {
    /// Part of a name in the one form.
    Lower,
    /// A letter to be lowered.
    Upper,
    /// The end of a label.
    Dot,
    /// The end of the name.
    Colon,
    Foreign,
}

static HOST_BYTES: [HostByte; 256] = {
    let mut table = [HostByte::Foreign; 256];
    let mut byte = 0;
    while byte < 0x80 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => HostByte::Lower,
            b'A'..=b'Z' => HostByte::Upper,
            b'.' => HostByte::Dot,
            b':' => HostByte::Colon,
            _ => HostByte::Foreign,
        };
        byte += 1;
    }
    table
};

/// Brings a `Host` or `:authority` into the one form: lower case, no port, no trailing dot; IPv6 literals stay in
/// brackets, in their shortest spelling. Borrows `authority` if nothing but its end changes, else writes into
/// `scratch`. Empty stays empty: a request that names no host (HTTP/1.0).
///
/// # Errors
/// The first fault that was met.
pub fn host<'a>(authority: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<&'a str, BadHost> {
    if authority.first() == Some(&b'[') {
        return literal(authority, scratch);
    }
    let (mut lower, mut label_is_empty) = (true, true);
    let mut end = authority.len();
    for (at, &byte) in authority.iter().enumerate() {
        let kind = HOST_BYTES[usize::from(byte)];
        match kind {
            HostByte::Lower => {}
            HostByte::Upper => lower = false,
            HostByte::Dot if label_is_empty => return Err(BadHost::Label),
            HostByte::Dot => {}
            HostByte::Colon => {
                end = at;
                break;
            }
            HostByte::Foreign => return Err(BadHost::Character),
        }
        label_is_empty = matches!(kind, HostByte::Dot);
    }
    let (mut name, port) = authority.split_at(end);
    check_port(port)?;
    name = name.strip_suffix(b".").unwrap_or(name);
    if name.len() > 255 {
        return Err(BadHost::Long);
    }
    if !lower {
        scratch.clear();
        scratch.extend(name.iter().map(u8::to_ascii_lowercase));
        name = scratch;
    }
    Ok(std::str::from_utf8(name).expect("only ASCII passes"))
}

fn literal<'a>(authority: &[u8], scratch: &'a mut Vec<u8>) -> Result<&'a str, BadHost> {
    let end = memchr::memchr(b']', authority).ok_or(BadHost::Literal)?;
    check_port(&authority[end + 1..])?;
    let address: Ipv6Addr = std::str::from_utf8(&authority[1..end])
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or(BadHost::Literal)?;
    scratch.clear();
    scratch.extend_from_slice(format!("[{address}]").as_bytes());
    Ok(std::str::from_utf8(scratch).expect("an address is ASCII"))
}

/// Nothing, or a colon and a port; `host:` is allowed (RFC 3986 §3.2.3).
fn check_port(text: &[u8]) -> Result<(), BadHost> {
    let [b':', digits @ ..] = text else { return if text.is_empty() { Ok(()) } else { Err(BadHost::Port) } };
    let number = digits.iter().try_fold(0, |number: u32, byte| {
        let number = number * 10 + u32::from(byte.wrapping_sub(b'0'));
        (byte.is_ascii_digit() && number <= u32::from(u16::MAX)).then_some(number)
    });
    number.map(drop).ok_or(BadHost::Port)
}

/// A host as a configuration writes it, without `*.`: a DNS name or an address, no port.
///
/// # Errors
/// A message naming the text and the form.
pub(crate) fn host_pattern(text: &str) -> Result<String, String> {
    let fault = |why: &dyn std::fmt::Display| format!("invalid host {text:?}: {why}");
    if text.is_empty() {
        return Err(fault(&"it is empty; leave it out to match any host"));
    }
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(format!("[{address}]"));
    }
    if text.parse::<Ipv4Addr>().is_err() && !text.starts_with('[') && text.contains(':') {
        return Err(fault(&"hosts are matched without port"));
    }
    let mut scratch = Vec::new();
    let host = host(text.as_bytes(), &mut scratch).map_err(|bad| fault(&bad))?;
    if text.ends_with(']') {
        return Ok(host.to_owned());
    }
    let sound = |label: &str| {
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    if text.starts_with('[') || !host.split('.').all(sound) {
        return Err(fault(&"expected a name such as api.example.com, *.example.com or an address"));
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests;
