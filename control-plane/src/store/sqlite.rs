//! The store in one SQLite file: for one control plane, `gatewayctl dev` and tests.
//! Write-ahead log, one connection that writes (`BEGIN IMMEDIATE`), a few that read; every commit is synced to disk.
//! The file belongs to one process: `lock.rs` sees to that.

mod dialect;
mod lock;
mod seat;

// One text, compiled for each database: sqlx has no type that stands for both and keeps what each of them can do.
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/chores.rs"]
mod chores;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/credentials.rs"]
mod credentials;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/endpoints.rs"]
mod endpoints;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/handle.rs"]
mod handle;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/identities.rs"]
mod identities;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/objects.rs"]
mod objects;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/records.rs"]
mod records;
#[expect(clippy::duplicate_mod, reason = "compiled for each database with its own types")]
#[path = "shared/secrets.rs"]
mod secrets;

use std::fs;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlitePool};

use super::watching::Watching;
use super::{Opened, StoreError, TokenRecord, migration};
use handle::Handle;
use lock::FileLock;
use seat::Seat;

type Database = sqlx::Sqlite;
type Pool = SqlitePool;
type Connection = sqlx::SqliteConnection;
type Row = sqlx::sqlite::SqliteRow;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/sqlite");

/// Other handles on the file are rare (tests, a restore); their commits are seen this late at most.
const POLL: Duration = Duration::from_secs(1);
/// sqlx would log a wait as a warning of its own; the caller gets an error when it is too long.
const NEVER: Duration = Duration::from_secs(3600);
/// How long a writer waits for the one before it.
const WRITER_WAIT: Duration = Duration::from_secs(20);

/// Opens or creates the file that a `sqlite:` URL names.
pub(super) async fn open(url: &str, first_token: &TokenRecord) -> Result<Opened, StoreError> {
    let options = options(url)?;
    prepare_file(options.get_filename())?;
    let lock = FileLock::take(options.get_filename())?;
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .acquire_timeout(WRITER_WAIT)
        .acquire_slow_threshold(NEVER)
        .idle_timeout(None)
        .max_lifetime(None)
        .connect_with(options.clone())
        .await
        .map_err(|error| cannot_open(options.get_filename(), &error.to_string()))?;
    // sqlx has no lock of its own for SQLite: one transaction lets handles that open at once come one after the other.
    let mut transaction = writer.begin_with(dialect::BEGIN_WRITE).await?;
    migration::run(&MIGRATIONS, &mut *transaction).await?;
    let created = records::create(&mut transaction, first_token).await?;
    transaction.commit().await?;
    let readers = SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(3))
        .acquire_slow_threshold(NEVER)
        .connect_with(options.read_only(true).create_if_missing(false))
        .await?;
    let position = objects::position(&mut *readers.acquire().await?).await?;
    let watching = Arc::new(Watching::new(position));
    let poller = tokio::spawn(poll(readers.clone(), Arc::clone(&watching), lock)).abort_handle();
    Ok(Opened {
        store: Arc::new(Handle { readers, writer, watching, poller, seat: Seat::default() }),
        created,
    })
}

/// Opens an existing file that nobody uses, with the schema of this release, to read from; nobody uses it as long as the
/// lock lives.
pub(super) async fn open_idle(url: &str) -> Result<(Connection, FileLock), StoreError> {
    if super::is_shared(url) {
        return Err(StoreError::Open(
            "--database-url names a server, expected sqlite:///path/gateway.db".to_owned(),
        ));
    }
    let options = options(url)?.create_if_missing(false);
    let path = options.get_filename();
    if !path.is_file() {
        return Err(cannot_open(path, "there is no such file"));
    }
    let lock = FileLock::take(path)?;
    let cannot = |error: sqlx::Error| cannot_open(path, &error.to_string());
    let mut connection = Connection::connect_with(&options).await.map_err(cannot)?;
    migration::is_current(&MIGRATIONS, &mut connection).await?;
    Ok((connection, lock))
}

fn options(url: &str) -> Result<SqliteConnectOptions, StoreError> {
    let unusable =
        |why: &str| StoreError::Open(format!("--database-url: {why}, expected sqlite:///path/gateway.db"));
    let options = SqliteConnectOptions::from_str(url).map_err(|error| unusable(&error.to_string()))?;
    let path = options.get_filename();
    if path.as_os_str().is_empty() || url.contains(":memory:") || url.contains("mode=memory") {
        return Err(unusable("the URL names no file"));
    }
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging())
}

/// Only the owner may read what it holds; SQLite gives its side files the mode of the database.
fn prepare_file(path: &Path) -> Result<(), StoreError> {
    let prepare = || {
        if let Some(directory) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))
    };
    prepare().map_err(|error: std::io::Error| cannot_open(path, &error.to_string()))
}

fn cannot_open(path: &Path, why: &str) -> StoreError {
    StoreError::Open(format!(
        "{}: {why}; check the path and who owns it, or name another with --database-url",
        path.display()
    ))
}

/// Looks for commits of other handles; holds the file for as long as the store is open.
async fn poll(readers: SqlitePool, watching: Arc<Watching>, _lock: FileLock) {
    let mut down = false;
    loop {
        tokio::time::sleep(POLL).await;
        let read = async { objects::position(&mut *readers.acquire().await?).await };
        down = watching.saw_poll(read.await, down);
    }
}

#[cfg(test)]
mod tests;
