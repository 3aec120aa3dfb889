//! How values are written so that they stay in their place: neutralised text for header fields and bodies,
//! percent-encoding for paths. Appends only; allocates nothing but the buffer's growth.

use std::fmt::Display;
use std::io::Write as _;
use std::time::Duration;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends a value; control bytes become spaces.
pub(super) fn text(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(value);
    neutralise(&mut out[start..]);
}

/// Turns control bytes into spaces.
pub(super) fn neutralise(value: &mut [u8]) {
    for byte in value {
        if byte.is_ascii_control() {
            *byte = b' ';
        }
    }
}

/// Appends a path parameter with its percent-encoding undone once, then neutralised.
pub(super) fn decoded(value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte == b'%'
            && let [high, low, after @ ..] = tail
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            out.push(high << 4 | low);
            rest = after;
        } else {
            out.push(byte);
        }
    }
    neutralise(&mut out[start..]);
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).map(|value| value as u8)
}

/// Appends what a type displays as (addresses).
pub(super) fn display(value: impl Display, out: &mut Vec<u8>) {
    write!(out, "{value}").expect("writing into a vector does not fail");
}

/// Appends a time as milliseconds with three decimals: `12.345ms`.
pub(super) fn millis(time: Duration, out: &mut Vec<u8>) {
    write!(out, "{}.{:03}ms", time.as_millis(), time.as_micros() % 1000)
        .expect("writing into a vector does not fail");
}

/// A byte that may stand in a path as it is: `pchar` or `/` (RFC 3986 §3.3).
pub const fn is_path_byte(byte: u8) -> bool {
    matches!(byte,
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~'
        | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=' | b':' | b'@' | b'/')
}

/// Appends authored path text: triplets stay, whatever else a path cannot hold is encoded.
pub(super) fn path(value: &[u8], out: &mut Vec<u8>) {
    for (at, &byte) in value.iter().enumerate() {
        let triplet = byte == b'%'
            && value.get(at + 1).is_some_and(u8::is_ascii_hexdigit)
            && value.get(at + 2).is_some_and(u8::is_ascii_hexdigit);
        if triplet || is_path_byte(byte) {
            out.push(byte);
        } else {
            out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
    }
}

/// Encodes what was appended since `start` so that it stays inside one segment (`/` and `%` included).
pub(super) fn segment_in_place(out: &mut Vec<u8>, start: usize) {
    let keeps = |byte: u8| is_path_byte(byte) && byte != b'/';
    let encoded = out[start..].iter().filter(|&&byte| !keeps(byte)).count();
    if encoded == 0 {
        return;
    }
    let mut read = out.len();
    let mut write = read + 2 * encoded;
    out.resize(write, 0);
    while read > start {
        read -= 1;
        let byte = out[read];
        if keeps(byte) {
            write -= 1;
            out[write] = byte;
        } else {
            write -= 3;
            out[write..write + 3].copy_from_slice(&[
                b'%',
                HEX[usize::from(byte >> 4)],
                HEX[usize::from(byte & 15)],
            ]);
        }
    }
}
