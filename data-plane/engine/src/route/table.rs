//! The table: host, then path, then candidates. A host's hash leads to its paths; exact paths and prefixes are found
//! by the hash of literal text, templates by a trie, and only what is left in a slot is judged by regular expression
//! and conditions. Everything is structurally shared: one candidate in or out copies one shard on each step down.
//!
//! Invariant: [`Table::visit`] shows the slots that a host and path lead to from the most specific to the least, and
//! a slot holds its candidates from the best to the worst, so that the first complete match is the winner among
//! equal priorities; a later slot can only win by a higher priority.

use std::cmp::Ordering;
use std::sync::Arc;

use super::condition::{Conditions, Method};
use super::pattern::{HostLevel, HostPattern, PathPattern, Segment, split};
use super::{Fields, RequestView, RouteSlot};
use crate::sharing::{Keyed, Map, hash};

/// Seed of the table's hashes.
pub(crate) type Seed = foldhash::fast::RandomState;

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
    fn at(hash: u64, pattern: &str) -> Self {
        Slot { hash, pattern: pattern.into(), candidates: Vec::new() }
    }

    fn add(&mut self, candidate: &Arc<Candidate>) {
        match self.candidates.binary_search_by(|other| other.rank(candidate)) {
            Ok(at) => self.candidates[at] = Arc::clone(candidate),
            Err(at) => self.candidates.insert(at, Arc::clone(candidate)),
        }
    }

    fn remove(&mut self, candidate: &Candidate) {
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

/// How many candidates there are of each priority.
#[derive(Clone, Debug, Default)]
struct Priorities(Vec<(i32, u32)>);

impl Priorities {
    fn add(&mut self, priority: i32) {
        match self.0.binary_search_by_key(&priority, |(priority, _)| *priority) {
            Ok(at) => self.0[at].1 += 1,
            Err(at) => self.0.insert(at, (priority, 1)),
        }
    }

    fn remove(&mut self, priority: i32) {
        if let Ok(at) = self.0.binary_search_by_key(&priority, |(priority, _)| *priority) {
            self.0[at].1 -= 1;
            if self.0[at].1 == 0 {
                self.0.remove(at);
            }
        }
    }

    /// The highest; the lowest number there is when there are none.
    #[inline]
    fn top(&self) -> i32 {
        self.0.last().map_or(i32::MIN, |(priority, _)| *priority)
    }
}

/// How many patterns there are of each length in segments or labels, so that no other length is looked up. The last
/// bit stands for its length and all longer ones.
#[derive(Clone, Debug, Default)]
struct Depths {
    mask: u64,
    counts: Vec<u32>,
}

impl Depths {
    const LAST: usize = u64::BITS as usize - 1;

    fn add(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        if self.counts.len() <= depth {
            self.counts.resize(depth + 1, 0);
        }
        self.counts[depth] += 1;
        self.mask |= 1 << depth;
    }

    fn remove(&mut self, depth: usize) {
        let depth = depth.min(Self::LAST);
        self.counts[depth] -= 1;
        if self.counts[depth] == 0 {
            self.mask &= !(1 << depth);
        }
    }

    #[inline]
    fn has(&self, depth: usize) -> bool {
        self.mask >> depth.min(Self::LAST) & 1 == 1
    }
}

/// A step of the trie of templates.
#[derive(Clone, Debug, Default)]
struct Node {
    hash: u64,
    label: Box<str>,
    literals: Map<Node>,
    param: Option<Arc<Node>>,
    /// Templates that end here with `{*x}`.
    rest: Option<Arc<Slot>>,
    /// Templates that end here.
    here: Option<Arc<Slot>>,
}

impl Keyed for Node {
    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &[u8] {
        self.label.as_bytes()
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.literals.is_empty() && self.param.is_none() && self.rest.is_none() && self.here.is_none()
    }

    fn add(&mut self, seed: &Seed, segments: &[Segment], candidate: &Arc<Candidate>) {
        match segments {
            [] => slot_mut(&mut self.here).add(candidate),
            [Segment::Rest(_), ..] => slot_mut(&mut self.rest).add(candidate),
            [Segment::Param(_), after @ ..] => {
                Arc::make_mut(self.param.get_or_insert_default()).add(seed, after, candidate);
            }
            [Segment::Literal(label), after @ ..] => {
                let hash = hash(seed, label.as_bytes());
                let make = || Node { hash, label: label.clone(), ..Node::default() };
                self.literals.get_mut_or_insert(hash, label.as_bytes(), make).add(seed, after, candidate);
            }
        }
    }

    fn remove(&mut self, seed: &Seed, segments: &[Segment], candidate: &Candidate) {
        match segments {
            [] => take_from(&mut self.here, candidate),
            [Segment::Rest(_), ..] => take_from(&mut self.rest, candidate),
            [Segment::Param(_), after @ ..] => {
                if let Some(param) = &mut self.param {
                    let param = Arc::make_mut(param);
                    param.remove(seed, after, candidate);
                    if param.is_empty() {
                        self.param = None;
                    }
                }
            }
            [Segment::Literal(label), after @ ..] => {
                let hash = hash(seed, label.as_bytes());
                if let Some(child) = self.literals.get_mut(hash, label.as_bytes()) {
                    child.remove(seed, after, candidate);
                    if child.is_empty() {
                        self.literals.remove(hash, label.as_bytes());
                    }
                }
            }
        }
    }

    /// Literal before `{x}` before `{*x}`, segment by segment.
    fn visit<'t>(&'t self, seed: &Seed, rest: Option<&str>, at: &At, visitor: &mut impl Visit<'t>) {
        let Some(text) = rest else {
            if let Some(slot) = &self.here {
                visitor.slot(at.level, slot);
            }
            return;
        };
        if !visitor.wants(at.top) {
            return;
        }
        let (piece, after) = split(text);
        if let Some(child) = self.literals.get(hash(seed, piece.as_bytes()), piece.as_bytes()) {
            child.visit(seed, after, at, visitor);
        }
        if piece.is_empty() {
            return;
        }
        if let Some(param) = &self.param {
            param.visit(seed, after, at, visitor);
        }
        if let Some(slot) = &self.rest {
            visitor.slot(at.level, slot);
        }
    }
}

