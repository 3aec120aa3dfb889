//! Map: a persistent hash map. The caller brings the hash, so that one computed hash serves several maps. A single value
//! lies in the map itself, more of them in [`Shards`]. What is large, or is held elsewhere too, is put in as [`Shared`].

use std::hash::Hash;
use std::ops::Deref;
use std::sync::Arc;

use super::Shards;

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

/// A persistent hash map.
#[derive(Clone, Debug, Default)]
pub(crate) enum Map<V> {
    /// Nothing in it.
    #[default]
    Empty,
    /// One value and no array: common, and every step of a lookup counts.
    One(V),
    /// What was more than one once.
    More(Shards<V>),
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
            Map::More(shards) => shards.len(),
        }
    }

    /// The value under a key.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &V::Key) -> Option<&V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.hash() == hash && value.key() == key).then_some(value),
            Map::More(shards) => shards.get(hash, key),
        }
    }

    /// The value under a key whose hash is not known yet; a single value is compared without one.
    #[inline]
    pub(crate) fn look(&self, seed: &foldhash::fast::RandomState, key: &V::Key) -> Option<&V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.key() == key).then_some(value),
            Map::More(shards) => shards.get(super::hash(seed, key), key),
        }
    }

    /// Every value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        let (one, more) = match self {
            Map::Empty => (None, None),
            Map::One(value) => (Some(value), None),
            Map::More(shards) => (None, Some(shards)),
        };
        one.into_iter().chain(more.into_iter().flat_map(Shards::iter))
    }

    /// The value under a key for changing. The change must keep key and hash.
    pub(crate) fn get_mut(&mut self, hash: u64, key: &V::Key) -> Option<&mut V> {
        match self {
            Map::Empty => None,
            Map::One(value) => (value.hash() == hash && value.key() == key).then_some(value),
            Map::More(shards) => shards.get_mut(hash, key),
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
        match std::mem::take(self) {
            Map::Empty => *self = Map::One(value),
            Map::One(first) => {
                let mut shards = Shards::Empty;
                shards.add(first);
                shards.add(value);
                *self = Map::More(shards);
            }
            Map::More(mut shards) => {
                shards.add(value);
                *self = Map::More(shards);
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, hash: u64, key: &V::Key) -> Option<V> {
        match self {
            Map::Empty => None,
            Map::One(value) if value.hash() == hash && value.key() == key => match std::mem::take(self) {
                Map::One(value) => Some(value),
                _ => None,
            },
            Map::One(_) => None,
            Map::More(shards) => {
                let gone = shards.remove(hash, key);
                if shards.is_empty() {
                    *self = Map::Empty;
                }
                gone
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
