//! Tests of `session.rs`.

use super::*;

fn at(revision: u64) -> Cursor {
    Cursor { epoch: "e".into(), revision, root: RootHash::default() }
}

fn rooted(revision: u64, root: u8) -> Cursor {
    Cursor { root: RootHash::from_slice(&[root; 16]).unwrap(), ..at(revision) }
}

fn message(message: Message) -> wire::ControlPlaneMessage {
    wire::ControlPlaneMessage { message: Some(message) }
}

fn welcome() -> wire::ControlPlaneMessage {
    message(Message::Welcome(wire::Welcome {
        mode: Mode::Delta.into(),
        head: None,
        heartbeat_ms: 5,
        endpoints: vec![7],
    }))
}

fn heartbeat(head: &Cursor) -> wire::ControlPlaneMessage {
    message(Message::Heartbeat(wire::Heartbeat { cursor: Some(head.into()), ..Default::default() }))
}

fn chunk(
    number: u64,
    base: Option<&Cursor>,
    target: &Cursor,
    body: &[u8],
    last: bool,
) -> wire::ControlPlaneMessage {
    let upsert = wire::Upsert { kind: "Route".into(), body: body.to_vec().into(), ..Default::default() };
    message(Message::Chunk(wire::Chunk {
        transaction: number,
        base_sum: base.map(|base| base.root.low()),
        target: Some(target.into()),
        upserts: vec![upsert],
        tombstones: Vec::new(),
        last,
        ..Default::default()
    }))
}

/// A later piece of a transaction.
fn piece(number: u64, body: &[u8], last: bool) -> wire::ControlPlaneMessage {
    let upsert = wire::Upsert { kind: "Route".into(), body: body.to_vec().into(), ..Default::default() };
    message(Message::Chunk(wire::Chunk {
        transaction: number,
        upserts: vec![upsert],
        last,
        ..Default::default()
    }))
}

fn welcomed() -> Session {
    let mut session = Session::default();
    let step = session.receive(welcome(), &at(1), false).unwrap();
    let heartbeat = Duration::from_millis(100);
    assert_eq!(
        step,
        Step::Welcome { mode: Mode::Delta, heartbeat, endpoints: vec![7] },
        "a heartbeat of 5 ms is bounded"
    );
    session
}

#[test]
fn the_pieces_of_a_transaction_are_handed_out_whole_and_in_order() {
    let mut session = welcomed();
    assert_eq!(session.receive(chunk(1, Some(&at(1)), &at(2), b"a", false), &at(1), false), Ok(Step::Wait));
    let Ok(Step::Apply(whole)) = session.receive(piece(1, b"b", true), &at(1), false) else {
        panic!("the last piece completes it")
    };
    let bodies: Vec<_> = whole.upserts.iter().map(|upsert| upsert.body.to_vec()).collect();
    assert_eq!((whole.number, whole.scope, whole.target), (1, Scope::Delta, at(2)));
    assert_eq!(bodies, [b"a", b"b"]);
    // And the next one.
    let next = session.receive(chunk(2, Some(&at(2)), &at(3), b"c", true), &at(2), false);
    assert!(matches!(next, Ok(Step::Apply(Transaction { number: 2, .. }))));
}

#[test]
fn without_a_base_it_is_everything() {
    let step = welcomed().receive(chunk(1, None, &at(9), b"a", true), &at(1), false);
    assert!(matches!(step, Ok(Step::Apply(Transaction { scope: Scope::Full, .. }))));
}

#[test]
fn a_comparison_is_answered_and_its_outcome_covers_the_buckets_of_its_first_piece() {
    let mut session = welcomed();
    assert_eq!(
        session.receive(message(Message::Compare(wire::Compare {})), &at(1), false),
        Ok(Step::Compare)
    );
    let mut first = chunk(1, Some(&at(1)), &at(2), b"a", false);
    if let Some(Message::Chunk(chunk)) = &mut first.message {
        chunk.buckets = vec![3, 1_023];
    }
    assert_eq!(session.receive(first, &at(1), false), Ok(Step::Wait));
    let step = session.receive(piece(1, b"b", true), &at(1), false);
    let Ok(Step::Apply(whole)) = step else { panic!("the last piece completes it: {step:?}") };
    assert_eq!(whole.scope, Scope::Buckets(Box::new([3, 1_023].into_iter().collect())));
    assert_eq!(whole.upserts.len(), 2);
}

