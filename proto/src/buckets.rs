//! How two processes find out where they differ without listing what they hold: the objects are dealt into 1,024
//! buckets by name, and each bucket has a root hash of its own. Old and new content of one object fall into the same
//! bucket, so that sending the buckets that differ, whole, makes both sides equal.

use std::fmt;

use crate::digest::{ItemHash, RootHash};
use crate::kind::Key;

/// How many there are.
pub const BUCKETS: usize = 1_024;
/// Bytes of a root hash on the wire.
const SUM: usize = 16;

/// The bucket of an object: FNV-1a over `kind NUL namespace NUL name NUL`, folded to 32 bits, its lowest ten.
pub fn bucket([kind, namespace, name]: [&str; 3]) -> usize {
    let parts = [kind, namespace, name];
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    ((hash ^ (hash >> 32)) & (BUCKETS as u64 - 1)) as usize
}

fn of(key: &Key) -> usize {
    bucket([key.kind.as_str(), &key.namespace, &key.name])
}

/// Root hash of each bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct Buckets(Vec<RootHash>);

impl Buckets {
    /// With one more item.
    pub fn add(&mut self, key: &Key, item: ItemHash) {
        let sum = &mut self.0[of(key)];
        *sum = sum.plus(item);
    }

    /// With one item less.
    pub fn take(&mut self, key: &Key, item: ItemHash) {
        let sum = &mut self.0[of(key)];
        *sum = sum.minus(item);
    }

    /// Sets the sum of a bucket; a number that is none of a bucket is passed over.
    pub fn set(&mut self, bucket: usize, sum: RootHash) {
        if let Some(there) = self.0.get_mut(bucket) {
            *there = sum;
        }
    }

    /// As they go over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|sum| sum.to_bytes()).collect()
    }

    /// From the wire; `None` unless there are exactly as many as there have to be.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let sums: Option<Vec<RootHash>> = bytes.chunks(SUM).map(RootHash::from_slice).collect();
        sums.filter(|sums| sums.len() == BUCKETS).map(Buckets)
    }

    /// Those that are not the same on both sides.
    pub fn differing(&self, other: &Buckets) -> BucketSet {
        let pairs = self.0.iter().zip(&other.0).enumerate();
        BucketSet::from_iter(pairs.filter(|(_, (one, two))| one != two).map(|(at, _)| at))
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Buckets(vec![RootHash::default(); BUCKETS])
    }
}

impl<'a> FromIterator<(&'a Key, ItemHash)> for Buckets {
    fn from_iter<I: IntoIterator<Item = (&'a Key, ItemHash)>>(items: I) -> Self {
        let mut buckets = Buckets::default();
        items.into_iter().for_each(|(key, item)| buckets.add(key, item));
        buckets
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filled = self.0.iter().enumerate().filter(|(_, sum)| **sum != RootHash::default());
        f.debug_map().entries(filled).finish()
    }
}

/// Some of the buckets.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketSet([u64; BUCKETS / 64]);

impl BucketSet {
    /// One more; a number that is none of a bucket is passed over.
    pub fn insert(&mut self, bucket: usize) {
        if let Some(word) = self.0.get_mut(bucket / 64) {
            *word |= 1 << (bucket % 64);
        }
    }

    /// Whether an object falls into one of them.
    pub fn holds(&self, key: &Key) -> bool {
        self.contains(of(key))
    }

    /// Whether it is one of them.
    pub fn contains(&self, bucket: usize) -> bool {
        self.0.get(bucket / 64).is_some_and(|word| word & (1 << (bucket % 64)) != 0)
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// None.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Their numbers, ascending.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..BUCKETS).filter(|bucket| self.contains(*bucket))
    }
}

impl FromIterator<usize> for BucketSet {
    fn from_iter<I: IntoIterator<Item = usize>>(buckets: I) -> Self {
        let mut set = BucketSet::default();
        buckets.into_iter().for_each(|bucket| set.insert(bucket));
        set
    }
}

impl fmt::Debug for BucketSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    fn key(n: usize) -> Key {
        Key::new(Kind::Route, "default", format!("r{n}"))
    }

    #[test]
    fn names_are_spread_over_all_buckets() {
        let mut counts = vec![0; BUCKETS];
        (0..BUCKETS * 100).for_each(|n| counts[of(&key(n))] += 1);
        let (least, most) = (counts.iter().min(), counts.iter().max());
        assert!(least > Some(&40) && most < Some(&200), "{least:?} to {most:?} in a bucket, 100 on average");
        // Both ends must deal alike, for ever.
        assert_eq!([of(&key(0)), of(&key(1)), of(&key(2))], [786, 59, 320]);
    }

    #[test]
    fn only_the_buckets_of_what_differs_differ() {
        let item = |n: usize, body: &[u8]| ItemHash::of(&key(n), body);
        let keys: Vec<Key> = (0..500).map(key).collect();
        let ours: Buckets = keys.iter().enumerate().map(|(n, key)| (key, item(n, b"one"))).collect();
        let mut theirs = ours.clone();
        assert!(ours.differing(&theirs).is_empty());
        theirs.take(&keys[7], item(7, b"one"));
        theirs.take(&keys[8], item(8, b"one"));
        theirs.add(&keys[8], item(8, b"two"));
        let set = ours.differing(&theirs);
        assert_eq!(set, [of(&keys[7]), of(&keys[8])].into_iter().collect());
        assert!(set.holds(&keys[7]) && set.holds(&keys[8]) && !set.holds(&keys[9]));
        assert_eq!(Buckets::from_slice(&ours.to_bytes()), Some(ours));
    }

    #[test]
    fn what_is_no_list_of_sums_or_no_bucket_is_told() {
        for length in [0, 16, BUCKETS * SUM - 1, BUCKETS * SUM + 16] {
            assert_eq!(Buckets::from_slice(&vec![0; length]), None, "{length}");
        }
        let mut set = BucketSet::default();
        set.insert(BUCKETS);
        assert!(set.is_empty());
    }
}
