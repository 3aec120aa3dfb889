//! The cells themselves: plain 64-bit words with one writer, grouped per route, upstream and listener.
//! A `...Local` is the worker's private index into cells that the collector sees too.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_engine::reject::Reason;

use super::{Method, Slot};

/// Upper bounds of the duration buckets, in microseconds; one more bucket takes the rest.
pub(super) const BUCKETS_US: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// Most outcomes told apart per route (and codes per target): upstreams may answer with any status there is. Those
/// that come after are counted under the first status of their class.
const MAX_OUTCOMES: usize = 256;

/// A number with one writing thread and any reading ones. Wraps, so that a gauge may pass through "negative" when
/// its ends fall on different workers' cells: only the sum has a meaning.
#[derive(Debug, Default)]
pub(super) struct Cell(AtomicU64);

impl Cell {
    /// Only the owning worker may call this: load and store, no locked instruction.
    pub(super) fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// As [`Cell::add`].
    pub(super) fn sub(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations, counted per bucket (not cumulated here).
#[derive(Debug, Default)]
#[repr(C)]
pub(super) struct Histogram {
    sum_nanos: Cell,
    buckets: [Cell; BUCKETS_US.len() + 1],
}

impl Histogram {
    /// Counts a duration under the first of the bounds (in microseconds) that it does not exceed.
    pub(super) fn observe(&self, bounds_us: &[u64; BUCKETS_US.len()], duration: Duration) {
        let nanos = duration.as_secs().saturating_mul(1_000_000_000);
        let nanos = nanos.saturating_add(duration.subsec_nanos().into());
        // 500 µs and 1 ns is above the 500 µs bound.
        self.buckets[bounds_us.partition_point(|&bound| bound * 1_000 < nanos)].add(1);
        self.sum_nanos.add(nanos);
    }

    /// Adds its counts and sum to a total.
    pub(super) fn add_to(&self, total: &mut HistogramTotal) {
        for (sum, cell) in total.buckets.iter_mut().zip(&self.buckets) {
            *sum += cell.get();
        }
        total.sum_nanos += u128::from(self.sum_nanos.get());
    }
}

/// The sum of histograms over workers.
#[derive(Debug, Default)]
pub(super) struct HistogramTotal {
    pub(super) buckets: [u64; BUCKETS_US.len() + 1],
    pub(super) sum_nanos: u128,
}

/// Method, status and reason in one word: comparing outcomes is comparing numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Outcome(u32);

impl Outcome {
    /// No outcome is this: there are not so many methods.
    const NONE: u32 = u32::MAX;

    pub(super) fn new(method: Method, status: u16, reason: Option<Reason>) -> Self {
        // A small dense number (20 reasons today): one byte holds it, 0 is "none".
        let reason = reason.map_or(0, |reason| reason.index() as u32 + 1);
        Outcome((method as u32) << 24 | u32::from(status.min(999)) << 8 | reason)
    }

    pub(super) fn method(self) -> &'static str {
        Method::NAMES[(self.0 >> 24) as usize]
    }

    pub(super) const fn status(self) -> u16 {
        (self.0 >> 8) as u16
    }

    pub(super) fn reason(self) -> &'static str {
        match (self.0 & 0xff) as usize {
            0 => "",
            index => Reason::ALL[index - 1].slug(),
        }
    }

    /// The same with the first status of its class: 404 becomes 400.
    const fn class(self) -> Self {
        let status = self.status();
        Outcome(self.0 & 0xff00_00ff | ((status - status % 100) as u32) << 8)
    }
}

/// Counters by a small key: the worker looks through its own list, the collector through the shared one.
#[derive(Debug)]
struct Counters<K> {
    mine: Vec<(K, Arc<Cell>)>,
}

impl<K: Copy + PartialEq> Counters<K> {
    const fn new() -> Self {
        Counters { mine: Vec::new() }
    }

    /// Adds one under `key`; once the list is full, under `fallback(key)`.
    fn count(&mut self, key: K, fallback: impl FnOnce(K) -> K, shared: &Mutex<Vec<(K, Arc<Cell>)>>) {
        if let Some((_, cell)) = self.mine.iter().find(|(mine, _)| *mine == key) {
            return cell.add(1);
        }
        let key = if self.mine.len() < MAX_OUTCOMES { key } else { fallback(key) };
        if let Some((_, cell)) = self.mine.iter().find(|(mine, _)| *mine == key) {
            return cell.add(1);
        }
        let cell = Arc::new(Cell::default());
        cell.add(1);
        self.mine.push((key, Arc::clone(&cell)));
        shared.lock().unwrap_or_else(PoisonError::into_inner).push((key, cell));
    }
}