fn slot_mut(slot: &mut Option<Arc<Slot>>) -> &mut Slot {
    Arc::make_mut(slot.get_or_insert_default())
}

fn take_from(slot: &mut Option<Arc<Slot>>, candidate: &Candidate) {
    if let Some(there) = slot {
        let there = Arc::make_mut(there);
        there.remove(candidate);
        if there.candidates.is_empty() {
            *slot = None;
        }
    }
}

/// A map's slot loses a candidate, and the map the slot with its last one.
fn take_from_map(slots: &mut Map<Slot>, seed: &Seed, pattern: &str, candidate: &Candidate) {
    let hash = hash(seed, pattern.as_bytes());
    if let Some(slot) = slots.get_mut(hash, pattern.as_bytes()) {
        slot.remove(candidate);
        if slot.candidates.is_empty() {
            slots.remove(hash, pattern.as_bytes());
        }
    }
}

/// What a visit knows of where it is.
struct At {
    level: HostLevel,
    /// Highest priority on this host.
    top: i32,
}

/// Sees the slots that a request leads to, the most specific first.
pub(crate) trait Visit<'t> {
    /// Candidates of at most this priority can still matter.
    fn wants(&self, top: i32) -> bool;
    /// The next slot.
    fn slot(&mut self, level: HostLevel, slot: &'t Slot);
}

