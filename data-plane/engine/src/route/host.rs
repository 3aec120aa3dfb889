//! One host pattern's paths: exact paths and prefixes by the hash of literal text, templates by a trie, regular
//! expressions and candidates without a path condition in one slot each.

use std::sync::Arc;

use super::pattern::{HostLevel, PathPattern, Segment};
use super::slot::{Candidate, Slot, slot_mut, take_from, take_from_map};
use super::table::{At, Seed, Visit};
use super::trie::Node;
use crate::sharing::{Keyed, Map, hash};

/// How many candidates there are of each priority.
#[derive(Clone, Debug, Default)]
pub(super) struct Priorities(Vec<(i32, u32)>);

impl Priorities {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, priority: i32) {
        match self.0.binary_search_by_key(&priority, |(priority, _)| *priority) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (priority, 1)),
        }
    }

    pub(super) fn remove(&mut self, priority: i32) {
        if let Ok(at) = self.0.binary_search_by_key(&priority, |(priority, _)| *priority) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    /// The highest; the lowest number there is when there are none.
    #[inline]
    pub(super) fn top(&self) -> i32 {
        self.0.last().map_or(i32::MIN, |(priority, _)| *priority)
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
    name: Box<str>,
    pub(super) priorities: Priorities,
    exact: Map<Slot>,
    prefixes: Map<Slot>,
    prefix_depths: Depths,
    templates: Option<Arc<Node>>,
    regexes: Option<Arc<Slot>>,
    any: Option<Arc<Slot>>,
}

impl Keyed for Host {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        self.name.as_bytes()
    }
}

impl Host {
    pub(super) fn new(hash: u64, name: Box<str>) -> Self {
        Host { hash, name, ..Host::default() }
    }

    pub(super) fn add(&mut self, seed: &Seed, candidate: &Arc<Candidate>) {
        self.priorities.add(candidate.priority);
        match &candidate.path {
            PathPattern::Any => slot_mut(&mut self.any).add(candidate),
            PathPattern::Regex(_) => slot_mut(&mut self.regexes).add(candidate),
            PathPattern::Template(template) => {
                Arc::make_mut(self.templates.get_or_insert_default()).add(
                    seed,
                    &template.segments,
                    candidate,
                );
            }
            PathPattern::Exact(path) => {
                let hash = hash(seed, path.as_bytes());
                self.exact.get_mut_or_insert(hash, path.as_bytes(), || Slot::at(hash, path)).add(candidate);
            }
            PathPattern::Prefix(prefix) => {
                let hash = hash(seed, prefix.as_bytes());
                self.prefixes
                    .get_mut_or_insert(hash, prefix.as_bytes(), || Slot::at(hash, prefix))
                    .add(candidate);
                self.prefix_depths.add(segments(prefix));
            }
        }
    }

    pub(super) fn remove(&mut self, seed: &Seed, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        match &candidate.path {
            PathPattern::Any => take_from(&mut self.any, candidate),
            PathPattern::Regex(_) => take_from(&mut self.regexes, candidate),
            PathPattern::Template(template) => {
                if let Some(root) = &mut self.templates {
                    let root = Arc::make_mut(root);
                    root.remove(seed, &template.segments, candidate);
                    if root.is_empty() {
                        self.templates = None;
                    }
                }
            }
            PathPattern::Exact(path) => take_from_map(&mut self.exact, seed, path, candidate),
            PathPattern::Prefix(prefix) => {
                take_from_map(&mut self.prefixes, seed, prefix, candidate);
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
        if !self.exact.is_empty()
            && let Some(slot) = self.exact.get(hash(seed, path.as_bytes()), path.as_bytes())
        {
            visitor.slot(level, slot);
        }
        if let Some(root) = &self.templates {
            root.visit(seed, path.strip_prefix('/'), &at, visitor);
        }
        if self.prefix_depths.mask != 0 && visitor.wants(at.top) {
            self.visit_prefixes(seed, &at, path, visitor);
        }
        for slot in [&self.regexes, &self.any].into_iter().flatten() {
            if visitor.wants(at.top) {
                visitor.slot(level, slot);
            }
        }
    }

    /// The longest prefix first. Only depths that some prefix has are looked up, so that a long path costs no more.
    #[inline]
    fn visit_prefixes<'t>(&'t self, seed: &Seed, at: &At, path: &str, visitor: &mut impl Visit<'t>) {
        let deepest = self.prefix_depths.mask.ilog2() as usize;
        // Where the prefix of so many segments ends; that of none is empty.
        let mut ends = [0_u32; Depths::LAST + 1];
        let mut depth = 0;
        let bytes = path.as_bytes();
        for (place, &byte) in bytes.iter().enumerate().skip(1) {
            if byte == b'/' {
                if depth == deepest {
                    break;
                }
                depth += 1;
                ends[depth] = place as u32;
            }
        }
        if depth < deepest && bytes.len() > 1 && ends[depth] as usize != bytes.len() {
            depth += 1;
            ends[depth] = bytes.len() as u32;
        }
        for depth in (0..=depth).rev() {
            if !self.prefix_depths.has(depth) {
                continue;
            }
            let prefix = &bytes[..ends[depth] as usize];
            if let Some(slot) = self.prefixes.get(hash(seed, prefix), prefix) {
                visitor.slot(at.level, slot);
                if !visitor.wants(at.top) {
                    return;
                }
            }
        }
    }

    /// The slot that a candidate of this path pattern is in.
    pub(super) fn slot_of(&self, seed: &Seed, path: &PathPattern) -> Option<&Slot> {
        match path {
            PathPattern::Any => self.any.as_deref(),
            PathPattern::Regex(_) => self.regexes.as_deref(),
            PathPattern::Exact(text) => {
                self.exact.get(hash(seed, text.as_bytes()), text.as_bytes()).map(|slot| &**slot)
            }
            PathPattern::Prefix(text) => {
                self.prefixes.get(hash(seed, text.as_bytes()), text.as_bytes()).map(|slot| &**slot)
            }
            PathPattern::Template(template) => {
                let mut node = self.templates.as_deref()?;
                for segment in &template.segments {
                    node = match segment {
                        Segment::Rest(_) => return node.rest.as_deref(),
                        Segment::Param(_) => node.param.as_deref()?,
                        Segment::Literal(label) => {
                            node.literals.get(hash(seed, label.as_bytes()), label.as_bytes())?
                        }
                    };
                }
                node.here.as_deref()
            }
        }
    }
}

/// How many segments a prefix (without trailing slash) has.
fn segments(prefix: &str) -> usize {
    memchr::memchr_iter(b'/', prefix.as_bytes()).count()
}
