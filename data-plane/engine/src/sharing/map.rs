//! Map: a hash map of shared values in shards of about 64. The caller brings the hash, so that one computed hash
//! serves several maps. A shard is one array with open addressing, hash beside value: a lookup touches the directory,
//! one line of the shard, and the value. Growing doubles the shards and moves every `Arc`: rare, and amortised over
//! the insertions.

use std::sync::Arc;

/// Average number of values in a shard before the shards double.
const SHARD_LOAD: usize = 64;
/// Places of the smallest shard.
const SMALLEST: usize = 4;

/// What a [`Map`] holds: it knows its hash and its key.
pub(crate) trait Keyed {
    /// The hash of its key, the same over its life.
    fn hash(&self) -> u64;
    /// Its key.
    fn key(&self) -> &[u8];
}

/// A value after its hash.
type Place<T> = Option<(u64, Arc<T>)>;

/// A power of two many places, at most three quarters of them taken; a value lies at the place named by the low bits
/// of its hash or, up to the next empty one, behind it.
type Shard<T> = Arc<[Place<T>]>;

/// A persistent hash map from byte strings to `Arc`s.
#[derive(Debug, Default)]
pub(crate) enum Map<T> {
    /// Nothing in it.
    #[default]
    Empty,
    /// One value and no array: most hosts have few paths, and every step of a lookup counts.
    One(Arc<T>),
    /// What came to hold more than one value.
    Many {
        /// A power of two many; a value lies in the one named by the low bits of the upper half of its hash.
        shards: Vec<Shard<T>>,
        len: usize,
    },
}

impl<T> Clone for Map<T> {
    fn clone(&self) -> Self {
        match self {
            Map::Empty => Map::Empty,
            Map::One(value) => Map::One(Arc::clone(value)),
            Map::Many { shards, len } => Map::Many { shards: shards.clone(), len: *len },
        }
    }
}

