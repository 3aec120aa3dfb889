//! Messages made from a string of choices: mostly usual, now and then with one of the odd pieces that
//! smuggling is made of. All zeros is the plainest message, so proptest's shrinking ends there.

use proptest::prelude::*;

/// How many cases to run: `GATEWAY_TEST_PROFILE=full` means 20 times as many.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let full = std::env::var_os("GATEWAY_TEST_PROFILE").is_some_and(|profile| profile == "full");
    let cases = if full { usual * 20 } else { usual };
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// What the builders draw from.
pub(crate) fn choices() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..80)
}

struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
    out: Vec<u8>,
}

impl Choices<'_> {
    fn byte(&mut self) -> usize {
        self.bytes.next().copied().unwrap_or(0).into()
    }

    /// Appends one of `usual`, or one of `odd` in 3 % of the cases. Returns which of `usual` it was.
    fn put(&mut self, usual: &[&str], odd: &[&str]) -> Option<usize> {
        let byte = self.byte();
        if byte >= 248 && !odd.is_empty() {
            let at = self.byte() % odd.len();
            self.out.extend_from_slice(odd[at].as_bytes());
            return None;
        }
        self.out.extend_from_slice(usual[byte % usual.len()].as_bytes());
        Some(byte % usual.len())
    }

    fn line_end(&mut self) {
        self.put(&["\r\n"], &["\n", "\r", "\r\r\n", " \r\n", "\r\n ", "\0\r\n", ""]);
    }

    fn field(&mut self) {
        self.put(
            &[
                "X",
                "Accept",
                "x-A",
                "Cookie",
                "Connection",
                "Keep-Alive",
                "TE",
                "Upgrade",
                "Expect",
                "Trailer",
                "!#$%&'*+-.^_`|~0",
            ],
            &["", " X", "X ", "X\t", "X\u{e4}", "Host", "Content-Length", "Transfer-Encoding", "X(", "X\0"],
        );
        self.put(&[": ", ":", ":\t "], &["", " :", ":\r\n ", "::"]);
        self.put(
            &[
                "",
                "a",
                "close",
                "keep-alive",
                "x-A, upgrade",
                "trailers",
                "a b\tc",
                "100-continue",
                "h\u{e4}",
                "5",
                "chunked",
            ],
            &["\0", "\u{7f}", "\u{1}", "a\rb", "a\nb", ",,", "a, b, c, close"],
        );
        self.put(&["", " ", "\t"], &[]);
        self.line_end();
    }

    /// The fields that frame the body, and the body.
    fn framed(&mut self, more_fields: usize) {
        let framing = self.put(
            &["", "Content-Length: 5", "Transfer-Encoding: chunked", "content-length:0"],
            &[
                "Content-Length: 5\r\nContent-Length: 5",
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: chunked\r\nContent-Length: 5",
                "Transfer-Encoding: chunked, chunked",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: identity",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding:\u{b}chunked",
                "Transfer-Encoding : chunked",
                "Transfer-Encoding: Chunked",
                "Content-Length: +5",
                "Content-Length: 5, 5",
                "Content-Length: 05",
                "Content-Length: 0x5",
                "Content-Length: 99999999999999999999",
                "Content-Length:",
            ],
        );
        if framing != Some(0) {
            self.line_end();
        }
        for _ in 0..more_fields {
            self.field();
        }
        self.line_end();
        match framing {
            Some(0 | 3) => {}
            Some(1) => self.out.extend_from_slice(b"hello"),
            _ => self.chunks(),
        }
    }

    fn chunks(&mut self) {
        for _ in 0..self.byte() % 4 {
            let size = self.put(
                &["1", "5", "a", "0000005", "1A"],
                &[
                    "",
                    "+5",
                    " 5",
                    "5 ",
                    "0x5",
                    "5\t",
                    "g",
                    "00000000000000005",
                    "fffffffffffffffff",
                    "-1",
                    "0",
                ],
            );
            self.put(
                &["", "", "", ";a", ";a=b", ";a=\"b;\\\"\""],
                &[";", "; a", ";a=", ";a=\"b", ";a=\u{e4}", ";a\0", ";a=b c", " ;a"],
            );
            self.line_end();
            let len = size.map_or(5, |at| [1, 5, 10, 5, 26][at]);
            self.out.extend((0..len).map(|i| b'a' + i));
            self.line_end();
        }
        self.put(&["0", "00"], &["", "0 ", "-0", "0;"]);
        self.line_end();
        for _ in 0..self.byte() % 3 {
            self.field();
        }
        self.line_end();
    }
}

fn build(choices: &[u8], make: impl FnOnce(&mut Choices<'_>)) -> Vec<u8> {
    let mut choices = Choices { bytes: choices.iter(), out: Vec::new() };
    make(&mut choices);
    choices.out
}

/// One to three requests in a row.
pub(crate) fn requests(choices: &[u8]) -> Vec<u8> {
    build(choices, |c| {
        for _ in 0..=c.byte() % 3 {
            c.put(&[""], &["\r\n", "\r\n\r\n", "\n", " ", "\r"]);
            c.put(&["GET", "POST", "HEAD", "OPTIONS", "PUT", "FOO"], &["CONNECT", "get", "", "G(T", "GET\t"]);
            c.put(&[" "], &["  ", "\t", ""]);
            c.put(
                &["/", "/a/b?c=d", "/%20?", "http://a/x?y", "//x/../", "/{a}?`^|"],
                &[
                    "*",
                    "a:80",
                    "",
                    "/#f",
                    "/\u{e4}",
                    "/<",
                    "/?\"",
                    "http://u@a/",
                    "http://b/",
                    "http://a?x",
                    "HTTP://A:80",
                    "/\0",
                ],
            );
            c.put(&[" "], &["  ", "\t", ""]);
            c.put(
                &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
                &["HTTP/2.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", ""],
            );
            c.line_end();
            c.put(
                &["Host: a\r\n", "host:A\r\n"],
                &["", "Host: b\r\n", "Host: a\r\nHost: a\r\n", "Host: a b\r\n", "Host:\r\n"],
            );
            let fields = c.byte() % 3;
            c.framed(fields);
        }
    })
}

/// One response, maybe after an interim one.
pub(crate) fn response(choices: &[u8]) -> Vec<u8> {
    build(choices, |c| {
        c.put(
            &["", "", "", "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 x\r\nLink: y\r\n\r\n"],
            &["\r\n", "\n", " "],
        );
        c.put(
            &["HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"],
            &["HTTP/2.0", "http/1.1", "ICY", "HTTP/1.1 "],
        );
        c.put(&[" "], &["  ", "\t", ""]);
        c.put(&["200", "404", "204", "304", "101", "599", "999"], &["099", "20", "2000", "+20", "", "100"]);
        c.put(&[" ", " OK", "", " a\tb", " \u{e4}"], &["OK", "\0", " a\rb", "\t"]);
        c.line_end();
        let fields = c.byte() % 4;
        c.framed(fields);
    })
}

/// A chunked body with something behind it.
pub(crate) fn chunked(choices: &[u8]) -> Vec<u8> {
    build(choices, |c| {
        c.chunks();
        c.put(&["", "GET / HTTP/1.1\r\n"], &[]);
    })
}
