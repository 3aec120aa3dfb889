//! One commit at a time: what it writes, what it answers, and when it is refused.

use gateway_proto::digest::RootHash;
use uuid::Uuid;

use super::*;
use crate::store::Change;

pub(super) async fn a_new_store_is_created_once_and_keeps_its_epoch(url: String) {
    let first = open(&url).await;
    assert!(first.created);
    let head = first.store.head().await.expect("answers");
    assert_eq!((head.revision, head.root), (0, RootHash::default()));
    assert_eq!(load(&*first.store).await.1.len(), 0);
    let token = first.store.tokens().await.expect("answers").tokens;
    let made = commit_on_head(&*first.store, vec![put("a", "1")]).await;
    first.store.close().await;

    let second = open(&url).await;
    assert!(!second.created);
    assert_eq!(second.store.head().await.expect("answers"), made.head);
    assert_eq!(made.head.epoch, head.epoch);
    assert_eq!(second.store.tokens().await.expect("answers").tokens, token, "the second token was not added");
}

pub(super) async fn of_many_replicas_that_start_at_once_one_creates_the_store(url: String) {
    let replicas = futures_util::future::join_all((0..8).map(|_| open(&url))).await;
    assert_eq!(replicas.iter().filter(|replica| replica.created).count(), 1);
    let mut epochs = Vec::new();
    for replica in &replicas {
        epochs.push(replica.store.head().await.expect("answers").epoch);
        assert_eq!(replica.store.tokens().await.expect("answers").tokens.len(), 1);
    }
    epochs.dedup();
    assert_eq!(epochs.len(), 1);
}

pub(super) async fn a_commit_is_one_revision_and_is_read_back_byte_for_byte(url: String) {
    let store = store(&url).await;
    let resources = [upstream("b", "2"), route("a"), upstream("a", "1")];
    let writes = resources.iter().cloned().map(|it| Write::put(it, Precondition::Any)).collect();
    let made = commit_on_head(&*store, writes).await;
    assert_eq!(made.head.revision, 1);
    let (head, objects) = load(&*store).await;
    assert_eq!(head, made.head);
    assert_eq!(objects.len(), 3);
    for resource in resources {
        let canonical = resource.canonical();
        let stored = &objects[&canonical.key()];
        assert_eq!(stored.body, canonical.encode());
        assert_eq!((stored.generation, stored.revision), (1, 1));
        assert_eq!((stored.created, stored.updated), (made.at, made.at));
    }
    let changes = store.changes_since(0).await.expect("answers");
    assert_eq!((changes.head, &changes.changes), (made.head, &made.changes));
    let entry = store.revision(1).await.expect("answers").expect("it exists");
    assert_eq!((entry.created, entry.updated, entry.deleted), (3, 0, 0));
    assert_eq!((entry.author.as_str(), entry.message.as_str()), ("ann", "why"));
    assert_eq!((entry.at, entry.root), (made.at, made.head.root));
    assert_sound(&*store).await;
}

pub(super) async fn a_change_keeps_the_birth_and_a_delete_forgets_it(url: String) {
    let store = store(&url).await;
    let first = commit_on_head(&*store, vec![put("a", "1"), put("b", "1")]).await;
    let second = commit_on_head(&*store, vec![put("a", "2")]).await;
    let (_, objects) = load(&*store).await;
    let a = &objects[&upstream_key("a")];
    assert_eq!((a.generation, a.revision, a.created, a.updated), (2, 2, first.at, second.at));
    assert_eq!(objects[&upstream_key("b")].revision, 1, "what is not written stays as it is");

    let third = commit_on_head(&*store, vec![delete("a")]).await;
    assert_eq!(third.changes, [Change::Delete(upstream_key("a"))]);
    let entry = store.revision(3).await.expect("answers").expect("it exists");
    assert_eq!((entry.created, entry.updated, entry.deleted), (0, 0, 1));
    let fourth = commit_on_head(&*store, vec![put("a", "2")]).await;
    let (_, objects) = load(&*store).await;
    let a = &objects[&upstream_key("a")];
    assert_eq!((a.generation, a.revision, a.created), (1, 4, fourth.at));
    let since_second = store.changes_since(2).await.expect("answers").changes;
    assert_eq!(since_second, fourth.changes, "merged: deleted and made anew is one put");
    assert_sound(&*store).await;
}

pub(super) async fn a_commit_on_another_base_is_told_the_head_and_writes_nothing(url: String) {
    let store = store(&url).await;
    let old = store.head().await.expect("answers");
    let made = commit_on_head(&*store, vec![put("a", "1")]).await;
    let future = Head { revision: 9, ..made.head };
    let foreign = Head { epoch: Uuid::new_v4(), ..made.head };
    for base in [old, future, foreign] {
        let error = commit(&*store, base, vec![put("b", "1")]).await.expect_err("wrong base");
        assert!(matches!(error, CommitError::Moved { head } if head == made.head), "{error}");
    }
    assert_eq!(store.head().await.expect("answers"), made.head);
    assert_eq!(assert_sound(&*store).await, 1);
}

