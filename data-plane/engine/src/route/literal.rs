//! Exact paths and prefixes of one host: found by the hash of their text, or compared where there is only one.

use super::host::Depths;
use super::pattern::PathPattern;
use super::slot::{Candidate, Entry, Slot};
use super::table::{At, Seed, Visit};
use crate::sharing::{Keyed, Shards, Text, hash};

/// Exact paths and prefixes. It fills a cache line. Most hosts have one pattern: it lies inline, so that nothing more
/// is read to judge it.
#[derive(Clone, Debug)]
pub(super) enum Literals {
    /// One exact path.
    Exact(Place),
    /// One prefix.
    Prefix(Place),
    /// Any number of either.
    Maps { exact: Shards<PathSlot>, prefixes: Shards<PathSlot> },
}

const _: () = assert!(size_of::<Literals>() == 64);

impl Default for Literals {
    fn default() -> Self {
        Literals::Maps { exact: Shards::Empty, prefixes: Shards::Empty }
    }
}

/// A pattern and its candidates.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pattern: Text,
    slot: Slot,
}

/// A place with its hash. It fills a cache line, so that finding it costs one miss.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(super) struct PathSlot {
    hash: u64,
    place: Place,
}

const _: () = assert!(size_of::<Option<PathSlot>>() == 64);

impl Keyed for PathSlot {
    type Key = [u8];

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.place.pattern.bytes()
    }
}

impl Place {
    fn new(pattern: &str) -> Self {
        Place { pattern: pattern.as_bytes().into(), slot: Slot::Empty }
    }

    fn of(pattern: &str, entry: &Entry) -> Self {
        Place { pattern: pattern.as_bytes().into(), slot: Slot::One(entry.clone()) }
    }

    /// Whether the pattern, read as a prefix, takes a path.
    #[inline]
    fn leads(&self, path: &str) -> bool {
        let rest = path.as_bytes().strip_prefix(self.pattern.bytes());
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    }
}

impl Literals {
    /// With one candidate; `None` if its path is neither exact nor a prefix.
    pub(super) fn of(entry: &Entry) -> Option<Self> {
        match &entry.candidate.path {
            PathPattern::Exact(path) => Some(Literals::Exact(Place::of(path, entry))),
            PathPattern::Prefix(prefix) => Some(Literals::Prefix(Place::of(prefix, entry))),
            _ => None,
        }
    }

    /// The one candidate of a host that never had another.
    pub(super) fn only(&self) -> Option<&Candidate> {
        match self {
            Literals::Exact(place) | Literals::Prefix(place) => place.slot.iter().next().map(|only| &**only),
            Literals::Maps { .. } => None,
        }
    }

    pub(super) fn add_exact(&mut self, seed: &Seed, path: &str, entry: &Entry) {
        add(self.maps(seed).0, seed, path, entry);
    }

    pub(super) fn add_prefix(&mut self, seed: &Seed, prefix: &str, entry: &Entry) {
        add(self.maps(seed).1, seed, prefix, entry);
    }

    pub(super) fn remove_exact(&mut self, seed: &Seed, path: &str, candidate: &Candidate) {
        remove(self.maps(seed).0, seed, path, candidate);
    }

    pub(super) fn remove_prefix(&mut self, seed: &Seed, prefix: &str, candidate: &Candidate) {
        remove(self.maps(seed).1, seed, prefix, candidate);
    }

    /// The maps of exact paths and of prefixes; a place that lies inline moves into one.
    fn maps(&mut self, seed: &Seed) -> (&mut Shards<PathSlot>, &mut Shards<PathSlot>) {
        let inline = match self {
            Literals::Maps { .. } => None,
            Literals::Exact(_) | Literals::Prefix(_) => Some(std::mem::take(self)),
        };
        let Literals::Maps { exact, prefixes } = self else {
            unreachable!("what is not maps has been replaced by maps")
        };
        match inline {
            Some(Literals::Exact(place)) => exact.add(PathSlot::of(seed, place)),
            Some(Literals::Prefix(place)) => prefixes.add(PathSlot::of(seed, place)),
            Some(Literals::Maps { .. }) | None => {}
        }
        (exact, prefixes)
    }

