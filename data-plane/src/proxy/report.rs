//! What a request leaves behind: metrics and a line in the request log, once, when its last byte is gone.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_engine::reject::Reason;
use gateway_http1::Method;
use tokio::time::Instant;

use super::Job;
use super::forward::Fault;
use super::plan::Course;
use crate::server::listener::View;
use crate::telemetry::metrics::{self, Finished, Phase, Slot};
use crate::telemetry::request_log::Record;
use crate::upstream::Picked;

/// Filled along the way.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Status sent; 0: none could be.
    pub(crate) status: u16,
    /// Set when the gateway refused the request, or the response did not get to the client whole.
    pub(crate) reason: Option<Reason>,
    /// The last target asked.
    pub(crate) target: Option<Picked>,
    /// When its last byte was gone, if somebody looked at the clock then.
    pub(crate) ended: Option<Instant>,
}

impl Ledger {
    /// A response that had begun was not completed.
    pub(crate) fn broke_off(&mut self, fault: Fault) {
        self.reason = Some(match fault {
            Fault::ClientGone => Reason::ClientClosed,
            Fault::Client(reason) | Fault::Target(reason) => reason,
        });
    }
}

/// An attempt on a target is over: its response head came just now, or nothing will.
pub(crate) fn attempt(job: &Job<'_>, picked: &Picked, answered: Option<u16>, now: Instant) {
    let upstream = picked.upstream.spec();
    job.worker.metrics.upstream_finished(
        Slot { index: upstream.slot.0, name: &upstream.name },
        Slot { index: picked.target as u32, name: picked.upstream.label(picked.target) },
        answered,
        now.duration_since(job.asked.started),
    );
}

/// What the report says about the configuration that a request was served by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    route: Option<Slot<'a>>,
    listener: &'a str,
    revision: u64,
    client: IpAddr,
}

impl<'a> Facts<'a> {
    /// Borrowed from the configuration.
    pub(crate) fn new(course: &Course<'a>, view: &'a View) -> Self {
        Facts {
            route: course.route.map(|route| Slot { index: route.slot.0, name: &route.name }),
            listener: &view.listener.name,
            revision: view.snapshot.revision,
            client: course.origin.ip,
        }
    }
}

/// The same for a request that outlives its configuration.
#[derive(Debug)]
pub(crate) struct Kept {
    route: Option<(u32, Arc<str>)>,
    listener: Arc<str>,
    revision: u64,
    client: IpAddr,
}

impl Kept {
    /// Copies what the report will need.
    pub(crate) fn new(course: &Course<'_>, view: &View) -> Self {
        Kept {
            route: course.route.map(|route| (route.slot.0, Arc::clone(&route.name))),
            listener: Arc::clone(&view.listener.name),
            revision: view.snapshot.revision,
            client: course.origin.ip,
        }
    }

    /// As it is reported.
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            route: self.route.as_ref().map(|(index, name)| Slot { index: *index, name }),
            listener: &self.listener,
            revision: self.revision,
            client: self.client,
        }
    }
}

/// The request is over.
pub(crate) fn finish(job: &Job<'_>, facts: Facts<'_>, bytes: (u64, u64), ledger: &Ledger) {
    job.lap(Phase::Body);
    let (received, sent) = bytes;
    let duration = ledger.ended.unwrap_or_else(Instant::now).duration_since(job.asked.started);
    let metrics = &job.worker.metrics;
    metrics.bytes(received, sent);
    metrics.request_finished(&Finished {
        route: facts.route,
        method: label(job.asked.method),
        status: ledger.status,
        reason: ledger.reason,
        duration,
    });
    if job.worker.log.enabled() {
        log(job, facts, bytes, ledger, duration);
    }
    job.lap(Phase::Report);
}

fn log(job: &Job<'_>, facts: Facts<'_>, (received, sent): (u64, u64), ledger: &Ledger, duration: Duration) {
    let target = ledger.target.as_ref();
    job.worker.log.write(&Record {
        request_id: &job.exchange.id,
        revision: facts.revision,
        listener: facts.listener,
        route: facts.route.map(|route| &**route.name),
        method: &job.exchange.method,
        host: &job.exchange.host,
        path: &job.exchange.path,
        status: ledger.status,
        reason: ledger.reason,
        bytes_received: received,
        bytes_sent: sent,
        duration,
        upstream: target.map(|picked| &*picked.upstream.spec().name),
        target: target.map(|picked| &**picked.upstream.label(picked.target)),
        client: facts.client,
    });
}

/// Something that was no request is over.
pub(crate) fn finish_unread(job: &Job<'_>, bytes: (u64, u64), reason: Reason) {
    let metrics = &job.worker.metrics;
    metrics.bytes(bytes.0, bytes.1);
    metrics.request_finished(&Finished {
        route: None,
        method: metrics::Method::Other,
        status: reason.status(),
        reason: Some(reason),
        duration: job.asked.started.elapsed(),
    });
}

/// The method as a metric's label.
pub(crate) const fn label(method: Method) -> metrics::Method {
    match method {
        Method::Get => metrics::Method::Get,
        Method::Head => metrics::Method::Head,
        Method::Post => metrics::Method::Post,
        Method::Put => metrics::Method::Put,
        Method::Patch => metrics::Method::Patch,
        Method::Delete => metrics::Method::Delete,
        Method::Options => metrics::Method::Options,
        Method::Connect => metrics::Method::Connect,
        Method::Trace => metrics::Method::Trace,
        Method::Other => metrics::Method::Other,
    }
}
