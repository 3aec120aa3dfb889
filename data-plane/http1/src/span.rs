//! [`Span`]: where a piece of a message lies in the caller's buffer.
//!
//! Eight bytes instead of a borrowed slice's sixteen, and no lifetime: a parsed head can be kept in
//! reused storage beside the buffer it describes. A span is only meaningful together with the buffer
//! that was parsed; the crate never hands out one that reaches outside of it.

use std::ops::Range;

/// A byte range of the parsed buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// A span of no bytes at offset 0.
    pub const EMPTY: Self = Self { start: 0, end: 0 };

    /// The bytes `start..end`. Offsets beyond `u32::MAX` are not supported: heads are bounded by
    /// [`Limits`](crate::Limits) far below that.
    pub const fn new(start: usize, end: usize) -> Self {
        debug_assert!(start <= end && end <= u32::MAX as usize);
        Self { start: start as u32, end: end as u32 }
    }

    /// Offset of the first byte.
    pub const fn start(self) -> usize {
        self.start as usize
    }

    /// Offset after the last byte.
    pub const fn end(self) -> usize {
        self.end as usize
    }

    /// Number of bytes.
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether there are no bytes.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// The same as a `Range`, for slicing.
    pub const fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes it stands for. Panics when `buf` is shorter than the buffer that was parsed.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_gives_back_the_bytes_it_stands_for() {
        let buf = b"GET /path HTTP/1.1";
        let span = Span::new(4, 9);
        assert_eq!((span.start(), span.end(), span.len()), (4, 9, 5));
        assert_eq!((span.of(buf), span.range()), (&b"/path"[..], 4..9));
        assert!(!span.is_empty() && Span::EMPTY.is_empty());
    }
}
