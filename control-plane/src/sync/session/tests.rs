//! Tests of `session.rs`.

mod apart;

use gateway_proto::kind::Kind;
use uuid::Uuid;

use super::*;
use crate::publish::testing::{EPOCH, Story, key, listener, route, upstream};

/// What a data plane holds, played by the rules: the other end of the table.
struct Node {
    cursor: Option<Cursor>,
    items: BTreeMap<Key, ItemHash>,
    parked: BTreeMap<Key, (Option<ItemHash>, Option<ItemHash>)>,
}

impl Node {
    fn new() -> Self {
        Node { cursor: None, items: BTreeMap::new(), parked: BTreeMap::new() }
    }

    fn hello(&self) -> wire::Hello {
        wire::Hello {
            node: "n".into(),
            group: "g".into(),
            protocol: 1,
            cursor: self.cursor.map(Into::into),
            parked: self.wire_parked(),
            ..Default::default()
        }
    }

    fn heartbeat(&self) -> wire::Heartbeat {
        wire::Heartbeat {
            cursor: self.cursor.map(Into::into),
            parked: self.wire_parked(),
            ..Default::default()
        }
    }

    fn wire_parked(&self) -> Vec<wire::Parked> {
        let bytes = |hash: &Option<ItemHash>| hash.map(|hash| hash.0.to_vec()).unwrap_or_default();
        let read = |(key, (refused, held)): (&Key, &(Option<ItemHash>, Option<ItemHash>))| wire::Parked {
            object: Some(key.into()),
            refused: bytes(refused),
            held: bytes(held),
        };
        self.parked.iter().map(read).collect()
    }

    /// Applies a transaction but for the objects it refuses.
    fn apply(&mut self, transaction: &Transaction, refuse: &[Key]) -> wire::Ack {
        let changes: Vec<(Key, Option<ItemHash>)> = match &transaction.content {
            Content::Full(view) => {
                let named: Vec<_> =
                    view.items().iter().map(|(key, stored)| (key.clone(), Some(stored.hash))).collect();
                let gone = self.items.keys().filter(|key| view.items().get(key).is_none());
                let gone: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
                self.parked.clear();
                named.into_iter().chain(gone).collect()
            }
            Content::Buckets(view, buckets) => {
                assert_eq!(transaction.base, self.cursor);
                let named = view.items().iter().map(|(key, stored)| (key.clone(), Some(stored.hash)));
                let gone = self.items.keys().filter(|key| view.items().get(key).is_none());
                let all = named.chain(gone.map(|key| (key.clone(), None)));
                let all: Vec<_> = all.filter(|(key, _)| buckets.holds(key)).collect();
                self.parked.retain(|key, _| !buckets.holds(key));
                all
            }
            Content::Shared(delta) => {
                assert_eq!(transaction.base, self.cursor);
                delta
                    .changes
                    .iter()
                    .map(|it| (it.key.clone(), it.after.as_ref().map(|stored| stored.hash)))
                    .collect()
            }
            Content::Own(pieces) => {
                assert_eq!(transaction.base, self.cursor);
                pieces.iter().flat_map(read_piece).collect()
            }
        };
        for (key, hash) in changes {
            if refuse.contains(&key) {
                self.parked.insert(key.clone(), (hash, self.items.get(&key).copied()));
                continue;
            }
            self.parked.remove(&key);
            match hash {
                Some(hash) => self.items.insert(key, hash),
                None => self.items.remove(&key),
            };
        }
        let bytes = |hash: &Option<ItemHash>| hash.map(|hash| hash.0.to_vec()).unwrap_or_default();
        let reject = |(key, (refused, held)): (&Key, &(Option<ItemHash>, Option<ItemHash>))| wire::Reject {
            object: Some(key.into()),
            hash: bytes(refused),
            held: bytes(held),
            ..Default::default()
        };
        let rejects: Vec<_> = self.parked.iter().map(reject).collect();
        let root = self.items.values().copied().collect();
        self.cursor = Some(Cursor { root, ..transaction.target });
        let outcome = if rejects.is_empty() { Outcome::Applied } else { Outcome::Partial };
        wire::Ack {
            transaction: transaction.number,
            cursor: self.cursor.map(Into::into),
            outcome: outcome.into(),
            rejects,
            ..Default::default()
        }
    }
}

