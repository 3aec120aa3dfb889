//! Tests of `auth.rs`.

use super::*;
use crate::store::{Opened, TokenRecord, open};

/// A store, its first token, and what keeps its file.
async fn fresh() -> (Opened, Secret, String, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("sqlite://{}/gateway.db", directory.path().display());
    let (secret, record) = new_token(FIRST_TOKEN, Role::Admin, Vec::new(), None);
    let opened = open(&url, &record).await.expect("opens");
    (opened, secret, url, directory)
}

async fn other_replica(url: &str) -> Arc<dyn Store> {
    let (_, unused) = new_token(FIRST_TOKEN, Role::Admin, Vec::new(), None);
    open(url, &unused).await.expect("opens").store
}

fn editor(name: &str) -> (Secret, TokenRecord) {
    new_token(name, Role::Editor, vec!["shop".into()], None)
}

#[test]
fn the_bearer_scheme_is_read_in_any_case_and_nothing_else_is() {
    let cases = [
        ("Bearer abc", Some("abc")),
        ("bearer  abc ", Some("abc")),
        ("BEARER a b", Some("a b")),
        ("Bearer ", None),
        ("Bearer", None),
        ("Basic abc", None),
        ("", None),
    ];
    for (value, expected) in cases {
        assert_eq!(bearer(value), expected, "{value:?}");
    }
}

#[test]
fn roles_and_namespaces_bound_what_a_token_may_do() {
    let principal = |role, namespaces: &[&str]| Principal {
        name: "x".into(),
        role,
        namespaces: namespaces.iter().map(|it| (*it).to_owned()).collect(),
        expires: None,
        digest: [0; 32],
    };
    let cases = [
        (Role::Viewer, &[][..], Role::Viewer, None, true),
        (Role::Viewer, &[], Role::Editor, Some("shop"), false),
        (Role::Editor, &[], Role::Viewer, Some("shop"), true),
        (Role::Editor, &["shop"], Role::Editor, Some("shop"), true),
        (Role::Editor, &["shop"], Role::Editor, Some("other"), false),
        (Role::Editor, &["shop"], Role::Viewer, None, false),
        (Role::Editor, &[], Role::Admin, None, false),
        (Role::Admin, &["shop"], Role::Admin, None, true),
    ];
    for (role, namespaces, needed, namespace, expected) in cases {
        let allowed = principal(role, namespaces).allows(needed, namespace);
        assert_eq!(allowed, expected, "{role:?} of {namespaces:?}, {needed:?} in {namespace:?}");
    }
}

#[tokio::test]
async fn a_kept_token_is_known_and_others_are_told_why_not() {
    let (opened, first, _, _directory) = fresh().await;
    let (secret, record) = editor("ci");
    opened.store.create_token(record, None).await.expect("the name is free");
    let past = Timestamp::from_second(1).expect("in range");
    let (ended, record) = new_token("old", Role::Viewer, Vec::new(), Some(past));
    opened.store.create_token(record, None).await.expect("the name is free");

    let authenticator = Authenticator::new(opened.store).await.expect("answers");
    let principal = authenticator.authenticate(secret.reveal()).await.expect("known");
    assert!(authenticator.is_still(&principal).await.expect("answers"));
    let changed = Principal { role: Role::Viewer, ..principal.clone() };
    assert!(!authenticator.is_still(&changed).await.expect("answers"));
    assert_eq!(
        (&*principal.name, principal.role, &*principal.namespaces),
        ("ci", Role::Editor, &["shop".to_owned()][..])
    );
    assert_eq!(&*authenticator.authenticate(first.reveal()).await.expect("known").name, FIRST_TOKEN);
    let error = authenticator.authenticate(ended.reveal()).await.expect_err("it ended");
    assert!(matches!(error, AuthError::Expired(at) if at == past), "{error}");
    let error = authenticator.authenticate(Secret::generate().reveal()).await.expect_err("never kept");
    assert!(matches!(error, AuthError::Unknown), "{error}");
    let error = authenticator.authenticate("gwa_junk").await.expect_err("no token");
    assert!(matches!(error, AuthError::Malformed(_)), "{error}");
}

#[tokio::test]
async fn a_token_made_or_revoked_by_another_replica_counts_here() {
    let (opened, _, url, _directory) = fresh().await;
    let other = other_replica(&url).await;
    let mut versions = opened.store.watch_tokens();
    let authenticator = Authenticator::new(opened.store).await.expect("answers");

    let (secret, record) = editor("ci");
    other.create_token(record, None).await.expect("the name is free");
    authenticator.authenticate(secret.reveal()).await.expect("a miss asks the store, so it is known at once");

    let made = other.tokens_version().await.expect("answers");
    assert!(other.delete_token("ci", None).await.expect("answers"));
    let seen = versions.wait_for(|version| *version > made);
    drop(tokio::time::timeout(Duration::from_secs(10), seen).await.expect("the poll sees it").expect("open"));
    let error = authenticator.authenticate(secret.reveal()).await.expect_err("revoked");
    assert!(matches!(error, AuthError::Unknown), "{error}");
}

#[tokio::test]
async fn known_tokens_work_without_the_store_and_junk_does_not_ask_it() {
    let (opened, first, _, _directory) = fresh().await;
    let authenticator = Authenticator::new(Arc::clone(&opened.store)).await.expect("answers");
    opened.store.close().await;
    authenticator.authenticate(first.reveal()).await.expect("held in memory");
    for junk in ["gwa_junk", "short", &"x".repeat(64)] {
        let error = authenticator.authenticate(junk).await.expect_err("no token");
        assert!(matches!(error, AuthError::Malformed(_) | AuthError::Unknown), "{error}");
    }
    let stranger = Secret::generate();
    let error = authenticator.authenticate(stranger.reveal()).await.expect_err("never kept");
    assert!(matches!(error, AuthError::Unavailable(_)), "a well-formed one asks: {error}");
    let error = authenticator.authenticate(stranger.reveal()).await.expect_err("never kept");
    assert!(matches!(error, AuthError::Unknown), "but not more often than the interval: {error}");
}

#[tokio::test]
async fn when_tokens_changed_and_cannot_be_read_nobody_gets_in() {
    let (opened, first, _, _directory) = fresh().await;
    let authenticator = Authenticator::new(Arc::clone(&opened.store)).await.expect("answers");
    opened.store.delete_token(FIRST_TOKEN, None).await.expect("answers");
    opened.store.close().await;
    let error =
        authenticator.authenticate(first.reveal()).await.expect_err("it may be the one that was revoked");
    assert!(matches!(error, AuthError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn the_admin_token_file_is_the_way_back_in() {
    let (opened, first, _, directory) = fresh().await;
    let authenticator = Authenticator::new(Arc::clone(&opened.store)).await.expect("answers");
    opened.store.delete_token(FIRST_TOKEN, None).await.expect("answers");
    assert!(authenticator.authenticate(first.reveal()).await.is_err());

    let path = directory.path().join("token");
    for content in ["0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"] {
        std::fs::write(&path, content).expect("written");
        put_admin_token_file(&*opened.store, &path).await.expect("a safe secret");
        let principal = authenticator.authenticate(content).await.expect("known");
        assert_eq!((&*principal.name, principal.role), (ADMIN_FILE_TOKEN, Role::Admin));
    }
    let replaced =
        authenticator.authenticate("0123456789abcdef0123456789abcdef").await.expect_err("replaced");
    assert!(matches!(replaced, AuthError::Unknown), "{replaced}");
}
