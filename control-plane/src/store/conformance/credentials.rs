//! Credentials: their own counter, their consumers, their keys, and what is told of changes.

use bytes::Bytes;
use gateway_proto::credential::{Grant, KeyDigest};

use super::*;
use crate::store::{CredentialContent, CredentialPage, CredentialWrite, KeyChanges};

fn consumer(name: &str) -> Resource {
    let metadata = Some(wire::Metadata { name: name.to_owned(), ..Default::default() });
    wire::Consumer { metadata, ..Default::default() }.into()
}

fn consumer_key(name: &str) -> Key {
    Key::new(Kind::Consumer, "default", name)
}

fn digest(text: &str) -> KeyDigest {
    KeyDigest::of(text.as_bytes())
}

fn grant(secret: &str, consumer: &str) -> Grant {
    Grant { digest: digest(secret), consumer: format!("default/{consumer}").into(), expires: 7 }
}

/// A credential of a consumer with these keys.
fn credential(name: &str, consumer: &str, secrets: &[&str]) -> CredentialWrite {
    let content = CredentialContent {
        body: Bytes::from(format!("{name} {secrets:?}")),
        consumer: consumer.to_owned(),
        grants: secrets.iter().map(|secret| grant(secret, consumer)).collect(),
    };
    let key = Key::new(Kind::Credential, "default", name);
    CredentialWrite { key, expected: Precondition::Any, content: Some(content), revives: false }
}

fn gone(name: &str) -> CredentialWrite {
    CredentialWrite { content: None, ..credential(name, "", &[]) }
}

async fn with_consumers(url: &str, names: &[&str]) -> Arc<dyn Store> {
    let store = store(url).await;
    let puts = names.iter().map(|name| Write::put(consumer(name), Precondition::Any));
    commit_on_head(&*store, puts.collect()).await;
    store
}

async fn keys(store: &dyn Store) -> Vec<Grant> {
    let mut keys = Vec::new();
    store.load_keys(&mut |grant| keys.push(grant)).await.expect("answers");
    keys.sort_by_key(|grant| grant.digest);
    keys
}

fn sorted(mut grants: Vec<Grant>) -> Vec<Grant> {
    grants.sort_by_key(|grant| grant.digest);
    grants
}

/// What is told after a version: digests and whether they are good.
async fn told(store: &dyn Store, version: u64) -> BTreeMap<String, bool> {
    let KeyChanges { touched, .. } = store.key_changes_since(version).await.expect("answers");
    touched.expect("kept").into_iter().map(|it| (it.digest.to_string(), it.grant.is_some())).collect()
}

pub(super) async fn credentials_have_a_counter_of_their_own_and_no_history(url: String) {
    let store = with_consumers(&url, &["alice"]).await;
    let before = store.head().await.expect("answers");
    let first =
        store.commit_credentials(vec![credential("a", "alice", &["one"])], None).await.expect("written");
    let second = store
        .commit_credentials(
            vec![credential("a", "alice", &["two"]), credential("b", "alice", &["three"])],
            None,
        )
        .await
        .expect("written");
    assert_eq!((first.epoch, second.version), (before.epoch, first.version + 1));
    assert_eq!(store.head().await.expect("answers"), before, "no revision");
    assert_eq!(*store.watch_credentials().borrow(), second);
    assert_eq!(keys(&*store).await, sorted(vec![grant("two", "alice"), grant("three", "alice")]));
    let found = store.credentials(vec![gone("a").key, gone("x").key]).await.expect("answers");
    let [a] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((a.generation, a.revision, &*a.body), (2, second.version, &b"a [\"two\"]"[..]));
    assert!(a.created <= a.updated);
    let page = |after: Option<&str>| CredentialPage {
        namespace: Some("default".to_owned()),
        after: after.map(|name| ("default".to_owned(), name.to_owned())),
        limit: 1,
    };
    let names = async |after| {
        let page = store.credential_page(page(after)).await.expect("answers");
        page.into_iter().map(|stored| stored.key.name).collect::<Vec<_>>()
    };
    assert_eq!(
        (names(None).await, names(Some("a")).await, names(Some("b")).await),
        (vec!["a".to_owned()], vec!["b".to_owned()], vec![],)
    );
    let elsewhere = CredentialPage { namespace: Some("x".into()), after: None, limit: 9 };
    assert!(store.credential_page(elsewhere).await.expect("answers").is_empty());
    let all = CredentialPage { namespace: None, after: None, limit: 9 };
    assert_eq!(store.credential_page(all).await.expect("answers").len(), 2);
}

pub(super) async fn what_happened_to_keys_is_told_from_any_version_on(url: String) {
    let store = with_consumers(&url, &["alice"]).await;
    store.commit_credentials(vec![credential("a", "alice", &["one", "two"])], None).await.expect("written");
    store.commit_credentials(vec![credential("a", "alice", &["two", "three"])], None).await.expect("written");
    let last = store.commit_credentials(vec![gone("a"), gone("never")], None).await.expect("written");
    let hex = |text: &str| digest(text).to_string();
    assert!(told(&*store, last.version).await.is_empty());
    let after_second = BTreeMap::from([(hex("two"), false), (hex("three"), false)]);
    assert_eq!(told(&*store, last.version - 1).await, after_second);
    let all = BTreeMap::from([(hex("one"), false), (hex("two"), false), (hex("three"), false)]);
    assert_eq!(told(&*store, 0).await, all);
    let again = || credential("b", "alice", &["one"]);
    let spent = store.commit_credentials(vec![again()], None).await.expect_err("it was revoked");
    assert!(matches!(&spent, CommitError::KeySpent(key) if key.name == "b"), "{spent}");
    let revived = CredentialWrite { revives: true, ..again() };
    store.commit_credentials(vec![revived], None).await.expect("that is said");
    assert_eq!(told(&*store, last.version).await, BTreeMap::from([(hex("one"), true)]));
    let changes = store.key_changes_since(last.version).await.expect("answers");
    assert_eq!(changes.touched.expect("kept")[0].grant, Some(grant("one", "alice")));
}

