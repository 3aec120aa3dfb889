//! One host pattern's paths: exact paths and prefixes by the hash of literal text, templates by a trie, regular
//! expressions and candidates without a path condition in one slot each.

use std::sync::Arc;

use super::pattern::{HostLevel, PathPattern, Segment};
use super::slot::{Candidate, Entry, PathSlot, Slot, Text, add_to, take_from};
use super::table::{At, Seed, Visit};
use super::trie::Node;
use crate::sharing::{Keyed, Map};

/// How many candidates there are of each priority.
#[derive(Clone, Debug, Default)]
pub(super) struct Priorities {
    /// The highest there is.
    top: Option<i32>,
    /// Sorted.
    counts: Vec<(i32, u32)>,
}

impl Priorities {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.top.is_none()
    }

    pub(super) fn add(&mut self, priority: i32) {
        match self.counts.binary_search_by_key(&priority, |(priority, _)| *priority) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (priority, 1)),
        }
        self.top = self.counts.last().map(|(priority, _)| *priority);
    }

    pub(super) fn remove(&mut self, priority: i32) {
        if let Ok(at) = self.counts.binary_search_by_key(&priority, |(priority, _)| *priority) {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.remove(at);
            }
        }
        self.top = self.counts.last().map(|(priority, _)| *priority);
    }

    /// The highest; the lowest number there is when there are none.
    #[inline]
    pub(super) fn top(&self) -> i32 {
        self.top.unwrap_or(i32::MIN)
    }
}

/// How many patterns there are of each length in segments or labels, so that no other length is looked up. The last
/// bit stands for its length and all longer ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Depths {
    pub(super) mask: u64,
    counts: Vec<u32>,
}

impl Depths {
    const LAST: usize = u64::BITS as usize - 1;

    pub(super) fn add(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        if self.counts.len() <= depth {
            self.counts.resize(depth + 1, 0);
        }
        self.counts[depth] += 1;
        self.mask |= 1 << depth;
    }

    pub(super) fn remove(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        self.counts[depth] -= 1;
        if self.counts[depth] == 0 {
            self.mask &= !(1 << depth);
        }
    }

    #[inline]
    pub(super) fn has(&self, depth: usize) -> bool {
        self.mask >> depth.min(Self::LAST) & 1 == 1
    }
}

/// The paths of one host pattern.
#[derive(Clone, Debug, Default)]
pub(super) struct Host {
    hash: u64,
    name: Text,
    pub(super) priorities: Priorities,
    exact: Map<PathSlot>,
    prefixes: Map<PathSlot>,
    prefix_depths: Depths,
    templates: Option<Arc<Node>>,
    regexes: Slot,
    any: Slot,
}

impl Keyed for Host {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        &self.name
    }
}

impl Host {
    pub(super) fn new(hash: u64, name: &str) -> Self {
        Host { hash, name: name.as_bytes().into(), ..Host::default() }
    }

    pub(super) fn add(&mut self, seed: &Seed, entry: &Entry) {
        self.priorities.add(entry.candidate.priority);
        match &entry.candidate.path {
            PathPattern::Any => self.any.add(entry),
            PathPattern::Regex(_) => self.regexes.add(entry),
            PathPattern::Template(template) => {
                Arc::make_mut(self.templates.get_or_insert_default()).add(seed, &template.segments, entry);
            }
            PathPattern::Exact(path) => add_to(&mut self.exact, seed, path, entry),
            PathPattern::Prefix(prefix) => {
                add_to(&mut self.prefixes, seed, prefix, entry);
                self.prefix_depths.add(segments(prefix));
            }
        }
    }

    pub(super) fn remove(&mut self, seed: &Seed, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        match &candidate.path {
            PathPattern::Any => self.any.remove(candidate),
            PathPattern::Regex(_) => self.regexes.remove(candidate),
            PathPattern::Template(template) => {
                if let Some(root) = &mut self.templates {
                    let root = Arc::make_mut(root);
                    root.remove(seed, &template.segments, candidate);
                    if root.is_empty() {
                        self.templates = None;
                    }
                }
            }
            PathPattern::Exact(path) => take_from(&mut self.exact, seed, path, candidate),
            PathPattern::Prefix(prefix) => {
                take_from(&mut self.prefixes, seed, prefix, candidate);
                self.prefix_depths.remove(segments(prefix));
            }
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
        if let Some(root) = &self.templates {
            root.visit(seed, path.strip_prefix('/'), &at, visitor);
        }
        if self.prefix_depths.mask != 0 && visitor.wants(at.top) {
            self.visit_prefixes(seed, &at, path, visitor);
        }
        for slot in [&self.regexes, &self.any] {
            if !slot.is_empty() && visitor.wants(at.top) {
                visitor.slot(level, slot);
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
            PathPattern::Any => Some(&self.any),
            PathPattern::Regex(_) => Some(&self.regexes),
            PathPattern::Exact(text) => found(&self.exact, seed, text),
            PathPattern::Prefix(text) => found(&self.prefixes, seed, text),
            PathPattern::Template(template) => {
                let mut node = self.templates.as_deref()?;
                for segment in &template.segments {
                    node = match segment {
                        Segment::Rest(_) => return Some(&node.rest),
                        Segment::Param(_) => node.param.as_deref()?,
                        Segment::Literal(label) => node.literals.look(seed, label.as_bytes())?,
                    };
                }
                Some(&node.here)
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
