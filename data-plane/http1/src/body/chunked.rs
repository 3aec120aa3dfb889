//! The chunked coding (RFC 9112 §7.1), read byte by byte through an explicit automaton.
//!
//! Syntax is consumed as it arrives and never looked at again; only a trailer section waits in the
//! caller's buffer until it is whole. Extensions are checked, counted and dropped.

use super::{BodyError, ChunkedLimits, Frame, trailer};
use crate::field::TCHAR;
use crate::scan::{Part, Scan};

/// 16 digits hold every `u64`; more could only be zeros in front or an overflow.
const MAX_SIZE_DIGITS: u8 = 16;

#[derive(Clone, Debug)]
pub(super) struct Chunked {
    step: Step,
    /// Size of the chunk as far as it was read; then the data of it that is left.
    size: u64,
    digits: u8,
    extension_bytes: u32,
    trailer_scan: Scan,
    limits: ChunkedLimits,
}

/// What is expected next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Size,
    SizeLf,
    Extension(Extension),
    Data,
    DataCr,
    DataLf,
    Trailers,
}

/// Inside of `*( ";" name [ "=" ( token / quoted-string ) ] )`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extension {
    NameStart,
    Name,
    ValueStart,
    Value,
    Quoted,
    QuotedPair,
    QuotedEnd,
}

impl Chunked {
    pub(super) const fn new(limits: ChunkedLimits) -> Self {
        let trailer_scan = Scan::new();
        Self { step: Step::Size, size: 0, digits: 0, extension_bytes: 0, trailer_scan, limits }
    }

    pub(super) const fn data_left(&self) -> u64 {
        match self.step {
            Step::Data => self.size,
            _ => 0,
        }
    }

    pub(super) fn decode(&mut self, buf: &[u8]) -> Result<Frame, BodyError> {
        let mut at = 0;
        loop {
            if self.step == Step::Trailers {
                return self.trailers(buf, at);
            }
            let Some(&byte) = buf.get(at) else { return Ok(Frame::NeedMore { consumed: at }) };
            if self.step == Step::Data {
                let len = (buf.len() - at).min(usize::try_from(self.size).unwrap_or(usize::MAX));
                self.size -= len as u64;
                if self.size == 0 {
                    self.step = Step::DataCr;
                }
                return Ok(Frame::Data(at..at + len));
            }
            self.step = self.next(byte)?;
            at += 1;
        }
    }

    fn next(&mut self, byte: u8) -> Result<Step, BodyError> {
        match (self.step, byte) {
            (Step::Size, b'\r') if self.digits > 0 => Ok(Step::SizeLf),
            (Step::Size, b';') if self.digits > 0 => Ok(Step::Extension(Extension::NameStart)),
            (Step::Size, digit) => self.size_digit(digit),
            (Step::SizeLf, b'\n') if self.size == 0 => Ok(Step::Trailers),
            (Step::SizeLf, b'\n') => Ok(Step::Data),
            (Step::Extension(at), byte) => {
                self.extension_bytes += 1;
                if self.extension_bytes > self.limits.max_extension_bytes {
                    return Err(BodyError::ChunkExtensionsTooLarge);
                }
                at.next(byte)
            }
            (Step::DataCr, b'\r') => Ok(Step::DataLf),
            (Step::DataLf, b'\n') => {
                (self.size, self.digits) = (0, 0);
                Ok(Step::Size)
            }
            (Step::SizeLf | Step::DataCr | Step::DataLf, _) => Err(BodyError::LineEnd),
            (Step::Data | Step::Trailers, _) => Ok(self.step), // not reached: decode() handles both
        }
    }

    fn size_digit(&mut self, byte: u8) -> Result<Step, BodyError> {
        let value = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ => return Err(BodyError::ChunkSize),
        };
        if self.digits == MAX_SIZE_DIGITS {
            return Err(BodyError::ChunkSize);
        }
        self.digits += 1;
        self.size = self.size << 4 | u64::from(value);
        Ok(Step::Size)
    }

    /// The section that begins at `start`. Until it is whole only what precedes it is consumed.
    fn trailers(&mut self, buf: &[u8], start: usize) -> Result<Frame, BodyError> {
        let section = &buf[start..];
        match self.trailer_scan.run(section, self.limits.max_trailer_bytes, Part::Trailers) {
            Ok(None) => Ok(Frame::NeedMore { consumed: start }),
            Ok(Some(2)) => Ok(Frame::End { trailers: start..start, consumed: start + 2 }),
            Ok(Some(len)) => {
                trailer::check(&section[..len], self.limits.max_trailer_fields)?;
                Ok(Frame::End { trailers: start..start + len, consumed: start + len })
            }
            Err(crate::ParseError::HeadTooLarge) => Err(BodyError::TrailersTooLarge),
            Err(_) => Err(BodyError::Trailers),
        }
    }
}

impl Extension {
    fn next(self, byte: u8) -> Result<Step, BodyError> {
        let next = match (self, byte) {
            (Self::Name | Self::Value | Self::QuotedEnd, b'\r') => return Ok(Step::SizeLf),
            (Self::Name | Self::Value | Self::QuotedEnd, b';') => Self::NameStart,
            (Self::Name, b'=') => Self::ValueStart,
            (Self::NameStart | Self::Name, byte) if TCHAR[byte as usize] => Self::Name,
            (Self::ValueStart, b'"') => Self::Quoted,
            (Self::ValueStart | Self::Value, byte) if TCHAR[byte as usize] => Self::Value,
            (Self::Quoted, b'"') => Self::QuotedEnd,
            (Self::Quoted, b'\\') => Self::QuotedPair,
            // qdtext and quoted-pair, RFC 9110 §5.6.4
            (Self::Quoted | Self::QuotedPair, b'\t' | b' '..=b'~' | 0x80..) => Self::Quoted,
            _ => return Err(BodyError::ChunkExtension),
        };
        Ok(Step::Extension(next))
    }
}
