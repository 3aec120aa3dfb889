//! What SQLite says differently: transactions, many rows at a time, and the clock.

use std::collections::HashMap;

use gateway_proto::kind::Key;
use sqlx::{QueryBuilder, Sqlite};

use super::Connection;
use super::objects::{item_hash, key, number, signed, time};
use super::records::micros;
use crate::store::plan::Existing;
use crate::store::{Change, NodeSeen, StoreError, Stored};

/// WAL readers see the state at their first read until they end.
pub(super) const BEGIN_READ: &str = "BEGIN DEFERRED";
/// Takes the write lock at once: a transaction that reads first and writes later could fail half way.
pub(super) const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";
/// Writers come one after the other, so a commit sees one state anyway.
pub(super) const BEGIN_COMMIT: &str = BEGIN_WRITE;

pub(super) const NODES: &str = "SELECT node, replica, \
    CAST(unixepoch('subsec') * 1000000 AS INTEGER) - seen_us AS seen_ago_us, connected, revision, report, \
    twin, CAST(unixepoch('subsec') * 1000000 AS INTEGER) - twin_us AS twin_ago_us FROM nodes ORDER BY node";

pub(super) const NOTE_TWIN: &str = "UPDATE nodes SET twin = $2, \
    twin_us = CAST(unixepoch('subsec') * 1000000 AS INTEGER) WHERE node = $1";

pub(super) const NODES_OF_OTHERS: &str = "SELECT node, replica, now.us - seen_us AS seen_ago_us, connected, revision, \
    report, twin, now.us - twin_us AS twin_ago_us FROM nodes, (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS us) now \
    WHERE replica <> $1 AND connected AND seen_us > now.us - $2";

pub(super) const FORGET_NODES: &str =
    "DELETE FROM nodes WHERE seen_us < CAST(unixepoch('subsec') * 1000000 AS INTEGER) - $1";

/// The fence, if it is that; a writer is alone anyway.
pub(super) const HOLD_FENCE: &str = "SELECT fence FROM leader WHERE fence = $1";

/// Sealed values up to a revision that no content refers to. A reference stands in a body as it is.
pub(super) const DROP_SECRETS: &str = "DELETE FROM secrets WHERE revision <= $1 AND NOT EXISTS \
    (SELECT 1 FROM changelog c WHERE c.kind = secrets.kind AND c.namespace = secrets.namespace AND c.name = secrets.name \
        AND instr(c.body, CAST('sealed:' || secrets.revision || ':' AS BLOB)) > 0)";

/// The named master key; a writer is alone anyway.
pub(super) const HOLD_MASTER: &str = "SELECT id FROM master";

/// Of a JSON list of [kind, namespace, name, field, revision].
pub(super) const SECRETS: &str = "SELECT s.kind, s.namespace, s.name, s.field, s.revision, s.master, s.data_key, s.value \
    FROM json_each($1) w CROSS JOIN secrets s WHERE s.kind = w.value ->> 0 AND s.namespace = w.value ->> 1 \
        AND s.name = w.value ->> 2 AND s.field = w.value ->> 3 AND s.revision = w.value ->> 4";

/// The counter of credentials; a writer is alone anyway.
pub(super) const HOLD_CREDENTIALS: &str = "SELECT version FROM credential_version";

/// The items of a JSON list, as `k.value`.
pub(super) const LIST: &str = "json_each($1) k";

/// Bytes of hex digits.
pub(super) fn unhex(digits: &str) -> String {
    format!("unhex({digits})")
}

/// Rows of one statement: ten columns each, far from the limit of 32,766 parameters.
const ROWS: usize = 500;

/// The rows that these objects have now.
pub(super) async fn existing(
    connection: &mut Connection,
    keys: &[&Key],
) -> Result<HashMap<Key, Existing>, StoreError> {
    // CROSS JOIN keeps the order of the tables: one primary-key lookup for each object.
    const SQL: &str = "SELECT r.kind, r.namespace, r.name, r.generation, r.revision, r.hash, r.created_us \
        FROM json_each($1) k CROSS JOIN resources r \
        WHERE r.kind = k.value ->> 0 AND r.namespace = k.value ->> 1 AND r.name = k.value ->> 2";
    let rows = sqlx::query(SQL).bind(names(keys)).fetch_all(connection).await?;
    let existing = |row| {
        let existing = Existing {
            generation: number(row, "generation")?,
            revision: number(row, "revision")?,
            hash: item_hash(row)?,
            created: time(row, "created_us")?,
        };
        Ok((key(row)?, existing))
    };
    rows.iter().map(existing).collect()
}

