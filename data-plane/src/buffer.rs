//! The buffers of one core. A request borrows one while it runs and gives it back by dropping it; an idle connection
//! holds none, which is what keeps it under 2 KB.
//!
//! Two sizes are kept: 16 KiB for heads and small bodies, 68 KiB once a body exceeds one buffer. Larger ones (huge
//! heads) are made to measure and freed. A pool belongs to one thread and keeps a bounded number of free buffers;
//! nothing is zeroed when a buffer changes hands within it.
//!
//! Invariant: `filled` is what was read and not yet consumed; `spare` is what can be read into.

use std::cell::RefCell;
use std::rc::Rc;

/// What a request starts with.
pub(crate) const SMALL: usize = 16 * 1024;
/// What a body that exceeds one buffer flows through: a block of 64 KiB together with its head.
pub(crate) const LARGE: usize = 68 * 1024;
/// Free buffers kept per size: 8 MiB and 4 MiB per core at most.
const KEEP_SMALL: usize = 512;
const KEEP_LARGE: usize = 64;

/// The free buffers of one core.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    small: RefCell<Vec<Box<[u8]>>>,
    large: RefCell<Vec<Box<[u8]>>>,
}

impl Pool {
    /// An empty pool; buffers are made when first asked for.
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// An empty buffer of at least `size` bytes: pooled up to [`LARGE`], made to measure above.
    pub(crate) fn take(self: &Rc<Self>, size: usize) -> Buffer {
        Buffer { bytes: self.lend(size), start: 0, end: 0, pool: Rc::clone(self) }
    }

    fn lend(&self, size: usize) -> Box<[u8]> {
        let (free, size) = match size {
            0..=SMALL => (Some(&self.small), SMALL),
            size if size <= LARGE => (Some(&self.large), LARGE),
            size => (None, size),
        };
        let lent = free.and_then(|free| free.borrow_mut().pop());
        lent.unwrap_or_else(|| vec![0; size].into_boxed_slice())
    }

    /// A buffer without memory, for a connection that waits: [`Buffer::make_room`] gets it some.
    pub(crate) fn none(self: &Rc<Self>) -> Buffer {
        Buffer { bytes: Box::default(), start: 0, end: 0, pool: Rc::clone(self) }
    }

    /// Free buffers of the small size.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.small.borrow().len()
    }

    fn give_back(&self, bytes: Box<[u8]>) {
        let (free, keep) = match bytes.len() {
            SMALL => (&self.small, KEEP_SMALL),
            LARGE => (&self.large, KEEP_LARGE),
            _ => return,
        };
        let mut free = free.borrow_mut();
        if free.len() < keep {
            free.push(bytes);
        }
    }
}

/// A borrowed buffer; goes back to its pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
    pool: Rc<Pool>,
}

impl Buffer {
    /// What was read and not yet consumed.
    #[inline]
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The same, to be decrypted in place.
    #[inline]
    pub(crate) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    /// What can be read into.
    #[inline]
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    /// Nothing is waiting to be consumed.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Nothing more can be read without consuming or [`Buffer::make_room`].
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    /// Size in bytes, filled and spare and consumed.
    pub(crate) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// `count` bytes of the spare part have been read into.
    #[inline]
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count <= self.bytes.len() - self.end, "more than there was room for");
        self.end += count;
    }

    /// The first `count` filled bytes are done with.
    #[inline]
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "more than there was");
        self.start += count;
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }

    /// Makes the whole size usable: filled bytes move to the front, and into a buffer of at least `size` bytes if
    /// this one is smaller.
    pub(crate) fn make_room(&mut self, size: usize) {
        if self.bytes.is_empty() {
            // Nothing to carry over: the usual case, once per request and connection.
            self.bytes = self.pool.lend(size);
        } else if self.bytes.len() < size {
            let mut larger = self.pool.take(size);
            let filled = self.filled();
            let count = filled.len();
            larger.bytes[..count].copy_from_slice(filled);
            larger.end = count;
            *self = larger;
        } else if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Gives the memory back. What is filled is lost.
    pub(crate) fn release(&mut self) {
        self.pool.give_back(std::mem::take(&mut self.bytes));
        (self.start, self.end) = (0, 0);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.pool.give_back(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.spare()[..bytes.len()].copy_from_slice(bytes);
        buffer.advance(bytes.len());
    }

    #[test]
    fn a_dropped_buffer_is_lent_again() {
        let pool = Pool::new();
        let address = pool.take(SMALL).filled().as_ptr();
        assert_eq!(pool.take(SMALL).filled().as_ptr(), address);
        assert_eq!((pool.small.borrow().len(), pool.large.borrow().len()), (1, 0));
        assert_eq!(pool.take(SMALL + 1).capacity(), LARGE);
        assert_eq!(pool.large.borrow().len(), 1);
        drop(pool.take(LARGE + 1));
        assert_eq!(pool.large.borrow().len(), 1, "made to measure, not kept");
    }

    #[test]
    fn the_pool_keeps_a_bounded_number() {
        let pool = Pool::new();
        let many: Vec<_> = (0..KEEP_LARGE + 3).map(|_| pool.take(LARGE)).collect();
        drop(many);
        assert_eq!(pool.large.borrow().len(), KEEP_LARGE);
    }

    #[test]
    fn bytes_survive_consuming_compacting_and_growing() {
        let pool = Pool::new();
        let mut buffer = pool.take(SMALL);
        append(&mut buffer, b"hello world");
        buffer.consume(6);
        assert_eq!(buffer.filled(), b"world");
        buffer.make_room(SMALL);
        assert_eq!(buffer.spare().len(), SMALL - 5);
        assert_eq!(buffer.filled(), b"world");
        buffer.make_room(LARGE);
        assert_eq!((buffer.filled(), buffer.capacity()), (&b"world"[..], LARGE));
        buffer.spare()[0] = b'!';
        buffer.advance(1);
        assert_eq!(buffer.filled(), b"world!");
        buffer.consume(6);
        assert!(buffer.is_empty() && buffer.spare().len() == LARGE);
    }

    #[test]
    fn a_released_buffer_holds_no_memory_until_room_is_made() {
        let pool = Pool::new();
        let mut buffer = pool.take(SMALL);
        append(&mut buffer, b"x");
        buffer.release();
        assert_eq!((buffer.capacity(), buffer.is_empty(), buffer.is_full()), (0, true, true));
        assert_eq!(pool.small.borrow().len(), 1);
        buffer.make_room(SMALL);
        assert_eq!((buffer.spare().len(), pool.small.borrow().len()), (SMALL, 0));
        drop(pool.none());
        assert_eq!(pool.small.borrow().len(), 0);
    }
}
