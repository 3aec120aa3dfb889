//! Being told: watches of heads and tokens, and the end of a store.

use std::time::Duration;

use super::*;
use crate::store::StoreError;

/// Longer than any poll interval; a test that waits it out fails.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) async fn the_watch_wakes_for_commits_of_any_handle(url: String) {
    let (own, other) = (store(&url).await, store(&url).await);
    let mut heads = own.watch();
    assert_eq!(heads.borrow_and_update().revision, 0);
    let made = commit_on_head(&*own, vec![put("a", "1")]).await;
    assert_eq!(*heads.borrow_and_update(), made.head, "an own commit is seen before it is answered");
    for note in 2..=3 {
        let made = commit_on_head(&*other, vec![put("a", &note.to_string())]).await;
        let seen = heads.wait_for(|head| head.revision >= made.head.revision);
        let seen = *tokio::time::timeout(PATIENCE, seen).await.expect("it wakes").expect("the store is open");
        assert_eq!(seen, made.head);
    }
}

pub(super) async fn the_token_watch_wakes_for_changes_of_any_handle(url: String) {
    let (own, other) = (store(&url).await, store(&url).await);
    let mut versions = own.watch_tokens();
    for (store, name) in [(&own, "one"), (&other, "two")] {
        let before = *versions.borrow_and_update();
        let (_, token) = crate::auth::new_token(name, Role::Viewer, Vec::new(), None);
        store.create_token(token, None).await.expect("the name is free");
        let changed = versions.wait_for(|version| *version > before);
        drop(tokio::time::timeout(PATIENCE, changed).await.expect("it wakes").expect("the store is open"));
    }
}

pub(super) async fn a_closed_store_answers_with_an_error(url: String) {
    let store = store(&url).await;
    let head = store.head().await.expect("answers");
    store.close().await;
    let error = store.head().await.expect_err("it is closed");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    let error = commit(&*store, head, vec![put("a", "1")]).await.expect_err("it is closed");
    assert!(matches!(error, CommitError::Store(StoreError::Unavailable(_))), "{error}");
}
