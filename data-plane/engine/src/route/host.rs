//! One host pattern's paths: exact paths and prefixes by the hash of literal text, templates by a trie, regular
//! expressions and candidates without a path condition in one slot each.

use std::sync::Arc;

use super::pattern::{HostLevel, PathPattern};
use super::slot::{Candidate, Entry, PathSlot, Slot, add_to, take_from};
use super::table::{At, Seed, Visit};
use super::trie::Node;
use crate::sharing::{Keyed, Map, Tally, Text};

/// How many candidates there are of each priority.
#[derive(Clone, Debug)]
pub(super) struct Priorities {
    /// The highest; the lowest number there is when there are none.
    top: i32,
    counts: Tally<i32>,
}

impl Default for Priorities {
    fn default() -> Self {
        Priorities { top: i32::MIN, counts: Tally::Empty }
    }
}

impl Priorities {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.counts, Tally::Empty)
    }

    pub(super) fn add(&mut self, priority: i32) {
        self.counts.add(priority);
        self.top = self.top.max(priority);
    }

    pub(super) fn remove(&mut self, priority: i32) {
        self.counts.remove(priority);
        self.top = self.counts.highest().unwrap_or(i32::MIN);
    }

    /// The highest; the lowest number there is when there are none.
    #[inline]
    pub(super) fn top(&self) -> i32 {
        self.top
    }
}

/// How many patterns there are of each length in segments or labels, so that no other length is looked up. The last
/// bit stands for its length and all longer ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths {
    pub(super) mask: u64,
    counts: Tally<u8>,
}

impl Depths {
    const LAST: usize = u64::BITS as usize - 1;

    pub(super) fn add(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        self.counts.add(depth as u8);
        self.mask |= 1 << depth;
    }

    pub(super) fn remove(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        if self.counts.remove(depth as u8) == 0 {
            self.mask &= !(1 << depth);
        }
    }

    #[inline]
    pub(super) fn has(&self, depth: usize) -> bool {
        self.mask >> depth.min(Self::LAST) & 1 == 1
    }
}

/// The paths of one host pattern. What every lookup reads comes first and fills the first cache line.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub(super) struct Host {
    hash: u64,
    name: Text,
    /// Templates, regular expressions and candidates without a path condition, if there are any.
    rare: Option<Arc<Rare>>,
    prefix_depths: Depths,
    priorities: Priorities,
    exact: Map<PathSlot>,
    prefixes: Map<PathSlot>,
}

/// What most hosts have none of.
#[derive(Clone, Debug, Default)]
struct Rare {
    templates: Option<Arc<Node>>,
    regexes: Slot,
    any: Slot,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.templates.is_none() && self.regexes.is_empty() && self.any.is_empty()
    }
}

impl Keyed for Host {
    type Key = [u8];

    #[inline]
    fn hash(&self) -> u64 {
        self.hash
    }
    #[inline]
    fn key(&self) -> &[u8] {
        self.name.bytes()
    }
}

