//! Who asks: request ids, the client behind trusted proxies, and the fields that tell the upstream about it.
//!
//! Fields that name a client (`X-Forwarded-*`, `Forwarded`, `X-Real-IP`) are dropped unless the connection comes from
//! one of the listener's `trustedProxies`; from those they are continued. `Forwarded` (RFC 7239) is continued where
//! there is one, never begun.

use std::cell::Cell;
use std::net::IpAddr;

use gateway_engine::context::Scheme;
use gateway_engine::head::{Head, HeadParts, Lines};
use gateway_engine::listener::HttpSettings;
use gateway_http1::KnownField;

use super::client::Asked;
use crate::digits::{hex, push_ip};

/// Longest request id that is kept.
const MAX_ID: usize = 128;

/// Makes request ids that no other worker or process makes: 128 bits, seeded by the system, one multiplication each.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// Digits of the half that all of this worker have in common.
    prefix: String,
    state: Cell<u64>,
}

impl RequestIds {
    pub(crate) fn new() -> Self {
        let prefix = format!("{:016x}", rand::random::<u64>());
        RequestIds { prefix, state: Cell::new(rand::random()) }
    }

    /// Appends 32 hexadecimal digits.
    pub(crate) fn next(&self, out: &mut String) {
        // SplitMix64: the sequence visits every value once.
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let own = hex(mixed ^ (mixed >> 31));
        out.push_str(&self.prefix);
        out.push_str(std::str::from_utf8(&own).expect("hexadecimal digits"));
    }
}

/// An id that a client sent and that is good enough to go on with: short, and nothing that could confuse a log.
pub(crate) fn sane_id(id: &[u8]) -> Option<&str> {
    let sound = |b: &u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':' | b'/' | b'+' | b'=' | b'@')
    };
    if id.is_empty() || id.len() > MAX_ID || !id.iter().all(sound) {
        return None;
    }
    std::str::from_utf8(id).ok()
}

/// A field that says who the client is, and is believed only from trusted proxies.
pub(crate) const fn names_client(known: KnownField) -> bool {
    use KnownField::{Forwarded, XForwardedFor, XForwardedHost, XForwardedPort, XForwardedProto, XRealIp};
    matches!(known, Forwarded | XForwardedFor | XForwardedHost | XForwardedPort | XForwardedProto | XRealIp)
}

/// The client and what it spoke, as far as can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) ip: IpAddr,
    pub(crate) scheme: Scheme,
}

/// The forwarding fields of a client that is not believed. Made once for as long as the same one asks, as behind a load
/// balancer, and asks for the same authority.
#[derive(Debug, Default)]
pub(crate) struct Introduction {
    of: Option<Origin>,
    authority: Vec<u8>,
    lines: Lines,
}

impl Introduction {
    /// Lines that say who the client is; that of the authority comes after them.
    const OF_CLIENT: usize = 2;

    /// The lines that introduce a client.
    #[inline]
    fn of(&mut self, origin: Origin, authority: &[u8]) -> &Lines {
        if self.of != Some(origin) {
            self.name_client(origin);
            self.name_authority(authority);
        } else if self.authority != authority {
            self.name_authority(authority);
        }
        &self.lines
    }

    #[inline(never)]
    fn name_client(&mut self, origin: Origin) {
        self.of = Some(origin);
        self.lines.truncate(0);
        self.push(KnownField::XForwardedFor, |out| push_ip(origin.ip, out));
        self.push(KnownField::XForwardedProto, |out| {
            out.extend_from_slice(origin.scheme.as_str().as_bytes());
        });
    }

    #[inline(never)]
    fn name_authority(&mut self, authority: &[u8]) {
        self.authority.clear();
        self.authority.extend_from_slice(authority);
        self.lines.truncate(Self::OF_CLIENT);
        if !authority.is_empty() {
            self.push(KnownField::XForwardedHost, |out| out.extend_from_slice(authority));
        }
    }

    fn push(&mut self, known: KnownField, fill: impl FnOnce(&mut Vec<u8>)) {
        self.lines.push(known.name(), known as u8, fill);
    }

    /// Bytes of memory held.
    pub(crate) fn capacity(&self) -> usize {
        self.authority.capacity() + self.lines.capacity()
    }
}

