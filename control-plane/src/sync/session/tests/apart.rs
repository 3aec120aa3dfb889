//! When the two ends hold different things: comparisons, and stores that are smaller.

use super::*;

/// A hundred routes, and a data plane at the head of them that is able to compare.
fn many() -> (Story, Session, Node) {
    let mut story = story();
    let routes: Vec<_> = (0..100).map(|n| route(&format!("r{n}"), &[], "a", &[])).collect();
    story.commit(&routes, &[]);
    let (_, node) = synced(&story);
    let (session, welcome) = Session::hello(&comparing(&node), &story.view);
    assert_eq!(welcome.mode(), Mode::InSync);
    (story, session, node)
}

fn comparing(node: &Node) -> wire::Hello {
    wire::Hello { features: vec![FEATURE_BUCKETS.to_owned()], ..node.hello() }
}

fn sums(node: &Node) -> wire::Buckets {
    let sums: Buckets = node.items.iter().map(|(key, hash)| (key, *hash)).collect();
    wire::Buckets { cursor: node.cursor.map(Into::into), sums: sums.to_bytes() }
}

/// Lets the two ends compare; the transaction that comes of it.
fn compare(session: &mut Session, node: &Node, view: &Arc<View>) -> Transaction {
    assert!(matches!(session.next(view), Some(Next::Compare)));
    assert!(session.next(view).is_none() && session.is_waiting(), "nothing before the answer");
    session.compared(&sums(node)).expect("asked for");
    send(session, view).expect("what differs")
}

fn spoil(node: &mut Node) {
    node.items.remove(&key(Kind::Route, "r7"));
    node.items.insert(key(Kind::Route, "r8"), ItemHash([8; 16]));
    node.items.insert(key(Kind::Route, "never-there"), ItemHash([9; 16]));
    let root = node.items.values().copied().collect();
    node.cursor = node.cursor.map(|cursor| Cursor { root, ..cursor });
}

#[test]
fn a_divergence_is_mended_by_the_buckets_that_differ() {
    let (story, mut session, mut node) = many();
    spoil(&mut node);
    assert!(session.heartbeat(&node.heartbeat(), &story.view), "it is counted");
    assert!(!session.heartbeat(&node.heartbeat(), &story.view), "once");
    let mended = compare(&mut session, &node, &story.view);
    let Content::Buckets(_, buckets) = &mended.content else { panic!("{mended:?}") };
    assert!((1..=3).contains(&buckets.len()), "one or two wrong objects, one missing: {buckets:?}");
    assert_eq!((mended.base, mended.target), (node.cursor, story.view.head()));
    assert_eq!(session.ack(&node.apply(&mended, &[])), Ok(Acknowledged::InSync));
    assert_eq!(node.cursor, Some(story.view.head()));
    assert!(send(&mut session, &story.view).is_none());
}

#[test]
fn what_a_comparison_does_not_mend_is_sent_whole() {
    let (story, mut session, mut node) = many();
    spoil(&mut node);
    session.heartbeat(&node.heartbeat(), &story.view);
    let mended = compare(&mut session, &node, &story.view);
    let mut ack = node.apply(&mended, &[]);
    spoil(&mut node);
    ack.cursor = node.cursor.map(Into::into);
    assert_eq!(session.ack(&ack), Ok(Acknowledged::Diverged));
    assert!(session.heartbeat(&node.heartbeat(), &story.view));
    let full = send(&mut session, &story.view).expect("everything");
    assert!(matches!(full.content, Content::Full(_)));
    assert_eq!(session.ack(&node.apply(&full, &[])), Ok(Acknowledged::InSync));
}

#[test]
fn another_history_with_the_same_content_costs_no_object() {
    let (story, _, mut node) = many();
    node.cursor = node.cursor.map(|cursor| Cursor { epoch: Uuid::from_u128(8), revision: 77, ..cursor });
    let (mut session, welcome) = Session::hello(&comparing(&node), &story.view);
    assert_eq!(welcome.mode(), Mode::Buckets);
    let nothing = compare(&mut session, &node, &story.view);
    assert!(matches!(&nothing.content, Content::Own(pieces) if pieces.is_empty()));
    assert_eq!(session.ack(&node.apply(&nothing, &[])), Ok(Acknowledged::InSync));
    assert_eq!(node.cursor, Some(story.view.head()));
}