pub(super) async fn a_credential_names_a_consumer_that_is_there_and_a_key_that_is_its_own(url: String) {
    let store = with_consumers(&url, &["alice"]).await;
    let fault = async |writes| store.commit_credentials(writes, None).await.expect_err("refused").to_string();
    assert_eq!(fault(vec![credential("a", "bob", &["one"])]).await, "there is no Consumer default/bob");
    store.commit_credentials(vec![credential("a", "alice", &["one"])], None).await.expect("written");
    let taken = fault(vec![credential("b", "alice", &["two"]), credential("c", "alice", &["one"])]).await;
    assert!(taken.starts_with("Credential default/c brings a key"), "{taken}");
    let absent = CredentialWrite { expected: Precondition::Absent, ..credential("a", "alice", &["two"]) };
    assert!(fault(vec![absent]).await.contains("expected none"));
    let stale =
        CredentialWrite { expected: Precondition::Revision(99), ..credential("a", "alice", &["two"]) };
    assert!(fault(vec![stale]).await.contains("expected revision 99"));
    assert_eq!(keys(&*store).await, [grant("one", "alice")], "nothing was written");
}

pub(super) async fn a_batch_with_both_moves_both_counters_or_none(url: String) {
    let store = with_consumers(&url, &["alice"]).await;
    let both = async |credentials, writes| {
        let base = store.head().await.expect("answers");
        let (author, message) = ("ann".to_owned(), String::new());
        store
            .commit(Commit {
                base,
                author,
                message,
                writes,
                audit: None,
                credentials,
                origin: Origin::Request,
            })
            .await
    };
    let put = |name: &str| vec![Write::put(consumer(name), Precondition::Any)];
    let made = both(vec![credential("b", "bob", &["one"])], put("bob")).await.expect("bob comes with it");
    let version = store.watch_credentials().borrow().version;
    assert_eq!((made.head.revision, version), (2, 1));
    let refused = both(vec![credential("c", "nobody", &["two"])], put("carol")).await;
    assert!(matches!(refused, Err(CommitError::NoConsumer(_))), "{refused:?}");
    assert_eq!(store.head().await.expect("answers"), made.head);
    assert_eq!(store.key_changes_since(0).await.expect("answers").head.version, version);

    let delete = || vec![Write::delete(consumer_key("bob"), Precondition::Any)];
    let refused = both(Vec::new(), delete()).await;
    assert!(matches!(refused, Err(CommitError::HasCredentials { .. })), "{refused:?}");
    both(vec![gone("b")], delete()).await.expect("they go together");
    assert!(keys(&*store).await.is_empty());
}

pub(super) async fn a_consumer_is_deleted_or_gets_a_credential_but_never_both(url: String) {
    let (one, other) = (store(&url).await, store(&url).await);
    for round in 0..12 {
        let name = format!("c{round}");
        commit_on_head(&*one, vec![Write::put(consumer(&name), Precondition::Any)]).await;
        let base = one.head().await.expect("answers");
        let delete = commit(&*one, base, vec![Write::delete(consumer_key(&name), Precondition::Any)]);
        let write = vec![credential(&name, &name, &[&name])];
        let (deleted, written) = tokio::join!(delete, other.commit_credentials(write, None));
        let has_consumer = load(&*one).await.1.contains_key(&consumer_key(&name));
        let has_key = keys(&*one).await.iter().any(|it| it.digest == digest(&name));
        assert!(has_consumer || !has_key, "round {round}: {deleted:?} {written:?}");
        assert!(deleted.is_ok() != written.is_ok() || has_consumer, "round {round}: {deleted:?} {written:?}");
    }
}

pub(super) async fn the_credential_watch_wakes_for_changes_of_any_handle(url: String) {
    let (one, other) = (with_consumers(&url, &["alice"]).await, store(&url).await);
    let mut watch = other.watch_credentials();
    let made = one.commit_credentials(vec![credential("a", "alice", &["one"])], None).await.expect("written");
    let seen = tokio::time::timeout(std::time::Duration::from_secs(20), watch.wait_for(|head| *head == made));
    seen.await.expect("within a second or so").expect("the store is open");
}

pub(super) async fn thousands_of_credentials_are_one_version(url: String) {
    let store = with_consumers(&url, &["alice"]).await;
    let names: Vec<String> = (0..5_000).map(|n| format!("k{n}")).collect();
    let all = names.iter().map(|name| credential(name, "alice", &[name])).collect();
    let made = store.commit_credentials(all, None).await.expect("written");
    assert_eq!((made.version, keys(&*store).await.len()), (1, names.len()));
    assert_eq!(told(&*store, 0).await.len(), names.len());
}
