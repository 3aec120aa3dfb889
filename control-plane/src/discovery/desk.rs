//! Every source and every upstream that asks one, as pure state: events in, a board and wishes for second looks out. No
//! I/O; time is given.
//!
//! Invariants: a source that fails changes nothing but what is said of it; a source that was never read says nothing
//! about upstreams; what one source does touches no upstream of another.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use gateway_proto::digest::ItemHash;
use gateway_proto::endpoints::Subject;
use gateway_proto::wire::source_state::Value as State;
use jiff::Timestamp;

use super::board::{self, Board, Item};
use super::line::{Due, Found, Line, Query};
use super::source::{Fault, Reading};

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Desk {
    sources: BTreeMap<Arc<str>, Known>,
    lines: BTreeMap<Arc<str>, Entry>,
    wakes: BTreeSet<(Instant, Arc<str>)>,
    /// Sets of before this process, until their upstreams are seen.
    kept: HashMap<Arc<str>, (Query, Found)>,
    board: Board,
    looks: BTreeSet<(Arc<str>, Arc<str>)>,
    has_changed: bool,
}

/// A source.
#[derive(Debug)]
pub(super) struct Known {
    /// How fresh what it says is.
    pub(super) state: State,
    /// What it said last.
    pub(super) reading: Option<Reading>,
    /// Why it cannot be read; `None`: it can.
    pub(super) fault: Option<String>,
    /// How often it could not be.
    pub(super) errors: u64,
    /// When it was read last.
    pub(super) read_at: Option<Timestamp>,
    /// When it last said something else than before.
    pub(super) changed_at: Option<Timestamp>,
    /// The upstreams that ask it.
    pub(super) upstreams: BTreeSet<Arc<str>>,
}

/// An upstream.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its endpoints.
    pub(super) line: Line,
    /// When they last changed.
    pub(super) changed_at: Option<Timestamp>,
    wakes: Option<Instant>,
}

impl Desk {
    /// With what was served when this was known last.
    pub(super) fn new(kept: HashMap<Arc<str>, (Query, Found)>) -> Self {
        Desk { kept, ..Desk::default() }
    }

    /// Follows a configuration: its sources, and what its upstreams ask for.
    pub(super) fn configure(
        &mut self,
        sources: &BTreeSet<Arc<str>>,
        queries: &BTreeMap<Arc<str>, Query>,
        now: Instant,
    ) {
        let gone: Vec<_> = self.lines.keys().filter(|name| !queries.contains_key(*name)).cloned().collect();
        gone.iter().for_each(|upstream| self.drop_line(upstream));
        let gone: Vec<_> = self.sources.keys().filter(|name| !sources.contains(*name)).cloned().collect();
        for source in gone {
            self.sources.remove(&source);
            self.board.items.remove(&(Subject::Source, source));
            self.has_changed = true;
        }
        for source in sources {
            self.sources.entry(Arc::clone(source)).or_insert_with(Known::new);
        }
        for (upstream, query) in queries {
            self.ask(upstream, query, now);
        }
        sources.iter().for_each(|source| self.say(source));
        self.kept.clear();
    }

    /// A source is not what it was: it has to be read anew.
    pub(super) fn replaced(&mut self, source: &Arc<str>) {
        if let Some(known) = self.sources.get_mut(source) {
            let upstreams = std::mem::take(&mut known.upstreams);
            *known = Known { upstreams: upstreams.clone(), ..Known::new() };
            for upstream in upstreams {
                if let Some(entry) = self.lines.get_mut(&upstream) {
                    entry.line.forget_next();
                }
                self.schedule(&upstream);
            }
        }
        self.say(source);
    }

    /// A source was read, or could not be.
    pub(super) fn read(
        &mut self,
        source: &Arc<str>,
        read: Result<Reading, Fault>,
        (now, at): (Instant, Timestamp),
    ) {
        let Some(known) = self.sources.get_mut(source) else { return };
        let reading = match read {
            Ok(reading) => reading,
            Err(Fault(why)) => {
                known.errors += 1;
                known.fault = Some(why);
                self.say(source);
                return;
            }
        };
        (known.fault, known.read_at) = (None, Some(at));
        if known.reading.as_ref().is_none_or(|before| before.services != reading.services) {
            known.changed_at = Some(at);
        }
        for upstream in known.upstreams.clone() {
            let Some(entry) = self.lines.get_mut(&upstream) else { continue };
            // Also what is as before: a second look may have found something else meanwhile.
            let found = entry.line.query().of(&reading);
            entry.line.offer(found, now);
            self.schedule(&upstream);
        }
        if let Some(known) = self.sources.get_mut(source) {
            known.reading = Some(reading);
        }
        self.say(source);
    }

    /// The second look at a service is over.
    pub(super) fn looked(
        &mut self,
        (source, service): (&Arc<str>, &Arc<str>),
        read: Result<Reading, Fault>,
        (now, at): (Instant, Timestamp),
    ) {
        let Some(known) = self.sources.get_mut(source) else { return };
        if read.is_err() {
            known.errors += 1;
        }
        let reading = read.ok();
        for upstream in known.upstreams.clone() {
            let Some(entry) = self.lines.get_mut(&upstream) else { continue };
            if entry.line.query().service == *service {
                let found = reading.as_ref().map(|reading| entry.line.query().of(reading));
                let due = entry.line.looked(found, now);
                self.act(&upstream, due, at);
            }
        }
    }

    /// Time has passed.
    pub(super) fn due(&mut self, (now, at): (Instant, Timestamp)) {
        while let Some((wakes, upstream)) = self.wakes.first().cloned()
            && wakes <= now
        {
            let Some(entry) = self.lines.get_mut(&upstream) else { return };
            let due = entry.line.due(now);
            self.act(&upstream, due, at);
        }
    }

