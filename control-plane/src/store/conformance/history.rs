//! Past states: each can be had again, exactly, and any two can be compared.

use bytes::Bytes;

use super::*;
use crate::store::{Change, StoreError};

pub(super) type State = BTreeMap<Key, Bytes>;

pub(super) async fn state_at(store: &dyn Store, revision: u64) -> State {
    let mut state = State::new();
    store
        .state_at(revision, &mut |stored| {
            state.insert(stored.key, stored.body);
        })
        .await
        .expect("it exists");
    state
}

/// A history of forty commits on ten names, the same on every run: creations, changes, deletions, and contents that
/// come back.
pub(super) async fn write_history(store: &dyn Store) -> Vec<State> {
    let mut state = State::new();
    let mut states = vec![state.clone()];
    let mut random: u32 = 7;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    for _ in 0..40 {
        let mut writes = BTreeMap::new();
        for _ in 0..=next(4) {
            let name = format!("u{}", next(10));
            let key = upstream_key(&name);
            if state.contains_key(&key) && next(3) == 0 {
                writes.insert(key, delete(&name));
            } else {
                writes.insert(key, put(&name, &next(3).to_string()));
            }
        }
        for (key, write) in &writes {
            match write.content() {
                Some(content) => state.insert(key.clone(), content.body().clone()),
                None => state.remove(key),
            };
        }
        commit_on_head(store, writes.into_values().collect()).await;
        states.push(state.clone());
    }
    states
}

pub(super) async fn every_past_state_equals_the_replay_of_the_commits(url: String) {
    let store = store(&url).await;
    let states = write_history(&*store).await;
    let last = states.len() - 1;
    for (revision, state) in states.iter().enumerate() {
        assert_eq!(&state_at(&*store, revision as u64).await, state, "state at {revision}");
        let root = state
            .iter()
            .map(|(key, body)| gateway_proto::digest::ItemHash::of(key, body))
            .collect::<RootHash>();
        match store.revision(revision as u64).await.expect("answers") {
            Some(entry) => assert_eq!(entry.root, root, "root hash at {revision}"),
            None => assert_eq!(revision, 0),
        }
        let mut caught_up = state.clone();
        for change in store.changes_since(revision as u64).await.expect("answers").changes {
            match change {
                Change::Put(stored) => caught_up.insert(stored.key, stored.body),
                Change::Delete(key) => caught_up.remove(&key),
            };
        }
        assert_eq!(caught_up, states[last], "changes since {revision}");
    }
    for (from, to) in
        [(0, last), (last, 0), (last, 7), (7, last), (12, 13), (13, 12), (20, 20), (5, 31), (31, 5)]
    {
        let mut moved = states[from].clone();
        for difference in store.diff(from as u64, to as u64).await.expect("they exist") {
            assert_eq!(moved.get(&difference.key), difference.before.as_ref(), "before, {from} to {to}");
            assert_ne!(difference.before, difference.after, "only what differs");
            match difference.after {
                Some(body) => moved.insert(difference.key, body),
                None => moved.remove(&difference.key),
            };
        }
        assert_eq!(moved, states[to], "{from} to {to}");
    }
    assert_sound(&*store).await;
}

pub(super) async fn the_namespaces_of_a_revision_are_those_of_its_changes(url: String) {
    let store = store(&url).await;
    let shop = Write::put(
        wire::Upstream {
            metadata: Some(wire::Metadata {
                name: "s".into(),
                namespace: "shop".into(),
                ..Default::default()
            }),
            ..Default::default()
        }
        .into(),
        Precondition::Any,
    );
    let gone = Write::delete(Key::new(Kind::Upstream, "shop", "s"), Precondition::Any);
    for writes in [vec![put("a", "1"), put("b", "1")], vec![put("a", "2"), shop], vec![gone]] {
        commit_on_head(&*store, writes).await;
    }
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let expected = [(1, of(&["default"])), (2, of(&["default", "shop"])), (3, of(&["shop"]))];
    assert_eq!(store.namespaces(1, 3).await.expect("answers"), expected.clone().into());
    assert_eq!(store.namespaces(3, 9).await.expect("answers"), expected[2..].iter().cloned().collect());
}

pub(super) async fn history_comes_in_pages_from_the_newest(url: String) {
    let store = store(&url).await;
    for note in 1..=7 {
        commit_on_head(&*store, vec![put("a", &note.to_string())]).await;
    }
    /// Before, limit; revisions, next.
    type Case<'a> = (Option<u64>, u32, &'a [u64], Option<u64>);
    let cases: [Case<'_>; 6] = [
        (None, 3, &[7, 6, 5], Some(5)),
        (Some(5), 3, &[4, 3, 2], Some(2)),
        (Some(2), 3, &[1], None),
        (Some(1), 3, &[], None),
        (None, 7, &[7, 6, 5, 4, 3, 2, 1], None),
        (None, 0, &[7], Some(7)),
    ];
    for (before, limit, expected, next) in cases {
        let page = store.revisions(PageRequest { before, limit }).await.expect("answers");
        let revisions = page.items.iter().map(|item| item.revision).collect::<Vec<_>>();
        assert_eq!((revisions.as_slice(), page.next), (expected, next), "before {before:?}, {limit} items");
    }
}

pub(super) async fn a_revision_that_does_not_exist_is_named(url: String) {
    let store = store(&url).await;
    commit_on_head(&*store, vec![put("a", "1")]).await;
    let missing = [
        store.state_at(2, &mut |_| {}).await.expect_err("above the head"),
        store.diff(0, 2).await.expect_err("above the head"),
        store.diff(2, 1).await.expect_err("above the head"),
    ];
    for error in missing {
        assert!(matches!(error, StoreError::NoSuchRevision { revision: 2, head: 1 }), "{error}");
    }
    assert_eq!(store.revision(2).await.expect("answers"), None);
    assert_eq!(store.revision(u64::MAX).await.expect("answers"), None);
    assert_eq!(store.changes_since(u64::MAX).await.expect("answers").changes, []);
}