fn read_piece(piece: &Bytes) -> Vec<(Key, Option<ItemHash>)> {
    use gateway_proto::kind::Resource;
    use prost::Message as _;
    let chunk = wire::Chunk::decode(piece.clone()).expect("a chunk");
    let upserts = chunk.upserts.iter().map(|upsert| {
        let resource =
            Resource::decode(upsert.kind.parse().expect("a kind"), &upsert.body).expect("a resource");
        (resource.key(), Some(resource.hash()))
    });
    let tombstones = chunk.tombstones.iter().map(|object| (Key::try_from(object).expect("a key"), None));
    upserts.chain(tombstones).collect()
}

/// The next transaction.
fn send(session: &mut Session, view: &Arc<View>) -> Option<Transaction> {
    match session.next(view) {
        Some(Next::Transaction(transaction)) => Some(transaction),
        Some(Next::Compare) => panic!("asked to compare"),
        None => None,
    }
}

fn story() -> Story {
    let mut story = Story::begin(None);
    story.commit(&[listener("l", None, &[]), route("r", &[], "a", &[]), upstream("a", 1)], &[]);
    story
}

/// A data plane that came to the head by a full transfer.
fn synced(story: &Story) -> (Session, Node) {
    let mut node = Node::new();
    let (mut session, welcome) = Session::hello(&node.hello(), &story.view);
    assert_eq!(welcome.mode(), Mode::Full);
    let full = send(&mut session, &story.view).expect("everything");
    assert!(matches!(full.content, Content::Full(_)) && full.base.is_none());
    assert_eq!(session.ack(&node.apply(&full, &[])), Ok(Acknowledged::InSync));
    assert_eq!(node.cursor, Some(story.view.head()));
    (session, node)
}

#[test]
fn hello_decides_the_mode() {
    let mut story = story();
    let old = story.view.head();
    story.commit(&[upstream("a", 2)], &[]);
    let head = story.view.head();
    let wrong = RootHash::default().plus(ItemHash([9; 16]));
    // After a restart the window begins at the head.
    let (view, fresh) = (&story.view, &story.restarted(None));
    for (name, view, cursor, mode) in [
        ("nothing held", view, None, Mode::Full),
        ("the head", view, Some(head), Mode::InSync),
        ("a revision of the window", view, Some(old), Mode::Delta),
        (
            "a revision of the window with another content",
            view,
            Some(Cursor { root: wrong, ..old }),
            Mode::Full,
        ),
        ("the head with another content", view, Some(Cursor { root: wrong, ..head }), Mode::Full),
        ("another history", view, Some(Cursor { epoch: Uuid::from_u128(8), ..head }), Mode::Full),
        ("a later revision", view, Some(Cursor { revision: 9, ..head }), Mode::Behind),
        ("a revision before the window", fresh, Some(Cursor { root: head.root, ..old }), Mode::Delta),
        ("a revision before the window with another content", fresh, Some(old), Mode::Full),
    ] {
        let hello = wire::Hello { cursor: cursor.map(Into::into), ..Default::default() };
        let (mut session, welcome) = Session::hello(&hello, view);
        assert_eq!(welcome.mode(), mode, "{name}");
        assert_eq!(welcome.heartbeat_ms, HEARTBEAT_MS);
        let next = send(&mut session, view);
        let sent = next.as_ref().map(|next| matches!(next.content, Content::Full(_)));
        let expected = match mode {
            Mode::InSync | Mode::Behind | Mode::Buckets => None,
            Mode::Delta => Some(false),
            Mode::Full => Some(true),
        };
        assert_eq!(sent, expected, "{name}");
    }
}

#[test]
fn a_cursor_that_is_no_cursor_holds_nothing() {
    let story = story();
    for (epoch, root_hash) in [("", vec![0; 16]), ("no uuid", vec![0; 16]), (&*EPOCH.to_string(), vec![0; 3])]
    {
        let cursor = wire::Cursor { epoch: epoch.into(), revision: 1, root_hash };
        let hello = wire::Hello { cursor: Some(cursor), ..Default::default() };
        assert_eq!(Session::hello(&hello, &story.view).1.mode(), Mode::Full);
    }
}