/// Creates or replaces objects; labels beside each.
pub(super) async fn put(connection: &mut Connection, puts: &[(&Stored, &String)]) -> Result<(), sqlx::Error> {
    for rows in puts.chunks(ROWS) {
        let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new(
            "INSERT INTO resources \
             (kind, namespace, name, generation, revision, labels, body, hash, created_us, updated_us) ",
        );
        insert.push_values(rows, |mut row, (stored, labels)| {
            row.push_bind(stored.key.kind.as_str())
                .push_bind(&*stored.key.namespace)
                .push_bind(&*stored.key.name)
                .push_bind(signed(stored.generation))
                .push_bind(signed(stored.revision))
                .push_bind(labels.as_str())
                .push_bind(&*stored.body)
                .push_bind(stored.hash.0.to_vec())
                .push_bind(stored.created.as_microsecond())
                .push_bind(stored.updated.as_microsecond());
        });
        insert.push(
            " ON CONFLICT (kind, namespace, name) DO UPDATE SET generation = excluded.generation, \
             revision = excluded.revision, labels = excluded.labels, body = excluded.body, hash = excluded.hash, \
             updated_us = excluded.updated_us",
        );
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes objects that exist.
pub(super) async fn delete(connection: &mut Connection, keys: &[&Key]) -> Result<(), sqlx::Error> {
    const SQL: &str = "DELETE FROM resources WHERE (kind, namespace, name) IN \
        (SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each($1))";
    if !keys.is_empty() {
        sqlx::query(SQL).bind(names(keys)).execute(connection).await?;
    }
    Ok(())
}

/// Appends a revision's changes to history.
pub(super) async fn log(
    connection: &mut Connection,
    revision: u64,
    changes: &[Change],
) -> Result<(), sqlx::Error> {
    for (chunk, rows) in changes.chunks(ROWS).enumerate() {
        let mut insert: QueryBuilder<Sqlite> = QueryBuilder::new(
            "INSERT INTO changelog (revision, seq, kind, namespace, name, op, hash, body) ",
        );
        insert.push_values(rows.iter().enumerate(), |mut row, (index, change)| {
            let (key, content) = match change {
                Change::Put(stored) => (&stored.key, Some((&*stored.body, stored.hash.0.to_vec()))),
                Change::Delete(key) => (key, None),
            };
            row.push_bind(signed(revision))
                .push_bind(signed((chunk * ROWS + index) as u64))
                .push_bind(key.kind.as_str())
                .push_bind(&*key.namespace)
                .push_bind(&*key.name)
                .push_bind(if content.is_some() { "put" } else { "delete" });
            match content {
                Some((body, hash)) => row.push_bind(hash).push_bind(body),
                None => row.push_bind(None::<Vec<u8>>).push_bind(None::<&[u8]>),
            };
        });
        insert.build().execute(&mut *connection).await?;
    }
    Ok(())
}

/// Records nodes, sorted by name and each once; an entry of an older stream on another replica loses.
pub(super) async fn put_nodes(connection: &mut Connection, nodes: Vec<NodeSeen>) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO nodes (node, replica, opened_us, seen_us, connected, revision, report) \
        SELECT n.value ->> 0, unhex(n.value ->> 1), now.us - (n.value ->> 2), now.us - (n.value ->> 3), \
            n.value ->> 4, n.value ->> 5, n.value ->> 6 \
        FROM json_each($1) n, (SELECT CAST(unixepoch('subsec') * 1000000 AS INTEGER) AS us) now WHERE true \
        ON CONFLICT (node) DO UPDATE SET replica = excluded.replica, opened_us = excluded.opened_us, \
            seen_us = excluded.seen_us, connected = excluded.connected, revision = excluded.revision, \
            report = excluded.report \
        WHERE nodes.replica = excluded.replica OR excluded.opened_us >= nodes.opened_us";
    let rows = nodes.into_iter().map(|node| {
        let replica = node.replica.simple().to_string();
        let (opened, seen) = (micros(node.opened_ago), micros(node.seen_ago));
        (
            node.node,
            replica,
            opened,
            seen,
            i64::from(node.connected),
            signed(node.revision),
            node.report.to_string(),
        )
    });
    let rows =
        serde_json::to_string(&rows.collect::<Vec<_>>()).expect("strings and numbers always serialise");
    sqlx::query(SQL).bind(rows).execute(connection).await?;
    Ok(())
}

/// Other handles find out by polling.
pub(super) async fn notify(_: &mut Connection) -> Result<(), sqlx::Error> {
    Ok(())
}

fn names(keys: &[&Key]) -> String {
    let names = keys.iter().map(|key| [key.kind.as_str(), &key.namespace, &key.name]).collect::<Vec<_>>();
    serde_json::to_string(&names).expect("strings always serialise")
}
