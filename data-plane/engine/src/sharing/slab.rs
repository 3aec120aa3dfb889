//! Slab: values under small numbers that stay theirs. A freed number goes to the next value that needs one, so that
//! arrays indexed by it (per-worker state, metric cells) stay as short as the most there ever was at once.

use std::sync::Arc;

const CHUNK: usize = 128;

/// A persistent array of `Arc`s with free places.
#[derive(Debug)]
pub(crate) struct Slab<T> {
    /// Each holds [`CHUNK`] places.
    chunks: Vec<Arc<[Option<Arc<T>>]>>,
    /// Free places under `next`, last freed last.
    free: Vec<u32>,
    next: u32,
}

impl<T> Clone for Slab<T> {
    fn clone(&self) -> Self {
        Slab { chunks: self.chunks.clone(), free: self.free.clone(), next: self.next }
    }
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { chunks: Vec::new(), free: Vec::new(), next: 0 }
    }
}

impl<T> Slab<T> {
    /// Takes a free number; [`Slab::set`] gives it a value.
    pub(crate) fn reserve(&mut self) -> u32 {
        if let Some(slot) = self.free.pop() {
            return slot;
        }
        let slot = self.next;
        self.next = slot.checked_add(1).expect("memory ends before four thousand million values");
        if slot as usize / CHUNK == self.chunks.len() {
            self.chunks.push(std::iter::repeat_with(|| None).take(CHUNK).collect());
        }
        slot
    }

    /// Puts a value under a reserved number.
    pub(crate) fn set(&mut self, slot: u32, value: Arc<T>) {
        *self.place(slot) = Some(value);
    }

    /// The value under a number for changing, copied if anybody else holds it.
    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut T>
    where
        T: Clone,
    {
        self.place(slot).as_mut().map(Arc::make_mut)
    }

    /// Takes the value out and frees the number.
    pub(crate) fn free(&mut self, slot: u32) {
        *self.place(slot) = None;
        self.free.push(slot);
    }

    /// The value under a number.
    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Arc<T>> {
        self.chunks.get(slot as usize / CHUNK)?.get(slot as usize % CHUNK)?.as_ref()
    }

    /// Every value, by number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter().flatten())
    }

    /// One more than the highest number ever taken.
    pub(crate) fn bound(&self) -> usize {
        self.next as usize
    }

    /// It holds no value.
    pub(crate) fn is_empty(&self) -> bool {
        self.next as usize == self.free.len()
    }

    fn place(&mut self, slot: u32) -> &mut Option<Arc<T>> {
        &mut Arc::make_mut(&mut self.chunks[slot as usize / CHUNK])[slot as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_is_taken_again_and_old_versions_stay() {
        let mut slab = Slab::default();
        for at in 0..300_u32 {
            let slot = slab.reserve();
            assert_eq!(slot, at);
            slab.set(slot, Arc::new(at));
        }
        let before = slab.clone();
        slab.free(7);
        assert_eq!(slab.get(7), None);
        assert_eq!(before.get(7).map(|value| **value), Some(7));
        assert_eq!(slab.reserve(), 7);
        assert_eq!(slab.reserve(), 300);
        assert_eq!(slab.bound(), 301);
        assert_eq!(before.iter().count(), 300);
        assert!(slab.get(5_000).is_none());
    }
}