#[test]
fn one_transaction_is_open_at_a_time_and_the_next_merges_what_came_meanwhile() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    assert!(send(&mut session, &story.view).is_none());
    story.commit(&[upstream("a", 2)], &[]);
    let first = send(&mut session, &story.view).expect("a delta");
    story.commit(&[upstream("a", 3)], &[]);
    story.commit(&[route("s", &[], "a", &[])], &[]);
    assert!(send(&mut session, &story.view).is_none() && session.is_waiting());
    assert_eq!(session.ack(&node.apply(&first, &[])), Ok(Acknowledged::InSync));
    let second = send(&mut session, &story.view).expect("the rest");
    assert_eq!((second.base, second.target, second.number), (Some(first.target), story.view.head(), 3));
    assert_eq!(session.ack(&node.apply(&second, &[])), Ok(Acknowledged::InSync));
    assert_eq!(node.cursor, Some(story.view.head()));
    assert!(send(&mut session, &story.view).is_none() && session.is_in_sync(&story.view));
}

#[test]
fn a_revision_outside_the_scope_moves_the_number_and_sends_no_object() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    story.commit(&[upstream("unused", 1)], &[]);
    let next = send(&mut session, &story.view).expect("the number");
    let Content::Shared(delta) = &next.content else { panic!("{next:?}") };
    assert!(delta.changes.is_empty() && delta.pieces.is_empty());
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
    assert_eq!(session.held().map(|held| held.revision), Some(2));
}

#[test]
fn a_restarted_control_plane_moves_the_number_only_when_the_content_is_the_same() {
    let mut story = story();
    let (_, mut node) = synced(&story);
    story.commit(&[upstream("unused", 1)], &[]);
    // A view without a window, as after a restart.
    let fresh = story.restarted(None);
    let (mut session, welcome) = Session::hello(&node.hello(), &fresh);
    assert_eq!(welcome.mode(), Mode::Delta);
    let next = send(&mut session, &fresh).expect("the number");
    assert!(matches!(&next.content, Content::Own(pieces) if pieces.is_empty()));
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
    story.commit(&[upstream("a", 2)], &[]);
    let fresh = story.restarted(None);
    assert_eq!(Session::hello(&node.hello(), &fresh).1.mode(), Mode::Full);
}

