//! How both planes reckon what is held of endpoints: each set, and what is said of each source, has a hash; their sum says
//! whether the two ends hold the same. Names are dealt to the 1,024 buckets of [`crate::buckets`].
//!
//! Invariant: control planes that read the same at a source come to the same hashes, whatever version the source gave it.

use prost::Message as _;

use crate::buckets::{BUCKETS, Buckets, bucket};
use crate::digest::{ItemHash, RootHash};
use crate::wire;

/// Most endpoints of a set.
pub const MAX_ENDPOINTS: usize = 4_096;

/// What something is said about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The endpoints of an upstream.
    Set,
    /// A source.
    Source,
}

impl Subject {
    const fn as_str(self) -> &'static str {
        match self {
            Subject::Set => "Endpoints",
            Subject::Source => "Source",
        }
    }

    /// The bucket of `namespace/name`.
    pub fn bucket(self, qualified: &str) -> usize {
        let (namespace, name) = qualified.split_once('/').unwrap_or(("", qualified));
        bucket([self.as_str(), namespace, name])
    }

    fn hash(self, qualified: &str, content: &[u8]) -> ItemHash {
        let (namespace, name) = qualified.split_once('/').unwrap_or(("", qualified));
        ItemHash::of_named([self.as_str(), namespace, name], content)
    }
}

/// Of a set; the source's version of it does not count.
pub fn hash_of_set(set: &wire::EndpointSet) -> ItemHash {
    let content = wire::EndpointSet { upstream: String::new(), source_index: 0, ..set.clone() };
    Subject::Set.hash(&set.upstream, &content.encode_to_vec())
}

/// Of what is said of a source.
pub fn hash_of_source(said: &wire::SourceSaid) -> ItemHash {
    Subject::Source.hash(&said.source, &said.state.to_le_bytes())
}

/// The sums of the buckets of what is held.
pub fn sums<'a>(items: impl Iterator<Item = (Subject, &'a str, ItemHash)>) -> Buckets {
    let mut roots = vec![RootHash::default(); BUCKETS];
    for (subject, name, hash) in items {
        let root = &mut roots[subject.bucket(name)];
        *root = root.plus(hash);
    }
    let mut sums = Buckets::default();
    roots.into_iter().enumerate().for_each(|(bucket, root)| sums.set(bucket, root));
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(upstream: &str, address: &str, source_index: u64) -> wire::EndpointSet {
        let endpoints = vec![wire::Endpoint { address: address.into(), weight: 1, zone: String::new() }];
        wire::EndpointSet { upstream: upstream.into(), endpoints, source_index, ..Default::default() }
    }

    #[test]
    fn what_is_said_counts_and_when_a_source_said_it_does_not() {
        let one = hash_of_set(&set("default/u", "127.0.0.1:1", 1));
        assert_eq!(one, hash_of_set(&set("default/u", "127.0.0.1:1", 2)));
        assert_ne!(one, hash_of_set(&set("default/u", "127.0.0.1:2", 1)));
        assert_ne!(one, hash_of_set(&set("default/v", "127.0.0.1:1", 1)));
        let said = |state| hash_of_source(&wire::SourceSaid { source: "default/s".into(), state });
        assert_ne!(said(0), said(1));
    }

    #[test]
    fn sums_tell_which_buckets_differ() {
        let hash = |n| hash_of_set(&set("default/u", "127.0.0.1:1", n));
        let other = hash_of_set(&set("default/u", "127.0.0.1:2", 0));
        let ours = sums([(Subject::Set, "default/u", hash(1)), (Subject::Source, "a/s", other)].into_iter());
        let theirs = sums([(Subject::Set, "default/u", other), (Subject::Source, "a/s", other)].into_iter());
        let differing: Vec<usize> = ours.differing(&theirs).iter().collect();
        assert_eq!(differing, [Subject::Set.bucket("default/u")]);
    }
}