    /// When [`Desk::due`] has something to do.
    pub(super) fn wakes(&self) -> Option<Instant> {
        self.wakes.first().map(|(at, _)| *at)
    }

    /// Sources and services that are to be looked at, each once.
    pub(super) fn take_looks(&mut self) -> BTreeSet<(Arc<str>, Arc<str>)> {
        std::mem::take(&mut self.looks)
    }

    /// The board, if it is another since this was asked last.
    pub(super) fn take_board(&mut self) -> Option<Board> {
        std::mem::take(&mut self.has_changed).then(|| self.board.clone())
    }

    /// The sources, by name.
    pub(super) const fn sources(&self) -> &BTreeMap<Arc<str>, Known> {
        &self.sources
    }

    /// The upstreams, by name.
    pub(super) const fn lines(&self) -> &BTreeMap<Arc<str>, Entry> {
        &self.lines
    }

    /// Hash of the set that is on the board for an upstream.
    pub(super) fn hash_of(&self, upstream: &Arc<str>) -> Option<ItemHash> {
        self.board.items.get(&(Subject::Set, Arc::clone(upstream))).map(|item| item.hash)
    }

    /// Every source was read, or could not be.
    pub(super) fn is_settled(&self) -> bool {
        self.sources.values().all(|known| known.reading.is_some() || known.fault.is_some())
    }

    fn ask(&mut self, upstream: &Arc<str>, query: &Query, now: Instant) {
        match self.lines.get_mut(upstream) {
            Some(entry) if entry.line.query() == query => return,
            Some(entry) => {
                if let Some(known) = self.sources.get_mut(&entry.line.query().source) {
                    known.upstreams.remove(upstream);
                }
                entry.line.ask(query.clone());
            }
            None => {
                let kept = self.kept.remove(upstream);
                let kept = kept.filter(|(of, _)| of == query).map(|(_, found)| found);
                let line = Line::new(query.clone(), kept);
                self.lines.insert(Arc::clone(upstream), Entry { line, changed_at: None, wakes: None });
                self.show(upstream);
            }
        }
        if let Some(known) = self.sources.get_mut(&query.source) {
            known.upstreams.insert(Arc::clone(upstream));
            if let (Some(reading), Some(entry)) = (&known.reading, self.lines.get_mut(upstream)) {
                let found = query.of(reading);
                entry.line.offer(found, now);
            }
        }
        self.schedule(upstream);
    }

    fn drop_line(&mut self, upstream: &Arc<str>) {
        let Some(entry) = self.lines.remove(upstream) else { return };
        if let Some(at) = entry.wakes {
            self.wakes.remove(&(at, Arc::clone(upstream)));
        }
        if let Some(known) = self.sources.get_mut(&entry.line.query().source) {
            known.upstreams.remove(upstream);
        }
        self.board.items.remove(&(Subject::Set, Arc::clone(upstream)));
        self.has_changed = true;
    }

    fn act(&mut self, upstream: &Arc<str>, due: Due, at: Timestamp) {
        match due {
            Due::Nothing => {}
            Due::Look => {
                if let Some(entry) = self.lines.get(upstream) {
                    let Query { source, service, .. } = entry.line.query();
                    self.looks.insert((Arc::clone(source), Arc::clone(service)));
                }
            }
            Due::Served => {
                if let Some(entry) = self.lines.get_mut(upstream) {
                    entry.changed_at = Some(at);
                }
                self.show(upstream);
            }
        }
        self.schedule(upstream);
    }

    fn schedule(&mut self, upstream: &Arc<str>) {
        let Some(entry) = self.lines.get_mut(upstream) else { return };
        let wakes = entry.line.wakes();
        if let Some(before) = std::mem::replace(&mut entry.wakes, wakes) {
            self.wakes.remove(&(before, Arc::clone(upstream)));
        }
        self.wakes.extend(wakes.map(|at| (at, Arc::clone(upstream))));
    }

    /// Puts an upstream's set on the board.
    fn show(&mut self, upstream: &Arc<str>) {
        let Some(entry) = self.lines.get(upstream) else { return };
        let Some(found) = entry.line.served() else { return };
        let item = Item::set(&board::set(upstream, entry.line.found_by(), found));
        self.board.items.insert((Subject::Set, Arc::clone(upstream)), item);
        self.has_changed = true;
    }

    /// Puts a word on a source on the board.
    fn say(&mut self, source: &Arc<str>) {
        let Some(known) = self.sources.get(source) else { return };
        let is_served =
            |upstream| self.lines.get(upstream).is_some_and(|entry| entry.line.served().is_some());
        let state = match (&known.reading, &known.fault) {
            (Some(_), None) => State::Synced,
            (Some(_), Some(_)) => State::Stale,
            (None, _) if known.upstreams.iter().any(is_served) => State::Stale,
            (None, _) => State::Failed,
        };
        let name = (Subject::Source, Arc::clone(source));
        let is_new = self.board.items.get(&name).is_none();
        if let Some(known) = self.sources.get_mut(source)
            && (is_new || known.state != state)
        {
            known.state = state;
            self.board.items.insert(name, Item::source(source, state));
            self.has_changed = true;
        }
    }
}

impl Known {
    fn new() -> Self {
        Known {
            state: State::Failed,
            reading: None,
            fault: None,
            errors: 0,
            read_at: None,
            changed_at: None,
            upstreams: BTreeSet::new(),
        }
    }
}

#[cfg(test)]
mod tests;
