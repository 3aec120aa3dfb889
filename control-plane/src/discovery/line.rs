//! One upstream's endpoints on their way from a source to the data planes, as pure state: what is served, what shall be
//! served next, and when. No I/O and no clock.
//!
//! A change waits for 50 ms without another, 500 ms at most. What would leave nothing, or less than half of four or more,
//! waits for a second look at the source on top: if that agrees it is served, if it says something else that counts, and
//! as long as the source cannot be read nothing changes. Invariant: never is a set served that the source was not twice
//! seen to have, if it is empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::source::{Instance, Reading};

/// A set is served once nothing followed it for this long ...
const QUIET: Duration = Duration::from_millis(50);
/// ... or at the latest this long after the first that was not.
const AT_MOST: Duration = Duration::from_millis(500);
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
        Found { index: reading.index, instances: all.iter().filter(asked).cloned().collect() }
    }
}

/// The instances that an upstream gets.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The source's version of them.
    pub index: u64,
    /// Sorted by address.
    pub instances: Vec<Instance>,
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
    /// That was found by this very query.
    is_own: bool,
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
        Line { query, is_own: kept.is_some(), served: kept, next: None }
    }

    /// The upstream asks for something else: what is served stays until that is known.
    pub fn ask(&mut self, query: Query) {
        *self = Line { query, served: self.served.take(), is_own: false, next: None };
    }

    /// What it asks for.
    pub const fn query(&self) -> &Query {
        &self.query
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
            Stage::Settling if self.is_own => Some((next.last + QUIET).min(next.first + AT_MOST)),
            // There is nothing to be kept from flapping.
            Stage::Settling => Some(next.first),
            Stage::Looking => None,
            Stage::Held(until) => Some(until),
        }
    }

    /// The source says what there is.
    pub fn offer(&mut self, found: Found, now: Instant) {
        if self.is_own && self.served.as_ref().is_some_and(|served| served.is_as(&found)) {
            self.next = None;
            return;
        }
        match &mut self.next {
            Some(next) if next.found.is_as(&found) => next.found.index = found.index,
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
        let Some(found) = found else {
            self.next = Some(Next { stage: Stage::Held(now + AGAIN), ..next });
            return Due::Nothing;
        };
        if self.is_own && self.served.as_ref().is_some_and(|served| served.is_as(&found)) {
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
        self.is_own = true;
    }

    /// It would leave nothing, or less than half.
    fn is_grave(&self, found: &Found) -> bool {
        let before = self.served.as_ref().filter(|_| self.is_own).map_or(0, |served| served.instances.len());
        found.instances.is_empty() || (before >= SMALL && found.instances.len() * 2 < before)
    }
}

#[cfg(test)]
mod tests;
