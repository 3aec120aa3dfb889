//! What `/metrics` shows, in one struct: the only place that knows the prometheus crate. Names are those of the
//! contract; labels are closed sets.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gateway_proto::kind::Kind;
use jiff::Timestamp;
use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::state::State;

/// Upper bounds of the duration histograms, in seconds.
const SECONDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// Every metric of the control plane.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    revision: IntGauge,
    objects: IntGaugeVec,
    /// Time of a commit in the store, in seconds.
    pub commit_seconds: Histogram,
    /// Commits that found the head moved.
    pub commit_conflicts: IntCounter,
    /// 1 while this replica does the chores.
    pub leader: IntGauge,
    /// Open streams.
    pub streams: IntGauge,
    /// Data planes refused because a later one has their name.
    pub twins: IntCounter,
    /// Connections that were closed unheard.
    pub turned_away: IntCounter,
    /// Transactions begun, by mode: `full`, `buckets`, `delta`.
    pub pushes: IntCounterVec,
    /// Bytes of messages handed to streams.
    pub bytes: IntCounter,
    /// From the last piece of a transaction to its acknowledgement, in seconds.
    pub ack_seconds: Histogram,
    /// Objects refused by data planes.
    pub rejects: IntCounter,
    /// Data planes found to hold what they should not.
    pub divergences: IntCounter,
    discovery: Discovered,
    scraping: Mutex<()>,
    ca_expiry: IntGaugeVec,
    certificate_expiry: IntGaugeVec,
}

/// What is said of discovery sources.
#[derive(Debug)]
struct Discovered {
    synced: IntGaugeVec,
    endpoints: IntGaugeVec,
    last_change: IntGaugeVec,
    lag: IntGaugeVec,
    errors: IntCounterVec,
}

