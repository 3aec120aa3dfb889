//! [`Scan`]: finds the end of a head that arrives in pieces, looking at each byte once.
//!
//! A head that is whole when it is first seen never comes here: the tokenizer alone reads it. For the
//! rest this automaton remembers where it stopped, so a 64 KiB head sent byte by byte costs 64 KiB of
//! work, not their square. It judges the bytes strictly from left to right, which makes the error of
//! a broken head the same for every split of the input, and refuses obvious garbage (a TLS hello, a
//! bare LF) as soon as it is there rather than when a limit or a timeout is reached.

use crate::ParseError;

/// What is being scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// A request head: one CRLF may precede it; its first line is visible ASCII and spaces.
    Request,
    /// A response head.
    Response,
    /// A trailer section: may be empty.
    Trailers,
}

/// How far the scan got; the default value is its beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Offset of the first byte that was not looked at.
    next: u32,
    /// Offset at which the current line begins.
    line: u32,
    /// Lines that ended, a leading empty line not counted.
    lines: u32,
}

impl Scan {
    /// The beginning.
    pub(crate) const fn new() -> Self {
        Self { next: 0, line: 0, lines: 0 }
    }

    /// Whether nothing was looked at yet.
    pub(crate) const fn is_new(&self) -> bool {
        self.next == 0
    }

    /// Goes on where it stopped and returns the length of the section once its empty line is there,
    /// `None` when more bytes are needed. `buf` must begin with the bytes of the last call. `max` is
    /// the longest section that is let through.
    pub(crate) fn run(&mut self, buf: &[u8], max: usize, part: Part) -> Result<Option<usize>, ParseError> {
        let max = max.min(u32::MAX as usize - 1);
        let visible = &buf[..buf.len().min(max)];
        let mut at = self.next as usize;
        while let Some(&byte) = visible.get(at) {
            let after_cr = at > self.line as usize && visible[at - 1] == b'\r';
            match byte {
                b'\n' if !after_cr => return Err(ParseError::LineEnd),
                b'\n' => {
                    at += 1;
                    if self.end_line(at, part)? {
                        *self = Self::default();
                        return Ok(Some(at));
                    }
                    continue;
                }
                _ if after_cr => return Err(ParseError::LineEnd),
                b'\r' => {}
                b'\t' | 0x80.. if part == Part::Request && self.lines == 0 => {
                    return Err(ParseError::RequestLine);
                }
                b'\t' | 0x80.. => {}
                0..0x20 | 0x7f => return Err(ParseError::Control),
                _ => {}
            }
            at += 1;
        }
        self.next = at as u32;
        if buf.len() < max {
            return Ok(None);
        }
        Err(if part == Part::Request && self.lines == 0 {
            ParseError::TargetTooLong
        } else {
            ParseError::HeadTooLarge
        })
    }

    /// Takes the line that ends before `at`; true when it was the empty one that ends the section.
    fn end_line(&mut self, at: usize, part: Part) -> Result<bool, ParseError> {
        let empty = at - self.line as usize == 2;
        self.line = at as u32;
        if !empty {
            self.lines += 1;
            return Ok(false);
        }
        match part {
            _ if self.lines > 0 => Ok(true),
            Part::Trailers => Ok(true),
            Part::Request if at == 2 => Ok(false), // RFC 9112 §2.2: one, for the sake of old clients
            Part::Request | Part::Response => Err(ParseError::EmptyLine),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &[u8], max: usize, part: Part) -> Result<Option<usize>, ParseError> {
        Scan::default().run(text, max, part)
    }

    #[test]
    fn each_section_ends_at_its_empty_line() {
        use Part::{Request, Response, Trailers};
        type Case<'a> = (&'a [u8], Part, Result<Option<usize>, ParseError>);
        let cases: &[Case<'_>] = &[
            (b"GET / HTTP/1.1\r\n\r\nrest", Request, Ok(Some(18))),
            (b"\r\nGET / HTTP/1.1\r\n\r\n", Request, Ok(Some(20))),
            (b"\r\n\r\nGET / HTTP/1.1\r\n\r\n", Request, Err(ParseError::EmptyLine)),
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", Response, Err(ParseError::EmptyLine)),
            (b"GET / HTTP/1.1\r\na: b\r\n", Request, Ok(None)),
            (b"GET / HTTP/1.1\n\n", Request, Err(ParseError::LineEnd)),
            (b"GET / HTTP/1.1\r\na: b\rc\r\n", Request, Err(ParseError::LineEnd)),
            (b"GET / HTTP/1.1\r\na: b\r\r\n", Request, Err(ParseError::LineEnd)),
            (b"\x16\x03\x01", Request, Err(ParseError::Control)),
            (b"GET /\xc3\xa4 ", Request, Err(ParseError::RequestLine)),
            (b"GET\t/", Request, Err(ParseError::RequestLine)),
            (b"HTTP/1.1 200 \xc3\xa4\r\n\r\n", Response, Ok(Some(19))),
            (b"HTTP/1.1 200 OK\r\na: \0\r\n\r\n", Response, Err(ParseError::Control)),
            (b"HTTP/1.1 200 OK\r\na: \x7f\r\n\r\n", Response, Err(ParseError::Control)),
            (b"\r\nmore", Trailers, Ok(Some(2))),
            (b"a: b\r\n\r\nmore", Trailers, Ok(Some(8))),
            (b"\r", Trailers, Ok(None)),
            (b"\rx", Trailers, Err(ParseError::LineEnd)),
        ];
        for &(text, part, want) in cases {
            assert_eq!(whole(text, 1000, part), want, "{}", text.escape_ascii());
            let mut scan = Scan::default();
            let mut got = Ok(None);
            for end in 0..=text.len() {
                got = scan.run(&text[..end], 1000, part);
                if got != Ok(None) {
                    break;
                }
            }
            assert_eq!(got, want, "byte by byte: {}", text.escape_ascii());
        }
    }

    #[test]
    fn a_section_of_exactly_the_limit_passes_and_one_byte_more_does_not() {
        let head = b"GET / HTTP/1.1\r\na: b\r\n\r\n";
        assert_eq!(whole(head, head.len(), Part::Request), Ok(Some(head.len())));
        assert_eq!(whole(head, head.len() - 1, Part::Request), Err(ParseError::HeadTooLarge));
        assert_eq!(whole(&head[..10], 10, Part::Request), Err(ParseError::TargetTooLong));
        assert_eq!(whole(&head[..9], 10, Part::Request), Ok(None));
    }

    #[test]
    fn no_byte_is_looked_at_twice() {
        let mut scan = Scan::default();
        assert_eq!(scan.run(b"GET / HT", 100, Part::Request), Ok(None));
        assert_eq!(scan.next, 8);
        // The first bytes are not read again: their new value goes unnoticed.
        assert_eq!(scan.run(b"\0\0\0\0\0\0\0\0TP", 100, Part::Request), Ok(None));
        assert_eq!(scan.next, 10);
    }
}