/// Finds the client and writes the forwarding fields into the head. From a trusted proxy the head still has the fields
/// that it sent; otherwise they have been left out of it.
pub(crate) fn introduce(
    introduction: &mut Introduction,
    parts: &mut HeadParts,
    wire: &[u8],
    asked: &Asked,
    http: &HttpSettings,
) -> Origin {
    let mut origin = Origin { ip: asked.peer.to_canonical(), scheme: asked.scheme };
    let mut head = Head::new(wire, parts);
    if asked.trusted {
        continue_chain(&mut head, asked, http, &mut origin);
    } else {
        let lines = introduction.of(origin, head.authority());
        parts.push_lines(lines);
    }
    origin
}

/// The peer is a trusted proxy: what it says about its client is continued.
fn continue_chain(head: &mut Head<'_>, asked: &Asked, http: &HttpSettings, origin: &mut Origin) {
    let peer = asked.peer;
    let mut text = head.take_scratch();
    head.join_into("x-forwarded-for", &mut text);
    // From the right, the first that is no trusted proxy; if all are, the farthest.
    for hop in text.rsplit(|&b| b == b',') {
        let Some(ip) = parse_ip(hop) else { break };
        origin.ip = ip;
        if !http.trusts(ip) {
            break;
        }
    }
    if !text.is_empty() {
        text.extend_from_slice(b", ");
    }
    push_ip(peer.to_canonical(), &mut text);
    head.set("x-forwarded-for", &text);
    match head.get("x-forwarded-proto") {
        Some(proto) if proto.eq_ignore_ascii_case(b"https") => origin.scheme = Scheme::Https,
        Some(_) => origin.scheme = Scheme::Http,
        None => head.add("x-forwarded-proto", origin.scheme.as_str().as_bytes()),
    }
    if !head.contains("x-forwarded-host") && !head.authority().is_empty() {
        text.clear();
        text.extend_from_slice(head.authority());
        head.add("x-forwarded-host", &text);
    }
    text.clear();
    if head.join_into("forwarded", &mut text) {
        text.extend_from_slice(b", for=");
        let quoted = peer.to_canonical().is_ipv6();
        text.extend_from_slice(if quoted { b"\"[" } else { b"" });
        push_ip(peer.to_canonical(), &mut text);
        text.extend_from_slice(if quoted { b"]\"" } else { b"" });
        if asked.scheme == Scheme::Https {
            text.extend_from_slice(b";proto=https");
        }
        head.set("forwarded", &text);
    }
    head.return_scratch(text);
}