/// Seconds until something ends.
#[derive(Clone, Debug, Default)]
pub struct Expiries {
    /// Each root of the control plane's CA, by state.
    pub roots: Vec<(&'static str, i64)>,
    /// The certificate that the stream's port shows; `None`: one of an own PKI.
    pub stream: Option<i64>,
    /// The first to end of those that connected data planes have shown; `None`: there is none.
    pub data_planes: Option<i64>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let registry = Registry::new();
        let counter = |name: &str, help: &str| keep(&registry, IntCounter::new(name, help));
        let gauge = |name: &str, help: &str| keep(&registry, IntGauge::new(name, help));
        let seconds = |name: &str, help: &str| {
            keep(&registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec())))
        };
        Metrics {
            revision: gauge("gateway_store_revision", "Revision that this replica has in memory."),
            objects: keep(
                &registry,
                IntGaugeVec::new(Opts::new("gateway_store_objects", "Objects at that revision."), &["kind"]),
            ),
            commit_seconds: seconds("gateway_store_commit_seconds", "Time of a commit."),
            commit_conflicts: counter(
                "gateway_store_commit_conflicts_total",
                "Commits that found the head moved.",
            ),
            leader: gauge("gateway_store_leader", "1 while this replica does the chores."),
            streams: gauge("gateway_stream_streams", "Open streams to data planes."),
            twins: counter(
                "gateway_stream_twins_total",
                "Streams refused because a data plane that was started later has the same --node.",
            ),
            turned_away: counter(
                "gateway_stream_turned_away_total",
                "Connections of the stream's port that were closed because too many had not opened a stream.",
            ),
            pushes: keep(
                &registry,
                IntCounterVec::new(
                    Opts::new("gateway_stream_pushes_total", "Transactions begun."),
                    &["mode"],
                ),
            ),
            bytes: counter("gateway_stream_bytes_total", "Bytes of messages handed to streams."),
            ack_seconds: seconds(
                "gateway_stream_ack_seconds",
                "From a transaction's last piece to its acknowledgement.",
            ),
            rejects: counter("gateway_stream_rejects_total", "Objects refused by data planes."),
            divergences: counter(
                "gateway_stream_divergences_total",
                "Data planes found to hold what they should not; must stay 0.",
            ),
            discovery: Discovered::new(&registry),
            scraping: Mutex::default(),
            ca_expiry: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "gateway_ca_expiry_seconds",
                        "Seconds until a root of the control plane's CA ends.",
                    ),
                    &["state"],
                ),
            ),
            certificate_expiry: keep(
                &registry,
                IntGaugeVec::new(
                    Opts::new(
                        "gateway_stream_certificate_expiry_seconds",
                        "Seconds until the certificate of the stream's port, or the first of the connected data planes', ends.",
                    ),
                    &["of"],
                ),
            ),
            registry,
        }
    }

    /// Forgets the discovery sources: those that there are follow. Held until all is rendered, it keeps another scrape
    /// from counting them twice.
    pub fn forget_sources(&self) -> MutexGuard<'_, ()> {
        let turn = self.scraping.lock().unwrap_or_else(PoisonError::into_inner);
        let Discovered { synced, endpoints, last_change, lag, errors } = &self.discovery;
        [synced, endpoints, last_change, lag].into_iter().for_each(IntGaugeVec::reset);
        errors.reset();
        turn
    }

    /// What is known of a discovery source.
    pub fn source(&self, source: SourceSeen<'_>) {
        let Discovered { synced, endpoints, last_change, lag, errors } = &self.discovery;
        let set = |gauge: &IntGaugeVec, value: i64| gauge.with_label_values(&[source.name]).set(value);
        set(synced, i64::from(source.synced));
        set(endpoints, i64::try_from(source.endpoints).unwrap_or(i64::MAX));
        errors.with_label_values(&[source.name]).inc_by(source.errors);
        if let Some(at) = source.changed_at {
            set(last_change, at.as_second());
        }
        match source.read_at {
            _ if source.synced => set(lag, 0),
            Some(at) => set(lag, Timestamp::now().as_second() - at.as_second()),
            None => {}
        }
    }

    /// How long certificates last from now.
    pub fn expiries(&self, expiries: &Expiries) {
        self.ca_expiry.reset();
        for (state, seconds) in &expiries.roots {
            self.ca_expiry.with_label_values(&[state]).set(*seconds);
        }
        self.certificate_expiry.reset();
        for (of, seconds) in [("control_plane", expiries.stream), ("data_planes", expiries.data_planes)] {
            if let Some(seconds) = seconds {
                self.certificate_expiry.with_label_values(&[of]).set(seconds);
            }
        }
    }

    /// The exposition format, with the figures of a state.
    pub fn render(&self, state: &State) -> String {
        self.revision.set(i64::try_from(state.head.revision).unwrap_or(i64::MAX));
        // Credentials are no part of a state.
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Credential) {
            self.objects.with_label_values(&[kind.as_str()]).set(0);
        }
        for (key, _) in state.objects.iter() {
            self.objects.with_label_values(&[key.kind.as_str()]).inc();
        }
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be rendered");
        }
        text
    }
}

/// What is known of a discovery source.
#[derive(Clone, Copy, Debug)]
pub struct SourceSeen<'s> {
    /// `namespace/name`.
    pub name: &'s str,
    /// It can be read.
    pub synced: bool,
    /// Instances that it tells of.
    pub endpoints: u64,
    /// How often it could not be read.
    pub errors: u64,
    /// When it was read last.
    pub read_at: Option<Timestamp>,
    /// When it last said something else than before.
    pub changed_at: Option<Timestamp>,
}

impl Discovered {
    fn new(registry: &Registry) -> Self {
        let gauge = |name: &str, help: &str| {
            keep(
                registry,
                IntGaugeVec::new(Opts::new(format!("gateway_discovery_{name}"), help), &["source"]),
            )
        };
        Discovered {
            synced: gauge("synced", "1 while a source can be read."),
            endpoints: gauge("endpoints", "Instances that a source tells of."),
            last_change: gauge(
                "last_change_timestamp_seconds",
                "When a source last said something else than before.",
            ),
            lag: gauge("lag_seconds", "How old what is known of a source is, while it cannot be read."),
            errors: keep(
                registry,
                IntCounterVec::new(
                    Opts::new(
                        "gateway_discovery_errors_total",
                        "How often a source could not be read since it is followed.",
                    ),
                    &["source"],
                ),
            ),
        }
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics::new()
    }
}

fn keep<M: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: prometheus::Result<M>,
) -> M {
    let metric = metric.expect("names and labels are constants of valid form");
    registry.register(Box::new(metric.clone())).expect("every name is registered once");
    metric
}