#[test]
fn a_refused_object_is_parked_until_its_content_changes() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let bad = key(Kind::Upstream, "a");
    story.commit(&[upstream("a", 2), route("s", &[], "a", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    assert_eq!(session.ack(&node.apply(&next, std::slice::from_ref(&bad))), Ok(Acknowledged::Refused));
    assert!(send(&mut session, &story.view).is_none(), "it is not sent again");
    assert!(!session.heartbeat(&node.heartbeat(), &story.view), "and that is no divergence");
    assert!(!session.is_in_sync(&story.view));

    // Another change goes out without it, and the target is what the data plane will really hold.
    story.commit(&[route("t", &[], "a", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::Refused));
    assert_eq!(node.cursor, Some(next.target));

    // A new stream says it again, and nothing is sent.
    let (mut again, welcome) = Session::hello(&node.hello(), &story.view);
    assert_eq!(welcome.mode(), Mode::InSync);
    assert!(send(&mut again, &story.view).is_none());

    story.commit(&[upstream("a", 3)], &[]);
    let next = send(&mut session, &story.view).expect("the new content");
    assert_eq!(next.target, story.view.head());
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
    assert!(session.is_in_sync(&story.view));
}

#[test]
fn a_parked_content_that_comes_back_is_left_out() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let bad = key(Kind::Upstream, "a");
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&next, &[bad])).expect("open");
    // Away and back again before anything is sent.
    story.commit(&[upstream("a", 3)], &[]);
    story.commit(&[upstream("a", 2), route("s", &[], "a", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let names: Vec<Key> = match &next.content {
        Content::Own(pieces) => pieces.iter().flat_map(read_piece).map(|(key, _)| key).collect(),
        Content::Shared(delta) => delta.changes.iter().map(|it| it.key.clone()).collect(),
        Content::Full(_) | Content::Buckets(..) => panic!("more than what differs"),
    };
    assert_eq!(names, [key(Kind::Route, "s")]);
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::Refused));
    assert_eq!(node.cursor, Some(next.target));
}

#[test]
fn a_parked_object_that_is_deleted_is_forgotten() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    story.commit(&[upstream("b", 1), route("s", &[], "b", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&next, &[key(Kind::Route, "s")])).expect("open");
    story.commit(&[], &[key(Kind::Route, "s")]);
    let next = send(&mut session, &story.view).expect("a delta");
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
    assert!(session.is_in_sync(&story.view));
}

#[test]
fn a_refused_deletion_is_parked_too() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let stays = key(Kind::Route, "r");
    story.commit(&[], std::slice::from_ref(&stays));
    let next = send(&mut session, &story.view).expect("a delta");
    assert_eq!(session.ack(&node.apply(&next, std::slice::from_ref(&stays))), Ok(Acknowledged::Refused));
    assert!(!session.heartbeat(&node.heartbeat(), &story.view), "what it holds is as it says");
    assert!(send(&mut session, &story.view).is_none());
    story.commit(&[upstream("b", 1), route("s", &[], "b", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&next, &[])).expect("open");
    assert_eq!(node.cursor, Some(next.target));
}

#[test]
fn a_transaction_refused_whole_goes_out_again_without_what_was_refused() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let before = node.cursor;
    story.commit(&[upstream("a", 2), route("s", &[], "a", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let bad = story.state.objects.get(&key(Kind::Upstream, "a")).expect("there").hash;
    let held = node.items[&key(Kind::Upstream, "a")];
    let reject = wire::Reject {
        object: Some((&key(Kind::Upstream, "a")).into()),
        hash: bad.0.to_vec(),
        held: held.0.to_vec(),
        ..Default::default()
    };
    let ack = wire::Ack {
        transaction: next.number,
        cursor: before.map(Into::into),
        outcome: Outcome::Rejected.into(),
        rejects: vec![reject],
        ..Default::default()
    };
    assert_eq!(session.ack(&ack), Ok(Acknowledged::Refused));
    node.parked.insert(key(Kind::Upstream, "a"), (Some(bad), Some(held)));
    let next = send(&mut session, &story.view).expect("the rest");
    let Content::Own(pieces) = &next.content else { panic!("{next:?}") };
    assert_eq!(pieces.iter().flat_map(read_piece).count(), 1);
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::Refused));
    assert_eq!(node.cursor, Some(next.target));
}

#[test]
fn a_transaction_refused_for_no_reason_waits_for_another_revision() {
    let mut story = story();
    let (mut session, node) = synced(&story);
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let ack = wire::Ack {
        transaction: next.number,
        cursor: node.cursor.map(Into::into),
        outcome: Outcome::Rejected.into(),
        ..Default::default()
    };
    assert_eq!(session.ack(&ack), Ok(Acknowledged::Refused));
    assert!(send(&mut session, &story.view).is_none());
    assert!(!session.heartbeat(&node.heartbeat(), &story.view));
    assert!(send(&mut session, &story.view).is_none(), "nothing is new");
    story.commit(&[upstream("a", 3)], &[]);
    assert!(send(&mut session, &story.view).is_some());
}

#[test]
fn a_data_plane_that_does_not_hold_what_it_should_is_sent_everything() {
    let story = story();
    let (mut session, mut node) = synced(&story);
    node.items.remove(&key(Kind::Route, "r"));
    let root = node.items.values().copied().collect();
    node.cursor = node.cursor.map(|cursor| Cursor { root, ..cursor });
    assert!(session.heartbeat(&node.heartbeat(), &story.view));
    let full = send(&mut session, &story.view).expect("everything");
    assert!(matches!(full.content, Content::Full(_)));
    assert_eq!(session.ack(&node.apply(&full, &[])), Ok(Acknowledged::InSync));
    assert!(!session.heartbeat(&node.heartbeat(), &story.view));
}

#[test]
fn an_ack_that_does_not_lead_to_the_target_is_a_divergence_but_no_endless_resending() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let mut ack = node.apply(&next, &[]);
    ack.cursor.as_mut().expect("set").root_hash = vec![1; 16];
    assert_eq!(session.ack(&ack), Ok(Acknowledged::Diverged));
    assert!(send(&mut session, &story.view).is_none(), "the heartbeat decides");
    let wrong = wire::Heartbeat { cursor: ack.cursor, ..Default::default() };
    assert!(session.heartbeat(&wrong, &story.view));
    assert!(matches!(send(&mut session, &story.view).expect("everything").content, Content::Full(_)));
}

