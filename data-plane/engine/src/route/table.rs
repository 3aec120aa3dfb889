//! The table: host, then path, then candidates. A host's hash leads to its paths; exact paths and prefixes are found
//! by the hash of literal text, templates by that of the literals they begin with, and only what is left in a slot is
//! judged by regular expression and conditions. Everything is structurally shared: one candidate in or out copies one
//! shard on each step down.
//!
//! Invariant: [`Table::visit`] shows the slots that a host and path lead to from the most specific to the least, and
//! a slot holds its candidates from the best to the worst, so that the first complete match is the winner among
//! equal priorities; a later slot can only win by a higher priority.

use std::sync::Arc;

use super::host::{Depths, Host, Priorities};
use super::pattern::{HostLevel, HostPattern, PathPattern};
use super::slot::{Candidate, Entry, Slot};
use crate::sharing::{Map, hash};

/// Seed of the table's hashes.
pub(crate) type Seed = foldhash::fast::RandomState;

/// What a visit knows of where it is.
pub(super) struct At {
    pub(super) level: HostLevel,
    /// Highest priority on this host.
    pub(super) top: i32,
}

/// Sees the slots that a request leads to, the most specific first.
pub(crate) trait Visit<'t> {
    /// Candidates of at most this priority can still matter.
    fn wants(&self, top: i32) -> bool;
    /// The next slot.
    fn slot(&mut self, level: HostLevel, slot: &'t Slot);
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
        self.priorities.is_empty()
    }

    /// Puts a candidate in under one of its route's hosts.
    pub(crate) fn add(&mut self, seed: &Seed, host: &HostPattern, entry: &Entry) {
        self.priorities.add(entry.candidate.priority);
        let (hosts, name) = match host {
            HostPattern::Any => {
                Arc::make_mut(self.any.get_or_insert_default()).add(seed, entry);
                return;
            }
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Suffix(name) => {
                self.suffix_depths.add(labels(name));
                (&mut self.suffixes, name)
            }
        };
        let hash = hash(seed, name.as_bytes());
        let make = || Host::new(hash, name);
        hosts.get_mut_or_insert(hash, name.as_bytes(), make).add(seed, entry);
    }

    /// Takes a candidate out again.
    pub(crate) fn remove(&mut self, seed: &Seed, host: &HostPattern, candidate: &Candidate) {
        self.priorities.remove(candidate.priority);
        let (hosts, name) = match host {
            HostPattern::Any => {
                if let Some(any) = &mut self.any {
                    let any = Arc::make_mut(any);
                    any.remove(seed, candidate);
                    if any.is_empty() {
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
            if there.is_empty() {
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
            if let Some(found) = self.exact.look(seed, host.as_bytes()) {
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
            if let Some(found) = self.suffixes.look(seed, suffix) {
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
            HostPattern::Exact(name) => self.exact.look(seed, name.as_bytes())?,
            HostPattern::Suffix(name) => self.suffixes.look(seed, name.as_bytes())?,
        };
        host.slot_of(seed, path)
    }
}