/// What one worker knows of one route; without a name: of the requests that found none. What a request of a route
/// most often changes comes first: with many routes, each line of it is a cache miss.
#[derive(Debug)]
#[repr(C)]
pub(super) struct RouteCells {
    gone: AtomicBool,
    /// The outcome that came first, and most often is the only one; [`Outcome::NONE`] before there is any.
    usual: AtomicU32,
    usual_count: Cell,
    pub(super) duration: Histogram,
    pub(super) name: Option<Arc<str>>,
    /// Outcomes but for the usual one.
    others: Mutex<Vec<(Outcome, Arc<Cell>)>>,
}

impl RouteCells {
    pub(super) fn new(name: Option<Arc<str>>) -> Self {
        RouteCells {
            gone: AtomicBool::new(false),
            usual: AtomicU32::new(Outcome::NONE),
            usual_count: Cell::default(),
            duration: Histogram::default(),
            name,
            others: Mutex::default(),
        }
    }

    /// Counts one of the usual outcome, which the first one becomes; `false` if it is another.
    fn count_usual(&self, outcome: Outcome) -> bool {
        let usual = self.usual.load(Ordering::Relaxed);
        if usual == Outcome::NONE {
            self.usual.store(outcome.0, Ordering::Relaxed);
        } else if usual != outcome.0 {
            return false;
        }
        self.usual_count.add(1);
        true
    }

    /// Shows every outcome and how often it came.
    pub(super) fn each_outcome(&self, mut show: impl FnMut(Outcome, u64)) {
        let usual = self.usual.load(Ordering::Relaxed);
        if usual != Outcome::NONE {
            show(Outcome(usual), self.usual_count.get());
        }
        for (outcome, cell) in self.others.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            show(*outcome, cell.get());
        }
    }

    pub(super) fn keep(&self, keep: bool) -> bool {
        self.gone.fetch_or(!keep, Ordering::Relaxed);
        keep
    }
}

/// The worker's side of [`RouteCells`].
#[derive(Debug)]
pub(super) struct RouteLocal {
    cells: Arc<RouteCells>,
    others: Counters<Outcome>,
}

impl RouteLocal {
    pub(super) const fn new(cells: Arc<RouteCells>) -> Self {
        RouteLocal { cells, others: Counters::new() }
    }

    pub(super) fn is_live(&self) -> bool {
        !self.cells.gone.load(Ordering::Relaxed)
    }

    pub(super) fn count(&mut self, outcome: Outcome, duration: Duration) {
        self.cells.duration.observe(&BUCKETS_US, duration);
        if !self.cells.count_usual(outcome) {
            self.others.count(outcome, Outcome::class, &self.cells.others);
        }
    }
}

/// What one worker knows of one upstream.
#[derive(Debug)]
pub(super) struct UpstreamCells {
    pub(super) name: Arc<str>,
    gone: AtomicBool,
    pub(super) duration: Histogram,
    pub(super) targets: Mutex<Vec<Arc<TargetCells>>>,
}

/// Answers of one target by status; 0: no answer.
#[derive(Debug)]
pub(super) struct TargetCells {
    pub(super) name: Arc<str>,
    gone: AtomicBool,
    pub(super) codes: Mutex<Vec<(u16, Arc<Cell>)>>,
}

impl UpstreamCells {
    pub(super) fn new(name: Arc<str>) -> Self {
        UpstreamCells {
            name,
            gone: AtomicBool::new(false),
            duration: Histogram::default(),
            targets: Mutex::default(),
        }
    }

    /// Forgets other targets: discovered ones come and go, and each has a series.
    pub(super) fn retain_targets(&self, is_kept: impl Fn(&str) -> bool) {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).retain(|cells| {
            let kept = is_kept(&cells.name);
            cells.gone.fetch_or(!kept, Ordering::Relaxed);
            kept
        });
    }

    pub(super) fn keep(&self, keep: bool) -> bool {
        self.gone.fetch_or(!keep, Ordering::Relaxed);
        keep
    }
}