/// An element of `X-Forwarded-For`: an address, with or without port.
fn parse_ip(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let ip =
        bare.parse().ok().or_else(|| text.parse().ok().map(|address: std::net::SocketAddr| address.ip()));
    ip.map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use gateway_engine::value::cidr;

    use super::*;

    fn introduced(fields: &[(&str, &str)], peer: &str, trusted: bool) -> (Origin, Vec<String>) {
        introduced_over(Scheme::Http, fields, peer, trusted)
    }

    fn introduced_over(
        scheme: Scheme,
        fields: &[(&str, &str)],
        peer: &str,
        trusted: bool,
    ) -> (Origin, Vec<String>) {
        let mut parts = HeadParts::new();
        let mut head = Head::new(b"", &mut parts);
        head.set_authority(b"api.example.com:8080");
        for (name, value) in fields {
            head.add(name, value.as_bytes());
        }
        let http = HttpSettings {
            trusted_proxies: [cidr("10.0.0.0/8").expect("a block")].into(),
            ..Default::default()
        };
        let peer = peer.parse().expect("an address");
        let asked = Asked { trusted, ..Asked::nothing(peer, scheme) };
        let origin = introduce(&mut Introduction::default(), &mut parts, b"", &asked, &http);
        let head = Head::new(b"", &mut parts);
        let lines = head.iter().map(|(name, value, _)| {
            format!("{}: {}", String::from_utf8_lossy(name), String::from_utf8_lossy(value))
        });
        (origin, lines.collect())
    }

    #[test]
    fn ids_are_32_digits_and_never_the_same() {
        let ids = RequestIds::new();
        let mut seen = HashSet::new();
        for _ in 0..1000 {
            let mut id = String::new();
            ids.next(&mut id);
            assert!(id.len() == 32 && sane_id(id.as_bytes()).is_some(), "{id}");
            assert!(seen.insert(id));
        }
        let mut other = String::new();
        RequestIds::new().next(&mut other);
        assert!(seen.insert(other), "another worker's");
    }

    #[test]
    fn ids_that_could_confuse_a_log_are_not_kept() {
        for good in ["a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "Root=1-67891233-abc", "f0/1:2+3@x_y.z"] {
            assert_eq!(sane_id(good.as_bytes()), Some(good));
        }
        let long = "a".repeat(MAX_ID + 1);
        for bad in ["", "a b", "a\"b", "a,b", "a\tb", "\u{e9}", "<x>", &long] {
            assert_eq!(sane_id(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_client_is_introduced_by_its_own_address() {
        let (origin, lines) = introduced(&[], "192.0.2.7", false);
        assert_eq!(origin, Origin { ip: "192.0.2.7".parse().expect("an address"), scheme: Scheme::Http });
        let expected = [
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-proto: http",
            "x-forwarded-host: api.example.com:8080",
        ];
        assert_eq!(lines, expected);
        assert_eq!(introduced(&[], "::ffff:192.0.2.7", false).1[0], "x-forwarded-for: 192.0.2.7");
        assert_eq!(introduced(&[], "2001:db8::1", false).1[0], "x-forwarded-for: 2001:db8::1");
    }

    #[test]
    fn each_client_is_introduced_by_its_own_lines() {
        let mut introduction = Introduction::default();
        let http = HttpSettings::default();
        for (peer, scheme, authority) in [
            ("192.0.2.7", Scheme::Http, "a.example"),
            ("192.0.2.7", Scheme::Http, "a.example"),
            ("192.0.2.8", Scheme::Http, "a.example"),
            ("192.0.2.8", Scheme::Https, "a.example"),
            ("192.0.2.8", Scheme::Https, "b.example"),
            ("192.0.2.8", Scheme::Https, ""),
        ] {
            let mut parts = HeadParts::new();
            Head::new(b"", &mut parts).set_authority(authority.as_bytes());
            let asked = Asked::nothing(peer.parse().expect("an address"), scheme);
            introduce(&mut introduction, &mut parts, b"", &asked, &http);
            let head = Head::new(b"", &mut parts);
            assert_eq!(head.get("x-forwarded-for"), Some(peer.as_bytes()));
            assert_eq!(head.get("x-forwarded-proto"), Some(scheme.as_str().as_bytes()));
            assert_eq!(head.get("x-forwarded-host").unwrap_or_default(), authority.as_bytes());
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_continued() {
        let fields = [
            ("x-forwarded-for", "203.0.113.9, 10.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.example"),
            ("forwarded", "for=203.0.113.9"),
        ];
        let (origin, lines) = introduced(&fields, "10.0.0.1", true);
        assert_eq!(origin, Origin { ip: "203.0.113.9".parse().expect("an address"), scheme: Scheme::Https });
        let expected = [
            "x-forwarded-for: 203.0.113.9, 10.1.1.1, 10.0.0.1",
            "x-forwarded-proto: https",
            "x-forwarded-host: shop.example",
            "forwarded: for=203.0.113.9, for=10.0.0.1",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn what_was_spoken_on_the_last_hop_is_told() {
        let over_tls = |fields, trusted| introduced_over(Scheme::Https, fields, "10.0.0.1", trusted);
        let (origin, lines) = over_tls(&[], false);
        assert_eq!((origin.scheme, lines[1].as_str()), (Scheme::Https, "x-forwarded-proto: https"));
        let (origin, lines) = over_tls(&[("forwarded", "for=203.0.113.9")], true);
        assert_eq!(origin.scheme, Scheme::Https);
        assert!(
            lines.contains(&"forwarded: for=203.0.113.9, for=10.0.0.1;proto=https".to_owned()),
            "{lines:?}"
        );
        let (origin, _) = over_tls(&[("x-forwarded-proto", "http")], true);
        assert_eq!(origin.scheme, Scheme::Http, "the client's own hop counts");
    }

    #[test]
    fn the_client_is_the_last_hop_that_is_not_trusted() {
        for (chain, client) in [
            ("198.51.100.1, 203.0.113.9, 10.1.1.1", "203.0.113.9"),
            ("10.9.9.9, 10.1.1.1", "10.9.9.9"),
            ("nonsense, 10.1.1.1", "10.1.1.1"),
            ("203.0.113.9:4711", "203.0.113.9"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("", "10.0.0.1"),
        ] {
            let (origin, _) = introduced(&[("x-forwarded-for", chain)], "10.0.0.1", true);
            assert_eq!(origin.ip.to_string(), client, "{chain}");
        }
    }
}
