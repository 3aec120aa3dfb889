//! Keys: every API key that is good here, by its digest. A million of them cost 41 bytes each and the names of their
//! consumers; asking for one takes a hash and two or three cache misses.
//!
//! The table is cut into 1,024 shards by the first bits of the digest. A shard never changes: who changes it makes
//! another and swaps it in, so that workers read without a lock, and a change costs a thousandth of what there is.
//! Inside, the keys are sorted, and an index over the next bits leads to the four or so among which one must be.
//!
//! Invariants: one task at a time changes a table; a digest is found by its bits, which nobody can choose for a key that
//! he does not have, and all of it is compared in constant time, whether there was one like it or not.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwapOption;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use gateway_proto::buckets::Buckets;
use gateway_proto::credential::{Grant, KeyDigest, SHARDS};
use gateway_proto::digest::RootHash;

/// Keys that share a place of the index, on average.
const CLOSE: usize = 4;

/// The keys that are good.
pub struct Keys {
    shards: Box<[ArcSwapOption<Shard>]>,
    /// What is here is all there is: a key that is not is none.
    complete: AtomicBool,
}

/// What a key stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found<'a> {
    /// `namespace/name` of the consumer.
    pub consumer: &'a str,
    /// The end of its time in seconds since 1970; 0: none.
    pub expires: u32,
}

/// A thousandth of the keys.
#[derive(Debug)]
struct Shard {
    /// Sorted by digest.
    entries: Box<[Entry]>,
    /// Where the entries begin whose next bits are the place, and behind the last where they end.
    index: Box<[u32]>,
    /// Names of consumers, each behind its length in a byte or, if that is 255, in the four that follow it.
    names: Box<[u8]>,
    sum: RootHash,
}

#[derive(Clone, Debug)]
struct Entry {
    digest: KeyDigest,
    /// Where the consumer's name begins.
    name: u32,
    expires: u32,
}

/// What a digest is compared with if there is none like it.
static NOBODY: Entry = Entry { digest: KeyDigest([0; 32]), name: 0, expires: 0 };

impl Default for Keys {
    fn default() -> Self {
        Keys {
            shards: (0..SHARDS).map(|_| ArcSwapOption::empty()).collect(),
            complete: AtomicBool::new(false),
        }
    }
}

