//! Tests of `line.rs`: each rule, and random histories against a model of what may be served.

use proptest::prelude::*;

use super::*;

fn query(service: &str, tags: &[&str]) -> Query {
    let tags = tags.iter().map(|tag| Box::from(*tag)).collect();
    Query { source: "default/s".into(), service: service.into(), tags }
}

fn found(count: usize) -> Found {
    let instance =
        |n| Instance { address: format!("10.0.0.{n}:80"), weight: 1, zone: String::new(), tags: Vec::new() };
    Found { index: 7, instances: (0..count).map(instance).collect(), is_doubtful: false }
}

fn count(line: &Line) -> Option<usize> {
    line.served().map(|found| found.instances.len())
}

fn serving(count: usize) -> Line {
    Line::new(query("a", &[]), Some(found(count)))
}

const MS: Duration = Duration::from_millis(1);

#[test]
fn instances_with_all_the_tags_are_found() {
    let instance = |address: &str, tags: &[&str]| Instance {
        address: address.into(),
        weight: 1,
        zone: String::new(),
        tags: tags.iter().map(ToString::to_string).collect(),
    };
    let all = [instance("a:1", &["v1", "x"]), instance("b:1", &["v1"]), instance("c:1", &[])];
    let reading = Reading { services: [("a".into(), all.into())].into(), ..Default::default() };
    let addresses = |tags: &[&str]| -> Vec<String> {
        query("a", tags).of(&reading).instances.into_iter().map(|it| it.address).collect()
    };
    assert_eq!(addresses(&[]), ["a:1", "b:1", "c:1"]);
    assert_eq!(addresses(&["v1"]), ["a:1", "b:1"]);
    assert_eq!(addresses(&["x", "v1"]), ["a:1"]);
    assert!(query("b", &[]).of(&reading).instances.is_empty());
}

#[test]
fn a_change_waits_for_quiet_and_never_longer_than_its_bound() {
    let now = Instant::now();
    let mut line = serving(2);
    line.offer(found(3), now);
    assert_eq!(line.due(now + 49 * MS), Due::Nothing);
    assert_eq!((line.due(now + 50 * MS), count(&line)), (Due::Served, Some(3)));
    let mut served = None;
    for step in 0..100 {
        let at = now + 40 * MS * step;
        line.offer(found(4 + step as usize % 2), at);
        if line.due(at) == Due::Served {
            served = Some(40 * MS * step);
            break;
        }
    }
    assert!(served.is_some_and(|after| after <= AT_MOST + 40 * MS), "{served:?}");
}

#[test]
fn what_comes_back_before_it_was_noticed_is_no_change() {
    let now = Instant::now();
    let mut line = serving(2);
    line.offer(found(1), now);
    line.offer(found(2), now + 20 * MS);
    assert_eq!((line.wakes(), line.due(now + AT_MOST)), (None, Due::Nothing));
}

#[test]
fn the_first_set_is_served_at_once() {
    let now = Instant::now();
    let mut line = Line::new(query("a", &[]), None);
    line.offer(found(1), now);
    assert_eq!((line.due(now), count(&line)), (Due::Served, Some(1)));
}

#[test]
fn nothing_and_less_than_half_wait_for_a_second_look() {
    for (before, after, grave) in
        [(1, 0, true), (3, 1, false), (4, 2, false), (4, 1, true), (10, 5, false), (10, 4, true)]
    {
        let now = Instant::now();
        let mut line = serving(before);
        line.offer(found(after), now);
        let due = line.due(now + AT_MOST);
        assert_eq!(due, if grave { Due::Look } else { Due::Served }, "{before} to {after}");
        if grave {
            assert_eq!((count(&line), line.is_held()), (Some(before), true));
            assert_eq!(line.looked(Some(found(after)), now + AT_MOST), Due::Served);
            assert_eq!((count(&line), line.is_held()), (Some(after), false));
        }
    }
}

#[test]
fn a_second_look_that_says_otherwise_counts() {
    let now = Instant::now();
    let mut line = serving(10);
    line.offer(found(0), now);
    assert_eq!(line.due(now + AT_MOST), Due::Look);
    assert_eq!((line.looked(Some(found(10)), now), line.wakes()), (Due::Nothing, None));
    line.offer(found(3), now);
    assert_eq!(line.due(now + AT_MOST), Due::Look);
    assert_eq!(line.looked(Some(found(0)), now), Due::Look, "nothing was seen once only");
    assert_eq!((line.looked(Some(found(0)), now), count(&line)), (Due::Served, Some(0)));
}

