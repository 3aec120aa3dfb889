//! Structural sharing: containers whose clones share everything and whose changes copy one small piece, so that a
//! change of one object in 100,000 costs microseconds and the version before it stays whole for those who hold it.
//!
//! [`Map`] is a hash map split into shards, [`Slab`] an array split into chunks. Both are plain values behind `Arc`s:
//! a piece that nobody else holds is changed in place, so that building from nothing copies nothing.

mod map;
mod slab;

pub(crate) use map::{Keyed, Map};
pub(crate) use slab::Slab;

/// Hashes bytes for [`Map`]; seeded at random once per lineage of engines.
pub(crate) fn hash(seed: &foldhash::fast::RandomState, bytes: &[u8]) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = seed.build_hasher();
    hasher.write(bytes);
    hasher.finish()
}
