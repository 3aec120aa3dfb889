//! Map: a persistent hash map in shards of about 64 values. The caller brings the hash, so that one computed hash
//! serves several maps. A shard is one array with open addressing that holds the values themselves: a lookup touches
//! the directory and the value. What is large, or is held elsewhere too, is put in as [`Shared`]. Growing doubles the
//! shards and moves every value: rare, and amortised over the insertions.

use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

/// Average number of values in a shard before the shards double.
const SHARD_LOAD: usize = 64;
/// Places of the smallest shard.
const SMALLEST: usize = 4;

/// What a [`Map`] holds: it knows its hash and its key.
pub(crate) trait Keyed {
    /// What it is found by.
    type Key: Eq + Hash + ?Sized;
    /// The hash of its key, the same over its life.
    fn hash(&self) -> u64;
    /// Its key.
    fn key(&self) -> &Self::Key;
}

/// A value of its own behind a pointer, with its hash beside the pointer.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    hash: u64,
    value: Arc<T>,
}

impl<T: Keyed> From<Arc<T>> for Shared<T> {
    fn from(value: Arc<T>) -> Self {
        Shared { hash: value.hash(), value }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { hash: self.hash, value: Arc::clone(&self.value) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = Arc<T>;

    #[inline]
    fn deref(&self) -> &Arc<T> {
        &self.value
    }
}

impl<T: Clone> Shared<T> {
    /// The value for changing, copied if anybody else holds it. The change must keep hash and key.
    pub(crate) fn make_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.value)
    }
}

impl<T: Keyed> Keyed for Shared<T> {
    type Key = T::Key;

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &T::Key {
        self.value.key()
    }
}

/// A power of two many places, at most three quarters of them taken; a value lies at the place named by the low bits
/// of its hash or, up to the next empty one, behind it.
#[derive(Debug)]
pub(crate) struct Shard<V> {
    places: Arc<[Option<V>]>,
    taken: usize,
}

/// A persistent hash map.
#[derive(Debug, Default)]
pub(crate) enum Map<V> {
    /// Nothing in it.
    #[default]
    Empty,
    /// One value and no array: most hosts have few paths, and every step of a lookup counts.
    One(V),
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

impl<V: Clone> Clone for Map<V> {
    fn clone(&self) -> Self {
        match self {
            Map::Empty => Map::Empty,
            Map::One(value) => Map::One(value.clone()),
            Map::Few(shard) => Map::Few(shard.clone()),
            Map::Many(directory) => Map::Many(directory.clone()),
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
            match Arc::get_mut(&mut self.places) {
                Some(own) => own.iter_mut().filter_map(Option::take).for_each(|value| place(places, value)),
                None => self.places.iter().flatten().for_each(|value| place(places, value.clone())),
            }
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
    fn doubled(shards: &[Shard<V>], len: usize) -> Self {
        let count = shards.len() * 2;
        let empty = std::iter::repeat_with(|| Shard::empty(SHARD_LOAD)).take(count).collect();
        let mut larger = Directory { shards: empty, len };
        for value in shards.iter().flat_map(Shard::iter) {
            let at = larger.place(value.hash());
            larger.shards[at].add(value.clone());
        }
        larger
    }
}

impl<V: Keyed + Clone> Map<V> {
    /// Nothing in it.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Map::Empty)
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        match self {
            Map::Empty => 0,
            Map::One(_) => 1,
            Map::Few(shard) => shard.taken,
            Map::Many(directory) => directory.len,
        }
    }

    /// The value under a key.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &V::Key) -> Option<&V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.hash() == hash && value.key() == key).then_some(value),
            Map::Few(shard) => shard.get(hash, key),
            Map::Many(directory) => directory.shards[directory.place(hash)].get(hash, key),
        }
    }

