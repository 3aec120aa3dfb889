//! The store in PostgreSQL: for production, with several control-plane replicas on one database.
//! A commit is one REPEATABLE READ transaction; what it cannot serialise, it reports as a moved head. `NOTIFY` tells the
//! other replicas at once, polling makes sure that they find out anyway. When the server goes away, calls fail within
//! seconds and work again by themselves when it is back: no connection is ever trusted to be alive.

mod dialect;
mod listen;
mod seat;

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

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection, PgPool};

use super::watching::Watching;
use super::{Head, MasterRecord, Opened, StoreError, TokenRecord, Visit, migration};
use handle::Handle;
use seat::Seat;

type Database = sqlx::Postgres;
type Pool = PgPool;
type Connection = PgConnection;
type Row = sqlx::postgres::PgRow;

static MIGRATIONS: Migrator = sqlx::migrate!("../migrations/postgres");

/// For the first connection, so that a wrong URL is not waited for.
const CONNECT: Duration = Duration::from_secs(5);
/// Includes waiting for other replicas that are migrating.
const MIGRATE: Duration = Duration::from_secs(60);
/// How long a call waits for a connection; while the server is away, every call fails after that.
const ACQUIRE: Duration = Duration::from_secs(3);
/// One of them listens.
const CONNECTIONS: u32 = 10;
/// sqlx would log a wait as a warning of its own; the caller gets an error when it is too long.
const NEVER: Duration = Duration::from_secs(3600);

/// sqlx would log the server's notices ("relation already exists, skipping") as messages of ours.
const QUIET: &str = "SET client_min_messages = error";

/// The server ends what takes longer than any caller waits, and what a lost client left behind in a transaction.
const SESSION: &str = "SET client_min_messages = error; SET statement_timeout = '60s'; \
                       SET idle_in_transaction_session_timeout = '15s'";

/// Connects to the database that a `postgres:` URL names.
pub(super) async fn open(url: &str, first_token: &TokenRecord) -> Result<Opened, StoreError> {
    let options = options(url)?;
    let mut first = connect(&options).await?;
    let prepared = tokio::time::timeout(MIGRATE, prepare(&mut first, first_token)).await;
    let late =
        || StoreError::Unavailable(format!("{} did not migrate the schema within 60 s", describe(&options)));
    let created = prepared.unwrap_or_else(|_| Err(late()))?;
    let position = objects::position(&mut first).await?;
    first.close().await?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE)
        .acquire_slow_threshold(NEVER)
        .after_connect(|connection, _| Box::pin(async move { connection.execute(SESSION).await.map(drop) }))
        .connect_lazy_with(options);
    let watching = Arc::new(Watching::new(position));
    let poller = tokio::spawn(listen::follow(pool.clone(), Arc::clone(&watching))).abort_handle();
    Ok(Opened {
        store: Arc::new(Handle {
            readers: pool.clone(),
            writer: pool,
            watching,
            poller,
            seat: Seat::default(),
        }),
        created,
    })
}

fn options(url: &str) -> Result<PgConnectOptions, StoreError> {
    let options = PgConnectOptions::from_str(url).map_err(|error| {
        StoreError::Open(format!("--database-url: {error}, expected postgres://user@host/database"))
    })?;
    Ok(options.application_name("gateway-control-plane").disable_statement_logging())
}

/// A connection to a database that is to become a store; the schema is made, without a row that says what store it is.
pub(super) async fn open_empty(url: &str) -> Result<PgConnection, StoreError> {
    if !super::is_shared(url) {
        return Err(StoreError::Open(
            "--database-url names no server, expected postgres://user@host/database".to_owned(),
        ));
    }
    let mut connection = connect(&options(url)?).await?;
    connection.execute(QUIET).await?;
    migration::run(&MIGRATIONS, &mut connection).await?;
    Ok(connection)
}

