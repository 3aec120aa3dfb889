//! Fields (header lines): [`Field`], the names a proxy acts on ([`KnownField`]), and what belongs to
//! one hop only.
//!
//! A name is classified once, when the head is parsed; after that nothing compares field names again.
//! Lists (`Connection`, `TE`) are read by [`list`], which yields the trimmed, non-empty elements.

use crate::Span;

/// One field line: `name ":" OWS value OWS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The name as sent: an RFC 9110 token, in the sender's case.
    pub name: Span,
    /// The value without surrounding whitespace. May be empty; never contains CR, LF, NUL or other
    /// control bytes except HTAB; may contain bytes ≥ 0x80 (obs-text).
    pub value: Span,
    /// What the name is known as.
    pub known: KnownField,
    /// Named by a `Connection` option, hence for this hop only (RFC 9110 §7.6.1). Never set on
    /// fields that are meant for every recipient ([`KnownField::is_for_every_hop`]): a client must
    /// not be able to make the gateway drop `Host`, `Authorization` or `X-Forwarded-For`.
    pub nominated: bool,
    /// Its line has the usual form: the name, `: `, the value, CRLF, and nothing between.
    pub usual: bool,
}

impl Field {
    /// Whether the field ends at this hop and must not be forwarded as it is.
    pub const fn is_hop_by_hop(&self) -> bool {
        self.nominated || self.known.is_hop_by_hop()
    }
}

macro_rules! known_fields {
    ($($variant:ident $name:literal,)*) => {
        /// The field names that a proxy acts on; everything else is [`KnownField::Other`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum KnownField {
            /// A name that the codec does not know.
            #[default]
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl KnownField {
            /// Every known name, without `Other`.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name in lower case; empty for `Other`.
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Other => "",
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

known_fields! {
    Host "host",
    ContentLength "content-length",
    TransferEncoding "transfer-encoding",
    Connection "connection",
    KeepAlive "keep-alive",
    Te "te",
    Trailer "trailer",
    Upgrade "upgrade",
    Http2Settings "http2-settings",
    Expect "expect",
    ProxyConnection "proxy-connection",
    ProxyAuthenticate "proxy-authenticate",
    ProxyAuthorization "proxy-authorization",
    Forwarded "forwarded",
    XForwardedFor "x-forwarded-for",
    XForwardedProto "x-forwarded-proto",
    XForwardedHost "x-forwarded-host",
    XForwardedPort "x-forwarded-port",
    XRealIp "x-real-ip",
    XRequestId "x-request-id",
    Traceparent "traceparent",
    Tracestate "tracestate",
    Via "via",
    Date "date",
    Server "server",
    Location "location",
    ContentType "content-type",
    ContentEncoding "content-encoding",
    ContentRange "content-range",
    CacheControl "cache-control",
    Accept "accept",
    AcceptEncoding "accept-encoding",
    Authorization "authorization",
    Cookie "cookie",
    SetCookie "set-cookie",
    Origin "origin",
    UserAgent "user-agent",
    MaxForwards "max-forwards",
}

impl KnownField {
    /// The known name that `name` spells, in any case. What is known is a token: its bytes need no other check.
    #[inline(always)] // once, in the loop over a head's lines
    pub fn classify(name: &[u8]) -> Self {
        let Some(place) = place(name, FACTORS) else { return Self::Other };
        let (known, lower) = PLACES[place];
        if spells(name, lower.as_bytes()) { known } else { Self::Other }
    }

    /// Always for one hop only: RFC 9110 §7.6.1, the settings of an upgrade to h2c (RFC 7540 §3.2.1), and the two proxy
    /// authentication fields, which are between the client and a forward proxy and must not reach an upstream.
    pub const fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::ProxyAuthenticate
                | Self::ProxyAuthorization
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// Says where the body ends. Writers make these two themselves and never copy them.
    pub const fn is_framing(self) -> bool {
        matches!(self, Self::ContentLength | Self::TransferEncoding)
    }

    /// Meant for every recipient (RFC 9110 §7.6.1: "a sender MUST NOT send a connection option
    /// corresponding to a field that is intended for all recipients"): a `Connection` option that
    /// names it is ignored.
    pub const fn is_for_every_hop(self) -> bool {
        !self.is_hop_by_hop() && !matches!(self, Self::Other | Self::MaxForwards | Self::Trailer)
    }

    /// Must not appear in a trailer section (RFC 9110 §6.5.1): framing, routing, request modifiers,
    /// authentication, content metadata, and everything that a proxy makes itself.
    pub const fn is_forbidden_in_trailers(self) -> bool {
        !matches!(self, Self::Other | Self::Via | Self::Traceparent | Self::Tracestate | Self::Server)
    }
}

/// Size of the table of known names: every one of them has a place of its own.
const PLACE_COUNT: usize = 128;
/// The first factors that give them that, found by the compiler.
const FACTORS: [usize; 2] = {
    let mut at = 0;
    while places([at / 64, at % 64]).is_none() {
        at += 1;
    }
    [at / 64, at % 64]
};
static PLACES: [(KnownField, &str); PLACE_COUNT] =
    places(FACTORS).expect("the compiler looked for factors that have places");

/// Where a name is if it is a known one, from its length, its first byte and one of its last. `None`: it is empty.
#[inline]
const fn place(name: &[u8], factors: [usize; 2]) -> Option<usize> {
    if name.is_empty() {
        return None;
    }
    let (first, later) = (name[0] | 0x20, name[name.len() * 3 / 4] | 0x20);
    Some((name.len() + factors[0] * first as usize + factors[1] * later as usize) % PLACE_COUNT)
}

/// The known names at their places; `None` if two have the same.
const fn places(factors: [usize; 2]) -> Option<[(KnownField, &'static str); PLACE_COUNT]> {
    let mut places = [(KnownField::Other, ""); PLACE_COUNT];
    let mut at = 0;
    while at < KnownField::ALL.len() {
        let known = KnownField::ALL[at];
        let Some(place) = place(known.name().as_bytes(), factors) else { return None };
        if !matches!(places[place].0, KnownField::Other) {
            return None;
        }
        places[place] = (known, known.name());
        at += 1;
    }
    Some(places)
}

/// Whether `name` spells `lower`, a lower-case name of letters and hyphens, in any case. Whole words, the last one
/// once more: this runs for every field of every message.
#[inline]
fn spells(name: &[u8], lower: &[u8]) -> bool {
    if name.len() != lower.len() {
        return false;
    }
    if let (Some(end), Some(lower_end)) = (name.last_chunk(), lower.last_chunk()) {
        let is_same = |a: &[u8; 8], b: &[u8; 8]| is_same(u64::from_le_bytes(*a), u64::from_le_bytes(*b));
        let (words, lower_words) = (name.as_chunks().0, lower.as_chunks().0);
        return is_same(end, lower_end) && words.iter().zip(lower_words).all(|(a, b)| is_same(a, b));
    }
    if let (Some(ends), Some(lower_ends)) = (ends(name), ends(lower)) {
        return is_same(ends, lower_ends);
    }
    name.iter().zip(lower).all(|(&a, &b)| is_same(u64::from(a), u64::from(b)))
}

/// The first four bytes and the last four, of four to eight.
#[inline]
fn ends(text: &[u8]) -> Option<u64> {
    let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    Some(half(text.first_chunk()?) | half(text.last_chunk()?) << 32)
}

/// Whether the bytes of a word are those of a lower-case one, but for the case of letters: only where the other has
/// bit 0x40, which letters have and a hyphen has not, does 0x20 not count.
const fn is_same(word: u64, lower: u64) -> bool {
    word | ((lower >> 1) & 0x2020_2020_2020_2020) == lower
}

/// The elements of a comma-separated list value, trimmed, without the empty ones (RFC 9110 §5.6.1).
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim).filter(|element| !element.is_empty())
}

/// `value` without leading and trailing SP and HTAB (OWS).
pub(crate) fn trim(value: &[u8]) -> &[u8] {
    let blank = |b: &u8| matches!(b, b' ' | b'\t');
    let start = value.iter().position(|b| !blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !blank(b)).map_or(start, |last| last + 1);
    &value[start..end]
}

/// Whether `text` is a token (RFC 9110 §5.6.2): not empty, `tchar` only.
pub(crate) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| TCHAR[b as usize])
}

