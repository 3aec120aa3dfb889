//! Structural sharing: containers whose clones share everything and whose changes copy one small piece, so that a
//! change of one object in 100,000 costs microseconds and the version before it stays whole for those who hold it.
//!
//! [`Map`] is a hash map split into [`Shards`], [`Slab`] an array split into chunks. The pieces of both lie behind `Arc`s:
//! one that nobody else holds is changed in place, so that building from nothing copies nothing.

use std::hash::{BuildHasher as _, Hash};

mod map;
mod shards;
mod slab;
mod tally;
mod text;

pub(crate) use map::{Keyed, Map, Shared};
pub(crate) use shards::Shards;
pub(crate) use slab::Slab;
pub(crate) use tally::Tally;
pub(crate) use text::Text;

/// Hashes a key for [`Map`]; seeded at random once per lineage of engines.
pub(crate) fn hash<K: Hash + ?Sized>(seed: &foldhash::fast::RandomState, key: &K) -> u64 {
    seed.hash_one(key)
}
