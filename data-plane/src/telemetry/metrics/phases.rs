//! Where the time of a request goes, phase by phase. Off unless `--phase-timing` asks for it: looking at the clock at
//! every step costs more than some of the steps.

use std::cell::Cell;

use tokio::time::Instant;

use super::WorkerMetrics;
use super::cells::{self, Histogram};

/// Upper bounds of the buckets, in microseconds: phases are shorter than requests.
pub(super) const BUCKETS_US: [u64; cells::BUCKETS_US.len()] =
    [1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 5_000, 25_000, 250_000, 5_000_000];

/// A part of a request's life. Each begins where the one before it ended; a request that is refused or answered here
/// has no phases that ask a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// From the first byte to a parsed head. Those of HTTP/2 are read before: there it is next to nothing.
    ReadHead,
    /// Request id and forwarding fields, host and path in the one form, the route.
    Route,
    /// The request side of the policies, the action, the target's choice, the head for it.
    RequestPolicies,
    /// Until there is a connection to the target: from the pool, or a new one.
    Connect,
    /// Sending the request, and waiting for the head of the final response.
    Upstream,
    /// The response side of the policies, and the head for the client.
    ResponseHead,
    /// Sending it with the body, until the last byte is gone, and giving the connection back.
    Body,
    /// Metrics and the request log.
    Report,
}

impl Phase {
    /// All of them, in order.
    pub const ALL: [Phase; 8] = [
        Phase::ReadHead,
        Phase::Route,
        Phase::RequestPolicies,
        Phase::Connect,
        Phase::Upstream,
        Phase::ResponseHead,
        Phase::Body,
        Phase::Report,
    ];

    /// As a label.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::ReadHead => "read_head",
            Phase::Route => "route",
            Phase::RequestPolicies => "request_policies",
            Phase::Connect => "connect",
            Phase::Upstream => "upstream",
            Phase::ResponseHead => "response_head",
            Phase::Body => "body",
            Phase::Report => "report",
        }
    }
}

/// One worker's histograms.
#[derive(Debug, Default)]
pub(super) struct PhaseCells([Histogram; Phase::ALL.len()]);

impl PhaseCells {
    pub(super) fn of(&self, phase: Phase) -> &Histogram {
        &self.0[phase as usize]
    }
}

/// When the phase began that a request is in; nothing while phases are not timed.
#[derive(Debug, Default)]
pub struct Stopwatch(Cell<Option<Instant>>);

impl Stopwatch {
    /// A request began.
    #[inline]
    pub fn start(&self, metrics: &WorkerMetrics, at: Instant) {
        self.0.set(metrics.phases.as_ref().map(|_| at));
    }

    /// A phase of it is over.
    #[inline]
    pub fn lap(&self, metrics: &WorkerMetrics, phase: Phase) {
        if let (Some(began), Some(cells)) = (self.0.get(), &metrics.phases) {
            let now = Instant::now();
            cells.of(phase).observe(&BUCKETS_US, now.duration_since(began));
            self.0.set(Some(now));
        }
    }
}
