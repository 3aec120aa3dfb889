//! The collector: sums the workers' cells by name and renders them in the Prometheus text format. The only file that
//! knows metric names and the `prometheus` crate, which is used for its types and encoder alone.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_engine::policy::{AuthResult, AuthScheme};
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::cells::{BUCKETS_US, HistogramTotal, Outcome, RouteCells, UpstreamCells};
use super::phases::{BUCKETS_US as PHASE_BUCKETS_US, PhaseCells};
use super::{Handshake, Metrics, Phase, ProcessCells, Series};

/// Everything, as text. Families without a series are left out.
pub(super) fn render(metrics: &Metrics) -> String {
    let mut families = process_families(metrics);
    {
        let series = metrics.series();
        worker_families(&series, &mut families);
        phase_family(&series.phases, &mut families);
        route_families(&series.routes, &mut families);
        upstream_families(&series.upstreams, &mut families);
    }
    families.retain(|family| !family.get_metric().is_empty());
    // Fails only for families without metrics or names, and there are none.
    TextEncoder::new().encode_to_string(&families).unwrap_or_default()
}

fn process_families(metrics: &Metrics) -> Vec<MetricFamily> {
    let load = |cell: &std::sync::atomic::AtomicU64| cell.load(Ordering::Relaxed) as f64;
    let mut families = vec![
        family(
            "gateway_config_revision",
            "Revision of the configuration in service; 0: none yet, or it comes from files.",
            MetricType::GAUGE,
            vec![gauge(&[], load(&metrics.config_revision))],
        ),
        family(
            "gateway_config_last_apply_seconds",
            "How long the last change of configuration took to compile, bind and swap.",
            MetricType::GAUGE,
            vec![gauge(&[], load(&metrics.last_apply_nanos) / 1e9)],
        ),
        family(
            "gateway_config_rejected_total",
            "Objects of the configuration that this data plane refused.",
            MetricType::COUNTER,
            vec![counter(&[], metrics.config_rejected.load(Ordering::Relaxed))],
        ),
        family(
            "gateway_request_log_dropped_total",
            "Lines of the request log that were lost: its disk or reader is too slow, or fails.",
            MetricType::COUNTER,
            vec![counter(&[], metrics.request_log_dropped.load(Ordering::Relaxed))],
        ),
    ];
    let control_plane = metrics.control_plane.load(Ordering::Relaxed);
    if control_plane > 0 {
        families.push(family(
            "gateway_control_plane_connected",
            "1 while the stream to a control plane is up.",
            MetricType::GAUGE,
            vec![gauge(&[], (control_plane - 1) as f64)],
        ));
    }
    let expires = metrics.certificate_expires.load(Ordering::Relaxed);
    if expires != 0 {
        families.push(family(
            "gateway_certificate_expiry_seconds",
            "Seconds until the certificate ends that is shown to control planes; below 0: it has ended.",
            MetricType::GAUGE,
            vec![gauge(&[], (expires - jiff::Timestamp::now().as_second()) as f64)],
        ));
    }
    families
}

fn worker_families(series: &Series, families: &mut Vec<MetricFamily>) {
    let (mut in_flight, mut received, mut sent) = (0_u64, 0_u64, 0_u64);
    for worker in &series.workers {
        in_flight = in_flight.wrapping_add(worker.in_flight.get());
        received = received.wrapping_add(worker.received.get());
        sent = sent.wrapping_add(worker.sent.get());
    }
    families.push(auth_family(&series.workers));
    let mut connections = BTreeMap::<&str, u64>::new();
    let mut handshakes = BTreeMap::<(&str, &str), u64>::new();
    for cells in &series.listeners {
        let sum = connections.entry(&cells.name).or_default();
        *sum = sum.wrapping_add(cells.connections.get());
        for (result, cell) in Handshake::NAMES.into_iter().zip(&cells.handshakes) {
            let count = cell.get();
            if count > 0 {
                *handshakes.entry((&cells.name, result)).or_default() += count;
            }
        }
    }
    families.push(family(
        "gateway_requests_in_flight",
        "Requests whose head is in and whose response is not complete.",
        MetricType::GAUGE,
        vec![gauge(&[], at_least_zero(in_flight))],
    ));
    families.push(family(
        "gateway_connections",
        "Open client connections.",
        MetricType::GAUGE,
        connections.iter().map(|(name, &sum)| gauge(&[("listener", name)], at_least_zero(sum))).collect(),
    ));
    let handshake = |(&(listener, result), &count): (&(&str, &str), &u64)| {
        counter(&[("listener", listener), ("result", result)], count)
    };
    families.push(family(
        "gateway_tls_handshakes_total",
        "TLS handshakes with clients, by how they ended.",
        MetricType::COUNTER,
        handshakes.iter().map(handshake).collect(),
    ));
    families.push(family(
        "gateway_bytes_total",
        "Bytes of heads and bodies received from and sent to clients.",
        MetricType::COUNTER,
        vec![counter(&[("direction", "received")], received), counter(&[("direction", "sent")], sent)],
    ));
}