/// `tchar` by byte.
pub(crate) static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 0x80 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric()
            || matches!(b, b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+')
            || matches!(b, b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_name_is_recognised_in_any_case() {
        for &known in KnownField::ALL {
            let name = known.name();
            assert_eq!(KnownField::classify(name.as_bytes()), known, "{name}");
            assert_eq!(KnownField::classify(name.to_ascii_uppercase().as_bytes()), known, "{name}");
        }
    }

    #[test]
    fn a_name_that_only_resembles_a_known_one_is_other() {
        for name in [
            "",
            "x",
            "hosts",
            "hos",
            "c0ntent-length",
            "transfer_encoding",
            "tost",
            "@ost",
            "x-forwarded-pxrt",
            "content\rlength",
            "via\0",
        ] {
            assert_eq!(KnownField::classify(name.as_bytes()), KnownField::Other, "{name}");
        }
        for &known in KnownField::ALL {
            let mut close = known.name().as_bytes().to_vec();
            *close.last_mut().unwrap() = b'!';
            assert_eq!(KnownField::classify(&close), KnownField::Other);
        }
    }

    #[test]
    fn lists_are_split_trimmed_and_free_of_empty_elements() {
        let cases: &[(&str, &[&str])] = &[
            ("", &[]),
            (",, ,", &[]),
            ("close", &["close"]),
            ("keep-alive,\t Upgrade , x", &["keep-alive", "Upgrade", "x"]),
            (" a b ,c", &["a b", "c"]),
        ];
        for (value, want) in cases {
            let got: Vec<&[u8]> = list(value.as_bytes()).collect();
            assert_eq!(got, want.iter().map(|s| s.as_bytes()).collect::<Vec<_>>(), "{value:?}");
        }
    }

    #[test]
    fn no_field_is_both_for_one_hop_and_for_every_hop() {
        for &known in KnownField::ALL {
            assert!(!(known.is_hop_by_hop() && known.is_for_every_hop()), "{known:?}");
        }
        assert!(!KnownField::Other.is_for_every_hop(), "any other name may be nominated");
    }
}
