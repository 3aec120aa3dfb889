//! A request as a line of JSON, written straight into the batch: no intermediate texts, no allocations.

use std::cell::Cell;
use std::io::Write as _;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gateway_engine::reject::Reason;

use crate::digits::{push_ip, push_number};

/// One request, as its line shows it. Borrowed: nothing is copied unless the log is on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    /// `X-Request-ID`, as sent upstream and returned.
    pub(crate) request_id: &'a str,
    /// Revision of the snapshot that the request was served by.
    pub(crate) revision: u64,
    /// `namespace/name`.
    pub(crate) listener: &'a str,
    /// `namespace/name`; null when none matched.
    pub(crate) route: Option<&'a str>,
    /// As received.
    pub(crate) method: &'a str,
    /// Host asked for, without port.
    pub(crate) host: &'a str,
    /// Normalised path, without query (which may hold secrets).
    pub(crate) path: &'a str,
    /// Status sent; 0: the client went away before one could be.
    pub(crate) status: u16,
    /// Slug; null when a response of the upstream, or of a `respond` or `redirect` route, got to the client whole.
    pub(crate) reason: Option<Reason>,
    /// Request head and body.
    pub(crate) bytes_received: u64,
    /// Response head and body.
    pub(crate) bytes_sent: u64,
    /// First byte of the request to last byte of the response.
    pub(crate) duration: Duration,
    /// `namespace/name`; null when none was asked.
    pub(crate) upstream: Option<&'a str>,
    /// Address of the last target tried; null when none was.
    pub(crate) target: Option<&'a str>,
    /// Client address, after `trustedProxies`.
    pub(crate) client: IpAddr,
}

