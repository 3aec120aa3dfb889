//! Shards: a persistent hash map in pieces of about 64 values. A shard is one array with open addressing that holds
//! the values themselves: a lookup touches the directory and the value. Growing doubles the shards and moves every
//! value: rare, and amortised over the insertions.

use std::sync::Arc;

use super::Keyed;

/// Average number of values in a shard before the shards double.
const SHARD_LOAD: usize = 64;
/// Places of the smallest shard.
const SMALLEST: usize = 4;

/// A power of two many places, at most three quarters of them taken; a value lies at the place named by the low bits
/// of its hash or, up to the next empty one, behind it.
#[derive(Debug)]
pub(crate) struct Shard<V> {
    places: Arc<[Option<V>]>,
    taken: usize,
}

/// A persistent hash map without a form for a single value: see [`Map`](super::Map).
#[derive(Debug, Default)]
pub(crate) enum Shards<V> {
    /// Nothing in it.
    #[default]
    Empty,
    /// One shard and no directory.
    Few(Shard<V>),
    /// A power of two many shards; a value lies in the one named by the low bits of the upper half of its hash.
    Many(Directory<V>),
}

/// The shards of a large map.
#[derive(Debug)]
pub(crate) struct Directory<V> {
    shards: Box<[Shard<V>]>,
    len: usize,
}

impl<V> Clone for Shard<V> {
    fn clone(&self) -> Self {
        Shard { places: Arc::clone(&self.places), taken: self.taken }
    }
}

impl<V> Clone for Directory<V> {
    fn clone(&self) -> Self {
        Directory { shards: self.shards.clone(), len: self.len }
    }
}

impl<V> Clone for Shards<V> {
    fn clone(&self) -> Self {
        match self {
            Shards::Empty => Shards::Empty,
            Shards::Few(shard) => Shards::Few(shard.clone()),
            Shards::Many(directory) => Shards::Many(directory.clone()),
        }
    }
}

impl<V: Keyed + Clone> Shard<V> {
    fn empty(places: usize) -> Self {
        Shard { places: std::iter::repeat_with(|| None).take(places).collect(), taken: 0 }
    }

