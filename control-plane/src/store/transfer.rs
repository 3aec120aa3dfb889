//! Moves a store from a SQLite file to an empty PostgreSQL database, with everything in it: epoch, revisions, history,
//! tokens, audit, sealed values, data planes. Rows are copied as they are, table by table as the two schemas say, so that
//! what a later migration adds is moved too; data planes find the store that they know, and resume.
//!
//! Invariants: the source is not changed, and not in use; the target is changed whole, in one transaction, or not at
//! all; what was written is read back and counted before it is confirmed.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use futures_util::TryStreamExt as _;
use gateway_proto::digest::{ItemHash, RootHash};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use uuid::Uuid;

use super::{Head, MasterId, StoreError, postgres, sqlite};

type Result<T> = std::result::Result<T, StoreError>;

/// Bytes that are handed to the server at once.
const PIECE: usize = 1 << 20;

/// What was moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transferred {
    /// Where the store stands, before and after.
    pub head: Head,
    /// The master key that its secrets are sealed with; `None`: it never had one.
    pub master: Option<MasterId>,
    /// Rows by table.
    pub rows: BTreeMap<String, u64>,
}

/// Moves the store of a `sqlite:` URL to the database of a `postgres:` URL.
///
/// # Errors
/// [`StoreError::Open`] for URLs of other kinds, a source that is not there, in use or of another release, and a target
/// that holds a store; [`StoreError::Broken`] when what was written is not what was read. Nothing is moved then.
pub async fn transfer(from: &str, to: &str) -> Result<Transferred> {
    let (mut source, _lock) = sqlite::open_idle(from).await.map_err(|error| named("--from", error))?;
    let mut source = source.begin().await?;
    let mut target = postgres::open_empty(to).await.map_err(|error| named("--to", error))?;
    let mut target = target.begin().await?;
    // A control plane that starts on it meanwhile waits, and finds the store made.
    sqlx::query("LOCK TABLE meta IN ACCESS EXCLUSIVE MODE").execute(&mut *target).await?;
    if let Some(row) = sqlx::query("SELECT revision FROM meta").fetch_optional(&mut *target).await? {
        let revision: i64 = row.try_get("revision")?;
        return Err(StoreError::Open(format!(
            "--to holds a store already, at revision {revision}: name an empty database"
        )));
    }
    let tables = tables(&mut source, &mut target).await?;
    let names = tables.iter().map(|table| quoted(&table.name)).collect::<Vec<_>>().join(", ");
    // Some are made with a row.
    sqlx::query(AssertSqlSafe(format!("TRUNCATE {names}"))).execute(&mut *target).await?;
    let mut rows = BTreeMap::new();
    for table in &tables {
        rows.insert(table.name.clone(), table.copy(&mut source, &mut target).await?);
    }
    let head = check(&tables, &rows, &mut target).await?;
    let master = postgres::master(&mut target).await?.map(|record| record.id);
    target.commit().await.map_err(|_| StoreError::OutcomeUnknown)?;
    Ok(Transferred { head, master, rows })
}

/// An error in terms of the option that is to blame.
fn named(option: &str, error: StoreError) -> StoreError {
    let told = |text: String| text.replace("--database-url", option);
    match error {
        StoreError::Open(text) => StoreError::Open(told(text)),
        StoreError::Unavailable(text) => StoreError::Unavailable(told(text)),
        other => other,
    }
}

/// A table and its columns, as the target has them.
struct Table {
    name: String,
    columns: Vec<Column>,
}

struct Column {
    name: String,
    form: Form,
    /// Counted up by the database.
    is_identity: bool,
}

/// How a value is written for PostgreSQL's COPY.
#[derive(Clone, Copy)]
enum Form {
    Number,
    Truth,
    Text,
    Bytes,
    Uuid,
}

impl Form {
    fn of(data_type: &str) -> Option<Self> {
        Some(match data_type {
            "bigint" | "integer" | "smallint" => Form::Number,
            "boolean" => Form::Truth,
            "text" | "jsonb" | "json" => Form::Text,
            "bytea" => Form::Bytes,
            "uuid" => Form::Uuid,
            _ => return None,
        })
    }

    /// Appends a value of a row; false if it is NULL.
    fn write(self, row: &SqliteRow, column: &str, out: &mut String) -> Result<bool> {
        let broken = |what: &str| StoreError::Broken(format!("column {column} holds {what}"));
        match self {
            Form::Number => match row.try_get::<Option<i64>, _>(column)? {
                Some(number) => write!(out, "{number}").map_err(|_| broken("too much"))?,
                None => return Ok(false),
            },
            Form::Truth => match row.try_get::<Option<i64>, _>(column)? {
                Some(number) => out.push(if number == 0 { 'f' } else { 't' }),
                None => return Ok(false),
            },
            Form::Text => match row.try_get::<Option<&str>, _>(column)? {
                Some(text) if text.contains('\0') => return Err(broken("a NUL, which PostgreSQL does not")),
                Some(text) => escape(text, out),
                None => return Ok(false),
            },
            Form::Bytes => match row.try_get::<Option<&[u8]>, _>(column)? {
                Some(bytes) => {
                    out.push_str("\\\\x");
                    for byte in bytes {
                        write!(out, "{byte:02x}").map_err(|_| broken("too much"))?;
                    }
                }
                None => return Ok(false),
            },
            Form::Uuid => match row.try_get::<Option<&[u8]>, _>(column)? {
                Some(bytes) => {
                    let uuid = Uuid::from_slice(bytes).map_err(|_| broken("no UUID"))?;
                    write!(out, "{uuid}").map_err(|_| broken("too much"))?;
                }
                None => return Ok(false),
            },
        }
        Ok(true)
    }
}