#[test]
fn a_heartbeat_during_a_transaction_decides_nothing() {
    let mut story = story();
    let (mut session, node) = synced(&story);
    story.commit(&[upstream("a", 2)], &[]);
    send(&mut session, &story.view).expect("a delta");
    let empty = wire::Heartbeat::default();
    assert!(!session.heartbeat(&empty, &story.view));
    assert_eq!(session.held(), node.cursor);
}

#[test]
fn acks_out_of_turn_end_the_stream() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let stray = wire::Ack { transaction: 1, ..Default::default() };
    assert_eq!(session.ack(&stray), Err(ProtocolError::UnexpectedAck { got: 1, expected: None }));
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let other = wire::Ack { transaction: 9, ..node.apply(&next, &[]) };
    assert_eq!(session.ack(&other), Err(ProtocolError::UnexpectedAck { got: 9, expected: Some(2) }));
    let (mut session, mut node) = synced(&story);
    story.commit(&[upstream("a", 3)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    let lost = wire::Ack { cursor: None, ..node.apply(&next, &[]) };
    assert_eq!(session.ack(&lost), Err(ProtocolError::BadCursor));
}

#[test]
fn a_retry_that_works_ends_the_parking() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&next, &[key(Kind::Upstream, "a")])).expect("open");
    // The data plane tried again by itself and it worked.
    let status = wire::Status { cursor: Some(story.view.head().into()), ..Default::default() };
    session.status(&status);
    assert!(session.is_in_sync(&story.view));
    assert!(send(&mut session, &story.view).is_none());
}

#[test]
fn what_was_refused_and_serves_with_a_later_change_is_no_divergence() {
    let mut story = story();
    let (mut session, mut node) = synced(&story);
    let bad = key(Kind::Upstream, "a");
    story.commit(&[upstream("a", 2)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    session.ack(&node.apply(&next, std::slice::from_ref(&bad))).expect("open");
    story.commit(&[route("s", &[], "a", &[])], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    // It tries again with every change, and this time it works.
    let hash = story.view.items().get(&bad).expect("there").hash;
    node.items.insert(bad.clone(), hash);
    node.parked.clear();
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
    assert!(session.is_in_sync(&story.view));
}

#[test]
fn a_behind_replica_sends_nothing_until_it_caught_up() {
    let mut story = story();
    let older = Arc::clone(&story.view);
    story.commit(&[upstream("a", 2)], &[]);
    let (_, mut node) = synced(&story);
    let (mut session, welcome) = Session::hello(&node.hello(), &older);
    assert_eq!(welcome.mode(), Mode::Behind);
    assert!(send(&mut session, &older).is_none());
    assert!(send(&mut session, &story.view).is_none(), "now it is in sync");
    story.commit(&[upstream("a", 3)], &[]);
    let next = send(&mut session, &story.view).expect("a delta");
    assert_eq!(session.ack(&node.apply(&next, &[])), Ok(Acknowledged::InSync));
}

#[test]
fn deltas_of_the_same_span_are_built_once() {
    let mut story = story();
    let (mut one, _) = synced(&story);
    let (mut two, _) = synced(&story);
    story.commit(&[upstream("a", 2)], &[]);
    let (Content::Shared(left), Content::Shared(right)) = (
        send(&mut one, &story.view).expect("a delta").content,
        send(&mut two, &story.view).expect("a delta").content,
    ) else {
        panic!("both share")
    };
    assert!(Arc::ptr_eq(&left, &right));
}