/// Everything that exists, and the head.
pub(super) async fn load(connection: &mut PgConnection, visit: &mut Visit<'_>) -> Result<Head, StoreError> {
    let head = objects::position(connection).await?.head;
    objects::load(connection, visit).await?;
    Ok(head)
}

/// The record of the master key.
pub(super) async fn master(connection: &mut PgConnection) -> Result<Option<MasterRecord>, StoreError> {
    secrets::master(connection).await
}

/// Brings the schema up to date, under sqlx's advisory lock, and creates the store if it is empty.
async fn prepare(connection: &mut PgConnection, first_token: &TokenRecord) -> Result<bool, StoreError> {
    connection.execute(QUIET).await?;
    migration::run(&MIGRATIONS, connection).await?;
    let mut transaction = connection.begin().await?;
    let created = records::create(&mut transaction, first_token).await?;
    transaction.commit().await?;
    Ok(created)
}

/// One connection without the pool, whose retries would hide why it cannot be had.
async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let cannot = |why: &str| format!("cannot connect to {}: {why}", describe(options));
    let error = match tokio::time::timeout(CONNECT, PgConnection::connect_with(options)).await {
        Ok(Ok(connection)) => return Ok(connection),
        Ok(Err(error)) => error,
        Err(_) => {
            return Err(StoreError::Unavailable(cannot(
                "no answer within 5 s; check host and port of --database-url",
            )));
        }
    };
    let code = error.as_database_error().and_then(|error| error.code().map(|code| code.into_owned()));
    let next = match (&error, code.as_deref()) {
        (_, Some("28P01" | "28000")) => "check user name and password of --database-url",
        (_, Some("3D000")) => "create the database, or name another in --database-url",
        (sqlx::Error::Tls(_), _) => "check sslmode and sslrootcert of --database-url",
        (sqlx::Error::Io(error), _) => {
            let why = format!("{error}; check that the server runs and that --database-url names it");
            return Err(StoreError::Unavailable(cannot(&why)));
        }
        _ => "check --database-url",
    };
    let why = error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    Err(StoreError::Open(cannot(&format!("{why}; {next}"))))
}

/// Which server, for messages: everything but the password.
fn describe(options: &PgConnectOptions) -> String {
    let place = options.get_socket().map_or_else(
        || format!("{}:{}", options.get_host(), options.get_port()),
        |socket| format!("{} port {}", socket.display(), options.get_port()),
    );
    let database = options.get_database().unwrap_or_else(|| options.get_username());
    format!("PostgreSQL at {place}, database {database:?}, as {:?}", options.get_username())
}

#[cfg(test)]
mod tests {
    use gateway_proto::admin::Role;

    use super::*;
    use crate::auth::new_token;
    use crate::store;

    #[tokio::test]
    async fn a_server_that_cannot_be_reached_is_named_without_the_password() {
        let (_, token) = new_token("admin", Role::Admin, Vec::new(), None);
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let free = taken.local_addr().expect("it is bound").port();
        drop(taken);
        let url = format!("postgres://ann:hunter2@127.0.0.1:{free}/shop");
        let error = store::open(&url, &token).await.expect_err("nobody listens");
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        let text = error.to_string();
        for part in [
            &*format!("PostgreSQL at 127.0.0.1:{free}, database \"shop\", as \"ann\""),
            "check that the server runs",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[tokio::test]
    async fn a_url_that_cannot_be_read_says_what_is_expected_without_the_password() {
        let (_, token) = new_token("admin", Role::Admin, Vec::new(), None);
        for url in ["postgres://ann:hunter2@host:port/shop", "postgres://ann:hunter2@host/shop?sslmode=maybe"]
        {
            let error = store::open(url, &token).await.expect_err(url);
            assert!(matches!(error, StoreError::Open(_)), "{error}");
            let text = error.to_string();
            assert!(text.contains("--database-url") && !text.contains("hunter2"), "{text}");
        }
    }
}