impl<T: Keyed> Map<T> {
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
            Map::Many { len, .. } => *len,
        }
    }

    /// The value under a key.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&Arc<T>> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.hash() == hash && value.key() == key).then_some(value),
            Map::Many { shards, .. } => {
                let shard = &shards[shard_of(shards, hash)];
                shard[find(shard, hash, key)?].as_ref().map(|(_, value)| value)
            }
        }
    }

    /// The value under a key whose hash is not known yet; a single value is compared without one.
    #[inline]
    pub(crate) fn look(&self, seed: &foldhash::fast::RandomState, key: &[u8]) -> Option<&Arc<T>> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.key() == key).then_some(value),
            Map::Many { .. } => self.get(super::hash(seed, key), key),
        }
    }

    /// Every value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        let (one, shards) = match self {
            Map::Empty => (None, &[][..]),
            Map::One(value) => (Some(value), &[][..]),
            Map::Many { shards, .. } => (None, &shards[..]),
        };
        one.into_iter().chain(shards.iter().flat_map(|shard| shard.iter().flatten().map(|(_, value)| value)))
    }

    /// Puts a value in; returns the one there was under its key.
    pub(crate) fn insert(&mut self, value: Arc<T>) -> Option<Arc<T>> {
        let hash = value.hash();
        match self {
            Map::Empty => {
                *self = Map::One(value);
                None
            }
            Map::One(there) if there.hash() == hash && there.key() == value.key() => {
                Some(std::mem::replace(there, value))
            }
            Map::One(there) => {
                let mut shard = empty(SMALLEST);
                let places = Arc::make_mut(&mut shard);
                place(places, there.hash(), Arc::clone(there));
                place(places, hash, value);
                *self = Map::Many { shards: vec![shard], len: 2 };
                None
            }
            Map::Many { shards, len } => {
                if *len >= shards.len() * SHARD_LOAD {
                    double(shards);
                }
                let at = shard_of(shards, hash);
                let shard = &mut shards[at];
                if let Some(at) = find(shard, hash, value.key()) {
                    return Arc::make_mut(shard)[at].replace((hash, value)).map(|(_, value)| value);
                }
                make_room(shard);
                place(Arc::make_mut(shard), hash, value);
                *len += 1;
                None
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Arc<T>> {
        let gone = Arc::clone(self.get(hash, key)?);
        if let Map::Many { shards, len } = self {
            let at = shard_of(shards, hash);
            let places = Arc::make_mut(&mut shards[at]);
            let at = find(places, hash, key)?;
            places[at] = None;
            // What lies behind it may have been pushed on by it: put it in again, up to the next empty place.
            let mut next = (at + 1) & (places.len() - 1);
            while let Some((hash, value)) = places[next].take() {
                place(places, hash, value);
                next = (next + 1) & (places.len() - 1);
            }
            *len -= 1;
        }
        if let Map::One(_) | Map::Many { len: 0, .. } = self {
            *self = Map::Empty;
        }
        Some(gone)
    }
}

#[inline]
fn shard_of<T>(shards: &[Shard<T>], hash: u64) -> usize {
    (hash >> 32) as usize & (shards.len() - 1)
}

/// Spreads the values over twice as many shards.
fn double<T>(shards: &mut Vec<Shard<T>>) {
    let count = shards.len() * 2;
    let old = std::mem::replace(shards, std::iter::repeat_with(|| empty(SHARD_LOAD)).take(count).collect());
    for (hash, value) in old.iter().flat_map(|shard| shard.iter().flatten()) {
        let at = shard_of(shards, *hash);
        let shard = &mut shards[at];
        make_room(shard);
        place(Arc::make_mut(shard), *hash, Arc::clone(value));
    }
}

/// Where a key is.
#[inline]
fn find<T: Keyed>(shard: &[Place<T>], hash: u64, key: &[u8]) -> Option<usize> {
    let mask = shard.len() - 1;
    let mut at = hash as usize & mask;
    while let Some((other, value)) = &shard[at] {
        if *other == hash && value.key() == key {
            return Some(at);
        }
        at = (at + 1) & mask;
    }
    None
}

fn empty<T>(places: usize) -> Shard<T> {
    std::iter::repeat_with(|| None).take(places).collect()
}

/// Doubles the places when over three quarters would be taken.
fn make_room<T>(shard: &mut Shard<T>) {
    let taken = shard.iter().flatten().count();
    if (taken + 1) * 4 <= shard.len() * 3 {
        return;
    }
    let mut larger = empty(shard.len() * 2);
    let places = Arc::make_mut(&mut larger);
    for (hash, value) in shard.iter().flatten() {
        place(places, *hash, Arc::clone(value));
    }
    *shard = larger;
}

/// Puts a value whose key is not there into an empty place.
fn place<T>(shard: &mut [Place<T>], hash: u64, value: Arc<T>) {
    let mask = shard.len() - 1;
    let mut at = hash as usize & mask;
    while shard[at].is_some() {
        at = (at + 1) & mask;
    }
    shard[at] = Some((hash, value));
}

impl<T: Keyed + Clone> Map<T> {
    /// The value under a key for changing, made when missing. The change must keep key and hash.
    pub(crate) fn get_mut_or_insert(&mut self, hash: u64, key: &[u8], make: impl FnOnce() -> T) -> &mut T {
        if self.get(hash, key).is_none() {
            self.insert(Arc::new(make()));
        }
        self.get_mut(hash, key).expect("it was there or has just been put there")
    }

    /// The value under a key for changing. The change must keep key and hash.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut T> {
        self.get(hash, key)?;
        match self {
            Map::Empty => None,
            Map::One(value) => Some(Arc::make_mut(value)),
            Map::Many { shards, .. } => {
                let at = shard_of(shards, hash);
                let places = Arc::make_mut(&mut shards[at]);
                let at = find(places, hash, key)?;
                places[at].as_mut().map(|(_, value)| Arc::make_mut(value))
            }
        }
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
                    let there = map.insert(Arc::new(Item(key.clone(), step as u32))).map(|item| item.1);
                    assert_eq!(there, model.insert(key, step as u32));
                } else {
                    let gone = map.remove(weak(key.as_bytes()), key.as_bytes()).map(|item| item.1);
                    assert_eq!(gone, model.remove(&key));
                }
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
        let mut map = Map::<Item>::default();
        for at in 0..100 {
            map.insert(Arc::new(Item(format!("k{at}"), 0)));
        }
        let before = map.clone();
        let key = b"k5";
        map.get_mut(weak(key), key).expect("there").1 = 1;
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
