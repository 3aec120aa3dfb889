//! Map: a hash map of shared values in shards of about 64. The caller brings the hash, so that one computed hash
//! serves several maps. Growing doubles the shards and moves every `Arc`: rare, and amortised over the insertions.

use std::sync::Arc;

use hashbrown::HashTable;

/// Average number of values in a shard before the shards double.
const SHARD_LOAD: usize = 64;

/// What a [`Map`] holds: it knows its hash and its key.
pub(crate) trait Keyed {
    /// The hash of its key, the same over its life.
    fn hash(&self) -> u64;
    /// Its key.
    fn key(&self) -> &[u8];
}

/// A persistent hash map from byte strings to `Arc`s.
#[derive(Debug)]
pub(crate) struct Map<T> {
    /// Empty or a power of two many; a value lies in the shard named by the low bits of the upper half of its hash
    /// (the table inside uses the lowest and the top seven).
    shards: Vec<Arc<HashTable<Arc<T>>>>,
    len: usize,
}

impl<T> Clone for Map<T> {
    fn clone(&self) -> Self {
        Map { shards: self.shards.clone(), len: self.len }
    }
}

impl<T> Default for Map<T> {
    fn default() -> Self {
        Map { shards: Vec::new(), len: 0 }
    }
}

impl<T: Keyed> Map<T> {
    /// Nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value under a key.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<&Arc<T>> {
        if self.len == 0 {
            return None;
        }
        self.shards[self.shard_of(hash)].find(hash, |value| value.key() == key)
    }

    /// Every value, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.shards.iter().flat_map(|shard| shard.iter())
    }

    /// Puts a value in; returns the one there was under its key.
    pub(crate) fn insert(&mut self, value: Arc<T>) -> Option<Arc<T>> {
        self.grow();
        let hash = value.hash();
        let shard = self.shard_of(hash);
        let table = Arc::make_mut(&mut self.shards[shard]);
        match table.find_mut(hash, |other| other.key() == value.key()) {
            Some(there) => Some(std::mem::replace(there, value)),
            None => {
                table.insert_unique(hash, value, |value| value.hash());
                self.len += 1;
                None
            }
        }
    }

    /// Takes a value out.
    pub(crate) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Arc<T>> {
        self.get(hash, key)?;
        let shard = self.shard_of(hash);
        let table = Arc::make_mut(&mut self.shards[shard]);
        let (value, _) = table.find_entry(hash, |value| value.key() == key).ok()?.remove();
        self.len -= 1;
        if self.len == 0 {
            self.shards = Vec::new();
        }
        Some(value)
    }

    fn shard_of(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }

    /// Keeps the average load under [`SHARD_LOAD`].
    fn grow(&mut self) {
        if self.shards.is_empty() {
            self.shards.push(Arc::default());
            return;
        }
        if self.len < self.shards.len() * SHARD_LOAD {
            return;
        }
        let old = std::mem::take(&mut self.shards);
        let mut tables: Vec<HashTable<Arc<T>>> = Vec::new();
        tables.resize_with(old.len() * 2, || HashTable::with_capacity(SHARD_LOAD));
        let mask = tables.len() - 1;
        for value in old.iter().flat_map(|shard| shard.iter()) {
            let hash = value.hash();
            tables[(hash >> 32) as usize & mask].insert_unique(hash, value.clone(), |value| value.hash());
        }
        self.shards = tables.into_iter().map(Arc::new).collect();
    }
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
        let shard = self.shard_of(hash);
        let table = Arc::make_mut(&mut self.shards[shard]);
        table.find_mut(hash, |value| value.key() == key).map(Arc::make_mut)
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
