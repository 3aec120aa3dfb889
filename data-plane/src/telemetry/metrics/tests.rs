//! Tests of `metrics.rs`.

use super::*;

fn name(text: &str) -> Arc<str> {
    Arc::from(text)
}

fn finished<'a>(route: Option<Slot<'a>>, status: u16, reason: Option<Reason>) -> Finished<'a> {
    Finished { route, method: Method::Get, status, reason, duration: Duration::from_micros(700) }
}

fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(start)).map(str::trim)
}

#[test]
fn cells_of_all_workers_are_summed_per_route_method_code_and_reason() {
    let metrics = Arc::new(Metrics::default());
    let users = name("default/users");
    let slot = Slot { index: 3, name: &users };
    let workers = [metrics.worker(), metrics.worker()];
    let _unfinished = workers.each_ref().map(|worker| {
        let unfinished = worker.request_started();
        let over = worker.request_started();
        worker.request_finished(&finished(Some(slot), 200, None));
        drop(over);
        let over = worker.request_started();
        worker.request_finished(&finished(None, 404, Some(Reason::NoRoute)));
        drop(over);
        worker.bytes(10, 20);
        unfinished
    });
    let text = metrics.render();
    let ok = r#"gateway_requests_total{route="default/users",method="GET",code="200",reason=""}"#;
    assert_eq!(line(&text, ok), Some("2"), "{text}");
    let refused = r#"gateway_requests_total{route="",method="GET",code="404",reason="no_route"}"#;
    assert_eq!(line(&text, refused), Some("2"), "{text}");
    assert_eq!(line(&text, "gateway_requests_in_flight"), Some("2"));
    assert_eq!(line(&text, r#"gateway_bytes_total{direction="sent"}"#), Some("40"));
    let bucket =
        |bound| format!(r#"gateway_request_duration_seconds_bucket{{route="default/users",le="{bound}"}}"#);
    assert_eq!(line(&text, &bucket("0.0005")), Some("0"));
    assert_eq!(line(&text, &bucket("0.001")), Some("2"));
    assert_eq!(line(&text, &bucket("+Inf")), Some("2"));
    assert_eq!(line(&text, r#"gateway_request_duration_seconds_count{route="default/users"}"#), Some("2"));
}

#[test]
fn a_slot_that_changes_hands_counts_for_its_new_name() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    for text in ["default/a", "default/b", "default/a"] {
        let name = name(text);
        worker.request_finished(&finished(Some(Slot { index: 0, name: &name }), 200, None));
    }
    let text = metrics.render();
    let of = |route: &str| {
        format!(r#"gateway_requests_total{{route="{route}",method="GET",code="200",reason=""}}"#)
    };
    assert_eq!(line(&text, &of("default/a")), Some("2"));
    assert_eq!(line(&text, &of("default/b")), Some("1"));
}

#[test]
fn slots_near_and_far_apart_are_counted_each_by_itself() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    // Neighbours, the last of one chunk and the first of the next, and one beyond chunks that nobody uses.
    for (times, index) in [(1, 40_000), (2, 16), (3, 15), (4, 1), (5, 0)] {
        let name = name(&format!("default/r{index}"));
        for _ in 0..times {
            worker.request_finished(&finished(Some(Slot { index, name: &name }), 200, None));
        }
    }
    let text = metrics.render();
    for (times, index) in [("1", 40_000), ("2", 16), ("3", 15), ("4", 1), ("5", 0)] {
        let series = format!(
            r#"gateway_requests_total{{route="default/r{index}",method="GET",code="200",reason=""}}"#
        );
        assert_eq!(line(&text, &series), Some(times), "{index}");
    }
}

#[test]
fn a_removed_route_leaves_no_series_and_comes_back_from_zero() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    let users = name("default/users");
    let slot = Slot { index: 0, name: &users };
    worker.request_finished(&finished(Some(slot), 200, None));
    metrics.retain(|_| false, |_| true);
    assert!(!metrics.render().contains("default/users"));
    worker.request_finished(&finished(Some(slot), 200, None));
    let series = r#"gateway_requests_total{route="default/users",method="GET",code="200",reason=""}"#;
    assert_eq!(line(&metrics.render(), series), Some("1"));
}

#[test]
fn an_upstream_that_answers_with_every_status_there_is_makes_a_bounded_number_of_series() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    let (users, target) = (name("default/users"), name("127.0.0.1:9101"));
    let (users, target) = (Slot { index: 0, name: &users }, Slot { index: 0, name: &target });
    for status in 100..1000 {
        worker.request_finished(&finished(Some(users), status, None));
        worker.upstream_finished(users, target, Some(status), Duration::ZERO);
    }
    worker.upstream_finished(users, target, None, Duration::ZERO);
    let text = metrics.render();
    for family in ["gateway_requests_total{", "gateway_upstream_requests_total{"] {
        let series = text.lines().filter(|line| line.starts_with(family)).count();
        assert!((256..=266).contains(&series), "{family} {series}");
    }
    let total: u64 = text
        .lines()
        .filter(|line| line.starts_with("gateway_requests_total{"))
        .map(|line| line.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok()).unwrap())
        .sum();
    assert_eq!(total, 900, "none is lost");
    assert_eq!(
        line(&text, r#"gateway_upstream_duration_seconds_count{upstream="default/users"}"#),
        Some("901")
    );
}

#[test]
fn a_target_that_is_gone_loses_its_series_and_one_that_comes_back_gets_another() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    let (users, one, two) = (name("default/users"), name("10.0.0.1:80"), name("10.0.0.2:80"));
    let users = Slot { index: 0, name: &users };
    let answer =
        |index, name| worker.upstream_finished(users, Slot { index, name }, Some(200), Duration::ZERO);
    let count = |target: &str| {
        let series = format!(
            r#"gateway_upstream_requests_total{{upstream="default/users",target="{target}",code="200"}}"#
        );
        line(&metrics.render(), &series).map(str::to_owned)
    };
    answer(0, &one);
    answer(1, &two);
    answer(1, &two);
    assert_eq!((count("10.0.0.1:80").as_deref(), count("10.0.0.2:80").as_deref()), (Some("1"), Some("2")));
    metrics.retain_targets("default/other", |_| false);
    metrics.retain_targets("default/users", |target| target == "10.0.0.2:80");
    assert_eq!((count("10.0.0.1:80"), count("10.0.0.2:80").as_deref()), (None, Some("2")));
    answer(0, &one);
    assert_eq!(count("10.0.0.1:80").as_deref(), Some("1"));
}

#[test]
fn connections_are_a_sum_over_workers_and_never_negative() {
    let metrics = Arc::new(Metrics::default());
    let (one, two) = (metrics.worker(), metrics.worker());
    let public = name("default/public");
    let slot = Slot { index: 0, name: &public };
    let series = r#"gateway_connections{listener="default/public"}"#;
    one.connection_opened(slot);
    one.connection_opened(slot);
    // Accepted by one worker, handed over to the other.
    two.connection_closed(slot);
    assert_eq!(line(&metrics.render(), series), Some("1"));
    one.connection_closed(slot);
    two.connection_closed(slot);
    assert_eq!(line(&metrics.render(), series), Some("0"));
}

#[test]
fn handshakes_are_counted_by_listener_and_result() {
    let metrics = Arc::new(Metrics::default());
    let (one, two) = (metrics.worker(), metrics.worker());
    let public = name("default/public");
    let slot = Slot { index: 0, name: &public };
    for (worker, result) in [(&one, Handshake::Done), (&two, Handshake::Done), (&one, Handshake::TimedOut)] {
        worker.handshake(slot, result);
    }
    let text = metrics.render();
    let count = |result| {
        line(
            &text,
            &format!(r#"gateway_tls_handshakes_total{{listener="default/public",result="{result}"}}"#),
        )
    };
    assert_eq!((count("ok"), count("timeout"), count("failed")), (Some("2"), Some("1"), None));
}

#[test]
fn ways_to_say_who_one_is_are_counted_by_scheme_and_result() {
    let metrics = Arc::new(Metrics::default());
    let (one, two) = (metrics.worker(), metrics.worker());
    for (worker, result) in [(&one, AuthResult::Ok), (&two, AuthResult::Ok), (&one, AuthResult::Expired)] {
        worker.auth(AuthScheme::Jwt, result);
    }
    let text = metrics.render();
    let count = |result| line(&text, &format!(r#"gateway_auth_total{{scheme="jwt",result="{result}"}}"#));
    assert_eq!((count("ok"), count("expired"), count("missing")), (Some("2"), Some("1"), None));
}

#[test]
fn the_control_plane_gauge_is_there_only_with_a_control_plane() {
    let metrics = Metrics::default();
    assert_eq!(line(&metrics.render(), "gateway_control_plane_connected"), None);
    metrics.control_plane_connected(true);
    assert_eq!(line(&metrics.render(), "gateway_control_plane_connected"), Some("1"));
    metrics.control_plane_connected(false);
    assert_eq!(line(&metrics.render(), "gateway_control_plane_connected"), Some("0"));
}

#[test]
fn a_configuration_shows_its_revision_its_cost_and_what_was_refused() {
    let metrics = Metrics::default();
    metrics.applied(7, Duration::from_millis(250));
    metrics.rejected(2);
    let text = metrics.render();
    assert_eq!(line(&text, "gateway_config_revision"), Some("7"));
    assert_eq!(line(&text, "gateway_config_last_apply_seconds"), Some("0.25"));
    assert_eq!(line(&text, "gateway_config_rejected_total"), Some("2"));
}

/// A strict reader of the text format: HELP, TYPE, then samples of that family; labels quoted and escaped; histogram
/// buckets cumulated and closed by `+Inf` equal to the count.
#[test]
fn the_text_is_what_a_prometheus_parser_takes() {
    let metrics = Arc::new(Metrics::default());
    let worker = metrics.worker();
    let odd = name("default/quo\"te\\back\nline");
    worker.request_finished(&finished(Some(Slot { index: 0, name: &odd }), 200, None));
    let text = metrics.render();
    let (mut family, mut kind, mut last_bucket) = (String::new(), String::new(), None::<f64>);
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            help.split_once(' ').expect("name and text").0.clone_into(&mut family);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, of) = typed.split_once(' ').expect("name and type");
            assert_eq!(name, family);
            assert!(["counter", "gauge", "histogram"].contains(&of));
            of.clone_into(&mut kind);
        } else {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let value: f64 = value.parse().expect("a number");
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let suffix = name.strip_prefix(family.as_str()).expect("a sample of the family");
            assert_eq!(kind == "histogram", ["_bucket", "_sum", "_count"].contains(&suffix), "{line}");
            check_labels(labels.strip_suffix('}').expect("closed"));
            if suffix == "_bucket" {
                assert!(last_bucket.is_none_or(|last| last <= value));
                last_bucket = Some(value);
            } else if suffix == "_count" {
                assert_eq!(last_bucket.take(), Some(value));
            }
        }
    }
    assert!(text.contains(r#"route="default/quo\"te\\back\nline""#), "{text}");
}

fn check_labels(mut rest: &str) {
    while !rest.is_empty() {
        let (name, value) = rest.split_once("=\"").expect("name=\"value\"");
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        rest = value[end.expect("closing quote") + 1..].trim_start_matches(',');
    }
}
