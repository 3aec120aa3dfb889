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
    /// The known name that `name` spells, in any case.
    pub fn classify(name: &[u8]) -> Self {
        let Some(first) = name.first() else { return Self::Other };
        // Length and first letter leave one candidate (two for X-Forwarded-Host/-Port).
        let candidate = match (name.len(), first | 0x20) {
            (2, b't') => Self::Te,
            (3, b'v') => Self::Via,
            (4, b'h') => Self::Host,
            (4, b'd') => Self::Date,
            (6, b'a') => Self::Accept,
            (6, b'c') => Self::Cookie,
            (6, b'e') => Self::Expect,
            (6, b'o') => Self::Origin,
            (6, b's') => Self::Server,
            (7, b't') => Self::Trailer,
            (7, b'u') => Self::Upgrade,
            (8, b'l') => Self::Location,
            (9, b'f') => Self::Forwarded,
            (9, b'x') => Self::XRealIp,
            (10, b'c') => Self::Connection,
            (10, b'k') => Self::KeepAlive,
            (10, b's') => Self::SetCookie,
            (10, b't') => Self::Tracestate,
            (10, b'u') => Self::UserAgent,
            (11, b't') => Self::Traceparent,
            (12, b'c') => Self::ContentType,
            (12, b'm') => Self::MaxForwards,
            (12, b'x') => Self::XRequestId,
            (13, b'a') => Self::Authorization,
            (13, b'c') if name[1] | 0x20 == b'a' => Self::CacheControl,
            (13, b'c') => Self::ContentRange,
            (14, b'c') => Self::ContentLength,
            (15, b'a') => Self::AcceptEncoding,
            (15, b'x') => Self::XForwardedFor,
            (16, b'c') => Self::ContentEncoding,
            (16, b'p') => Self::ProxyConnection,
            (16, b'x') if name[12] | 0x20 == b'h' => Self::XForwardedHost,
            (16, b'x') => Self::XForwardedPort,
            (17, b't') => Self::TransferEncoding,
            (17, b'x') => Self::XForwardedProto,
            (18, b'p') => Self::ProxyAuthenticate,
            (19, b'p') => Self::ProxyAuthorization,
            _ => return Self::Other,
        };
        if spells(name, candidate.name().as_bytes()) { candidate } else { Self::Other }
    }

    /// Always for one hop only: RFC 9110 §7.6.1, and the two proxy authentication fields, which are
    /// between the client and a forward proxy and must not reach an upstream.
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

/// Whether a token of the same length spells a lower-case name of letters and hyphens, in any case. Eight bytes at a
/// time: this runs for every field of every message.
fn spells(token: &[u8], name: &[u8]) -> bool {
    const CASE: u64 = 0x2020_2020_2020_2020;
    debug_assert_eq!(token.len(), name.len());
    let (words, rest) = token.as_chunks::<8>();
    let (name_words, name_rest) = name.as_chunks::<8>();
    // With that bit set a letter is a lower-case one, a hyphen stays, and no other token byte becomes either.
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes) | CASE;
    words.iter().zip(name_words).all(|(a, b)| word(a) == u64::from_le_bytes(*b))
        && rest.iter().zip(name_rest).all(|(a, b)| a | 0x20 == *b)
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
