//! The store on a real PostgreSQL: the same cases that SQLite passes in the control plane's own tests, and what only a
//! server can do: vanish, come back, refuse.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway_control_plane::auth;
use gateway_control_plane::store::{
    self, Commit, CommitError, Opened, Origin, PageRequest, Precondition, Retention, StoreError, Write,
    conformance,
};
use gateway_proto::admin::Role;
use gateway_proto::wire;
use gateway_tests::services::Postgres;
use gateway_tests::wait;

async fn open(url: &str) -> Result<Opened, StoreError> {
    store::open(url, &auth::new_token("admin", Role::Admin, Vec::new(), None).1).await
}

fn put(name: &str) -> Vec<Write> {
    let metadata = Some(wire::Metadata { name: name.to_owned(), ..Default::default() });
    vec![Write::put(wire::Upstream { metadata, ..Default::default() }.into(), Precondition::Any)]
}

async fn commit(opened: &Opened, name: &str) -> Result<u64, CommitError> {
    let base = *opened.store.watch().borrow();
    let commit = Commit {
        base,
        author: "ann".into(),
        message: String::new(),
        writes: put(name),
        audit: None,
        credentials: Vec::new(),
        origin: Origin::Request,
    };
    opened.store.commit(commit).await.map(|made| made.head.revision)
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_conforms() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    conformance::run(async || postgres.database().await.expect("a fresh database")).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_server_is_killed_says_so_and_recovers_by_itself() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    let (writer, watcher) = (open(&url).await?, open(&url).await?);
    assert_eq!(commit(&writer, "before").await?, 1);

    postgres.kill().await?;
    let error = wait::within("an error", commit(&writer, "during")).await?.expect_err("the server is gone");
    assert!(matches!(error, CommitError::Store(StoreError::Unavailable(_))), "{error}");

    postgres.resume().await?;
    let mut heads = watcher.store.watch();
    assert_eq!(commit(&writer, "after").await?, 2, "the write that failed left nothing behind");
    wait::within("the other replica to find out", heads.wait_for(|head| head.revision == 2)).await??;
    Ok(())
}

/// What one writer was told: the messages that were confirmed, and the one that failed, if one was under way when
/// the server went.
struct Told {
    confirmed: Vec<String>,
    failed: Option<(String, StoreError)>,
}

/// Commits until one fails or the server is back.
async fn write_until_it_fails(opened: Opened, writer: usize, back: Arc<AtomicBool>) -> Told {
    let mut confirmed = Vec::new();
    while !back.load(Ordering::Relaxed) {
        let message = format!("writer {writer}, commit {}", confirmed.len());
        let base = *opened.store.watch().borrow();
        let writes = put(&format!("w{writer}"));
        let commit = Commit {
            base,
            author: "ann".into(),
            message: message.clone(),
            writes,
            audit: None,
            credentials: Vec::new(),
            origin: Origin::Request,
        };
        match opened.store.commit(commit).await {
            Ok(_) => confirmed.push(message),
            // The watch may run behind; reading the head moves it.
            Err(CommitError::Moved { .. }) => drop(opened.store.head().await),
            Err(CommitError::Store(error)) => return Told { confirmed, failed: Some((message, error)) },
            Err(other) => panic!("{other}"),
        }
    }
    Told { confirmed, failed: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_confirmed_survives_a_crash_and_what_failed_is_not_there() -> anyhow::Result<()> {
    let mut postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    let observer = open(&url).await?;
    let back = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    for writer in 0..4 {
        writers.push(tokio::spawn(write_until_it_fails(open(&url).await?, writer, Arc::clone(&back))));
    }
    let mut heads = observer.store.watch();
    heads.wait_for(|head| head.revision >= 20).await?;
    postgres.kill().await?;
    postgres.resume().await?;
    back.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for writer in writers {
        told.push(writer.await?);
    }

    let mut kept = Vec::new();
    let mut page = PageRequest { before: None, limit: 1_000 };
    loop {
        let part = observer.store.revisions(page).await?;
        kept.extend(part.items.into_iter().map(|revision| revision.message));
        page.before = part.next;
        if part.next.is_none() {
            break;
        }
    }
    assert_eq!(kept.len() as u64, observer.store.head().await?.revision, "no gaps");
    for Told { confirmed, failed } in told {
        for message in confirmed {
            assert!(kept.contains(&message), "{message} was confirmed and is lost");
        }
        match failed {
            None | Some((_, StoreError::OutcomeUnknown)) => {}
            Some((last, StoreError::Unavailable(_))) => {
                assert!(!kept.contains(&last), "{last} was refused and is there");
            }
            Some((last, other)) => panic!("{last}: {other}"),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_or_user_that_does_not_exist_is_named_with_the_way_out() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    let (server, database) = url.rsplit_once('/').expect("a URL with a database");
    let cases = [
        (format!("{server}/nowhere"), "create the database, or name another"),
        (server.replace("postgres@", "nobody:hunter2@") + "/" + database, "check user name and password"),
    ];
    for (url, expected) in cases {
        let error = open(&url).await.expect_err("refused").to_string();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_a_newer_release_is_refused() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    open(&url).await?.store.close().await;
    let newer = "INSERT INTO _sqlx_migrations VALUES (9999, 'later', now(), true, '\\x00', 0)";
    postgres.query(&url, newer).await?;
    let error = open(&url).await.expect_err("refused");
    let StoreError::NewerSchema { found: 9999, known } = error else { panic!("{error}") };
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations/postgres"))?;
    let number = |name: String| name.split('_').next()?.parse::<i64>().ok();
    let newest = files.filter_map(|file| number(file.ok()?.file_name().into_string().ok()?)).max();
    assert_eq!(Some(known), newest);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_leads_until_its_connection_ends() -> anyhow::Result<()> {
    let postgres = Postgres::start().await?;
    let url = postgres.database().await?;
    let (one, two) = (open(&url).await?.store, open(&url).await?.store);
    let first = one.lead().await?.expect("nobody else does");
    assert_eq!(two.lead().await?, None);
    assert_eq!(one.lead().await?, Some(first));

    // What happens to a replica that does not use its connection: it is paused, or gone.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(postgres.query(&url, end).await?, "t");
    let second = wait::until("the other to lead", || async {
        two.lead().await.map_err(|error| error.to_string())?.ok_or("the lock is taken".to_owned())
    });
    let second = second.await?;
    assert!(second > first);
    let keep = Retention { revisions: 10, age: None };
    let refused = one.compact(first, keep).await.expect_err("it was replaced");
    assert!(matches!(refused, StoreError::Deposed), "{refused}");
    let lost = one.lead().await.expect_err("it finds out");
    assert!(matches!(lost, StoreError::Unavailable(_)), "{lost:?}");
    assert_eq!(one.lead().await?, None);
    assert_eq!(two.lead().await?, Some(second));
    two.close().await;
    let third = wait::until("the first to lead again", || async {
        one.lead().await.map_err(|error| error.to_string())?.ok_or("the lock is taken".to_owned())
    });
    assert!(third.await? > second);
    Ok(())
}