    /// Where a key is.
    #[inline]
    fn find(&self, hash: u64, key: &V::Key) -> Option<usize> {
        let mask = self.places.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(value) = &self.places[at] {
            if value.hash() == hash && value.key() == key {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    #[inline]
    fn get(&self, hash: u64, key: &V::Key) -> Option<&V> {
        self.places[self.find(hash, key)?].as_ref()
    }

    fn get_mut(&mut self, hash: u64, key: &V::Key) -> Option<&mut V> {
        let at = self.find(hash, key)?;
        Arc::make_mut(&mut self.places)[at].as_mut()
    }

    /// Puts in a value whose key is not there.
    fn add(&mut self, value: V) {
        if (self.taken + 1) * 4 > self.places.len() * 3 {
            let mut larger = Self::empty(self.places.len() * 2);
            let places = Arc::make_mut(&mut larger.places);
            self.empty_into(|value| place(places, value));
            self.places = larger.places;
        }
        place(Arc::make_mut(&mut self.places), value);
        self.taken += 1;
    }

    fn remove(&mut self, hash: u64, key: &V::Key) -> Option<V> {
        let at = self.find(hash, key)?;
        let places = Arc::make_mut(&mut self.places);
        let gone = places[at].take();
        // What lies behind it may have been pushed on by it: put it in again, up to the next empty place.
        let mask = places.len() - 1;
        let mut next = (at + 1) & mask;
        while let Some(value) = places[next].take() {
            place(places, value);
            next = (next + 1) & mask;
        }
        self.taken -= 1;
        gone
    }

    /// Gives every value away; what somebody else holds is copied.
    fn empty_into(&mut self, take: impl FnMut(V)) {
        match Arc::get_mut(&mut self.places) {
            Some(own) => own.iter_mut().filter_map(Option::take).for_each(take),
            None => self.places.iter().flatten().cloned().for_each(take),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &V> {
        self.places.iter().flatten()
    }
}

/// Puts a value into the first empty place from its own.
fn place<V: Keyed>(places: &mut [Option<V>], value: V) {
    let mask = places.len() - 1;
    let mut at = value.hash() as usize & mask;
    while places[at].is_some() {
        at = (at + 1) & mask;
    }
    places[at] = Some(value);
}

impl<V: Keyed + Clone> Directory<V> {
    #[inline]
    fn place(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// The same values in twice as many shards.
    fn doubled(shards: &mut [Shard<V>]) -> Self {
        let (count, len) = (shards.len() * 2, shards.iter().map(|shard| shard.taken).sum());
        let empty = std::iter::repeat_with(|| Shard::empty(SHARD_LOAD)).take(count).collect();
        let mut larger = Directory { shards: empty, len };
        for shard in shards {
            shard.empty_into(|value| {
                let at = larger.place(value.hash());
                larger.shards[at].add(value);
            });
        }
        larger
    }
}

impl<V: Keyed + Clone> Shards<V> {
    /// Nothing in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Shards::Empty)
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Shards::Empty => 0,
            Shards::Few(shard) => shard.taken,
            Shards::Many(directory) => directory.len,
        }
    }

    /// The value under a key.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &V::Key) -> Option<&V> {
        match self {
            Shards::Empty => None,
            Shards::Few(shard) => shard.get(hash, key),
            Shards::Many(directory) => directory.shards[directory.place(hash)].get(hash, key),
        }
    }

    /// The value under a key whose hash is not known yet.
    #[inline]
    pub(crate) fn look(&self, seed: &foldhash::fast::RandomState, key: &V::Key) -> Option<&V> {
        if self.is_empty() { None } else { self.get(super::hash(seed, key), key) }
    }

    /// Every value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        let shards = match self {
            Shards::Empty => &[][..],
            Shards::Few(shard) => std::slice::from_ref(shard),
            Shards::Many(directory) => &directory.shards[..],
        };
        shards.iter().flat_map(Shard::iter)
    }

    /// The value under a key for changing. The change must keep key and hash.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &V::Key) -> Option<&mut V> {
        match self {
            Shards::Empty => None,
            Shards::Few(shard) => shard.get_mut(hash, key),
            Shards::Many(directory) => {
                let at = directory.place(hash);
                directory.shards[at].get_mut(hash, key)
            }
        }
    }

    /// The value under a key for changing, made when missing. The change must keep key and hash.
    pub(crate) fn get_mut_or_insert(&mut self, hash: u64, key: &V::Key, make: impl FnOnce() -> V) -> &mut V {
        if self.get(hash, key).is_none() {
            self.add(make());
        }
        self.get_mut(hash, key).expect("it was there or has just been put there")
    }

    /// Puts in a value whose key is not there.
    pub(crate) fn add(&mut self, value: V) {
        match self {
            Shards::Empty => {
                let mut shard = Shard::empty(SMALLEST);
                shard.add(value);
                *self = Shards::Few(shard);
            }
            Shards::Few(shard) if shard.taken < SHARD_LOAD => shard.add(value),
            Shards::Few(shard) => {
                *self = Shards::Many(Directory::doubled(std::slice::from_mut(shard)));
                self.add(value);
            }
            Shards::Many(directory) => {
                if directory.len >= directory.shards.len() * SHARD_LOAD {
                    *directory = Directory::doubled(&mut directory.shards);
                }
                let at = directory.place(value.hash());
                directory.shards[at].add(value);
                directory.len += 1;
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, hash: u64, key: &V::Key) -> Option<V> {
        let gone = match self {
            Shards::Empty => None,
            Shards::Few(shard) => shard.remove(hash, key),
            Shards::Many(directory) => {
                let at = directory.place(hash);
                let gone = directory.shards[at].remove(hash, key);
                directory.len -= usize::from(gone.is_some());
                gone
            }
        };
        if let Shards::Few(Shard { taken: 0, .. }) | Shards::Many(Directory { len: 0, .. }) = self {
            *self = Shards::Empty;
        }
        gone
    }
}
