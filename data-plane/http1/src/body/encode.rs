//! [`Encoder`]: what goes around the data of a body that is sent.
//!
//! Data can be copied behind its chunk header ([`Encoder::data`]) or written by the caller from where
//! it lies, between [`Encoder::begin`] and [`Encoder::finish_data`]. A body that announced its length is
//! held to it: sending more would be read as the next message.

use thiserror::Error;

use crate::Framing;
use crate::write::{WriteError, push_field};

/// Why a body cannot be sent as announced. The connection must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum EncodeError {
    /// More data than the announced length.
    #[error("the body is longer than announced")]
    TooLong,
    /// The body ended before the announced length.
    #[error("the body is shorter than announced")]
    TooShort,
    /// A trailer that is no field.
    #[error("malformed trailer")]
    Trailer(#[source] WriteError),
}

/// Frames one body. Output is appended to the caller's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoder {
    framing: Framing,
}

impl Encoder {
    /// For a body sent behind a head that announced `framing`.
    pub const fn new(framing: Framing) -> Self {
        Self { framing }
    }

    /// Writes what precedes `len` bytes of data (a chunk header) and accounts for them. For `len` 0
    /// nothing is written: an empty chunk would end the body.
    pub fn begin(&mut self, len: usize, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        match &mut self.framing {
            Framing::None if len > 0 => Err(EncodeError::TooLong),
            Framing::Length(left) => {
                *left = left.checked_sub(len as u64).ok_or(EncodeError::TooLong)?;
                Ok(())
            }
            Framing::Chunked if len > 0 => {
                push_chunk_size(len, out);
                Ok(())
            }
            Framing::None | Framing::Chunked | Framing::UntilClose => Ok(()),
        }
    }

    /// Writes what follows the data that [`Encoder::begin`] announced; `len` is the same.
    pub fn finish_data(&self, len: usize, out: &mut Vec<u8>) {
        if self.framing == Framing::Chunked && len > 0 {
            out.extend_from_slice(b"\r\n");
        }
    }

    /// Appends `data` with its framing.
    pub fn data(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.begin(data.len(), out)?;
        out.extend_from_slice(data);
        self.finish_data(data.len(), out);
        Ok(())
    }

    /// Ends the body: the last chunk with `trailers` for the chunked coding, nothing for the others
    /// (which have no place for trailers: they are dropped, RFC 9110 §6.5.1 allows it). The caller
    /// leaves out the fields that do not belong there, as
    /// [`parse_trailers`](super::parse_trailers) does.
    pub fn end<'a>(
        &mut self,
        trailers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        match self.framing {
            Framing::Length(left) if left > 0 => return Err(EncodeError::TooShort),
            Framing::Chunked => {
                let start = out.len();
                out.extend_from_slice(b"0\r\n");
                for (name, value) in trailers {
                    if let Err(error) = push_field(name, value, out) {
                        out.truncate(start);
                        return Err(EncodeError::Trailer(error));
                    }
                }
                out.extend_from_slice(b"\r\n");
            }
            Framing::None | Framing::Length(_) | Framing::UntilClose => {}
        }
        self.framing = Framing::None;
        Ok(())
    }
}

/// `chunk-size CRLF` in lower-case hex without leading zeros.
fn push_chunk_size(len: usize, out: &mut Vec<u8>) {
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[len >> (4 * digit) & 0xf]);
    }
    out.extend_from_slice(b"\r\n");
}
