//! Counters of the hot path and their sums. A worker owns its cells: it finds them by slot, adds without locks or
//! read-modify-write instructions, and is their only writer. A cell is made (and announced to the collector under
//! a short lock) at its first use, so that 100,000 routes without traffic cost nothing.
//!
//! Invariant: every label value comes from configuration or from a closed list, so the number of series is bounded;
//! names are compared by pointer on the hot path and never formatted there.

mod cells;
mod exposition;
mod phases;

use std::cell::RefCell;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gateway_engine::policy::{AuthResult, AuthScheme};
use gateway_engine::reject::Reason;

pub use phases::{Phase, Stopwatch};

use cells::{Cell, ListenerCells, Outcome, RouteCells, RouteLocal, Slots, UpstreamCells, UpstreamLocal};
use phases::PhaseCells;

/// A configured object as the hot path knows it: dense number and name. Slots may be reused for another name.
#[derive(Clone, Copy, Debug)]
pub struct Slot<'a> {
    /// The engine's number for it.
    pub index: u32,
    /// `namespace/name` (for a target: its address as configured); compared by pointer first.
    pub name: &'a Arc<str>,
}

/// Request methods as a label: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Connect,
    Trace,
    /// Any other: clients could invent as many as they like.
    Other,
}

impl Method {
    const NAMES: [&'static str; 10] =
        ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "other"];

    /// The label for a method as received.
    pub fn of(method: &[u8]) -> Self {
        match method {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"PATCH" => Method::Patch,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"CONNECT" => Method::Connect,
            b"TRACE" => Method::Trace,
            _ => Method::Other,
        }
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug)]
pub struct Finished<'a> {
    /// The route that took it; none: it was refused before one was found.
    pub route: Option<Slot<'a>>,
    /// As a label.
    pub method: Method,
    /// Status sent, 100 to 999; 0: the client went away before one could be sent.
    pub status: u16,
    /// Set when the proxy made the response (or broke it off) itself.
    pub reason: Option<Reason>,
    /// First byte of the request head to last byte of the response.
    pub duration: Duration,
}

/// How a TLS handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Handshake {
    /// Requests can come.
    Done,
    /// One side did not like what the other said, or the client went away.
    Failed,
    /// It took too long.
    TimedOut,
}

impl Handshake {
    const NAMES: [&'static str; 3] = ["ok", "failed", "timeout"];
}

/// Every metric of this process. Made once, shared; [`Metrics::render`] is the only reader.
#[derive(Debug, Default)]
pub struct Metrics {
    times_phases: bool,
    config_revision: AtomicU64,
    last_apply_nanos: AtomicU64,
    config_rejected: AtomicU64,
    request_log_dropped: AtomicU64,
    /// 0: there is no control plane to be connected to; 1: away; 2: connected.
    control_plane: AtomicU64,
    /// End of the certificate that is shown to control planes, in seconds since 1970; 0: none is.
    certificate_expires: AtomicI64,
    series: Mutex<Series>,
}

/// What the collector sums: the cells of all workers.
#[derive(Debug, Default)]
struct Series {
    workers: Vec<Arc<ProcessCells>>,
    phases: Vec<Arc<PhaseCells>>,
    routes: Vec<Arc<RouteCells>>,
    upstreams: Vec<Arc<UpstreamCells>>,
    listeners: Vec<Arc<ListenerCells>>,
}

/// A worker's cells without labels.
#[derive(Debug, Default)]
struct ProcessCells {
    in_flight: Cell,
    received: Cell,
    sent: Cell,
    auth: [[Cell; AuthResult::ALL.len()]; AuthScheme::ALL.len()],
}

impl Metrics {
    /// With [`Phase`]s timed, or without, as by default.
    pub fn new(times_phases: bool) -> Self {
        Metrics { times_phases, ..Metrics::default() }
    }

    /// The cells of one more worker.
    pub fn worker(self: &Arc<Self>) -> WorkerMetrics {
        let process = Arc::new(ProcessCells::default());
        let phases = self.times_phases.then(Arc::<PhaseCells>::default);
        let mut series = self.series();
        series.workers.push(Arc::clone(&process));
        series.phases.extend(phases.clone());
        WorkerMetrics {
            metrics: Arc::clone(self),
            process,
            phases,
            unrouted: RefCell::default(),
            routes: RefCell::default(),
            upstreams: RefCell::default(),
            listeners: RefCell::default(),
        }
    }