/// As COPY's text format wants it.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Every table of the store, those first that others refer to.
async fn tables(source: &mut SqliteConnection, target: &mut PgConnection) -> Result<Vec<Table>> {
    const SOURCE: &str = "SELECT name FROM sqlite_master WHERE type = 'table' \
        AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> '_sqlx_migrations'";
    const REFERENCES: &str = "SELECT t.relname::text AS of, r.relname::text AS needs FROM pg_constraint c \
        JOIN pg_class t ON t.oid = c.conrelid JOIN pg_class r ON r.oid = c.confrelid \
        WHERE c.contype = 'f' AND c.connamespace = current_schema()::regnamespace AND t.oid <> r.oid";
    let mut left: Vec<String> = sqlx::query_scalar(SOURCE).fetch_all(source).await?;
    left.sort();
    let needs: Vec<(String, String)> = sqlx::query_as(REFERENCES).fetch_all(&mut *target).await?;
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let waits = |name: &String| needs.iter().any(|(of, needed)| of == name && left.contains(needed));
        let Some(next) = left.iter().position(|name| !waits(name)) else {
            return Err(StoreError::Broken("its tables refer to each other in a circle".to_owned()));
        };
        let name = left.remove(next);
        let columns = columns(&name, target).await?;
        ordered.push(Table { name, columns });
    }
    Ok(ordered)
}

async fn columns(table: &str, target: &mut PgConnection) -> Result<Vec<Column>> {
    const SQL: &str = "SELECT column_name::text AS name, data_type::text AS type, is_identity = 'YES' AS identity \
        FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = $1 \
        ORDER BY ordinal_position";
    let rows = sqlx::query(SQL).bind(table).fetch_all(target).await?;
    let columns = rows.iter().map(|row| {
        let (name, data_type): (String, String) = (row.try_get("name")?, row.try_get("type")?);
        let unknown = || StoreError::Broken(format!("{table}.{name}: no way to move the type {data_type}"));
        let form = Form::of(&data_type).ok_or_else(unknown)?;
        Ok(Column { name, form, is_identity: row.try_get("identity")? })
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    if columns.is_empty() {
        return Err(StoreError::Broken(format!("the target has no table {table}")));
    }
    Ok(columns)
}

impl Table {
    /// Copies every row; how many.
    async fn copy(&self, source: &mut SqliteConnection, target: &mut PgConnection) -> Result<u64> {
        let (table, columns) = (quoted(&self.name), self.columns.iter().map(|it| quoted(&it.name)));
        let columns = columns.collect::<Vec<_>>().join(", ");
        let mut copy = target.copy_in_raw(&format!("COPY {table} ({columns}) FROM STDIN")).await?;
        let read = AssertSqlSafe(format!("SELECT {columns} FROM {table}"));
        let mut rows = sqlx::query(read).fetch(source);
        let (mut count, mut piece) = (0, String::with_capacity(PIECE));
        // An error on the way drops the connection, and with it everything that was written.
        while let Some(row) = rows.try_next().await? {
            for (index, column) in self.columns.iter().enumerate() {
                if index > 0 {
                    piece.push('\t');
                }
                if !column.form.write(&row, &column.name, &mut piece)? {
                    piece.push_str("\\N");
                }
            }
            piece.push('\n');
            count += 1;
            if piece.len() >= PIECE {
                copy.send(piece.as_bytes()).await?;
                piece.clear();
            }
        }
        copy.send(piece.as_bytes()).await?;
        copy.finish().await?;
        for column in self.columns.iter().filter(|column| column.is_identity) {
            let name = quoted(&column.name);
            let next = format!(
                "SELECT setval(pg_get_serial_sequence($1, $2), (SELECT COALESCE(max({name}), 0) + 1 FROM {table}), false)"
            );
            let next = sqlx::query(AssertSqlSafe(next)).bind(&self.name).bind(&column.name);
            next.execute(&mut *target).await?;
        }
        Ok(count)
    }
}

/// Reads back what was written: as many rows as were read, every object as its hash says, and all of them together
/// what the head says.
async fn check(tables: &[Table], rows: &BTreeMap<String, u64>, target: &mut PgConnection) -> Result<Head> {
    for table in tables {
        let count = AssertSqlSafe(format!("SELECT count(*) FROM {}", quoted(&table.name)));
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut *target).await?;
        if u64::try_from(count).ok() != rows.get(&table.name).copied() {
            return Err(StoreError::Broken(format!("{count} rows of {} arrived, not all", table.name)));
        }
    }
    let mut wrong = None;
    let mut root = RootHash::default();
    let head = postgres::load(target, &mut |stored| {
        root = root.plus(stored.hash);
        if ItemHash::of(&stored.key, &stored.body) != stored.hash {
            wrong = Some(stored.key);
        }
    })
    .await?;
    match wrong {
        Some(key) => Err(StoreError::Broken(format!("{key} is not what its hash says"))),
        None if root != head.root => {
            Err(StoreError::Broken("the objects are not those that the head names".to_owned()))
        }
        None => Ok(head),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_for_copy() {
        let mut out = String::new();
        escape("a\\b\tc\nd\re \u{e9}\\N", &mut out);
        assert_eq!(out, "a\\\\b\\tc\\nd\\re \u{e9}\\\\N");
    }

    #[test]
    fn an_error_names_the_option_that_is_to_blame() {
        let error = named("--to", StoreError::Open("check --database-url".to_owned()));
        assert_eq!(error.to_string(), "cannot open the store: check --to");
    }
}