impl Keys {
    /// Looks a key up, and lends what it stands for.
    #[inline]
    pub fn look<T>(&self, digest: &KeyDigest, use_it: impl FnOnce(Option<Found<'_>>) -> T) -> T {
        let shard = self.shards[digest.shard()].load();
        use_it(shard.as_deref().and_then(|shard| shard.look(digest)))
    }

    /// Whether a key that is not here is none anywhere.
    #[inline]
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Says whether a key that is not here is none anywhere.
    pub fn set_complete(&self, complete: bool) {
        self.complete.store(complete, Ordering::Release);
    }

    /// Forgets everything.
    pub fn clear(&self) {
        self.set_complete(false);
        self.shards.iter().for_each(|shard| shard.store(None));
    }

    /// Puts these in the place of everything that a shard holds; those of other shards are passed over. Of two for one
    /// key the later counts.
    pub fn replace(&self, shard: usize, grants: Vec<Grant>) {
        let grants = grants.into_iter().filter(|grant| grant.digest.shard() == shard);
        let grants: BTreeMap<KeyDigest, Grant> = grants.map(|grant| (grant.digest, grant)).collect();
        if let Some(place) = self.shards.get(shard) {
            place.store(Shard::build(grants.values()));
        }
    }

    /// Puts these in the place of everything there is: all there are.
    pub fn set(&self, grants: Vec<Grant>) {
        let mut shards = vec![Vec::new(); SHARDS];
        for grant in grants {
            shards[grant.digest.shard()].push(grant);
        }
        shards.into_iter().enumerate().for_each(|(shard, grants)| self.replace(shard, grants));
        self.set_complete(true);
    }

    /// Adds or replaces keys, and takes some away. Costs the shards that they fall into.
    pub fn change(&self, grants: Vec<Grant>, revoked: &[KeyDigest]) {
        let mut by_shard: BTreeMap<usize, BTreeMap<KeyDigest, Option<Grant>>> = BTreeMap::new();
        for digest in revoked {
            by_shard.entry(digest.shard()).or_default().insert(*digest, None);
        }
        for grant in grants {
            by_shard.entry(grant.digest.shard()).or_default().insert(grant.digest, Some(grant));
        }
        for (place, changes) in by_shard {
            let shard = &self.shards[place];
            let former = shard.load_full();
            let mut all: BTreeMap<KeyDigest, Grant> = BTreeMap::new();
            if let Some(former) = &former {
                all.extend(former.grants().map(|grant| (grant.digest, grant)));
            }
            for (digest, change) in changes {
                match change {
                    Some(grant) => all.insert(digest, grant),
                    None => all.remove(&digest),
                };
            }
            shard.store(Shard::build(all.values()));
        }
    }

    /// Everything that a shard holds, sorted.
    pub fn shard(&self, shard: usize) -> Vec<Grant> {
        let shard = self.shards.get(shard).and_then(ArcSwapOption::load_full);
        shard.map(|shard| shard.grants().collect()).unwrap_or_default()
    }

    /// A key with what it stands for.
    pub fn grant(&self, digest: &KeyDigest) -> Option<Grant> {
        self.look(digest, |found| {
            let Found { consumer, expires } = found?;
            Some(Grant { digest: *digest, consumer: consumer.into(), expires })
        })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.each().map(|shard| shard.entries.len()).sum()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.each().next().is_none()
    }

    /// Sum of the hashes of all.
    pub fn root(&self) -> RootHash {
        self.each().fold(RootHash::default(), |root, shard| root.joined(shard.sum))
    }

    /// Sum of the hashes of each shard.
    pub fn sums(&self) -> Buckets {
        let mut sums = Buckets::default();
        for (place, shard) in self.shards.iter().enumerate() {
            if let Some(shard) = &*shard.load() {
                sums.set(place, shard.sum);
            }
        }
        sums
    }

    fn each(&self) -> impl Iterator<Item = Arc<Shard>> {
        self.shards.iter().filter_map(ArcSwapOption::load_full)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("len", &self.len()).field("complete", &self.is_complete()).finish()
    }
}

impl Shard {
    /// Of keys in order; `None`: there is none.
    fn build<'g>(grants: impl ExactSizeIterator<Item = &'g Grant>) -> Option<Arc<Shard>> {
        if grants.len() == 0 {
            return None;
        }
        let bits = (grants.len() / CLOSE).checked_ilog2().unwrap_or(0);
        let mut entries = Vec::with_capacity(grants.len());
        let mut index = Vec::with_capacity((1 << bits) + 1);
        let mut names = Vec::new();
        let mut known: HashMap<&str, u32> = HashMap::new();
        let mut sum = RootHash::default();
        for grant in grants {
            while index.len() <= place(&grant.digest, bits) {
                index.push(entries.len() as u32);
            }
            let name =
                *known.entry(&*grant.consumer).or_insert_with(|| push_name(&mut names, &grant.consumer));
            sum = sum.plus(grant.hash());
            entries.push(Entry { digest: grant.digest, name, expires: grant.expires });
        }
        index.resize((1 << bits) + 1, entries.len() as u32);
        let (entries, index, names) = (entries.into(), index.into(), names.into());
        Some(Arc::new(Shard { entries, index, names, sum }))
    }

    #[inline]
    fn look(&self, digest: &KeyDigest) -> Option<Found<'_>> {
        let place = place(digest, (self.index.len() - 1).ilog2());
        let close = &self.entries[self.index[place] as usize..self.index[place + 1] as usize];
        let like = close.iter().find(|entry| entry.digest.head() == digest.head());
        let entry = like.unwrap_or(&NOBODY);
        let same = verify_slices_are_equal(&entry.digest.0, &digest.0).is_ok();
        (same && like.is_some()).then(|| Found { consumer: self.name(entry), expires: entry.expires })
    }

    fn name(&self, entry: &Entry) -> &str {
        let at = entry.name as usize;
        let (from, len) = match self.names[at] {
            u8::MAX => {
                let [a, b, c, d] = [1, 2, 3, 4].map(|byte| self.names[at + byte]);
                (at + 5, u32::from_le_bytes([a, b, c, d]) as usize)
            }
            short => (at + 1, usize::from(short)),
        };
        std::str::from_utf8(&self.names[from..from + len]).expect("it was pushed as text")
    }

    fn grants(&self) -> impl Iterator<Item = Grant> {
        self.entries.iter().map(|entry| Grant {
            digest: entry.digest,
            consumer: self.name(entry).into(),
            expires: entry.expires,
        })
    }
}

/// The bits that follow those of the shard.
#[inline]
const fn place(digest: &KeyDigest, bits: u32) -> usize {
    let below = digest.head() << SHARDS.trailing_zeros();
    // In two steps: a shift by all 64 bits is none.
    (below >> 1 >> (u64::BITS - 1 - bits)) as usize
}