#[test]
fn a_cursor_that_history_does_not_reach_is_compared_and_what_is_parked_elsewhere_stays_parked() {
    let (mut story, mut session, mut node) = many();
    let bad = key(Kind::Route, "r3");
    story.commit(&[route("r3", &[], "b", &[]), upstream("b", 1)], &[]);
    let delta = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&delta, std::slice::from_ref(&bad))).expect("open");
    story.commit(&[route("r9", &[], "b", &[])], &[key(Kind::Route, "r10")]);
    let fresh = story.restarted(None);
    let (mut session, welcome) = Session::hello(&comparing(&node), &fresh);
    assert_eq!(welcome.mode(), Mode::Buckets);
    let mended = compare(&mut session, &node, &fresh);
    let Content::Buckets(_, buckets) = &mended.content else { panic!("{mended:?}") };
    assert!(!buckets.holds(&bad) && buckets.len() <= 2, "{buckets:?}");
    assert_eq!(session.ack(&node.apply(&mended, &[])), Ok(Acknowledged::Refused));
    assert_eq!(node.cursor, Some(mended.target));
    assert!(!session.heartbeat(&node.heartbeat(), &fresh));
    assert!(send(&mut session, &fresh).is_none());
}

#[test]
fn small_configurations_and_old_data_planes_are_not_compared() {
    let (story, _, mut node) = many();
    spoil(&mut node);
    assert_eq!(Session::hello(&node.hello(), &story.view).1.mode(), Mode::Full, "it is not able to");
    let small = self::story();
    let (_, mut node) = synced(&small);
    spoil(&mut node);
    assert_eq!(Session::hello(&comparing(&node), &small.view).1.mode(), Mode::Full, "less than the sums");
}

#[test]
fn sums_that_nobody_asked_for_or_that_are_none_end_the_stream() {
    let (story, mut session, mut node) = many();
    assert_eq!(session.compared(&sums(&node)), Err(ProtocolError::BadSums));
    spoil(&mut node);
    session.heartbeat(&node.heartbeat(), &story.view);
    assert!(matches!(session.next(&story.view), Some(Next::Compare)));
    let short = wire::Buckets { sums: vec![0; 16], ..sums(&node) };
    assert_eq!(session.compared(&short), Err(ProtocolError::BadSums));
}

#[test]
fn only_what_is_sent_without_knowing_the_difference_has_a_weight() {
    let (mut story, mut session, mut node) = many();
    let all = story.view.items().count();
    assert_eq!(session.weight(&story.view), 0);
    assert_eq!(Session::hello(&Node::new().hello(), &story.view).0.weight(&story.view), all);
    story.commit(&[upstream("a", 2)], &[]);
    assert_eq!(session.weight(&story.view), 0, "a delta");
    let delta = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&delta, &[])).expect("open");
    node.items.clear();
    node.cursor = node.cursor.map(|cursor| Cursor { root: RootHash::default(), ..cursor });
    session.heartbeat(&node.heartbeat(), &story.view);
    assert_eq!(session.weight(&story.view), 0, "a question");
    session.next(&story.view);
    session.compared(&sums(&node)).expect("asked for");
    assert!((1..all).contains(&session.weight(&story.view)), "the share of the buckets that differ");
}

#[test]
fn a_data_plane_that_would_shrink_waits_for_another_revision_or_for_leave_to() {
    let (mut story, _, mut node) = many();
    node.cursor = node.cursor.map(|cursor| Cursor { epoch: Uuid::from_u128(8), ..cursor });
    let (mut session, _) = Session::hello(&node.hello(), &story.view);
    let refuse = |session: &mut Session, sent: &Transaction| {
        let reject = wire::Reject { code: "epoch_shrink".into(), ..Default::default() };
        let ack = wire::Ack {
            transaction: sent.number,
            cursor: node.cursor.map(Into::into),
            outcome: Outcome::Rejected.into(),
            rejects: vec![reject],
            ..Default::default()
        };
        assert_eq!(session.ack(&ack), Ok(Acknowledged::Refused));
    };
    let full = send(&mut session, &story.view).expect("everything");
    assert!(!full.allow_shrink && session.might_shrink(&story.view));
    refuse(&mut session, &full);
    session.heartbeat(&node.heartbeat(), &story.view);
    assert!(send(&mut session, &story.view).is_none(), "not with every heartbeat");
    story.commit(&[upstream("a", 2)], &[]);
    let full = send(&mut session, &story.view).expect("another revision");
    refuse(&mut session, &full);
    session.allow_shrink();
    assert!(!session.might_shrink(&story.view));
    assert!(send(&mut session, &story.view).expect("now it may").allow_shrink);
}
