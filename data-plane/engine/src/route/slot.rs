//! Candidates and slots: who contends for a request, and in which order those are asked that one place of the
//! table leads to. Invariant: a slot holds its candidates from the best to the worst.

use std::cmp::Ordering;
use std::sync::Arc;

use super::condition::{Conditions, Method};
use super::pattern::PathPattern;
use super::table::Seed;
use super::{Fields, RequestView, RouteSlot};
use crate::sharing::{Keyed, Map, hash};

/// An entry of a route's `matches`: a contender of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) slot: RouteSlot,
    /// `namespace/name` of its route.
    pub(crate) name: Arc<str>,
    /// Its place in `matches`.
    pub(crate) index: u32,
    pub(crate) priority: i32,
    pub(crate) path: PathPattern,
    pub(crate) conditions: Conditions,
    /// [`Conditions::count`].
    pub(crate) count: u32,
}

impl Candidate {
    /// Order within a slot: the better one is less.
    pub(crate) fn rank(&self, other: &Self) -> Ordering {
        other
            .priority
            .cmp(&self.priority)
            .then_with(|| other.count.cmp(&self.count))
            .then_with(|| self.name.as_bytes().cmp(other.name.as_bytes()))
            .then_with(|| self.index.cmp(&other.index))
    }

    /// What it asks for beyond its slot.
    pub(crate) fn alike(&self) -> Alike<'_> {
        let regex = match &self.path {
            PathPattern::Regex(pattern) => Some(&*pattern.text),
            _ => None,
        };
        Alike { regex, conditions: &self.conditions }
    }

    /// What the slot does not say already: the regular expression and the conditions.
    #[inline]
    fn matches<F: Fields + ?Sized>(&self, request: &RequestView<'_, F>, method: Method<'_>) -> bool {
        self.conditions.hold(request, method) && self.regex_matches(request.path)
    }

    #[inline]
    pub(super) fn regex_matches(&self, path: &str) -> bool {
        match &self.path {
            PathPattern::Regex(pattern) => pattern.regex.is_match(path),
            _ => true,
        }
    }
}

/// What a candidate asks for beyond its slot: two of one slot that are alike take the same requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Alike<'c> {
    regex: Option<&'c str>,
    conditions: &'c Conditions,
}

/// The candidates that one host and one path pattern lead to, best first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot {
    hash: u64,
    pattern: Box<str>,
    pub(crate) candidates: Vec<Arc<Candidate>>,
}

impl Keyed for Slot {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        self.pattern.as_bytes()
    }
}

impl Slot {
    pub(super) fn at(hash: u64, pattern: &str) -> Self {
        Slot { hash, pattern: pattern.into(), candidates: Vec::new() }
    }

    pub(super) fn add(&mut self, candidate: &Arc<Candidate>) {
        match self.candidates.binary_search_by(|other| other.rank(candidate)) {
            Ok(at) => self.candidates[at] = Arc::clone(candidate),
            Err(at) => self.candidates.insert(at, Arc::clone(candidate)),
        }
    }

    pub(super) fn remove(&mut self, candidate: &Candidate) {
        if let Ok(at) = self.candidates.binary_search_by(|other| other.rank(candidate)) {
            self.candidates.remove(at);
        }
    }

    /// The best complete match with a priority over `floor`.
    #[inline]
    pub(super) fn best<F: Fields + ?Sized>(
        &self,
        request: &RequestView<'_, F>,
        method: Method<'_>,
        floor: Option<i32>,
    ) -> Option<&Arc<Candidate>> {
        self.candidates
            .iter()
            .take_while(|candidate| floor.is_none_or(|floor| candidate.priority > floor))
            .find(|candidate| candidate.matches(request, method))
    }
}

pub(super) fn slot_mut(slot: &mut Option<Arc<Slot>>) -> &mut Slot {
    Arc::make_mut(slot.get_or_insert_default())
}

pub(super) fn take_from(slot: &mut Option<Arc<Slot>>, candidate: &Candidate) {
    if let Some(there) = slot {
        let there = Arc::make_mut(there);
        there.remove(candidate);
        if there.candidates.is_empty() {
            *slot = None;
        }
    }
}

/// A map's slot loses a candidate, and the map the slot with its last one.
pub(super) fn take_from_map(slots: &mut Map<Slot>, seed: &Seed, pattern: &str, candidate: &Candidate) {
    let hash = hash(seed, pattern.as_bytes());
    if let Some(slot) = slots.get_mut(hash, pattern.as_bytes()) {
        slot.remove(candidate);
        if slot.candidates.is_empty() {
            slots.remove(hash, pattern.as_bytes());
        }
    }
}