pub(super) async fn preconditions_are_checked_object_by_object(url: String) {
    let store = store(&url).await;
    commit_on_head(&*store, vec![put("a", "1")]).await;
    let head = commit_on_head(&*store, vec![put("b", "1")]).await.head;
    let bad = [
        ("a", Precondition::Absent, Some(1)),
        ("a", Precondition::Revision(2), Some(1)),
        ("none", Precondition::Present, None),
        ("none", Precondition::Revision(1), None),
    ];
    for (name, expected, found) in bad {
        for write in [Write::put(upstream(name, "2"), expected), Write::delete(upstream_key(name), expected)]
        {
            let error = commit(&*store, head, vec![put("c", "1"), write]).await.expect_err("not as expected");
            let CommitError::Precondition { key, expected: told, found: seen } = error else {
                panic!("{error}")
            };
            assert_eq!((key, told, seen), (upstream_key(name), expected, found));
        }
    }
    let gone = commit(&*store, head, vec![delete("none")]).await.expect_err("it does not exist");
    assert!(matches!(gone, CommitError::Precondition { found: None, .. }), "{gone}");
    assert_eq!(store.head().await.expect("answers"), head);

    let good = vec![
        Write::put(upstream("a", "2"), Precondition::Revision(1)),
        Write::put(upstream("b", "2"), Precondition::Present),
        Write::put(upstream("c", "1"), Precondition::Absent),
    ];
    let head = commit(&*store, head, good).await.expect("as expected").head;
    commit(&*store, head, vec![Write::delete(upstream_key("a"), Precondition::Revision(3))])
        .await
        .expect("as expected");
    assert_eq!(assert_sound(&*store).await, 2);
}

pub(super) async fn an_empty_or_contradictory_commit_is_refused(url: String) {
    let store = store(&url).await;
    let head = commit_on_head(&*store, vec![put("a", "1")]).await.head;
    for writes in [vec![], vec![put("a", "2"), delete("a")], vec![put("b", "1"), put("b", "1")]] {
        let error = commit(&*store, head, writes).await.expect_err("refused");
        assert!(matches!(error, CommitError::Refused(_)), "{error}");
    }
    assert_eq!(store.head().await.expect("answers"), head);
}

pub(super) async fn any_text_and_a_body_of_one_mebibyte_survive(url: String) {
    let store = store(&url).await;
    let big = "€".repeat((1 << 20) / 3);
    let mut labelled = upstream("labelled", "a 'quoted' \"text\" \\ $1 \u{0} 🦀 \u{202e}");
    labelled.metadata_mut().labels.insert("teäm".into(), "x\u{0}y 🦀".into());
    labelled.metadata_mut().namespace = "ünïcode".into();
    let writes = vec![put("big", &big), Write::put(labelled.clone(), Precondition::Any)];
    let base = store.head().await.expect("answers");
    let (author, message) = ("añn \u{0}", "wh\u{0}y? 'because'\n🦀");
    let commit = Commit {
        base,
        author: author.into(),
        message: message.into(),
        writes,
        audit: None,
        credentials: Vec::new(),
        origin: Origin::Request,
    };
    store.commit(commit).await.expect("stored");
    let (_, objects) = load(&*store).await;
    assert_eq!(objects[&upstream_key("big")].body, upstream("big", &big).canonical().encode());
    let labelled = labelled.canonical();
    assert_eq!(objects[&labelled.key()].body, labelled.encode());
    let entry = store.revision(1).await.expect("answers").expect("it exists");
    assert_eq!(
        (entry.author.as_str(), entry.message.as_str()),
        ("añn \u{fffd}", "wh\u{fffd}y? 'because'\n🦀")
    );
    assert_sound(&*store).await;
}

/// More than one statement's worth of rows on either database.
pub(super) async fn thousands_of_objects_are_one_revision(url: String) {
    const MANY: usize = 6_001;
    let store = store(&url).await;
    let name = |n: usize| format!("u{n}");
    let made = commit_on_head(&*store, (0..MANY).map(|n| put(&name(n), "1")).collect()).await;
    assert_eq!((made.head.revision, made.changes.len()), (1, MANY));
    assert_eq!(assert_sound(&*store).await, MANY);
    let writes = (0..MANY).map(|n| if n % 2 == 0 { delete(&name(n)) } else { put(&name(n), "2") });
    let made = commit_on_head(&*store, writes.collect()).await;
    assert_eq!(assert_sound(&*store).await, MANY / 2);
    let entry = store.revision(2).await.expect("answers").expect("it exists");
    assert_eq!((entry.created, entry.updated, entry.deleted), (0, 3_000, 3_001));
    assert_eq!(store.diff(1, 2).await.expect("answers").len(), MANY);
    assert_eq!(store.changes_since(1).await.expect("answers").changes.len(), made.changes.len());
}

pub(super) async fn that_data_planes_may_shrink_is_kept_and_makes_no_revision(url: String) {
    let (one, two) = (open(&url).await.store, open(&url).await.store);
    let empty = one.head().await.expect("answers");
    let before = commit_on_head(&*one, vec![put("a", "1")]).await.head;
    assert!(!may_shrink(&*one, before).await);
    one.allow_shrink().await.expect("answers");
    assert_eq!(two.head().await.expect("answers"), before);
    let later = commit_on_head(&*two, vec![put("a", "2")]).await.head;
    one.allow_shrink().await.expect("twice is once");
    assert!(may_shrink(&*two, before).await && may_shrink(&*one, later).await);
    assert!(!may_shrink(&*one, empty).await, "what was published before is not meant");
}
