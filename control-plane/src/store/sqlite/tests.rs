//! Tests of `sqlite.rs`.

use std::os::unix::fs::PermissionsExt as _;

use gateway_proto::admin::Role;
use gateway_proto::wire;
use sqlx::Connection as _;

use super::*;
use crate::auth::new_token;
use crate::store::{self, Commit, Origin, Precondition, TokenError, Write, conformance};

fn token() -> TokenRecord {
    new_token("admin", Role::Admin, Vec::new(), None).1
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut databases = 0;
    conformance::run(async || {
        databases += 1;
        format!("sqlite://{}/{databases}/gateway.db", directory.path().display())
    })
    .await;
}

#[tokio::test]
async fn only_the_owner_can_read_the_files() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("state/gateway.db");
    fs::create_dir(path.parent().expect("it has one")).expect("made");
    fs::write(&path, "").expect("made with a mode that others can read");
    let opened = store::open(&format!("sqlite://{}", path.display()), &token()).await.expect("opens");
    for name in ["gateway.db", "gateway.db-wal", "gateway.db-shm"] {
        let mode = fs::metadata(path.with_file_name(name)).expect("it exists").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    opened.store.close().await;
}

#[tokio::test]
async fn a_url_that_names_no_usable_file_says_what_to_do() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let (folder, text) = (directory.path().join("folder.db"), directory.path().join("text.db"));
    fs::create_dir(&folder).expect("made");
    fs::write(&text, "this is no database, but it is long enough to be one ".repeat(50)).expect("written");
    let cases = [
        ("sqlite::memory:".to_owned(), "the URL names no file"),
        ("sqlite://".to_owned(), "the URL names no file"),
        (format!("sqlite://{}?mode=memory", text.display()), "the URL names no file"),
        (format!("sqlite://{}?colour=red", text.display()), "expected sqlite:///path/gateway.db"),
        (format!("sqlite://{}", folder.display()), "check the path and who owns it"),
        (format!("sqlite://{}", text.display()), "check the path and who owns it"),
        ("mysql://u:secret@db/x".to_owned(), "must start with sqlite:// (a file) or postgres://"),
        ("gateway.db".to_owned(), "must start with sqlite:// (a file) or postgres://"),
    ];
    for (url, expected) in cases {
        let error = store::open(&url, &token()).await.expect_err(&url);
        assert!(matches!(error, StoreError::Open(_)), "{url}: {error}");
        let text = error.to_string();
        assert!(text.contains(expected) && !text.contains("secret"), "{url}: {text}");
    }
}

#[tokio::test]
async fn a_store_of_a_newer_release_or_with_an_edited_history_is_refused() {
    let cases = [
        ("INSERT INTO _sqlx_migrations VALUES (9999, 'later', 0, true, x'00', 0)", "schema version 9999"),
        ("UPDATE _sqlx_migrations SET checksum = x'00'", "was changed after it was applied"),
    ];
    for (statement, expected) in cases {
        let directory = tempfile::tempdir().expect("temporary directory");
        let url = format!("sqlite://{}/gateway.db", directory.path().display());
        store::open(&url, &token()).await.expect("opens").store.close().await;
        let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("connects");
        sqlx::query(statement).execute(&mut connection).await.expect("changed by hand");
        connection.close().await.expect("closes");
        let error = store::open(&url, &token()).await.expect_err("refused").to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_write_transaction_that_is_cut_off_leaves_nothing_behind() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("sqlite://{}/gateway.db", directory.path().display());
    let opened = store::open(&url, &token()).await.expect("opens");
    let writer = SqlitePool::connect_with(options(&url).expect("sound")).await.expect("connects");
    let mut transaction = writer.begin_with(dialect::BEGIN_WRITE).await.expect("begins");
    sqlx::query("UPDATE meta SET revision = 7").execute(&mut *transaction).await.expect("written");
    drop(transaction);
    assert_eq!(opened.store.head().await.expect("answers").revision, 0);
}

#[tokio::test]
async fn a_join_token_is_looked_for_while_somebody_else_writes() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("sqlite://{}/gateway.db", directory.path().display());
    let opened = store::open(&url, &token()).await.expect("opens");
    let writer = SqlitePool::connect_with(options(&url).expect("sound")).await.expect("connects");
    let _writing = writer.begin_with(dialect::BEGIN_WRITE).await.expect("begins");
    let looked = opened.store.join_token([7; 32]);
    let found = tokio::time::timeout(Duration::from_secs(1), looked).await.expect("it waits for nobody");
    assert_eq!(found.expect("answers"), None);
}

#[tokio::test]
async fn labels_can_be_asked_for_in_sql() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("sqlite://{}/gateway.db", directory.path().display());
    let opened = store::open(&url, &token()).await.expect("opens");
    let labels = |team: &str| [("team".to_owned(), team.to_owned())].into_iter().collect();
    let upstream = |name: &str, team| wire::Upstream {
        metadata: Some(wire::Metadata { name: name.to_owned(), labels: labels(team), ..Default::default() }),
        ..Default::default()
    };
    let writes =
        [upstream("a", "red"), upstream("b", "blue")].map(|it| Write::put(it.into(), Precondition::Any));
    let base = opened.store.head().await.expect("answers");
    let commit = Commit {
        base,
        author: String::new(),
        message: String::new(),
        writes: writes.into(),
        audit: None,
        credentials: Vec::new(),
        origin: Origin::Request,
    };
    opened.store.commit(commit).await.expect("stored");
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    let found: Vec<String> =
        sqlx::query_scalar("SELECT name FROM resources WHERE labels ->> 'team' = 'blue'")
            .fetch_all(&mut connection)
            .await
            .expect("answers");
    assert_eq!(found, ["b"]);
}

#[tokio::test]
async fn there_is_a_bound_on_tokens() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("sqlite://{}/gateway.db", directory.path().display());
    let opened = store::open(&url, &token()).await.expect("opens");
    let mut connection = sqlx::SqliteConnection::connect(&url).await.expect("connects");
    let fill = "WITH RECURSIVE n(n) AS (SELECT 2 UNION ALL SELECT n + 1 FROM n WHERE n < 9999) \
                INSERT INTO tokens SELECT 't' || n, zeroblob(32), 'viewer', '[]', 0, NULL FROM n";
    sqlx::query(fill).execute(&mut connection).await.expect("filled");
    let named = |name: &str| new_token(name, Role::Viewer, Vec::new(), None).1;
    opened.store.create_token(named("last"), None).await.expect("one more fits");
    let error = opened.store.create_token(named("surplus"), None).await.expect_err("full");
    assert!(matches!(error, TokenError::Full(10_000)), "{error}");
}