/// The paths of one host pattern.
#[derive(Clone, Debug, Default)]
struct Host {
    hash: u64,
    name: Box<str>,
    priorities: Priorities,
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
    fn add(&mut self, seed: &Seed, candidate: &Arc<Candidate>) {
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

    fn remove(&mut self, seed: &Seed, candidate: &Candidate) {
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
    fn visit<'t>(&'t self, seed: &Seed, level: HostLevel, path: &str, visitor: &mut impl Visit<'t>) {
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
    fn slot_of(&self, seed: &Seed, path: &PathPattern) -> Option<&Slot> {
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

/// How many labels a host has.
fn labels(host: &str) -> usize {
    memchr::memchr_iter(b'.', host.as_bytes()).count() + 1
}

/// The candidates of one reach: of the routes that name one listener, or of those that name none in a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    priorities: Priorities,
    exact: Map<Host>,
    suffixes: Map<Host>,
    suffix_depths: Depths,
    any: Option<Arc<Host>>,
}

impl Table {
    /// There is no candidate.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.priorities.0.is_empty()
    }

    /// Puts a candidate in under one of its route's hosts.
    pub(crate) fn add(&mut self, seed: &Seed, host: &HostPattern, candidate: &Arc<Candidate>) {
        self.priorities.add(candidate.priority);
        let (hosts, name) = match host {
            HostPattern::Any => {
                Arc::make_mut(self.any.get_or_insert_default()).add(seed, candidate);
                return;
            }
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Suffix(name) => {
                self.suffix_depths.add(labels(name));
                (&mut self.suffixes, name)
            }
        };
        let hash = hash(seed, name.as_bytes());
        let make = || Host { hash, name: name.clone(), ..Host::default() };
        hosts.get_mut_or_insert(hash, name.as_bytes(), make).add(seed, candidate);
    }

    /// Takes a candidate out again.
    pub(crate) fn remove(&mut self, seed: &Seed, host: &HostPattern, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        let (hosts, name) = match host {
            HostPattern::Any => {
                if let Some(any) = &mut self.any {
                    let any = Arc::make_mut(any);
                    any.remove(seed, candidate);
                    if any.priorities.0.is_empty() {
                        self.any = None;
                    }
                }
                return;
            }
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Suffix(name) => {
                self.suffix_depths.remove(labels(name));
                (&mut self.suffixes, name)
            }
        };
        let hash = hash(seed, name.as_bytes());
        if let Some(there) = hosts.get_mut(hash, name.as_bytes()) {
            there.remove(seed, candidate);
            if there.priorities.0.is_empty() {
                hosts.remove(hash, name.as_bytes());
            }
        }
    }

    /// Shows the slots that a host and path lead to: exact host, then the longest suffix first, then any host; on
    /// each exact path, templates, the longest prefix first, regular expressions, any path.
    #[inline]
    pub(crate) fn visit<'t>(&'t self, seed: &Seed, host: &str, path: &str, visitor: &mut impl Visit<'t>) {
        let top = self.priorities.top();
        if !host.is_empty() {
            if !self.exact.is_empty()
                && let Some(found) = self.exact.get(hash(seed, host.as_bytes()), host.as_bytes())
            {
                found.visit(seed, HostLevel::EXACT, path, visitor);
            }
            if self.suffix_depths.mask != 0 && visitor.wants(top) {
                self.visit_suffixes(seed, host, path, visitor);
            }
        }
        if let Some(any) = &self.any
            && visitor.wants(top)
        {
            any.visit(seed, HostLevel::ANY, path, visitor);
        }
    }

    fn visit_suffixes<'t>(&'t self, seed: &Seed, host: &str, path: &str, visitor: &mut impl Visit<'t>) {
        let mut depth = labels(host);
        for dot in memchr::memchr_iter(b'.', host.as_bytes()) {
            depth -= 1;
            if dot == 0 || !self.suffix_depths.has(depth) {
                continue;
            }
            let suffix = &host.as_bytes()[dot + 1..];
            if let Some(found) = self.suffixes.get(hash(seed, suffix), suffix) {
                found.visit(seed, HostLevel::of_suffix(suffix.len()), path, visitor);
                if !visitor.wants(self.priorities.top()) {
                    return;
                }
            }
        }
    }

    /// The slot that a candidate of this host and path pattern is in, if there is any.
    pub(crate) fn slot_of(&self, seed: &Seed, host: &HostPattern, path: &PathPattern) -> Option<&Slot> {
        let host = match host {
            HostPattern::Any => self.any.as_ref()?,
            HostPattern::Exact(name) => self.exact.get(hash(seed, name.as_bytes()), name.as_bytes())?,
            HostPattern::Suffix(name) => self.suffixes.get(hash(seed, name.as_bytes()), name.as_bytes())?,
        };
        host.slot_of(seed, path)
    }
}
