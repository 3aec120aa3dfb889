//! Candidates and slots: who contends for a request, and in which order those are asked that one place of the
//! table leads to. Invariant: a slot holds its candidates from the best to the worst.

use std::cmp::Ordering;
use std::sync::Arc;

use super::condition::{Conditions, Method};
use super::pattern::{MAX_PATTERN_BYTES, PathPattern};
use super::{Fields, RequestView, Route};

/// An entry of a route's `matches`: a contender of its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Candidate {
    /// `namespace/name` of its route.
    pub(crate) name: Arc<str>,
    /// Its place in `matches`.
    pub(crate) index: u32,
    pub(crate) priority: i32,
    pub(crate) path: PathPattern,
    /// `None`: there are none.
    pub(crate) conditions: Option<Box<Conditions>>,
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

    /// What it asks for besides host and path.
    #[inline]
    pub(crate) fn conditions(&self) -> &Conditions {
        static NONE: Conditions = Conditions::NONE;
        self.conditions.as_deref().unwrap_or(&NONE)
    }

    /// What it asks for beyond its slot.
    pub(crate) fn alike(&self) -> Alike<'_> {
        let regex = match &self.path {
            PathPattern::Regex(pattern) => Some(&*pattern.text),
            _ => None,
        };
        Alike { regex, conditions: self.conditions() }
    }

    /// What the slot does not say already: the regular expression and the conditions.
    fn matches<F: Fields + ?Sized>(&self, request: &RequestView<'_, F>) -> bool {
        self.conditions().hold(request, Method::of(request.method)) && self.regex_matches(request.path)
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

/// The candidates that one host and one path pattern lead to, best first. Most often there is one: it lies inline.
#[derive(Clone, Debug, Default)]
pub(crate) enum Slot {
    #[default]
    Empty,
    One(Entry),
    /// Sorted by [`Candidate::rank`].
    Many(Arc<Vec<Entry>>),
}

/// A candidate in a slot with its route, and what a request most often needs to know of the candidate, so that it is
/// not looked at.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(super) candidate: Arc<Candidate>,
    pub(super) route: Arc<Route>,
    pub(super) priority: i32,
    /// Length of the prefix it matches by, [`NO_PREFIX`] if it matches otherwise.
    prefix: u16,
    /// It cuts parameters out of the path.
    pub(super) is_template: bool,
    /// It asks for nothing beyond its slot.
    plain: bool,
}

/// Longer than any prefix.
const NO_PREFIX: u16 = u16::MAX;
const _: () = assert!(MAX_PATTERN_BYTES < NO_PREFIX as usize);

impl Entry {
    pub(crate) fn new(candidate: &Arc<Candidate>, route: &Arc<Route>) -> Self {
        Entry {
            candidate: Arc::clone(candidate),
            route: Arc::clone(route),
            priority: candidate.priority,
            prefix: match &candidate.path {
                PathPattern::Any => 0,
                PathPattern::Prefix(prefix) => prefix.len() as u16,
                PathPattern::Exact(_) | PathPattern::Template(_) | PathPattern::Regex(_) => NO_PREFIX,
            },
            is_template: matches!(candidate.path, PathPattern::Template(_)),
            plain: candidate.count == 0 && !matches!(candidate.path, PathPattern::Regex(_)),
        }
    }

    /// Length of the prefix it matches by, `None` if it matches otherwise.
    #[inline]
    pub(super) fn prefix(&self) -> Option<usize> {
        (self.prefix != NO_PREFIX).then_some(usize::from(self.prefix))
    }
}

impl Slot {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Slot::Empty)
    }

    #[inline]
    fn entries(&self) -> &[Entry] {
        match self {
            Slot::Empty => &[],
            Slot::One(entry) => std::slice::from_ref(entry),
            Slot::Many(entries) => entries,
        }
    }

    /// Best first.
    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Candidate>> {
        self.entries().iter().map(|entry| &entry.candidate)
    }

    pub(super) fn add(&mut self, entry: &Entry) {
        match self {
            Slot::Empty => *self = Slot::One(entry.clone()),
            Slot::One(there) if there.candidate.rank(&entry.candidate).is_eq() => *there = entry.clone(),
            Slot::One(there) => {
                let mut entries = vec![there.clone(), entry.clone()];
                entries.sort_unstable_by(|one, two| one.candidate.rank(&two.candidate));
                *self = Slot::Many(Arc::new(entries));
            }
            Slot::Many(entries) => {
                let entries = Arc::make_mut(entries);
                match entries.binary_search_by(|other| other.candidate.rank(&entry.candidate)) {
                    Ok(at) => entries[at] = entry.clone(),
                    Err(at) => entries.insert(at, entry.clone()),
                }
            }
        }
    }

    pub(super) fn remove(&mut self, candidate: &Candidate) {
        match self {
            Slot::One(there) if there.candidate.rank(candidate).is_eq() => *self = Slot::Empty,
            Slot::Empty | Slot::One(_) => {}
            Slot::Many(entries) => {
                let Ok(at) = entries.binary_search_by(|other| other.candidate.rank(candidate)) else {
                    return;
                };
                let entries = Arc::make_mut(entries);
                entries.remove(at);
                if let [last] = &**entries {
                    *self = Slot::One(last.clone());
                }
            }
        }
    }

    /// The best complete match with a priority over `floor`.
    #[inline]
    pub(super) fn best<F: Fields + ?Sized>(
        &self,
        request: &RequestView<'_, F>,
        floor: Option<i32>,
    ) -> Option<&Entry> {
        self.entries()
            .iter()
            .take_while(|entry| floor.is_none_or(|floor| entry.priority > floor))
            .find(|entry| entry.plain || entry.candidate.matches(request))
    }
}