/// Appends the record as one line, with the time in front.
pub(super) fn push(record: &Record<'_>, clock: &Clock, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"time":""#);
    clock.push_now(out);
    out.extend_from_slice(br#"","requestId":"#);
    push_string(record.request_id, out);
    out.extend_from_slice(br#","revision":"#);
    push_number(record.revision, out);
    out.extend_from_slice(br#","listener":"#);
    push_string(record.listener, out);
    out.extend_from_slice(br#","route":"#);
    push_or_null(record.route, out);
    out.extend_from_slice(br#","method":"#);
    push_string(record.method, out);
    out.extend_from_slice(br#","host":"#);
    push_string(record.host, out);
    out.extend_from_slice(br#","path":"#);
    push_string(record.path, out);
    out.extend_from_slice(br#","status":"#);
    push_number(record.status.into(), out);
    out.extend_from_slice(br#","reason":"#);
    push_or_null(record.reason.map(Reason::slug), out);
    out.extend_from_slice(br#","bytesReceived":"#);
    push_number(record.bytes_received, out);
    out.extend_from_slice(br#","bytesSent":"#);
    push_number(record.bytes_sent, out);
    out.extend_from_slice(br#","durationMs":"#);
    push_millis(record.duration, out);
    out.extend_from_slice(br#","upstream":"#);
    push_or_null(record.upstream, out);
    out.extend_from_slice(br#","target":"#);
    push_or_null(record.target, out);
    out.extend_from_slice(br#","client":""#);
    push_ip(record.client, out);
    out.extend_from_slice(b"\"}\n");
}

fn push_or_null(text: Option<&str>, out: &mut Vec<u8>) {
    match text {
        Some(text) => push_string(text, out),
        None => out.extend_from_slice(b"null"),
    }
}

/// RFC 8259 §7: quotes, backslashes and control characters are escaped, nothing else has to be.
fn push_string(text: &str, out: &mut Vec<u8>) {
    const fn is_special(byte: u8) -> bool {
        byte < b' ' || byte == b'"' || byte == b'\\'
    }
    out.push(b'"');
    // Of all bytes at once, instead of stopping at the first: the compiler makes that sixteen at a time.
    if !text.bytes().fold(false, |any, byte| any | is_special(byte)) {
        out.extend_from_slice(text.as_bytes());
    } else {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b'\n' => out.extend_from_slice(br"\n"),
                b'\r' => out.extend_from_slice(br"\r"),
                b'\t' => out.extend_from_slice(br"\t"),
                0x08 => out.extend_from_slice(br"\b"),
                0x0c => out.extend_from_slice(br"\f"),
                0..b' ' => {
                    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                    out.extend_from_slice(br"\u00");
                    out.extend_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
                }
                _ => out.push(byte),
            }
        }
    }
    out.push(b'"');
}

/// Milliseconds to the microsecond, which is what the clock is good for; at least one decimal place, no more than
/// are needed.
fn push_millis(duration: Duration, out: &mut Vec<u8>) {
    let micros = duration.as_micros() as u64;
    push_number(micros / 1_000, out);
    let mut decimals = *b".000";
    for (at, unit) in [(1, 100), (2, 10), (3, 1)] {
        decimals[at] += (micros / unit % 10) as u8;
    }
    let needed = match decimals {
        [.., b'0', b'0'] => 2,
        [.., b'0'] => 3,
        _ => 4,
    };
    out.extend_from_slice(&decimals[..needed]);
}

/// The time of day, whose text changes once a second.
#[derive(Debug)]
pub(super) struct Clock {
    /// The second, and `2026-01-02T03:04:05.` for it.
    face: Cell<(u64, [u8; 20])>,
}

impl Default for Clock {
    fn default() -> Self {
        Clock { face: Cell::new((0, face(0))) }
    }
}

impl Clock {
    /// Appends the time to the microsecond, as RFC 3339 has it.
    fn push_now(&self, out: &mut Vec<u8>) {
        self.push(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), out);
    }

    fn push(&self, since_epoch: Duration, out: &mut Vec<u8>) {
        let (mut second, mut text) = self.face.get();
        if second != since_epoch.as_secs() {
            second = since_epoch.as_secs();
            text = face(second);
            self.face.set((second, text));
        }
        out.extend_from_slice(&text);
        let micros = since_epoch.subsec_micros();
        let mut rest = *b"000000Z";
        for (digit, unit) in rest.iter_mut().zip([100_000, 10_000, 1_000, 100, 10, 1]) {
            *digit += (micros / unit % 10) as u8;
        }
        out.extend_from_slice(&rest);
    }
}

fn face(second: u64) -> [u8; 20] {
    let at = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    let mut text = *b"0000-00-00T00:00:00.";
    // A clock past the year 9999 is told in as many digits as there is room for.
    let _cut = write!(&mut text[..], "{}", at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S."));
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn strings_are_escaped_as_by_the_library() {
        let controls: String = (0..=0x20).map(char::from).collect();
        for sample in [
            "",
            "/a",
            "/a\"b\\c",
            "/é/\u{7f}\u{2028}",
            &controls,
            &"x".repeat(100),
            &format!("{}\n", "x".repeat(40)),
        ] {
            assert_eq!(
                text(|out| push_string(sample, out)),
                serde_json::to_string(sample).expect("a string")
            );
        }
    }

    #[test]
    fn durations_are_written_as_by_the_library() {
        for micros in [0, 1, 10, 99, 100, 999, 1_000, 1_250, 1_200, 30_000_000, 123_456_789] {
            let expected = json!(micros as f64 / 1e3).to_string();
            assert_eq!(text(|out| push_millis(Duration::from_micros(micros), out)), expected);
        }
    }

    #[test]
    fn the_time_is_right_also_in_the_next_second() {
        let clock = Clock::default();
        for (seconds, micros, expected) in [
            (0, 0, "1970-01-01T00:00:00.000000Z"),
            (784_111_777, 1, "1994-11-06T08:49:37.000001Z"),
            (784_111_777, 999_999, "1994-11-06T08:49:37.999999Z"),
            (784_111_778, 20_300, "1994-11-06T08:49:38.020300Z"),
        ] {
            let since_epoch = Duration::from_secs(seconds) + Duration::from_micros(micros);
            assert_eq!(text(|out| clock.push(since_epoch, out)), expected);
        }
    }
}