    /// The value under a key whose hash is not known yet; a single value is compared without one.
    #[inline]
    pub(crate) fn look(&self, seed: &foldhash::fast::RandomState, key: &V::Key) -> Option<&V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.key() == key).then_some(value),
            Map::Few(_) | Map::Many(_) => self.get(super::hash(seed, key), key),
        }
    }

    /// Every value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        let (one, shards) = match self {
            Map::Empty => (None, &[][..]),
            Map::One(value) => (Some(value), &[][..]),
            Map::Few(shard) => (None, std::slice::from_ref(shard)),
            Map::Many(directory) => (None, &directory.shards[..]),
        };
        one.into_iter().chain(shards.iter().flat_map(Shard::iter))
    }

    /// The value under a key for changing. The change must keep key and hash.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &V::Key) -> Option<&mut V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.hash() == hash && value.key() == key).then_some(value),
            Map::Few(shard) => shard.get_mut(hash, key),
            Map::Many(directory) => {
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

    /// Puts a value in; returns the one there was under its key.
    pub(crate) fn insert(&mut self, value: V) -> Option<V> {
        match self.get_mut(value.hash(), value.key()) {
            Some(there) => Some(std::mem::replace(there, value)),
            None => {
                self.add(value);
                None
            }
        }
    }

    /// Puts in a value whose key is not there.
    fn add(&mut self, value: V) {
        match self {
            Map::Empty => *self = Map::One(value),
            Map::One(_) => {
                let mut shard = Shard::empty(SMALLEST);
                if let Map::One(first) = std::mem::take(self) {
                    shard.add(first);
                }
                shard.add(value);
                *self = Map::Few(shard);
            }
            Map::Few(shard) if shard.taken < SHARD_LOAD => shard.add(value),
            Map::Few(shard) => {
                *self = Map::Many(Directory::doubled(std::slice::from_ref(shard), shard.taken));
                self.add(value);
            }
            Map::Many(directory) => {
                if directory.len >= directory.shards.len() * SHARD_LOAD {
                    *directory = Directory::doubled(&directory.shards, directory.len);
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
            Map::Empty => None,
            Map::One(value) if value.hash() == hash && value.key() == key => match std::mem::take(self) {
                Map::One(value) => Some(value),
                _ => None,
            },
            Map::One(_) => None,
            Map::Few(shard) => shard.remove(hash, key),
            Map::Many(directory) => {
                let at = directory.place(hash);
                let gone = directory.shards[at].remove(hash, key);
                directory.len -= usize::from(gone.is_some());
                gone
            }
        };
        if let Map::Few(Shard { taken: 0, .. }) | Map::Many(Directory { len: 0, .. }) = self {
            *self = Map::Empty;
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Item(String, u32);

    /// Few distinct hashes, so that values collide in every way.
    fn weak(key: &[u8]) -> u64 {
        let sum: u64 = key.iter().map(|&b| u64::from(b)).sum();
        ((sum % 7) << 32) | (sum % 3)
    }

    impl Keyed for Item {
        type Key = [u8];

        fn hash(&self) -> u64 {
            weak(self.0.as_bytes())
        }
        fn key(&self) -> &[u8] {
            self.0.as_bytes()
        }
    }

    proptest::proptest! {
        #[test]
        fn it_does_what_a_btree_map_does_and_old_versions_stay(
            edits in proptest::collection::vec((0_u32..400, proptest::bool::weighted(0.7)), 0..600)
        ) {
            let mut map = Map::<Item>::default();
            let mut model = BTreeMap::new();
            let mut versions = Vec::new();
            for (step, (key, insert)) in edits.into_iter().enumerate() {
                let key = format!("k{key}");
                if step % 97 == 0 {
                    versions.push((map.clone(), model.clone()));
                }
                if insert {
                    let there = map.insert(Item(key.clone(), step as u32)).map(|item| item.1);
                    assert_eq!(there, model.insert(key, step as u32));
                } else {
                    let gone = map.remove(weak(key.as_bytes()), key.as_bytes()).map(|item| item.1);
                    assert_eq!(gone, model.remove(&key));
                }
                assert_eq!(map.is_empty(), model.is_empty());
            }
            versions.push((map, model));
            for (map, model) in versions {
                assert_eq!(map.len(), model.len());
                let held: BTreeMap<String, u32> = map.iter().map(|item| (item.0.clone(), item.1)).collect();
                assert_eq!(&held, &model);
                for (key, value) in &model {
                    let found = map.get(weak(key.as_bytes()), key.as_bytes()).map(|item| item.1);
                    assert_eq!(found, Some(*value));
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard_and_its_value_only() {
        let mut map = Map::<Shared<Item>>::default();
        for at in 0..100 {
            map.insert(Arc::new(Item(format!("k{at}"), 0)).into());
        }
        let before = map.clone();
        let key = b"k5";
        map.get_mut(weak(key), key).expect("there").make_mut().1 = 1;
        let shared = |key: &str| {
            let hash = weak(key.as_bytes());
            Arc::ptr_eq(
                map.get(hash, key.as_bytes()).expect("there"),
                before.get(hash, key.as_bytes()).expect("there"),
            )
        };
        assert!(!shared("k5"));
        assert!((0..100).filter(|at| *at != 5).all(|at| shared(&format!("k{at}"))));
        assert_eq!(before.get(weak(key), key).expect("there").1, 0);
    }
}
