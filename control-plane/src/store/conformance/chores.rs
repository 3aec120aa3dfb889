//! Chores: history is cut without a scratch on what is kept, and by one replica at a time.

use std::time::Duration;

use super::history::{state_at, write_history};
use super::*;
use crate::store::{Compacted, Fence, NodeSeen, Retention, SecretId, SecretRecord, StoreError};

const fn newest(revisions: u64) -> Retention {
    Retention { revisions, age: None }
}

async fn lead(store: &dyn Store) -> Fence {
    store.lead().await.expect("answers").expect("nobody else does")
}

/// Cuts until nothing is left to be cut; what that came to.
async fn cut(store: &dyn Store, fence: Fence, keep: Retention) -> Compacted {
    let mut sum = Compacted { oldest: 0, changes: 0, secrets: 0, more: true };
    while sum.more {
        let done = store.compact(fence, keep).await.expect("answers");
        assert!(done.oldest >= sum.oldest);
        let (changes, secrets) = (sum.changes + done.changes, sum.secrets + done.secrets);
        sum = Compacted { changes, secrets, ..done };
    }
    sum
}

fn assert_gone<T: std::fmt::Debug>(outcome: Result<T, StoreError>, revision: u64, oldest: u64) {
    let error = outcome.expect_err("it is gone");
    let expected =
        matches!(error, StoreError::NotKept { revision: r, oldest: o } if (r, o) == (revision, oldest));
    assert!(expected, "{error:?}");
}

pub(super) async fn what_history_keeps_is_as_before_and_the_rest_is_named_as_gone(url: String) {
    let store = store(&url).await;
    let states = write_history(&*store).await;
    let before = store.changes_since(31).await.expect("answers");
    let mut changes = 0;
    for revision in
        store.revisions(PageRequest { before: Some(30), limit: 100 }).await.expect("answers").items
    {
        changes += u64::from(revision.created + revision.updated + revision.deleted);
    }
    let fence = lead(&*store).await;
    assert_eq!(cut(&*store, fence, newest(50)).await.oldest, 0, "there are only forty");
    let done = cut(&*store, fence, newest(12)).await;
    assert_eq!((done.oldest, done.changes), (29, changes - states[29].len() as u64));
    assert_eq!(cut(&*store, fence, newest(12)).await.changes, 0);
    assert_eq!(store.oldest().await.expect("answers"), 29);

    for (revision, state) in states.iter().enumerate().skip(29) {
        assert_eq!(&state_at(&*store, revision as u64).await, state, "state at {revision}");
    }
    for (from, to) in [(29, 40), (40, 29), (31, 30)] {
        let mut moved = states[from].clone();
        for difference in store.diff(from as u64, to as u64).await.expect("they are kept") {
            match difference.after {
                Some(body) => moved.insert(difference.key, body),
                None => moved.remove(&difference.key),
            };
        }
        assert_eq!(moved, states[to], "{from} to {to}");
    }
    assert_eq!(store.changes_since(31).await.expect("answers"), before);
    let page = store.revisions(PageRequest { before: None, limit: 100 }).await.expect("answers");
    assert_eq!(
        page.items.iter().map(|it| it.revision).collect::<Vec<_>>(),
        (29..=40).rev().collect::<Vec<_>>()
    );
    assert_eq!(page.next, None);

    assert_gone(store.state_at(28, &mut |_| {}).await, 28, 29);
    assert_gone(store.diff(40, 0).await, 0, 29);
    assert_gone(store.diff(28, 40).await, 28, 29);
    assert_gone(store.revision(28).await, 28, 29);
    assert!(store.changes_since(28).await.expect("answers").cut, "deletes may be missing");
    assert!(!store.changes_since(29).await.expect("answers").cut);
    let (head, objects) = load(&*store).await;
    assert_eq!(objects.into_iter().map(|(key, it)| (key, it.body)).collect::<BTreeMap<_, _>>(), states[40]);
    assert_eq!(commit_on_head(&*store, vec![put("new", "1")]).await.head.revision, head.revision + 1);
    assert_eq!(cut(&*store, fence, newest(12)).await.oldest, 30);
}

pub(super) async fn old_revisions_go_but_never_the_newest_ten(url: String) {
    let store = store(&url).await;
    for note in 1..=15 {
        commit_on_head(&*store, vec![put("a", &note.to_string())]).await;
    }
    let fence = lead(&*store).await;
    let aged = |age| Retention { revisions: 1_000, age: Some(age) };
    assert_eq!(cut(&*store, fence, aged(Duration::from_secs(3600))).await.oldest, 0, "all are young");
    assert_eq!(cut(&*store, fence, aged(Duration::ZERO)).await.oldest, 6, "ten are kept");
    assert_eq!(cut(&*store, fence, newest(1)).await.oldest, 6);
    assert_eq!(
        store.revisions(PageRequest { before: None, limit: 100 }).await.expect("answers").items.len(),
        10
    );
}