impl Host {
    pub(super) fn new(hash: u64, name: &str) -> Self {
        Host { hash, name: name.as_bytes().into(), ..Host::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priorities.is_empty()
    }

    pub(super) fn add(&mut self, seed: &Seed, entry: &Entry) {
        self.priorities.add(entry.candidate.priority);
        match &entry.candidate.path {
            PathPattern::Exact(path) => add_to(&mut self.exact, seed, path, entry),
            PathPattern::Prefix(prefix) => {
                add_to(&mut self.prefixes, seed, prefix, entry);
                self.prefix_depths.add(segments(prefix));
            }
            path => {
                let rare = Arc::make_mut(self.rare.get_or_insert_default());
                match path {
                    PathPattern::Template(template) => {
                        let root = rare.templates.get_or_insert_default();
                        Arc::make_mut(root).add(seed, &template.segments, entry);
                    }
                    PathPattern::Regex(_) => rare.regexes.add(entry),
                    _ => rare.any.add(entry),
                }
            }
        }
    }

    pub(super) fn remove(&mut self, seed: &Seed, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        match &candidate.path {
            PathPattern::Exact(path) => take_from(&mut self.exact, seed, path, candidate),
            PathPattern::Prefix(prefix) => {
                take_from(&mut self.prefixes, seed, prefix, candidate);
                self.prefix_depths.remove(segments(prefix));
            }
            path => self.remove_rare(seed, path, candidate),
        }
    }

    fn remove_rare(&mut self, seed: &Seed, path: &PathPattern, candidate: &Candidate) {
        let Some(rare) = self.rare.as_mut().map(Arc::make_mut) else { return };
        match (path, &mut rare.templates) {
            (PathPattern::Template(template), Some(root)) => {
                let root = Arc::make_mut(root);
                root.remove(seed, &template.segments, candidate);
                if root.is_empty() {
                    rare.templates = None;
                }
            }
            (PathPattern::Regex(_), _) => rare.regexes.remove(candidate),
            _ => rare.any.remove(candidate),
        }
        if rare.is_empty() {
            self.rare = None;
        }
    }

    #[inline]
    pub(super) fn visit<'t>(
        &'t self,
        seed: &Seed,
        level: HostLevel,
        path: &str,
        visitor: &mut impl Visit<'t>,
    ) {
        let at = At { level, top: self.priorities.top() };
        if !visitor.wants(at.top) {
            return;
        }
        if let Some(found) = self.exact.look(seed, path.as_bytes()) {
            visitor.slot(level, &found.slot);
        }
        if let Some(root) = self.rare.as_ref().and_then(|rare| rare.templates.as_ref()) {
            root.visit(seed, path.strip_prefix('/'), &at, visitor);
        }
        if self.prefix_depths.mask != 0 && visitor.wants(at.top) {
            self.visit_prefixes(seed, &at, path, visitor);
        }
        if let Some(rare) = &self.rare {
            for slot in [&rare.regexes, &rare.any] {
                if !slot.is_empty() && visitor.wants(at.top) {
                    visitor.slot(level, slot);
                }
            }
        }
    }

    /// The longest prefix first. Only depths that some prefix has are looked up, so that a long path costs no more.
    #[inline]
    fn visit_prefixes<'t>(&'t self, seed: &Seed, at: &At, path: &str, visitor: &mut impl Visit<'t>) {
        // Nearly always few lengths occur; clearing room for all of them would cost more than looking them up.
        if self.prefix_depths.mask.count_ones() <= 8 {
            self.visit_prefixes_in::<8>(seed, at, path, visitor);
        } else {
            self.visit_prefixes_in::<{ Depths::LAST + 1 }>(seed, at, path, visitor);
        }
    }

    /// With room for the ends of `N` prefixes.
    #[inline]
    fn visit_prefixes_in<'t, const N: usize>(
        &'t self,
        seed: &Seed,
        at: &At,
        path: &str,
        visitor: &mut impl Visit<'t>,
    ) {
        let deepest = self.prefix_depths.mask.ilog2() as usize;
        // Where the prefixes end whose depth occurs, the shortest first. That of no segments is empty.
        let mut ends = [0_u32; N];
        let mut found = usize::from(self.prefix_depths.has(0));
        let mut depth = 0;
        for (place, &byte) in path.as_bytes().iter().enumerate().skip(1) {
            if depth == deepest {
                break;
            }
            if byte == b'/' {
                depth += 1;
                if self.prefix_depths.has(depth) {
                    ends[found] = place as u32;
                    found += 1;
                }
            }
        }
        if depth < deepest && path.len() > 1 && self.prefix_depths.has(depth + 1) {
            ends[found] = path.len() as u32;
            found += 1;
        }
        for end in ends[..found].iter().rev() {
            let prefix = &path.as_bytes()[..*end as usize];
            if let Some(there) = self.prefixes.look(seed, prefix) {
                visitor.slot(at.level, &there.slot);
                if !visitor.wants(at.top) {
                    return;
                }
            }
        }
    }

    /// The slot that a candidate of this path pattern is in.
    pub(super) fn slot_of(&self, seed: &Seed, path: &PathPattern) -> Option<&Slot> {
        match path {
            PathPattern::Any => Some(&self.rare.as_ref()?.any),
            PathPattern::Regex(_) => Some(&self.rare.as_ref()?.regexes),
            PathPattern::Exact(text) => found(&self.exact, seed, text),
            PathPattern::Prefix(text) => found(&self.prefixes, seed, text),
            PathPattern::Template(template) => {
                self.rare.as_ref()?.templates.as_ref()?.slot_of(seed, &template.segments)
            }
        }
    }
}

fn found<'t>(slots: &'t Map<PathSlot>, seed: &Seed, text: &str) -> Option<&'t Slot> {
    slots.look(seed, text.as_bytes()).map(|there| &there.slot)
}

/// How many segments a prefix (without trailing slash) has.
fn segments(prefix: &str) -> usize {
    memchr::memchr_iter(b'/', prefix.as_bytes()).count()
}
