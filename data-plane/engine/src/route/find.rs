//! Find: the winner among all candidates, straight from the contract ("Matching, fixed once").
//!
//! A listener asks at most two tables: the one of the routes that name it, and the one of the routes that name no
//! listener and are reached through its namespace. So a new listener costs nothing, and a route is stored once for
//! all listeners it does not name.

use std::cmp::Ordering;
use std::sync::Arc;

use super::pattern::HostLevel;
use super::slot::Entry;
use super::table::{Seed, Table, Visit};
use super::{Allow, Candidate, Fields, Lookup, Match, RequestView, Slot};
use crate::engine::Engine;
use crate::listener::Listener;

/// A complete match.
#[derive(Clone, Copy)]
pub(super) struct Found<'t> {
    pub(super) entry: &'t Entry,
    pub(super) level: HostLevel,
}

impl<'t> Found<'t> {
    pub(super) fn contender(self) -> Contender<'t> {
        Contender { candidate: &self.entry.candidate, level: self.level }
    }
}

/// A complete match as the winner rule compares it.
#[derive(Clone, Copy)]
pub(super) struct Contender<'t> {
    pub(super) candidate: &'t Arc<Candidate>,
    pub(super) level: HostLevel,
}

impl Contender<'_> {
    /// Orders complete matches of one request: the better one is greater.
    pub(super) fn rank(&self, other: &Self) -> Ordering {
        let (one, two) = (self.candidate, other.candidate);
        one.priority
            .cmp(&two.priority)
            .then_with(|| self.level.cmp(&other.level))
            .then_with(|| one.path.specificity(&two.path))
            .then_with(|| one.count.cmp(&two.count))
            .then_with(|| two.name.as_bytes().cmp(one.name.as_bytes()))
            .then_with(|| two.index.cmp(&one.index))
    }
}

/// Keeps the winner.
struct Best<'t, 'r, F: ?Sized> {
    request: &'r RequestView<'r, F>,
    found: Option<Found<'t>>,
}

impl<'t, F: Fields + ?Sized> Visit<'t> for Best<'t, '_, F> {
    #[inline]
    fn wants(&self, top: i32) -> bool {
        self.found.is_none_or(|found| top > found.entry.priority)
    }

    #[inline]
    fn slot(&mut self, level: HostLevel, slot: &'t Slot) {
        let floor = self.found.map(|found| found.entry.priority);
        if let Some(entry) = slot.best(self.request, floor) {
            self.found = Some(Found { entry, level });
        }
    }
}

/// Collects the methods of candidates that match but for the method.
struct Allowed<'t, 'r, F: ?Sized> {
    request: &'r RequestView<'r, F>,
    allow: Allow<'t>,
}

impl<'t, F: Fields + ?Sized> Visit<'t> for Allowed<'t, '_, F> {
    fn wants(&self, _top: i32) -> bool {
        true
    }

    fn slot(&mut self, _level: HostLevel, slot: &'t Slot) {
        for candidate in slot.iter() {
            if candidate.conditions().hold_but_method(self.request)
                && candidate.regex_matches(self.request.path)
            {
                self.allow.add(&candidate.conditions().methods);
            }
        }
    }
}

#[inline]
fn best<'t, F: Fields + ?Sized>(
    table: Option<&'t Table>,
    seed: &Seed,
    request: &RequestView<'_, F>,
) -> Option<Found<'t>> {
    let table = table.filter(|table| !table.is_empty())?;
    let mut best = Best { request, found: None };
    table.visit(seed, request.host, request.path, &mut best);
    best.found
}

/// The winner in both tables.
#[inline]
pub(super) fn winner<'t, F: Fields + ?Sized>(
    tables: [Option<&'t Table>; 2],
    seed: &Seed,
    request: &RequestView<'_, F>,
) -> Option<Found<'t>> {
    let [one, two] = tables.map(|table| best(table, seed, request));
    match (one, two) {
        (Some(one), Some(two)) => {
            Some(if one.contender().rank(&two.contender()).is_ge() { one } else { two })
        }
        (one, two) => one.or(two),
    }
}

/// The methods with which some candidate would match.
pub(super) fn allowed<'t, F: Fields + ?Sized>(
    tables: [Option<&'t Table>; 2],
    seed: &Seed,
    request: &RequestView<'_, F>,
) -> Allow<'t> {
    let mut allowed = Allowed { request, allow: Allow::default() };
    for table in tables.into_iter().flatten() {
        table.visit(seed, request.host, request.path, &mut allowed);
    }
    allowed.allow
}

impl Engine {
    /// Decides where a request goes that came in through a listener. Allocates nothing of its own.
    #[inline]
    pub fn find<'e, F: Fields + ?Sized>(
        &'e self,
        listener: &Listener,
        request: &RequestView<'_, F>,
    ) -> Lookup<'e> {
        let (tables, seed) = (self.tables(listener), self.seed());
        if let Some(found) = winner(tables, seed, request) {
            return Lookup::Found(Match { route: &found.entry.route, entry: found.entry });
        }
        let allow = allowed(tables, seed, request);
        if allow.is_empty() { Lookup::NotFound } else { Lookup::MethodNotAllowed(allow) }
    }
}