pub(super) async fn a_sealed_value_goes_with_the_last_content_that_refers_to_it(url: String) {
    let store = store(&url).await;
    let id = |name, revision| SecretId { key: upstream_key(name), field: "spec.key".into(), revision };
    let record = |id| SecretRecord { id, master: [1; 8], data_key: vec![1], value: vec![2] };
    let reference = |revision: u64| format!("sealed:{revision}:00");
    let with =
        |name, revision| vec![put(name, &reference(revision)).with_secrets(vec![record(id(name, revision))])];
    commit_on_head(&*store, with("held", 1)).await;
    commit_on_head(&*store, with("replaced", 2)).await;
    commit_on_head(&*store, with("deleted", 3)).await;
    commit_on_head(&*store, with("back", 4)).await;
    commit_on_head(&*store, with("replaced", 5)).await;
    commit_on_head(&*store, vec![delete("deleted"), put("back", "none")]).await;
    commit_on_head(&*store, vec![put("back", &reference(4))]).await;
    for note in 8..=17 {
        commit_on_head(&*store, vec![put("other", &note.to_string())]).await;
    }
    let all = [id("held", 1), id("replaced", 2), id("deleted", 3), id("back", 4), id("replaced", 5)];
    let fence = lead(&*store).await;
    assert_eq!(cut(&*store, fence, newest(14)).await.secrets, 0, "revision 4 still refers to all of them");
    let done = cut(&*store, fence, newest(10)).await;
    assert_eq!((done.oldest, done.secrets), (8, 2));
    let mut left: Vec<_> =
        store.secrets(all.to_vec()).await.expect("answers").into_iter().map(|it| it.id).collect();
    left.sort();
    assert_eq!(left, [id("back", 4), id("held", 1), id("replaced", 5)]);
}

pub(super) async fn a_commit_from_a_revision_that_was_dropped_is_not_made(url: String) {
    let store = store(&url).await;
    for note in 1..=12 {
        commit_on_head(&*store, vec![put("a", &note.to_string())]).await;
    }
    let base = store.head().await.expect("answers");
    let back_to = |revision| Commit {
        base,
        author: "ann".into(),
        message: String::new(),
        writes: vec![put("a", "1")],
        audit: None,
        credentials: Vec::new(),
        origin: Origin::Revision(revision),
    };
    let fence = lead(&*store).await;
    assert_eq!(cut(&*store, fence, newest(10)).await.oldest, 3);
    let error = store.commit(back_to(2)).await.expect_err("it is gone");
    assert!(matches!(error, CommitError::Moved { head } if head == base), "{error}");
    store.commit(back_to(3)).await.expect("it is kept");
}

pub(super) async fn who_was_replaced_does_no_more_chores(url: String) {
    let (former, later) = (store(&url).await, store(&url).await);
    for note in 1..=12 {
        commit_on_head(&*former, vec![put("a", &note.to_string())]).await;
    }
    let gone = NodeSeen {
        node: "gone".into(),
        replica: uuid::Uuid::nil(),
        opened_ago: Duration::from_secs(9000),
        seen_ago: Duration::from_secs(9000),
        connected: false,
        revision: 1,
        report: serde_json::Value::Null,
    };
    former.put_nodes(vec![gone]).await.expect("stored");
    let old = lead(&*former).await;
    assert_eq!(lead(&*former).await, old, "asking again changes nothing");
    former.step_down().await;
    let new = lead(&*later).await;
    assert!(new > old);

    let refused = former.compact(old, newest(10)).await.expect_err("it was replaced");
    assert!(matches!(refused, StoreError::Deposed), "{refused}");
    let refused = former.forget_nodes(old, Duration::from_secs(60)).await.expect_err("it was replaced");
    assert!(matches!(refused, StoreError::Deposed), "{refused}");
    assert_eq!(later.oldest().await.expect("answers"), 0);
    assert_eq!(later.nodes().await.expect("answers").len(), 1);
    assert_eq!(later.compact(new, newest(10)).await.expect("it leads").oldest, 3);
    assert_eq!(later.forget_nodes(new, Duration::from_secs(60)).await.expect("it leads"), 1);
}

pub(super) async fn a_backup_that_is_restored_begins_an_epoch_that_may_be_smaller(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    let base = commit_on_head(&*one, vec![put("a", "1")]).await.head;
    let mut seen = two.watch();
    let restore = Commit {
        base,
        author: "ann".into(),
        message: "restore".into(),
        writes: vec![put("a", "2"), put("b", "1")],
        audit: None,
        credentials: Vec::new(),
        origin: Origin::Backup,
    };
    let made = one.commit(restore.clone()).await.expect("stored").head;
    assert_ne!(made.epoch, base.epoch);
    assert_eq!(made.revision, 2, "history goes on");
    seen.wait_for(|head| *head == made).await.expect("the other hears of it");
    assert!(may_shrink(&*two, made).await);
    assert!(!may_shrink(&*two, base).await, "what was published before it is not meant");
    assert!(!may_shrink(&*two, Head { epoch: made.epoch, ..base }).await);
    let moved = one.commit(restore).await.expect_err("another epoch");
    assert!(matches!(moved, CommitError::Moved { head } if head == made), "{moved}");
    assert_eq!(commit_on_head(&*two, vec![delete("b")]).await.head.epoch, made.epoch);
    assert!(may_shrink(&*one, Head { revision: 3, ..made }).await, "as long as the epoch lasts");
    assert_sound(&*one).await;
}