    #[inline]
    pub(super) fn visit_exact<'t>(&'t self, seed: &Seed, at: &At, path: &str, visitor: &mut impl Visit<'t>) {
        match self {
            Literals::Exact(place) if place.pattern.bytes() == path.as_bytes() => {
                visitor.slot(at.level, &place.slot);
            }
            Literals::Exact(_) | Literals::Prefix(_) => {}
            Literals::Maps { exact, .. } => {
                if let Some(found) = exact.look(seed, path.as_bytes()) {
                    visitor.slot(at.level, &found.place.slot);
                }
            }
        }
    }

    /// The longest prefix first. Only depths that some prefix has are looked up, so that a long path costs no more.
    #[inline]
    pub(super) fn visit_prefixes<'t>(
        &'t self,
        seed: &Seed,
        at: &At,
        depths: u64,
        path: &str,
        visitor: &mut impl Visit<'t>,
    ) {
        match self {
            Literals::Prefix(place) if place.leads(path) => visitor.slot(at.level, &place.slot),
            Literals::Exact(_) | Literals::Prefix(_) => {}
            Literals::Maps { prefixes, .. } => {
                // Nearly always few lengths occur; clearing room for all of them would cost more than looking them up.
                let sought = Sought { seed, at, depths, path };
                if depths.count_ones() <= 8 {
                    sought.visit_in::<8, _>(prefixes, visitor);
                } else {
                    sought.visit_in::<{ Depths::LAST + 1 }, _>(prefixes, visitor);
                }
            }
        }
    }

    pub(super) fn exact_slot(&self, seed: &Seed, path: &str) -> Option<&Slot> {
        match self {
            Literals::Exact(place) => place.slot_of(path),
            Literals::Prefix(_) => None,
            Literals::Maps { exact, .. } => Some(&exact.look(seed, path.as_bytes())?.place.slot),
        }
    }

    pub(super) fn prefix_slot(&self, seed: &Seed, prefix: &str) -> Option<&Slot> {
        match self {
            Literals::Prefix(place) => place.slot_of(prefix),
            Literals::Exact(_) => None,
            Literals::Maps { prefixes, .. } => Some(&prefixes.look(seed, prefix.as_bytes())?.place.slot),
        }
    }
}

impl Place {
    fn slot_of(&self, pattern: &str) -> Option<&Slot> {
        (self.pattern.bytes() == pattern.as_bytes()).then_some(&self.slot)
    }
}

impl PathSlot {
    fn of(seed: &Seed, place: Place) -> Self {
        PathSlot { hash: hash(seed, place.pattern.bytes()), place }
    }
}

/// Prefixes of a path that may be patterns.
struct Sought<'s> {
    seed: &'s Seed,
    at: &'s At,
    /// Bits of the depths that occur.
    depths: u64,
    path: &'s str,
}

impl Sought<'_> {
    /// With room for the ends of `N` prefixes.
    #[inline]
    fn visit_in<'t, const N: usize, V: Visit<'t>>(&self, prefixes: &'t Shards<PathSlot>, visitor: &mut V) {
        let (ends, found) = ends::<N>(self.depths, self.path);
        let path = self.path.as_bytes();
        for end in ends[..found].iter().rev() {
            if let Some(there) = prefixes.look(self.seed, &path[..*end as usize]) {
                visitor.slot(self.at.level, &there.place.slot);
                if !visitor.wants(self.at.top) {
                    return;
                }
            }
        }
    }
}

/// Where the prefixes of a path end whose depth is one of these (there is one), the shortest first, and how many there
/// are. That of no segments is empty.
#[inline]
pub(super) fn ends<const N: usize>(depths: u64, path: &str) -> ([u32; N], usize) {
    let has = |depth: usize| Depths::are_in(depths, depth);
    let path = path.as_bytes();
    let deepest = depths.ilog2() as usize;
    let mut ends = [0_u32; N];
    let mut found = usize::from(has(0));
    let mut depth = 0;
    for (place, &byte) in path.iter().enumerate().skip(1) {
        if depth == deepest {
            break;
        }
        if byte == b'/' {
            depth += 1;
            if has(depth) {
                ends[found] = place as u32;
                found += 1;
            }
        }
    }
    if depth < deepest && has(depth + 1) {
        ends[found] = path.len() as u32;
        found += 1;
    }
    (ends, found)
}

/// Puts a candidate into the slot of a pattern.
fn add(slots: &mut Shards<PathSlot>, seed: &Seed, pattern: &str, entry: &Entry) {
    let hash = hash(seed, pattern.as_bytes());
    let make = || PathSlot { hash, place: Place::new(pattern) };
    slots.get_mut_or_insert(hash, pattern.as_bytes(), make).place.slot.add(entry);
}

/// The slot of a pattern loses a candidate, and the map the slot with its last one.
fn remove(slots: &mut Shards<PathSlot>, seed: &Seed, pattern: &str, candidate: &Candidate) {
    let hash = hash(seed, pattern.as_bytes());
    if let Some(there) = slots.get_mut(hash, pattern.as_bytes()) {
        there.place.slot.remove(candidate);
        if there.place.slot.is_empty() {
            slots.remove(hash, pattern.as_bytes());
        }
    }
}
