//! Bodies: [`Decoder`] finds the data in what arrives, [`Encoder`] frames what is sent.
//!
//! Neither copies: the decoder answers with ranges of the caller's buffer, the encoder writes what goes
//! around the data. Both are a few words of state, so constant memory for a body of any length follows.
//! The chunked coding is read strictly (see [`ChunkedLimits`] for the bounds): CRLF only, at most 16 hex
//! digits without sign or whitespace, well-formed extensions (dropped), and a trailer section without
//! framing fields.

mod chunked;
mod encode;
mod trailer;

use std::ops::Range;

use thiserror::Error;

use crate::Framing;
use chunked::Chunked;

pub use encode::{EncodeError, Encoder};
pub use trailer::parse as parse_trailers;

/// Bounds of the parts of a chunked body that are not data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkedLimits {
    /// Bytes of all chunk extensions of one body together (RFC 9112 §7.1.1 asks for a bound).
    pub max_extension_bytes: u32,
    /// Bytes of the trailer section with its empty line. It is only handed over whole, so the caller's
    /// buffer must be able to hold so much.
    pub max_trailer_bytes: usize,
    /// Fields in the trailer section; values above [`MAX_FIELDS`](crate::head::MAX_FIELDS) count as that.
    pub max_trailer_fields: usize,
}

impl Default for ChunkedLimits {
    /// 4 KiB of extensions, 8 KiB and 64 fields of trailers.
    fn default() -> Self {
        Self { max_extension_bytes: 4096, max_trailer_bytes: 8192, max_trailer_fields: 64 }
    }
}

/// One step of a body. Ranges count from the start of the buffer that [`Decoder::decode`] was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Data of the body, never empty. Drop everything up to the range's end before the next call.
    Data(Range<usize>),
    /// The body is over. `trailers` is the trailer section for [`parse_trailers`], empty if there is
    /// none; what follows `consumed` is the next message.
    End {
        /// The trailer section, its field lines and the empty line.
        trailers: Range<usize>,
        /// Bytes to drop.
        consumed: usize,
    },
    /// More bytes are needed. Drop `consumed` bytes; the next buffer begins with what remains.
    NeedMore {
        /// Bytes to drop.
        consumed: usize,
    },
}

impl Frame {
    /// How many bytes of the buffer are done with.
    pub const fn consumed(&self) -> usize {
        match self {
            Self::Data(range) => range.end,
            Self::End { consumed, .. } | Self::NeedMore { consumed } => *consumed,
        }
    }
}

/// Why a body cannot be read on. The connection must be closed: where the body ends is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum BodyError {
    /// No hex digit where a size begins, more than 16 of them, or something else behind them.
    #[error("malformed chunk size")]
    ChunkSize,
    /// An extension that is not `;name`, `;name=token` or `;name="string"`, or with whitespace around
    /// its parts (RFC 9112 §7.1.1 forbids sending that).
    #[error("malformed chunk extension")]
    ChunkExtension,
    /// More than [`ChunkedLimits::max_extension_bytes`].
    #[error("chunk extensions are too large")]
    ChunkExtensionsTooLarge,
    /// Chunk or size not followed by CRLF.
    #[error("a chunk does not end with CRLF")]
    LineEnd,
    /// A malformed trailer section.
    #[error("malformed trailer section")]
    Trailers,
    /// More than the limits allow.
    #[error("the trailer section is too large")]
    TrailersTooLarge,
    /// `Content-Length`, `Transfer-Encoding` or `Host` among the trailers (RFC 9110 §6.5.1).
    #[error("framing or routing field in the trailer section")]
    TrailerForbidden,
    /// The connection ended before the body did.
    #[error("the body is cut short")]
    Truncated,
}

impl BodyError {
    /// The status to refuse a request with (400 or 431), if its response has not begun.
    pub const fn status(self) -> u16 {
        match self {
            Self::TrailersTooLarge => 431,
            Self::ChunkSize
            | Self::ChunkExtension
            | Self::ChunkExtensionsTooLarge
            | Self::LineEnd
            | Self::Trailers
            | Self::TrailerForbidden
            | Self::Truncated => 400,
        }
    }
}

/// Finds one body's data in the bytes behind its head.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Done,
    Length(u64),
    Chunked(Chunked),
    UntilClose,
}

impl Decoder {
    /// For the body behind a head with this `framing`.
    pub fn new(framing: Framing, limits: ChunkedLimits) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Chunked(Chunked::new(limits)),
            Framing::UntilClose => State::UntilClose,
        };
        Self { state }
    }

    /// Takes the next step over `buf`, the bytes that were not consumed yet. Call it until it asks for
    /// more or ends; after [`Frame::End`] it keeps saying so and consumes nothing.
    pub fn decode(&mut self, buf: &[u8]) -> Result<Frame, BodyError> {
        let frame = match &mut self.state {
            State::Done => Frame::End { trailers: 0..0, consumed: 0 },
            _ if buf.is_empty() => Frame::NeedMore { consumed: 0 },
            State::UntilClose => Frame::Data(0..buf.len()),
            State::Chunked(chunked) => chunked.decode(buf)?,
            State::Length(left) => {
                let len = buf.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= len as u64;
                if *left == 0 {
                    self.state = State::Done;
                }
                return Ok(Frame::Data(0..len));
            }
        };
        if let Frame::End { .. } = frame {
            self.state = State::Done;
        }
        Ok(frame)
    }

    /// Tells the decoder that the peer sent its last byte: fine for a body that is over or runs until
    /// the close, [`BodyError::Truncated`] for any other (RFC 9112 §8).
    pub fn finish(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            State::Length(_) | State::Chunked(_) => Err(BodyError::Truncated),
        }
    }

    /// Whether the whole body was read. A body of length 0 is done from the start; a chunked one only
    /// when its last chunk and trailer section were decoded.
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes of data that are certain to follow: the rest of the length, or of the current chunk.
    pub const fn data_left(&self) -> u64 {
        match &self.state {
            State::Length(left) => *left,
            State::Chunked(chunked) => chunked.data_left(),
            State::Done | State::UntilClose => 0,
        }
    }
}

#[cfg(test)]
mod tests;
