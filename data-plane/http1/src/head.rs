//! What requests and responses share: versions, methods, framing, limits and the reasons for refusing
//! a head.
//!
//! Nothing here reads bytes; the readers are [`crate::request`] and [`crate::response`].

use thiserror::Error;

/// The most fields that any limit can allow.
pub const MAX_FIELDS: usize = 256;

/// The most options that the `Connection` fields of one message may have together. Each of them is
/// compared with every field, so this is what keeps a 64 KiB list of options linear.
pub const MAX_CONNECTION_OPTIONS: usize = 32;

/// Bounds of one head. A head beyond them is refused; nothing is ever truncated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes from the first to the empty line, both included. At most `u32::MAX`.
    pub max_head_bytes: usize,
    /// Bytes of the request target.
    pub max_target_bytes: usize,
    /// Field lines; values above [`MAX_FIELDS`] count as that.
    pub max_fields: usize,
}

impl Default for Limits {
    /// 64 KiB of head, 8 KiB of target (RFC 9112 §3 asks for at least 8,000), 100 fields.
    fn default() -> Self {
        Self { max_head_bytes: 64 * 1024, max_target_bytes: 8 * 1024, max_fields: 100 }
    }
}

/// How far a parser got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The head is whole; the output is filled in and its `len` says where the body begins.
    Complete,
    /// More bytes are needed. Call again with the same output and the same buffer, longer.
    Partial,
}

/// The protocol version of a message. Others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    #[default]
    Http11,
}

impl Version {
    /// Bytes of `HTTP/1.1`.
    pub(crate) const LEN: usize = 8;

    /// The version written at `at`; `Some(None)`: a well-formed one that is not spoken here.
    #[inline]
    pub(crate) fn read(buf: &[u8], at: usize) -> Option<Option<Self>> {
        match buf.get(at..)?.first_chunk()? {
            b"HTTP/1.1" => Some(Some(Self::Http11)),
            b"HTTP/1.0" => Some(Some(Self::Http10)),
            [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => Some(None),
            _ => None,
        }
    }
}

/// Where a body ends (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body, and no field that says so.
    #[default]
    None,
    /// Exactly so many bytes (`Content-Length`; 0 is possible).
    Length(u64),
    /// The chunked coding, with an optional trailer section.
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
}

macro_rules! methods {
    ($($variant:ident $name:literal,)*) => {
        /// The methods of RFC 9110 §9 and RFC 5789. Names are case-sensitive.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub enum Method {
            /// Any other token; its text is in the head.
            #[default]
            Other,
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Method {
            /// The method that `name` spells.
            pub fn from_bytes(name: &[u8]) -> Self {
                // The names are constants: this compiles to comparisons of whole words.
                $(if name == $name.as_bytes() { return Self::$variant; })*
                Self::Other
            }

            /// The name; `None` for `Other`.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    Self::Other => None,
                    $(Self::$variant => Some($name),)*
                }
            }
        }
    };
}

methods! {
    Get "GET",
    Post "POST",
    Head "HEAD",
    Put "PUT",
    Delete "DELETE",
    Options "OPTIONS",
    Patch "PATCH",
    Connect "CONNECT",
    Trace "TRACE",
}

impl Method {
    /// Whether sending the request twice is as good as once (RFC 9110 §9.2.2).
    pub const fn is_idempotent(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Put | Self::Delete | Self::Options | Self::Trace)
    }
}

