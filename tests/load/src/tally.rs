//! What came back: good answers with their latency, and every kind of answer that was not good.

use std::time::Duration;

use serde_json::{Value, json};

use crate::histogram::Histogram;

/// Why an exchange did not count as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The status was not 200.
    Status,
    /// The body was shorter or longer than asked for.
    Body,
    /// The connection ended, or the bytes made no sense, before the answer was complete.
    Broken,
    /// No connection could be made.
    Connect,
    /// No complete answer before the run ended.
    Unanswered,
}

/// Counts of one run. Errors count from the first byte, everything else from [`Tally::measure`].
#[derive(Debug, Default)]
pub(crate) struct Tally {
    good: u64,
    latencies: Histogram,
    failures: [u64; 5],
    connects: u64,
    /// Connections that the other side ended between two requests: allowed, but worth knowing.
    closed_between: u64,
}

impl Tally {
    /// The warm-up is over.
    pub(crate) fn measure(&mut self) {
        *self = Tally { failures: self.failures, ..Tally::default() };
    }

    pub(crate) fn good(&mut self, latency_ns: u64) {
        self.good += 1;
        self.latencies.record(latency_ns);
    }

    pub(crate) fn failed(&mut self, failure: Failure) {
        self.failures[failure as usize] += 1;
    }

    pub(crate) fn connected(&mut self) {
        self.connects += 1;
    }

    pub(crate) fn closed_between(&mut self) {
        self.closed_between += 1;
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.iter().sum()
    }

    /// The report; latencies in microseconds.
    pub(crate) fn report(&self, measured: Duration) -> Value {
        let micros = |share| self.latencies.quantile(share).map(|ns| ns as f64 / 1000.0);
        let [status, body, broken, connect, unanswered] = self.failures;
        json!({
            "event": "done",
            "requests": self.good,
            "seconds": measured.as_secs_f64(),
            "perSecond": self.good as f64 / measured.as_secs_f64().max(1e-9),
            "p50": micros(0.5), "p90": micros(0.9), "p99": micros(0.99), "p999": micros(0.999),
            "max": self.latencies.largest() as f64 / 1000.0,
            "errors": self.failures(),
            "failures": { "status": status, "body": body, "broken": broken, "connect": connect, "unanswered": unanswered },
            "connects": self.connects,
            "closedBetween": self.closed_between,
        })
    }
}
