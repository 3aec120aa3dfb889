//! One host pattern's paths: exact paths and prefixes by literal text (`literal.rs`), templates by the literals that they
//! begin with (`templates.rs`), regular expressions and candidates without a path condition in one slot each.

use std::sync::Arc;

use super::literal::Literals;
use super::pattern::{HostLevel, PathPattern};
use super::slot::{Candidate, Entry, Slot};
use super::table::{At, Seed, Visit};
use super::templates::Templates;
use crate::sharing::{Keyed, Tally, Text};

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
    pub(super) const LAST: usize = u64::BITS as usize - 1;

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
        Self::are_in(self.mask, depth)
    }

    /// The mask of one depth.
    pub(super) fn bit(depth: usize) -> u64 {
        1 << depth.min(Self::LAST)
    }

    /// Whether a mask has a depth.
    #[inline]
    pub(super) fn are_in(mask: u64, depth: usize) -> bool {
        mask >> depth.min(Self::LAST) & 1 == 1
    }
}

/// A host pattern with its paths. It lies in the table's array: two cache lines, the first with what every lookup
/// reads, the second with the paths themselves.
#[derive(Clone, Debug, Default)]
#[repr(C, align(64))]
pub(super) struct Host {
    hash: u64,
    name: Text,
    /// `None`: it has one candidate, in `literals`, and never had another.
    side: Option<Arc<Side>>,
    /// [`Depths::mask`] of the prefixes.
    prefix_depths: u64,
    /// Highest priority.
    top: i32,
    /// `side` has something to visit.
    has_rare: bool,
    literals: Literals,
}

const _: () = assert!(size_of::<Option<Host>>() == 128);

/// What most lookups do not read.
#[derive(Clone, Debug, Default)]
struct Side {
    priorities: Priorities,
    prefix_depths: Depths,
    templates: Templates,
    regexes: Slot,
    any: Slot,
}

impl Side {
    /// A host's, for changing; made when missing.
    fn of<'s>(side: &'s mut Option<Arc<Side>>, literals: &Literals) -> &'s mut Side {
        let make = || {
            let mut side = Side::default();
            literals.only().into_iter().for_each(|only| side.count(only));
            Arc::new(side)
        };
        Arc::make_mut(side.get_or_insert_with(make))
    }

    fn count(&mut self, candidate: &Candidate) {
        self.priorities.add(candidate.priority);
        if let PathPattern::Prefix(prefix) = &candidate.path {
            self.prefix_depths.add(segments(prefix));
        }
    }

    fn uncount(&mut self, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        if let PathPattern::Prefix(prefix) = &candidate.path {
            self.prefix_depths.remove(segments(prefix));
        }
    }

    fn has_rare(&self) -> bool {
        !self.templates.is_empty() || !self.regexes.is_empty() || !self.any.is_empty()
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
        match &self.side {
            Some(side) => side.priorities.is_empty(),
            None => self.literals.only().is_none(),
        }
    }

    pub(super) fn add(&mut self, seed: &Seed, entry: &Entry) {
        if self.is_empty()
            && let Some(literals) = Literals::of(entry)
        {
            self.side = None;
            self.literals = literals;
            self.top = entry.candidate.priority;
            self.prefix_depths = match &entry.candidate.path {
                PathPattern::Prefix(prefix) => Depths::bit(segments(prefix)),
                _ => 0,
            };
            return;
        }
        let side = Side::of(&mut self.side, &self.literals);
        side.count(&entry.candidate);
        match &entry.candidate.path {
            PathPattern::Exact(path) => self.literals.add_exact(seed, path, entry),
            PathPattern::Prefix(prefix) => self.literals.add_prefix(seed, prefix, entry),
            PathPattern::Template(template) => side.templates.add(seed, &template.segments, entry),
            PathPattern::Regex(_) => side.regexes.add(entry),
            PathPattern::Any => side.any.add(entry),
        }
        self.sum_up();
    }

    pub(super) fn remove(&mut self, seed: &Seed, candidate: &Candidate) {
        let side = Side::of(&mut self.side, &self.literals);
        side.uncount(candidate);
        match &candidate.path {
            PathPattern::Exact(path) => self.literals.remove_exact(seed, path, candidate),
            PathPattern::Prefix(prefix) => self.literals.remove_prefix(seed, prefix, candidate),
            PathPattern::Template(template) => side.templates.remove(seed, &template.segments, candidate),
            PathPattern::Regex(_) => side.regexes.remove(candidate),
            PathPattern::Any => side.any.remove(candidate),
        }
        self.sum_up();
    }

    /// Puts what every lookup reads of the side where it reads it.
    fn sum_up(&mut self) {
        if let Some(side) = &self.side {
            self.top = side.priorities.top();
            self.prefix_depths = side.prefix_depths.mask;
            self.has_rare = side.has_rare();
        }
    }

    /// What is neither an exact path nor a prefix.
    #[inline]
    fn rare(&self) -> Option<&Side> {
        if self.has_rare { self.side.as_deref() } else { None }
    }

    #[inline]
    pub(super) fn visit<'t>(
        &'t self,
        seed: &Seed,
        level: HostLevel,
        path: &str,
        visitor: &mut impl Visit<'t>,
    ) {
        let at = At { level, top: self.top };
        if !visitor.wants(at.top) {
            return;
        }
        self.literals.visit_exact(seed, &at, path, visitor);
        if let Some(rare) = self.rare().filter(|rare| !rare.templates.is_empty() && visitor.wants(at.top)) {
            rare.templates.visit(seed, &at, path, visitor);
        }
        if self.prefix_depths != 0 && visitor.wants(at.top) {
            self.literals.visit_prefixes(seed, &at, self.prefix_depths, path, visitor);
        }
        if let Some(rare) = self.rare() {
            for slot in [&rare.regexes, &rare.any] {
                if !slot.is_empty() && visitor.wants(at.top) {
                    visitor.slot(level, slot);
                }
            }
        }
    }

    /// The slot that a candidate of this path pattern is in.
    pub(super) fn slot_of(&self, seed: &Seed, path: &PathPattern) -> Option<&Slot> {
        match path {
            PathPattern::Any => Some(&self.side.as_ref()?.any),
            PathPattern::Regex(_) => Some(&self.side.as_ref()?.regexes),
            PathPattern::Exact(text) => self.literals.exact_slot(seed, text),
            PathPattern::Prefix(text) => self.literals.prefix_slot(seed, text),
            PathPattern::Template(template) => {
                self.side.as_ref()?.templates.slot_of(seed, &template.segments)
            }
        }
    }
}

/// How many segments a prefix (without trailing slash) has.
fn segments(prefix: &str) -> usize {
    memchr::memchr_iter(b'/', prefix.as_bytes()).count()
}
