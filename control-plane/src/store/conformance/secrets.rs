//! Sealed values and the record of the master key.

use super::*;
use crate::store::{MasterRecord, SecretId, SecretRecord};

fn id(name: &str, revision: u64) -> SecretId {
    SecretId { key: upstream_key(name), field: "spec.k\u{e9}y".into(), revision }
}

/// Any bytes: what they mean is not the store's business.
fn record(id: SecretId, content: u8) -> SecretRecord {
    SecretRecord { id, master: [content; 8], data_key: vec![0, content], value: vec![content; 100_000] }
}

fn put_with(name: &str, secrets: Vec<SecretRecord>) -> Write {
    put(name, &secrets.len().to_string()).with_secrets(secrets)
}

async fn found(store: &dyn Store, wanted: &[SecretId]) -> Vec<SecretRecord> {
    let mut found = store.secrets(wanted.to_vec()).await.expect("answers");
    found.sort_by(|one, other| one.id.cmp(&other.id));
    found
}

pub(super) async fn a_sealed_value_is_kept_beside_the_revision_that_brought_it(url: String) {
    let store = store(&url).await;
    let (old, new, other) = (record(id("a", 1), 1), record(id("a", 2), 2), record(id("b", 1), 3));
    let first = vec![put_with("a", vec![old.clone()]), put_with("b", vec![other.clone()])];
    commit_on_head(&*store, first).await;
    commit_on_head(&*store, vec![put_with("a", vec![new.clone()])]).await;
    commit_on_head(&*store, vec![delete("a"), delete("b")]).await;

    let wanted = [id("a", 1), id("a", 2), id("b", 1)];
    let kept = [old.clone(), new, other];
    assert_eq!(found(&*store, &wanted).await, kept, "history needs them, also when the objects are gone");
    let elsewhere = SecretId { field: "spec.other".into(), ..id("a", 1) };
    assert_eq!(found(&*store, &[id("a", 3), id("c", 1), elsewhere, id("a", 1)]).await, [old]);
    assert_eq!(found(&*store, &[]).await, []);
}

pub(super) async fn a_commit_that_does_not_happen_leaves_no_sealed_value(url: String) {
    let store = store(&url).await;
    let base = store.head().await.expect("answers");
    commit_on_head(&*store, vec![put("a", "1")]).await;
    let late = vec![put_with("b", vec![record(id("b", 1), 1)])];
    commit(&*store, base, late).await.expect_err("the head moved");
    let head = store.head().await.expect("answers");
    for (name, foreign) in [("b", id("a", 2)), ("b", id("b", 3))] {
        let write = vec![put_with(name, vec![record(foreign, 1)])];
        let refused = commit(&*store, head, write).await.expect_err("not its own");
        assert!(matches!(refused, CommitError::Refused(_)), "{refused}");
    }
    assert_eq!(found(&*store, &[id("b", 1), id("a", 2), id("b", 3)]).await, []);
}

pub(super) async fn of_two_master_keys_the_first_stays(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    assert_eq!(one.master().await.expect("answers"), None);
    let record = |content| MasterRecord { id: [content; 8], tag_key: vec![content; 60] };
    assert_eq!(one.create_master(record(1)).await.expect("answers"), record(1));
    assert_eq!(two.create_master(record(2)).await.expect("answers"), record(1));
    assert_eq!(two.master().await.expect("answers"), Some(record(1)));
}

pub(super) async fn a_commit_under_another_master_key_than_the_named_one_is_refused(url: String) {
    let (one, two) = (store(&url).await, store(&url).await);
    let master = |content| MasterRecord { id: [content; 8], tag_key: vec![content; 60] };
    one.create_master(master(1)).await.expect("answers");
    commit_on_head(&*one, vec![put_with("a", vec![record(id("a", 1), 1)])]).await;
    assert!(!two.replace_master([7; 8], master(3)).await.expect("answers"), "that is not the one it names");
    assert!(two.replace_master([1; 8], master(2)).await.expect("answers"));
    assert_eq!(one.master().await.expect("answers"), Some(master(2)));

    let head = one.head().await.expect("answers");
    let old = vec![put_with("b", vec![record(id("b", 2), 1)])];
    let refused = commit(&*one, head, old).await.expect_err("sealed with the old key");
    assert!(matches!(refused, CommitError::Resealed), "{refused}");
    assert_eq!(found(&*one, &[id("b", 2)]).await, []);
    commit_on_head(&*one, vec![put("c", "without a secret")]).await;
    commit_on_head(&*one, vec![put_with("b", vec![record(id("b", 3), 2)])]).await;
}

pub(super) async fn data_keys_are_replaced_and_values_stay(url: String) {
    let store = store(&url).await;
    let records: Vec<_> = ["a", "b", "c"].iter().zip(1..).map(|(name, at)| record(id(name, 1), at)).collect();
    let writes = records.iter().map(|it| put_with(&it.id.key.name, vec![it.clone()])).collect();
    commit_on_head(&*store, writes).await;
    let others = async |limit| {
        let mut others = store.secrets_of_other_masters([3; 8], limit).await.expect("answers");
        others.sort_by(|one, other| one.id.cmp(&other.id));
        others
    };
    assert_eq!(others(10).await, records[..2]);
    assert_eq!(others(1).await.len(), 1);

    let rewrapped = |it: &SecretRecord| SecretRecord { master: [3; 8], data_key: vec![9], ..it.clone() };
    let rewrapped: Vec<_> = records[..2].iter().map(rewrapped).collect();
    let from = |masters: [u8; 2]| masters.into_iter().map(|it| [it; 8]).zip(rewrapped.clone()).collect();
    assert!(store.put_data_keys(from([1, 7])).await.expect("answers"));
    assert_eq!(others(10).await, records[1..2], "what another has replaced meanwhile stays");
    assert!(store.put_data_keys(from([1, 2])).await.expect("answers"));
    assert_eq!(others(10).await, []);
    let expected = [&rewrapped[..], &records[2..]].concat();
    assert_eq!(found(&*store, &[id("a", 1), id("b", 1), id("c", 1)]).await, expected);

    let named = MasterRecord { id: [4; 8], tag_key: vec![4; 60] };
    store.create_master(named).await.expect("answers");
    let late = vec![([3; 8], SecretRecord { master: [5; 8], ..expected[0].clone() })];
    assert!(!store.put_data_keys(late).await.expect("answers"), "the store names another");
    assert_eq!(found(&*store, &[id("a", 1)]).await, expected[..1]);
}