#[test]
fn as_long_as_the_source_cannot_be_read_nothing_changes() {
    let now = Instant::now();
    let mut line = serving(10);
    line.offer(found(0), now);
    let mut at = now + AT_MOST;
    for _ in 0..5 {
        assert_eq!(line.due(at), Due::Look);
        assert_eq!(line.looked(None, at), Due::Nothing);
        assert_eq!((line.due(at + AGAIN - MS), count(&line)), (Due::Nothing, Some(10)));
        at += AGAIN;
    }
    line.offer(found(9), at);
    assert_eq!((line.due(at + AT_MOST), count(&line)), (Due::Served, Some(9)));
}

#[test]
fn another_query_keeps_what_is_served_until_its_own_is_known() {
    let now = Instant::now();
    let mut line = serving(10);
    line.ask(query("b", &[]));
    assert_eq!((count(&line), line.wakes()), (Some(10), None));
    line.offer(found(1), now);
    assert_eq!((line.due(now), count(&line)), (Due::Served, Some(1)), "ten were of something else");
    line.ask(query("c", &[]));
    line.offer(found(1), now);
    assert_eq!(line.due(now), Due::Served, "the same, of another service");
    line.ask(query("d", &[]));
    line.offer(found(0), now);
    assert_eq!((line.due(now + AT_MOST), count(&line)), (Due::Look, Some(1)));
    line.ask(query("c", &[]));
    line.offer(found(1), now);
    assert_eq!(
        (line.wakes(), line.found_by()),
        (None, &query("c", &[])),
        "what it found once is its own again"
    );
}

#[test]
fn a_set_that_was_read_in_part_takes_nothing_away() {
    let now = Instant::now();
    let doubtful = |count| Found { is_doubtful: true, ..found(count) };
    let mut line = serving(10);
    line.offer(doubtful(0), now);
    assert_eq!(line.due(now + AT_MOST), Due::Look);
    assert_eq!(line.looked(Some(doubtful(0)), now), Due::Nothing);
    assert_eq!((count(&line), line.is_held()), (Some(10), true));
    line.offer(doubtful(9), now);
    assert_eq!(
        (line.due(now + AT_MOST), count(&line)),
        (Due::Served, Some(9)),
        "a bad entry loses itself only"
    );
    line.offer(doubtful(3), now);
    assert_eq!(line.due(now + AT_MOST), Due::Look);
    assert_eq!(line.looked(Some(found(3)), now), Due::Served, "it was mended meanwhile");
}

#[test]
fn a_file_that_is_being_written_is_not_seen_twice_in_the_same_half() {
    let now = Instant::now();
    let mut line = serving(10);
    line.offer(found(1), now);
    assert_eq!(line.due(now + 399 * MS), Due::Nothing);
    line.offer(found(9), now + 399 * MS);
    assert_eq!((line.due(now + 449 * MS), count(&line)), (Due::Served, Some(9)));
}

/// What happens to a line.
#[derive(Clone, Debug)]
enum Event {
    Offer(usize),
    Pass(u64),
    /// What the second look finds, if one is wanted.
    Look(Option<usize>),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_usize..9).prop_map(Event::Offer),
        (1_u64..600).prop_map(Event::Pass),
        prop::option::of(0_usize..9).prop_map(Event::Look),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_only_what_may_be_served_is(events in prop::collection::vec(event(), 1..60)) {
        let mut now = Instant::now();
        let mut line = serving(8);
        let (mut wants_look, mut seen, mut looks_empty) = (false, vec![8], 0);
        for event in events {
            let before = count(&line).expect("there was one");
            let due = match event {
                Event::Offer(n) => {
                    seen.push(n);
                    line.offer(found(n), now);
                    Due::Nothing
                }
                Event::Pass(ms) => {
                    now += MS * u32::try_from(ms).expect("small");
                    line.due(now)
                }
                Event::Look(n) if wants_look => {
                    seen.extend(n);
                    looks_empty += usize::from(n == Some(0));
                    line.looked(n.map(found), now)
                }
                Event::Look(_) => continue,
            };
            let after = count(&line).expect("a set is never lost");
            prop_assert_eq!(due == Due::Served, before != after);
            prop_assert!(seen.contains(&after), "{} was never said", after);
            if before != after && matches!(event, Event::Pass(_)) {
                prop_assert!(after > 0 && (before < SMALL || after * 2 >= before), "{before} to {after} unseen");
            }
            if before != after && after == 0 {
                prop_assert!(looks_empty > 0);
            }
            match due {
                Due::Look => wants_look = true,
                _ if matches!(event, Event::Look(_)) => wants_look = false,
                _ => {}
            }
        }
        // At rest, with a source that can be read, what it says is served.
        line.offer(found(5), now);
        let due = line.due(now + AT_MOST_IF_GRAVE);
        if due == Due::Look {
            prop_assert_eq!(line.looked(Some(found(5)), now), Due::Served);
        }
        prop_assert_eq!(count(&line), Some(5));
    }
}