/// The worker's side of [`UpstreamCells`].
#[derive(Debug)]
pub(super) struct UpstreamLocal {
    cells: Arc<UpstreamCells>,
    targets: Slots<TargetLocal, TARGETS>,
}

#[derive(Debug)]
struct TargetLocal {
    cells: Arc<TargetCells>,
    codes: Counters<u16>,
}

impl UpstreamLocal {
    pub(super) fn new(cells: Arc<UpstreamCells>) -> Self {
        UpstreamLocal { cells, targets: Slots::default() }
    }

    pub(super) fn is_live(&self) -> bool {
        !self.cells.gone.load(Ordering::Relaxed)
    }

    pub(super) fn count(&mut self, target: Slot<'_>, status: Option<u16>, duration: Duration) {
        self.cells.duration.observe(&BUCKETS_US, duration);
        let UpstreamLocal { cells, targets } = self;
        let local = targets.get(
            target,
            |local| !local.cells.gone.load(Ordering::Relaxed),
            |name| {
                let mut known = cells.targets.lock().unwrap_or_else(PoisonError::into_inner);
                // A target that moved to another place in the list keeps its series.
                let found = known.iter().find(|cells| cells.name == *name).cloned();
                let target = found.unwrap_or_else(|| {
                    let made = Arc::new(TargetCells {
                        name: Arc::clone(name),
                        gone: AtomicBool::new(false),
                        codes: Mutex::default(),
                    });
                    known.push(Arc::clone(&made));
                    made
                });
                let mine = target.codes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                TargetLocal { cells: target, codes: Counters { mine } }
            },
        );
        local.codes.count(status.unwrap_or(0).min(999), |code| code - code % 100, &local.cells.codes);
    }
}

/// What one worker knows of one listener.
#[derive(Debug)]
pub(super) struct ListenerCells {
    pub(super) name: Arc<str>,
    pub(super) connections: Cell,
    /// By [`super::Handshake`].
    pub(super) handshakes: [Cell; 3],
}

impl ListenerCells {
    pub(super) fn new(name: Arc<str>) -> Self {
        ListenerCells { name, connections: Cell::default(), handshakes: Default::default() }
    }
}

/// How many slots' entries lie together, where there may be very many; most upstreams have few targets.
const CHUNK: usize = 16;
const TARGETS: usize = 2;

/// A worker's own list by slot. A slot that now belongs to another name gets a new entry. Entries lie in chunks, made
/// when the first of their slots is used: with many routes a request finds its own with one cache miss, as the chunks'
/// addresses are few enough to stay in the cache; and slots without traffic cost little.
#[derive(Debug)]
pub(super) struct Slots<T, const N: usize = CHUNK>(Vec<Option<Chunk<T, N>>>);

type Chunk<T, const N: usize> = Box<[Option<Entry<T>>; N]>;

#[derive(Debug)]
struct Entry<T> {
    name: Arc<str>,
    value: T,
}

impl<T, const N: usize> Default for Slots<T, N> {
    fn default() -> Self {
        Slots(Vec::new())
    }
}

impl<T, const N: usize> Slots<T, N> {
    /// The entry of a slot, made if there is none for this name or if it is not to be used any more.
    pub(super) fn get(
        &mut self,
        slot: Slot<'_>,
        is_live: impl Fn(&T) -> bool,
        make: impl FnOnce(&Arc<str>) -> T,
    ) -> &mut T {
        let index = slot.index as usize;
        let (chunk, place) = (index / N, index % N);
        if chunk >= self.0.len() {
            self.0.resize_with(chunk + 1, || None);
        }
        let chunk = self.0[chunk].get_or_insert_with(|| Box::new([const { None }; N]));
        let place = &mut chunk[place];
        let usable = match place {
            Some(entry) if Arc::ptr_eq(&entry.name, slot.name) => is_live(&entry.value),
            // Compiled anew under the same name: the next look is by pointer again.
            Some(entry) if entry.name == *slot.name => {
                entry.name = Arc::clone(slot.name);
                is_live(&entry.value)
            }
            _ => false,
        };
        if !usable {
            *place = None;
        }
        let entry = || Entry { name: Arc::clone(slot.name), value: make(slot.name) };
        &mut place.get_or_insert_with(entry).value
    }
}