#[test]
fn a_message_out_of_place_ends_the_stream() {
    let full = |number, last| chunk(number, None, &at(2), b"a", last);
    let unwelcomed = Session::default().receive(full(1, true), &at(1), false);
    assert_eq!(unwelcomed, Err(ProtocolError::NotWelcomed));
    assert_eq!(welcomed().receive(welcome(), &at(1), false), Err(ProtocolError::WelcomedTwice));

    let mut again = welcomed();
    again.receive(full(1, true), &at(1), false).unwrap();
    assert_eq!(
        again.receive(full(1, true), &at(1), false),
        Err(ProtocolError::OutOfOrder { got: 1, last: 1 })
    );

    let mut interrupted = welcomed();
    interrupted.receive(full(1, false), &at(1), false).unwrap();
    assert_eq!(
        interrupted.receive(full(2, true), &at(1), false),
        Err(ProtocolError::OutOfOrder { got: 2, last: 1 })
    );

    let mut mixed = welcomed();
    mixed.receive(full(1, false), &at(1), false).unwrap();
    let said_again = chunk(1, None, &at(2), b"a", true);
    assert_eq!(mixed.receive(said_again, &at(1), false), Err(ProtocolError::Mixed(1)));

    for held in [rooted(1, 7), Cursor::default()] {
        let foreign = welcomed().receive(chunk(1, Some(&at(1)), &at(6), b"a", true), &held, false);
        assert_eq!(foreign, Err(ProtocolError::WrongBase(1)), "{held:?}");
    }
    let mut no_target = chunk(1, None, &at(2), b"a", true);
    if let Some(Message::Chunk(chunk)) = &mut no_target.message {
        chunk.target = None;
    }
    assert_eq!(welcomed().receive(no_target, &at(1), false), Err(ProtocolError::BadCursor));
}

#[test]
fn the_same_revision_with_other_content_is_told_at_once_unless_something_is_refused() {
    let held = rooted(4, 1);
    assert_eq!(welcomed().receive(heartbeat(&rooted(4, 2)), &held, false), Ok(Step::Tell));
    assert_eq!(welcomed().receive(heartbeat(&rooted(4, 2)), &held, true), Ok(Step::Wait));
    assert_eq!(welcomed().receive(heartbeat(&rooted(4, 1)), &held, false), Ok(Step::Wait));
    assert_eq!(
        welcomed().receive(heartbeat(&rooted(5, 2)), &held, false),
        Ok(Step::Wait),
        "a change is on its way"
    );
}

#[test]
fn a_server_that_goes_away_says_within_which_time_to_leave() {
    let drain = message(Message::Drain(wire::Drain { within_ms: 1_500 }));
    assert_eq!(welcomed().receive(drain, &at(1), false), Ok(Step::Leave(Duration::from_millis(1_500))));
}

#[test]
fn what_a_later_version_sends_is_passed_over() {
    let empty = wire::ControlPlaneMessage { message: None };
    assert_eq!(welcomed().receive(empty, &at(1), false), Ok(Step::Wait));
}

#[test]
fn a_transaction_starts_from_what_the_low_half_of_a_root_says_and_leaves_out_what_the_welcome_said() {
    let welcome = |epoch: &str| {
        let head = Some(wire::Cursor { epoch: epoch.into(), ..Default::default() });
        message(Message::Welcome(wire::Welcome { head, ..Default::default() }))
    };
    let piece = |sum: Option<u64>, last| wire::Chunk {
        transaction: 1,
        base_sum: sum,
        target: Some(wire::Cursor { epoch: String::new(), ..(&rooted(5, 8)).into() }),
        upserts: vec![wire::Upsert::default()],
        last,
        ..Default::default()
    };
    let receive = |of: &str, chunks: Vec<wire::Chunk>| {
        let mut session = Session::default();
        session.receive(welcome(of), &rooted(4, 7), false).unwrap();
        let chunks = chunks.into_iter().map(|chunk| message(Message::Chunk(chunk)));
        chunks.map(|chunk| session.receive(chunk, &rooted(4, 7), false)).last().unwrap()
    };
    let sum = Some(rooted(4, 7).root.low());
    let later = wire::Chunk { target: None, ..piece(None, true) };
    let step = receive("e", vec![piece(sum, false), later]);
    let Ok(Step::Apply(whole)) = step else { panic!("the last piece completes it: {step:?}") };
    assert_eq!((whole.scope, whole.target, whole.upserts.len()), (Scope::Delta, rooted(5, 8), 2));

    let Ok(Step::Apply(whole)) = receive("e", vec![piece(None, true)]) else { panic!("it is whole") };
    assert_eq!(whole.scope, Scope::Full, "from nothing");
    assert_eq!(receive("e", vec![piece(Some(1), true)]), Err(ProtocolError::WrongBase(1)));
    let Ok(Step::Apply(whole)) = receive("new", vec![piece(sum, true)]) else { panic!("it is whole") };
    assert_eq!(
        (&*whole.target.epoch, whole.scope),
        ("new", Scope::Delta),
        "another history, the same content"
    );
    assert_eq!(receive("", vec![piece(sum, true)]), Err(ProtocolError::BadCursor));
    let mixed = receive("e", vec![piece(sum, false), piece(Some(1), true)]);
    assert_eq!(mixed, Err(ProtocolError::Mixed(1)));
}