fn auth_family(workers: &[Arc<ProcessCells>]) -> MetricFamily {
    let mut counters = Vec::new();
    for scheme in AuthScheme::ALL {
        for result in AuthResult::ALL {
            let cells = workers.iter().map(|worker| worker.auth[scheme as usize][result as usize].get());
            let count = cells.fold(0, u64::wrapping_add);
            if count > 0 {
                counters.push(counter(&[("scheme", scheme.name()), ("result", result.name())], count));
            }
        }
    }
    family(
        "gateway_auth_total",
        "Ways to say who one is that requests were asked for, by what became of it.",
        MetricType::COUNTER,
        counters,
    )
}

fn phase_family(workers: &[Arc<PhaseCells>], families: &mut Vec<MetricFamily>) {
    let totals = Phase::ALL.map(|phase| {
        let mut total = HistogramTotal::default();
        workers.iter().for_each(|cells| cells.of(phase).add_to(&mut total));
        (phase, total)
    });
    let timed = totals.iter().filter(|_| !workers.is_empty());
    families.push(family(
        "gateway_phase_duration_seconds",
        "Time that requests spend in each phase of their life; only with --phase-timing.",
        MetricType::HISTOGRAM,
        timed.map(|(phase, total)| histogram(&[("phase", phase.name())], &PHASE_BUCKETS_US, total)).collect(),
    ));
}

fn route_families(routes: &[Arc<RouteCells>], families: &mut Vec<MetricFamily>) {
    let mut counts = BTreeMap::<(&str, Outcome), u64>::new();
    let mut durations = BTreeMap::<&str, HistogramTotal>::new();
    for cells in routes {
        let name = cells.name.as_deref().unwrap_or_default();
        cells.each_outcome(|outcome, count| *counts.entry((name, outcome)).or_default() += count);
        cells.duration.add_to(durations.entry(name).or_default());
    }
    let requests = counts.iter().map(|((route, outcome), &count)| {
        let code = code(outcome.status());
        let labels = [
            ("route", *route),
            ("method", outcome.method()),
            ("code", code.as_str()),
            ("reason", outcome.reason()),
        ];
        counter(&labels, count)
    });
    families.push(family(
        "gateway_requests_total",
        "Requests by route (empty: none matched), method, status and the reason when the proxy itself answered.",
        MetricType::COUNTER,
        requests.collect(),
    ));
    families.push(family(
        "gateway_request_duration_seconds",
        "From the first byte of the request to the last of the response.",
        MetricType::HISTOGRAM,
        durations.iter().map(|(route, total)| histogram(&[("route", route)], &BUCKETS_US, total)).collect(),
    ));
}

fn upstream_families(upstreams: &[Arc<UpstreamCells>], families: &mut Vec<MetricFamily>) {
    let mut counts = BTreeMap::<(&str, Arc<str>, u16), u64>::new();
    let mut durations = BTreeMap::<&str, HistogramTotal>::new();
    for cells in upstreams {
        for target in lock(&cells.targets).iter() {
            for (code, cell) in lock(&target.codes).iter() {
                *counts.entry((&cells.name, Arc::clone(&target.name), *code)).or_default() += cell.get();
            }
        }
        cells.duration.add_to(durations.entry(&cells.name).or_default());
    }
    let requests = counts.iter().map(|((upstream, target, status), &count)| {
        let code = code(*status);
        counter(&[("upstream", *upstream), ("target", target.as_ref()), ("code", code.as_str())], count)
    });
    families.push(family(
        "gateway_upstream_requests_total",
        "Attempts on targets by the status they answered; code \"none\": no answer.",
        MetricType::COUNTER,
        requests.collect(),
    ));
    families.push(family(
        "gateway_upstream_duration_seconds",
        "From choosing a target to the head of its response, or to giving up.",
        MetricType::HISTOGRAM,
        durations
            .iter()
            .map(|(upstream, total)| histogram(&[("upstream", upstream)], &BUCKETS_US, total))
            .collect(),
    ));
}

/// A status as label: 0 stands for "there was none".
fn code(status: u16) -> String {
    if status == 0 { "none".to_owned() } else { status.to_string() }
}

/// The cells of a gauge are read one after the other while others write: its sum can be off for a moment.
fn at_least_zero(sum: u64) -> f64 {
    sum.cast_signed().max(0) as f64
}

fn lock<T>(list: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    list.lock().unwrap_or_else(PoisonError::into_inner)
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    pairs.iter().map(pair).collect()
}

fn counter(pairs: &[(&str, &str)], value: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(value as f64);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_counter(counter);
    metric
}

fn gauge(pairs: &[(&str, &str)], value: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(value);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_gauge(gauge);
    metric
}

fn histogram(pairs: &[(&str, &str)], bounds_us: &[u64; BUCKETS_US.len()], total: &HistogramTotal) -> Metric {
    let mut cumulated = 0;
    let mut buckets = Vec::with_capacity(bounds_us.len());
    for (&bound, count) in bounds_us.iter().zip(total.buckets) {
        cumulated += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(bound as f64 / 1e6);
        bucket.set_cumulative_count(cumulated);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(total.buckets.iter().sum());
    histogram.set_sample_sum(total.sum_nanos as f64 / 1e9);
    let mut metric = Metric::from_label(labels(pairs));
    metric.set_histogram(histogram);
    metric
}
