//! Several writers and readers at once, on handles of their own, as replicas would be.

use futures_util::future::join_all;

use super::*;

/// Commits until it goes in; the writes do not depend on the head.
async fn commit_by_all_means(store: &dyn Store, writes: &[Write]) -> Committed {
    let mut head = store.head().await.expect("answers");
    loop {
        match commit(store, head, writes.to_vec()).await {
            Ok(made) => return made,
            Err(CommitError::Moved { head: newer }) => {
                assert_ne!(newer.revision, head.revision, "it is told where the head went");
                head = newer;
            }
            Err(other) => panic!("{other}"),
        }
    }
}

pub(super) async fn of_two_writers_on_one_base_exactly_one_wins(url: String) {
    let stores = [store(&url).await, store(&url).await];
    for round in 1..=20 {
        let base = stores[0].head().await.expect("answers");
        let writers =
            stores.iter().zip(["x", "y"]).map(|(store, name)| commit(&**store, base, vec![put(name, "1")]));
        let outcomes = join_all(writers).await;
        let winners = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert_eq!(winners, 1, "{outcomes:?}");
        for outcome in outcomes {
            if let Err(error) = outcome {
                assert!(matches!(error, CommitError::Moved { head } if head.revision == round), "{error}");
            }
        }
        assert_eq!(stores[1].head().await.expect("answers").revision, round);
    }
    assert_sound(&*stores[0]).await;
}

/// On a handle of its own; returns the revisions that it made.
async fn write_alone(url: String, name: String, times: u64) -> Vec<u64> {
    let store = store(&url).await;
    let mut made = Vec::new();
    for note in 0..times {
        made.push(commit_by_all_means(&*store, &[put(&name, &note.to_string())]).await.head.revision);
    }
    made
}

pub(super) async fn eight_writers_leave_a_history_without_gaps(url: String) {
    const EACH: u64 = 6;
    let first = store(&url).await;
    let watcher = {
        let (store, mut heads) = (Arc::clone(&first), first.watch());
        tokio::spawn(async move {
            let mut last = 0;
            while last < 8 * EACH {
                heads.changed().await.expect("the store is open");
                let head = *heads.borrow_and_update();
                assert!(head.revision > last, "the watch goes forward");
                last = head.revision;
                for revision in [1, last] {
                    assert!(
                        store.revision(revision).await.expect("answers").is_some(),
                        "{revision} is visible"
                    );
                }
            }
        })
    };
    let mut writers = Vec::new();
    for writer in 0..8 {
        writers.push(tokio::spawn(write_alone(url.clone(), format!("w{writer}"), EACH)));
    }
    let mut revisions = Vec::new();
    for writer in writers {
        let made = writer.await.expect("no writer failed");
        assert!(made.is_sorted(), "a writer's own commits are in order");
        revisions.extend(made);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=8 * EACH).collect::<Vec<_>>(), "each revision was made once");
    watcher.await.expect("the watcher saw the end");
    assert_eq!(assert_sound(&*first).await, 8);
}

/// The references themselves are admission's business: it compiles against the base, so that the store only has to see
/// to it that the base still holds.
pub(super) async fn an_upstream_is_deleted_or_gets_a_route_but_never_both(url: String) {
    let stores = [store(&url).await, store(&url).await];
    for round in 0..10 {
        let (upstream_name, route_name) = (format!("u{round}"), format!("r{round}"));
        commit_on_head(&*stores[0], vec![put(&upstream_name, "1")]).await;
        let base = stores[0].head().await.expect("answers");
        let adds = vec![Write::put(route(&route_name), Precondition::Any)];
        let (deleted, added) = tokio::join!(
            commit(&*stores[0], base, vec![delete(&upstream_name)]),
            commit(&*stores[1], base, adds),
        );
        assert!(deleted.is_ok() != added.is_ok(), "{deleted:?} {added:?}");
        let (_, objects) = load(&*stores[0]).await;
        let route_key = Key::new(Kind::Route, "default", &*route_name);
        assert_eq!(objects.contains_key(&upstream_key(&upstream_name)), objects.contains_key(&route_key));
    }
    assert_sound(&*stores[0]).await;
}

pub(super) async fn an_abandoned_commit_is_whole_or_absent(url: String) {
    let (writer, reader) = (store(&url).await, store(&url).await);
    let mut heads = Vec::new();
    for polls in 0..60_u32 {
        let base = reader.head().await.expect("answers");
        let note = polls.to_string();
        let mut doomed =
            Box::pin(commit(&*writer, base, vec![put("a", &note), put("b", &note), put("c", "1")]));
        // Drops the commit after so many steps of it, as a request that is cut off would.
        for _ in 0..polls {
            if futures_util::poll!(&mut doomed).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(doomed);
        let (head, objects) = load(&*reader).await;
        let notes = ["a", "b"].map(|name| objects.get(&upstream_key(name)).map(|stored| stored.revision));
        assert_eq!(notes[0], notes[1], "both or none");
        heads.push(head.revision);
    }
    assert!(heads.is_sorted());
    let made = commit_by_all_means(&*reader, &[put("a", "last"), put("b", "last")]).await;
    assert!(made.head.revision > *heads.last().expect("sixty"));
    assert_sound(&*reader).await;
}

pub(super) async fn a_reader_never_sees_half_a_revision(url: String) {
    let (writer, reader) = (store(&url).await, store(&url).await);
    let names = ["a", "b", "c", "d"];
    let writing = tokio::spawn(async move {
        for note in 0..25 {
            let note = note.to_string();
            commit_on_head(&*writer, names.iter().map(|name| put(name, &note)).collect()).await;
        }
    });
    let mut seen = 0;
    while seen < 25 {
        let (head, objects) = load(&*reader).await;
        assert!(objects.values().all(|stored| stored.revision == head.revision), "{head:?} {objects:?}");
        let changes = reader.changes_since(seen).await.expect("answers");
        let expected = if changes.head.revision > seen { names.len() } else { 0 };
        assert_eq!(changes.changes.len(), expected, "all of a revision or nothing");
        seen = changes.head.revision;
    }
    writing.await.expect("the writer finished");
}