    /// A configuration went into service.
    pub fn applied(&self, revision: u64, took: Duration) {
        self.config_revision.store(revision, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.last_apply_nanos.store(nanos, Ordering::Relaxed);
    }

    /// So many objects, or a whole configuration, were refused.
    pub fn rejected(&self, count: u64) {
        self.config_rejected.fetch_add(count, Ordering::Relaxed);
    }

    /// Lines of the request log were lost.
    pub fn request_log_dropped(&self, lines: u64) {
        self.request_log_dropped.fetch_add(lines, Ordering::Relaxed);
    }

    /// The stream to the control plane came up or went away.
    pub fn control_plane_connected(&self, connected: bool) {
        self.control_plane.store(if connected { 2 } else { 1 }, Ordering::Relaxed);
    }

    /// The certificate that is shown to control planes ends then, in seconds since 1970.
    pub fn certificate_expires(&self, at: Option<i64>) {
        self.certificate_expires.store(at.unwrap_or(0), Ordering::Relaxed);
    }

    /// Drops the series of routes and upstreams that are configured no more; what still ends on them is counted
    /// nowhere. Listeners are few, and their connections outlive them: they stay.
    pub fn retain(&self, route: impl Fn(&str) -> bool, upstream: impl Fn(&str) -> bool) {
        let mut series = self.series();
        series.routes.retain(|cells| cells.keep(cells.name.as_deref().is_none_or(&route)));
        series.upstreams.retain(|cells| cells.keep(upstream(&cells.name)));
    }

    /// Forgets the series of an upstream's other targets.
    pub fn retain_targets(&self, upstream: &str, is_kept: impl Fn(&str) -> bool) {
        let series = self.series();
        series
            .upstreams
            .iter()
            .filter(|cells| *cells.name == *upstream)
            .for_each(|cells| cells.retain_targets(&is_kept));
    }

    /// All of it in the Prometheus text format.
    pub fn render(&self) -> String {
        exposition::render(self)
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        // Nothing under this lock can leave the lists half changed: a poisoned lock is as good as new.
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cells of one worker: `Send`, so that it can be handed to its thread, but not `Sync`.
#[derive(Debug)]
pub struct WorkerMetrics {
    metrics: Arc<Metrics>,
    process: Arc<ProcessCells>,
    /// `None`: phases are not timed.
    phases: Option<Arc<PhaseCells>>,
    unrouted: RefCell<Option<Box<RouteLocal>>>,
    routes: RefCell<Slots<RouteLocal>>,
    upstreams: RefCell<Slots<UpstreamLocal>>,
    listeners: RefCell<Slots<Arc<ListenerCells>>>,
}

/// A request that is counted as in flight.
#[derive(Debug)]
#[must_use = "dropped, the request is over"]
pub struct InFlight<'a>(&'a ProcessCells);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.sub(1);
    }
}

impl WorkerMetrics {
    /// A request head is in. It is in flight until the guard is dropped, whatever becomes of its task.
    pub fn request_started(&self) -> InFlight<'_> {
        self.process.in_flight.add(1);
        InFlight(&self.process)
    }

    /// A request is over, its body sent or broken off.
    pub fn request_finished(&self, end: &Finished<'_>) {
        let outcome = Outcome::new(end.method, end.status, end.reason);
        match end.route {
            Some(slot) => {
                let mut routes = self.routes.borrow_mut();
                let local = routes.get(slot, RouteLocal::is_live, |name| self.route_cells(Some(name)));
                local.count(outcome, end.duration);
            }
            None => {
                let mut unrouted = self.unrouted.borrow_mut();
                let local = unrouted.get_or_insert_with(|| Box::new(self.route_cells(None)));
                local.count(outcome, end.duration);
            }
        }
    }

    /// A connection was accepted on a listener. Pair it with one [`WorkerMetrics::connection_closed`].
    pub fn connection_opened(&self, listener: Slot<'_>) {
        self.listener(listener, |cells| cells.connections.add(1));
    }

    /// A connection of a listener is gone.
    pub fn connection_closed(&self, listener: Slot<'_>) {
        self.listener(listener, |cells| cells.connections.sub(1));
    }

    /// A TLS handshake on a listener is over.
    pub fn handshake(&self, listener: Slot<'_>, result: Handshake) {
        self.listener(listener, |cells| cells.handshakes[result as usize].add(1));
    }

    /// A way to say who one is was tried.
    pub fn auth(&self, scheme: AuthScheme, result: AuthResult) {
        self.process.auth[scheme as usize][result as usize].add(1);
    }

    /// Bytes of requests received from and of responses sent to clients, heads and bodies.
    pub fn bytes(&self, received: u64, sent: u64) {
        self.process.received.add(received);
        self.process.sent.add(sent);
    }

    /// An attempt on a target is over. `status` is none when no response head came; `duration` runs from picking
    /// the target to the response head.
    pub fn upstream_finished(
        &self,
        upstream: Slot<'_>,
        target: Slot<'_>,
        status: Option<u16>,
        duration: Duration,
    ) {
        let mut upstreams = self.upstreams.borrow_mut();
        let local = upstreams.get(upstream, UpstreamLocal::is_live, |name| {
            let cells = Arc::new(UpstreamCells::new(Arc::clone(name)));
            self.metrics.series().upstreams.push(Arc::clone(&cells));
            UpstreamLocal::new(cells)
        });
        local.count(target, status, duration);
    }

    fn listener(&self, slot: Slot<'_>, change: impl FnOnce(&ListenerCells)) {
        let mut listeners = self.listeners.borrow_mut();
        let cells = listeners.get(
            slot,
            |_| true,
            |name| {
                let cells = Arc::new(ListenerCells::new(Arc::clone(name)));
                self.metrics.series().listeners.push(Arc::clone(&cells));
                cells
            },
        );
        change(cells);
    }

    fn route_cells(&self, name: Option<&Arc<str>>) -> RouteLocal {
        let cells = Arc::new(RouteCells::new(name.cloned()));
        self.metrics.series().routes.push(Arc::clone(&cells));
        RouteLocal::new(cells)
    }
}

#[cfg(test)]
mod tests;
