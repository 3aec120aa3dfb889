//! One upstream's endpoints on their way from a source to the data planes, as pure state: what is served, what shall be
//! served next, and when. No I/O and no clock.
//!
//! A change waits for 50 ms without another, 500 ms at most. What would leave nothing, or less than half of four or more,
//! waits for a second look at the source on top: if that agrees it is served, if it says something else that counts, and
//! as long as the source cannot be read, or only in part, nothing changes. Between the change and the second look lie 400 ms,
//! so that a file that is being written is not seen twice in the same half. Invariant: never is a set served that the
//! source was not twice seen to have, if it is empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::{Instance, Reading};

/// A set is served once nothing followed it for this long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... or at the latest this long after the first that was not.
const AT_MOST: Duration = Duration::from_millis(500);
/// The same of a set that waits for a second look.
const QUIET_IF_GRAVE: Duration = Duration::from_millis(400);
const AT_MOST_IF_GRAVE: Duration = Duration::from_millis(700);
/// Between two looks at a source that cannot be read.
const AGAIN: Duration = Duration::from_secs(1);
/// Smaller sets may lose more than half.
const SMALL: usize = 4;

/// What an upstream asks for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Query {
    /// `namespace/name` of the source.
    pub source: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// Instances must have all of these.
    pub tags: Arc<[Box<str>]>,
}

impl Query {
    /// What a reading says about it.
    pub fn of(&self, reading: &Reading) -> Found {
        let all = reading.services.get(&self.service).map(|instances| &**instances).unwrap_or_default();
        let asked = |it: &&Instance| self.tags.iter().all(|tag| it.tags.iter().any(|has| **has == **tag));
        Found {
            index: reading.index,
            instances: all.iter().filter(asked).cloned().collect(),
            is_doubtful: reading.doubtful.contains(&self.service),
        }
    }
}

/// The instances that an upstream gets.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The source's version of them.
    pub index: u64,
    /// Sorted by address.
    pub instances: Vec<Instance>,
    /// There may be more: something of it could not be read.
    pub is_doubtful: bool,
}

impl Found {
    /// Nobody would be served otherwise than before.
    fn is_as(&self, other: &Found) -> bool {
        let shown = |it: &Instance| (it.address.clone(), it.weight, it.zone.clone());
        self.instances.iter().map(shown).eq(other.instances.iter().map(shown))
    }
}

/// One upstream.
#[derive(Debug)]
pub struct Line {
    query: Query,
    /// What is served; `None`: nothing is known yet.
    served: Option<Found>,
    /// What that was found by.
    found_by: Query,
    next: Option<Next>,
}

/// What is to be served.
#[derive(Debug)]
struct Next {
    found: Found,
    first: Instant,
    last: Instant,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Until it was quiet.
    Settling,
    /// Until the second look is over.
    Looking,
    /// Until it is worth another look.
    Held(Instant),
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing.
    Nothing,
    /// Look at the source a second time.
    Look,
    /// What is served has changed.
    Served,
}

impl Line {
    /// Of an upstream; `kept`: what was served when this was known last.
    pub fn new(query: Query, kept: Option<Found>) -> Self {
        Line { found_by: query.clone(), query, served: kept, next: None }
    }

    /// The upstream asks for something else: what is served stays until that is known.
    pub fn ask(&mut self, query: Query) {
        (self.query, self.next) = (query, None);
    }

    /// What was to be served next does not count any more: the source is read anew.
    pub fn forget_next(&mut self) {
        self.next = None;
    }

    /// What it asks for.
    pub const fn query(&self) -> &Query {
        &self.query
    }

    /// What that is served was found by.
    pub const fn found_by(&self) -> &Query {
        &self.found_by
    }

    /// What is served.
    pub const fn served(&self) -> Option<&Found> {
        self.served.as_ref()
    }

    /// A change is held back until the source can be read once more.
    pub fn is_held(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.stage != Stage::Settling)
    }

    /// When [`Line::due`] has something to do, unless something else happens before.
    pub fn wakes(&self) -> Option<Instant> {
        let next = self.next.as_ref()?;
        match next.stage {
            Stage::Settling if self.is_grave(&next.found) => {
                Some((next.last + QUIET_IF_GRAVE).min(next.first + AT_MOST_IF_GRAVE))
            }
            Stage::Settling if self.own().is_some() => Some((next.last + QUIET).min(next.first + AT_MOST)),
            // There is nothing to be kept from flapping.
            Stage::Settling => Some(next.first),
            Stage::Looking => None,
            Stage::Held(until) => Some(until),
        }
    }

    /// The source says what there is.
    pub fn offer(&mut self, found: Found, now: Instant) {
        if self.own().is_some_and(|served| served.is_as(&found)) {
            self.next = None;
            return;
        }
        match &mut self.next {
            Some(next) if next.found.is_as(&found) => next.found = found,
            Some(next) if next.stage == Stage::Settling => (next.found, next.last) = (found, now),
            _ => self.next = Some(Next { found, first: now, last: now, stage: Stage::Settling }),
        }
    }

    /// Time has passed.
    pub fn due(&mut self, now: Instant) -> Due {
        if self.wakes().is_none_or(|at| at > now) {
            return Due::Nothing;
        }
        let Some(mut next) = self.next.take() else { return Due::Nothing };
        if next.stage == Stage::Settling && !self.is_grave(&next.found) {
            self.serve(next.found);
            return Due::Served;
        }
        next.stage = Stage::Looking;
        self.next = Some(next);
        Due::Look
    }

    /// The second look is over; `None`: the source cannot be read.
    pub fn looked(&mut self, found: Option<Found>, now: Instant) -> Due {
        let Some(next) = self.next.take_if(|next| next.stage == Stage::Looking) else { return Due::Nothing };
        let Some(found) = found.filter(|found| !(found.is_doubtful && self.is_grave(found))) else {
            self.next = Some(Next { stage: Stage::Held(now + AGAIN), ..next });
            return Due::Nothing;
        };
        if self.own().is_some_and(|served| served.is_as(&found)) {
            return Due::Nothing;
        }
        if found.instances.is_empty() && !next.found.instances.is_empty() {
            // Seen once only.
            self.next = Some(Next { found, ..next });
            return Due::Look;
        }
        self.serve(found);
        Due::Served
    }

    fn serve(&mut self, found: Found) {
        self.served = Some(found);
        self.found_by = self.query.clone();
    }

    /// What is served, if it was found by the query that counts.
    fn own(&self) -> Option<&Found> {
        self.served.as_ref().filter(|_| self.found_by == self.query)
    }

    /// It would leave nothing, or less than half.
    fn is_grave(&self, found: &Found) -> bool {
        let before = self.own().map_or(0, |served| served.instances.len());
        found.instances.is_empty() || (before >= SMALL && found.instances.len() * 2 < before)
    }
}

#[cfg(test)]
mod tests;