/// Why a head is refused. After any of these the position of the next message is unknown: answer with
/// [`ParseError::status`] (a client) or 502 (an upstream's response) and close the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ParseError {
    /// More than the one empty line that RFC 9112 §2.2 lets a client send before a request.
    #[error("empty lines before the message")]
    EmptyLine,
    /// CR without LF or LF without CR (RFC 9112 §2.2).
    #[error("a line does not end with CRLF")]
    LineEnd,
    /// NUL or another control byte (RFC 9110 §5.5).
    #[error("control byte in the head")]
    Control,
    /// Not `method SP target SP version` (RFC 9112 §3).
    #[error("malformed request line")]
    RequestLine,
    /// Not `version SP status SP [reason]` (RFC 9112 §4), or a status outside 100–999.
    #[error("malformed status line")]
    StatusLine,
    /// A target with bytes that no URI has, a fragment, or a scheme other than http and https.
    #[error("malformed request target")]
    Target,
    /// A form of target that does not go with the method (RFC 9112 §3.2).
    #[error("the request target's form does not fit the method")]
    TargetForm,
    /// The target is longer than [`Limits::max_target_bytes`].
    #[error("the request target is too long")]
    TargetTooLong,
    /// A well-formed version other than 1.0 and 1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// The head is longer than [`Limits::max_head_bytes`].
    #[error("the head is too large")]
    HeadTooLarge,
    /// More fields than [`Limits::max_fields`].
    #[error("too many fields")]
    TooManyFields,
    /// A malformed field line: no colon, an empty name, whitespace before the colon, or obs-fold
    /// (RFC 9112 §5.1, §5.2).
    #[error("malformed field line")]
    FieldLine,
    /// HTTP/1.1 without `Host` (RFC 9112 §3.2).
    #[error("no host field")]
    HostMissing,
    /// More than one `Host` (RFC 9112 §3.2).
    #[error("more than one host field")]
    HostDuplicate,
    /// A `Host` or target authority that is no `host [":" port]`, is empty, or carries userinfo.
    #[error("malformed host")]
    Host,
    /// The target's authority and `Host` differ (RFC 9112 §3.2.2 lets the target win; a gateway that
    /// routes by host does not guess).
    #[error("the request target and the host field name different hosts")]
    HostConflict,
    /// A `Content-Length` that is not a plain decimal number below 2^63 (RFC 9110 §8.6).
    #[error("malformed content-length")]
    ContentLength,
    /// More than one `Content-Length`, equal or not.
    #[error("more than one content-length")]
    ContentLengthDuplicate,
    /// A `Transfer-Encoding` other than one field saying exactly `chunked` (RFC 9112 §6.1).
    #[error("malformed transfer-encoding")]
    TransferEncoding,
    /// A registered coding that the gateway does not implement, properly finished by `chunked`.
    #[error("transfer coding not implemented")]
    TransferCodingUnknown,
    /// `Transfer-Encoding` in an HTTP/1.0 message (RFC 9112 §6.1).
    #[error("transfer-encoding in an HTTP/1.0 message")]
    TransferEncodingVersion,
    /// `Content-Length` beside `Transfer-Encoding` (RFC 9112 §6.3).
    #[error("both content-length and transfer-encoding")]
    LengthAndCoding,
    /// A body announced where none may be: CONNECT, 1xx, 204 (RFC 9110 §6.4.1, §8.6, §9.3.6).
    #[error("this message cannot have a body")]
    BodyForbidden,
    /// More than [`MAX_CONNECTION_OPTIONS`].
    #[error("too many connection options")]
    ConnectionOptions,
}

impl ParseError {
    /// The status to refuse a request with: 400, 414, 431, 501 or 505. For an upstream's response
    /// the caller answers 502 whatever the reason.
    pub const fn status(self) -> u16 {
        match self {
            Self::TargetTooLong => 414,
            Self::HeadTooLarge | Self::TooManyFields => 431,
            Self::TransferCodingUnknown => 501,
            Self::Version => 505,
            Self::EmptyLine
            | Self::LineEnd
            | Self::Control
            | Self::RequestLine
            | Self::StatusLine
            | Self::Target
            | Self::TargetForm
            | Self::FieldLine
            | Self::HostMissing
            | Self::HostDuplicate
            | Self::Host
            | Self::HostConflict
            | Self::ContentLength
            | Self::ContentLengthDuplicate
            | Self::TransferEncoding
            | Self::TransferEncodingVersion
            | Self::LengthAndCoding
            | Self::BodyForbidden
            | Self::ConnectionOptions => 400,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_recognised_by_their_exact_name() {
        for name in ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"] {
            assert_eq!(Method::from_bytes(name.as_bytes()).name(), Some(name));
            assert_eq!(Method::from_bytes(name.to_ascii_lowercase().as_bytes()), Method::Other);
        }
        assert_eq!(Method::from_bytes(b"PROPFIND"), Method::Other);
    }

    #[test]
    fn post_and_patch_and_unknown_methods_are_not_repeated() {
        for method in [Method::Post, Method::Patch, Method::Connect, Method::Other] {
            assert!(!method.is_idempotent(), "{method:?}");
        }
        assert!(Method::Get.is_idempotent() && Method::Put.is_idempotent());
    }
}
