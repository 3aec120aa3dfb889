//! What the requests look like: about 300 bytes of header fields like those of an API client, always the same but
//! for path and host when the load is spread over many routes.

use std::io::Write as _;

/// Path and host of every route the load is spread over, known to the peers' configurations too (driver/peers):
/// route `i` is `/r{i}/` on host `h{i % hosts}.bench.test`, on any host when there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) routes: u32,
    pub(crate) hosts: u32,
}

/// Makes requests.
#[derive(Debug)]
pub(crate) struct Traffic {
    spread: Spread,
    body: usize,
    /// Every field but Host, and the empty line.
    fields: Vec<u8>,
    random: u64,
}

/// The fields of every request, as HTTP/2 spells them.
pub(crate) const FIELDS: &[(&str, &str)] = &[
    ("user-agent", "gateway-load/1.0 (benchmark)"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, br"),
    ("accept-language", "en-GB,en;q=0.8"),
    ("authorization", "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"),
    ("x-client-version", "2026.11.21-0123456789abcdef0123456789abcdef"),
];

impl Traffic {
    pub(crate) fn new(spread: Spread, body: usize, extra: &[(String, String)], close: bool) -> Self {
        let mut fields = String::new();
        let mut field = |name: &str, value: &str| {
            fields.push_str(name);
            fields.push_str(": ");
            fields.push_str(value);
            fields.push_str("\r\n");
        };
        FIELDS.iter().for_each(|(name, value)| field(name, value));
        extra.iter().for_each(|(name, value)| field(name, value));
        if body > 0 {
            field("content-type", "application/json");
            field("content-length", &body.to_string());
        }
        if close {
            field("connection", "close");
        }
        fields.push_str("\r\n");
        Traffic { spread, body, fields: fields.into_bytes(), random: 0x9e37_79b9_7f4a_7c15 }
    }

    /// Body bytes of each request.
    pub(crate) fn body(&self) -> usize {
        self.body
    }

    /// Appends the head of the next request.
    pub(crate) fn head(&mut self, out: &mut Vec<u8>) {
        let method = if self.body > 0 { "POST" } else { "GET" };
        let written = match self.spread {
            Spread { routes: 0, .. } => write!(out, "{method} / HTTP/1.1\r\nhost: localhost\r\n"),
            Spread { routes, hosts: 0 | 1 } => {
                let route = self.next(routes);
                write!(out, "{method} /r{route}/items/42 HTTP/1.1\r\nhost: localhost\r\n")
            }
            Spread { routes, hosts } => {
                let route = self.next(routes);
                let host = route % hosts;
                write!(out, "{method} /r{route}/items/42 HTTP/1.1\r\nhost: h{host}.bench.test\r\n")
            }
        };
        written.expect("a Vec takes everything");
        out.extend_from_slice(&self.fields);
    }

    /// A number below `bound`, the same sequence in each run (xorshift64).
    fn next(&mut self, bound: u32) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (((self.random >> 32) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(spread: Spread, body: usize, count: usize) -> Vec<String> {
        let mut traffic =
            Traffic::new(spread, body, &[("origin".to_owned(), "https://a.example".to_owned())], false);
        let mut head = |_| {
            let mut bytes = Vec::new();
            traffic.head(&mut bytes);
            String::from_utf8(bytes).expect("ASCII")
        };
        (0..count).map(&mut head).collect()
    }

    #[test]
    fn the_load_reaches_every_route_on_its_host() {
        let heads = heads(Spread { routes: 20, hosts: 5 }, 0, 500);
        for route in 0..20 {
            let start = format!("GET /r{route}/items/42 HTTP/1.1\r\nhost: h{}.bench.test\r\n", route % 5);
            assert!(heads.iter().any(|head| head.starts_with(&start)), "{start}");
        }
    }

    #[test]
    fn a_request_has_the_fields_asked_for() {
        let head = heads(Spread { routes: 0, hosts: 0 }, 10, 1).remove(0);
        assert!(head.starts_with("POST / HTTP/1.1\r\nhost: localhost\r\n"), "{head}");
        assert!(
            head.contains("\r\norigin: https://a.example\r\n") && head.contains("\r\ncontent-length: 10\r\n"),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n") && (250..400).contains(&head.len()), "{}", head.len());
    }
}