fn push_name(names: &mut Vec<u8>, name: &str) -> u32 {
    let at = names.len() as u32;
    match u8::try_from(name.len()) {
        Ok(short) if short < u8::MAX => names.push(short),
        _ => {
            names.push(u8::MAX);
            names.extend_from_slice(&(name.len() as u32).to_le_bytes());
        }
    }
    names.extend_from_slice(name.as_bytes());
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u32) -> KeyDigest {
        KeyDigest::of(&n.to_le_bytes())
    }

    fn grant(n: u32, consumer: &str, expires: u32) -> Grant {
        Grant { digest: digest(n), consumer: consumer.into(), expires }
    }

    #[test]
    fn a_key_is_found_among_many_and_one_that_is_like_another_is_not() {
        let keys = Keys::default();
        let consumer = |n: u32| format!("default/c{}", n % 100);
        keys.change((0..50_000).map(|n| grant(n, &consumer(n), n)).collect(), &[]);
        assert_eq!(keys.len(), 50_000);
        for n in 0..50_000 {
            assert_eq!(keys.grant(&digest(n)), Some(grant(n, &consumer(n), n)));
            let mut like = digest(n);
            like.0[31] ^= 1;
            assert_eq!(keys.grant(&like), None, "all of it counts");
        }
        (50_000..60_000).for_each(|n| assert_eq!(keys.grant(&digest(n)), None));
        assert_eq!(keys.grant(&NOBODY.digest), None);
    }

    #[test]
    fn names_of_any_length_are_kept() {
        let keys = Keys::default();
        let names: Vec<String> = [1, 127, 254, 255, 256, 70_000].map(|len| "n".repeat(len)).into();
        // In one shard, so that they lie behind each other.
        let same: Vec<u32> = (0..).filter(|n| digest(*n).shard() == 7).take(names.len()).collect();
        keys.replace(7, same.iter().zip(&names).map(|(n, name)| grant(*n, name, 0)).collect());
        for (n, name) in same.iter().zip(&names) {
            assert_eq!(keys.grant(&digest(*n)).expect("there").consumer.len(), name.len());
        }
    }

    #[test]
    fn what_is_replaced_is_one_shard_and_keys_of_others_are_not_taken_in() {
        let keys = Keys::default();
        keys.change((0..5_000).map(|n| grant(n, "default/a", 0)).collect(), &[]);
        let (mine, other): (Vec<u32>, Vec<u32>) = (0..5_000).partition(|n| digest(*n).shard() == 3);
        keys.replace(3, vec![grant(mine[0], "default/b", 0), grant(other[0], "default/b", 0)]);
        assert_eq!(keys.len(), 5_000 - mine.len() + 1);
        assert_eq!(&*keys.grant(&digest(mine[0])).expect("there").consumer, "default/b");
        assert_eq!(&*keys.grant(&digest(other[0])).expect("there").consumer, "default/a");
        keys.replace(SHARDS, Vec::new());
        keys.clear();
        assert!(keys.is_empty() && keys.root() == RootHash::default() && !keys.is_complete());
    }

    proptest! {
        #[test]
        fn after_any_changes_it_holds_what_a_map_holds(
            steps in prop::collection::vec(
                prop::collection::vec((0..200_u32, prop::option::of((0..3_u32, 0..3_u32))), 1..50), 1..12,
            ),
        ) {
            let keys = Keys::default();
            let mut model: BTreeMap<KeyDigest, Grant> = BTreeMap::new();
            for step in steps {
                // Each key once, as in a transaction.
                let step: BTreeMap<u32, _> = step.into_iter().collect();
                let (mut grants, mut revoked) = (Vec::new(), Vec::new());
                for (n, change) in step {
                    match change {
                        Some((consumer, expires)) => {
                            let grant = grant(n, &format!("default/{consumer}"), expires);
                            model.insert(grant.digest, grant.clone());
                            grants.push(grant);
                        }
                        None => {
                            model.remove(&digest(n));
                            revoked.push(digest(n));
                        }
                    }
                }
                keys.change(grants, &revoked);
                let held: Vec<Grant> = (0..SHARDS).flat_map(|shard| keys.shard(shard)).collect();
                let expected: Vec<Grant> = model.values().cloned().collect();
                prop_assert_eq!(keys.root(), expected.iter().map(Grant::hash).collect::<RootHash>());
                prop_assert_eq!(held, expected);
                (0..200).for_each(|n| assert_eq!(keys.grant(&digest(n)).as_ref(), model.get(&digest(n))));
            }
            let whole = Keys::default();
            (0..SHARDS).for_each(|shard| whole.replace(shard, keys.shard(shard)));
            prop_assert_eq!((whole.root(), whole.sums()), (keys.root(), keys.sums()));
        }
    }
}
