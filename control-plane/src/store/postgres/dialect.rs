//! What PostgreSQL says differently: transactions, many rows at a time, the clock, and notifications.

use std::collections::HashMap;

use gateway_proto::kind::Key;
use uuid::Uuid;

use super::Connection;
use super::objects::{item_hash, key, number, signed, time};
use super::records::micros;
use crate::store::plan::Existing;
use crate::store::{Change, NodeSeen, StoreError, Stored};

pub(super) const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const BEGIN_WRITE: &str = "BEGIN";
/// One state for the whole commit: preconditions and hashes are those of its base, or it fails to serialise.
pub(super) const BEGIN_COMMIT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ";

/// Name of the notification channel; notifications stay within a database.
pub(super) const CHANNEL: &str = "gateway_store";

pub(super) const NODES: &str = "SELECT node, replica, \
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - seen_us AS seen_ago_us, connected, revision, report, \
    twin, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - twin_us AS twin_ago_us FROM nodes ORDER BY node";

pub(super) const NOTE_TWIN: &str = "UPDATE nodes SET twin = $2, \
    twin_us = (extract(epoch FROM clock_timestamp()) * 1000000)::bigint WHERE node = $1";

pub(super) const NODES_OF_OTHERS: &str = "SELECT node, replica, now.us - seen_us AS seen_ago_us, connected, revision, \
    report, twin, now.us - twin_us AS twin_ago_us FROM nodes, (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) now \
    WHERE replica <> $1 AND connected AND seen_us > now.us - $2";

pub(super) const FORGET_NODES: &str =
    "DELETE FROM nodes WHERE seen_us < (extract(epoch FROM clock_timestamp()) * 1000000)::bigint - $1";

/// The fence, if it is that; nobody counts it up before the transaction ends.
pub(super) const HOLD_FENCE: &str = "SELECT fence FROM leader WHERE fence = $1 FOR UPDATE";

/// Sealed values up to a revision that no content refers to. A reference stands in a body as it is.
pub(super) const DROP_SECRETS: &str = "DELETE FROM secrets s WHERE s.revision <= $1 AND NOT EXISTS \
    (SELECT 1 FROM changelog c WHERE c.kind = s.kind AND c.namespace = s.namespace AND c.name = s.name \
        AND position(convert_to('sealed:' || s.revision || ':', 'UTF8') IN c.body) > 0)";

/// The named master key; nobody names another before the transaction ends.
pub(super) const HOLD_MASTER: &str = "SELECT id FROM master FOR SHARE";

/// Of a JSON list of [kind, namespace, name, field, revision].
pub(super) const SECRETS: &str = "SELECT s.kind, s.namespace, s.name, s.field, s.revision, s.master, s.data_key, s.value \
    FROM json_array_elements($1::json) w JOIN secrets s ON s.kind = w ->> 0 AND s.namespace = w ->> 1 \
        AND s.name = w ->> 2 AND s.field = w ->> 3 AND s.revision = (w ->> 4)::bigint";

/// The counter of credentials; nobody moves it before the transaction ends, and who looked at an earlier state fails.
pub(super) const HOLD_CREDENTIALS: &str = "SELECT version FROM credential_version FOR UPDATE";

/// The items of a JSON list, as `k.value`.
pub(super) const LIST: &str = "json_array_elements($1::json) AS k (value)";

/// Bytes of hex digits.
pub(super) fn unhex(digits: &str) -> String {
    format!("decode({digits}, 'hex')")
}

/// Rows of one statement.
const ROWS: usize = 5_000;
/// Bytes of one statement's bodies; the rows of a statement are held twice while it is encoded.
const BYTES: usize = 16 << 20;

/// The rows that these objects have now.
pub(super) async fn existing(
    connection: &mut Connection,
    keys: &[&Key],
) -> Result<HashMap<Key, Existing>, StoreError> {
    const SQL: &str = "SELECT r.kind, r.namespace, r.name, r.generation, r.revision, r.hash, r.created_us \
        FROM UNNEST($1::text[], $2::text[], $3::text[]) AS k (kind, namespace, name) \
        JOIN resources r ON r.kind = k.kind AND r.namespace = k.namespace AND r.name = k.name";
    let Names { kinds, namespaces, names } = Names::of(keys.iter().copied());
    let rows = sqlx::query(SQL).bind(kinds).bind(namespaces).bind(names).fetch_all(connection).await?;
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
    const SQL: &str = "INSERT INTO resources \
        (kind, namespace, name, generation, revision, labels, body, hash, created_us, updated_us) \
        SELECT n.kind, n.namespace, n.name, n.generation, n.revision, n.labels::jsonb, n.body, n.hash, n.created, n.updated \
        FROM UNNEST($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::bytea[], \
            $8::bytea[], $9::bigint[], $10::bigint[]) \
            AS n (kind, namespace, name, generation, revision, labels, body, hash, created, updated) \
        ON CONFLICT (kind, namespace, name) DO UPDATE SET generation = excluded.generation, \
            revision = excluded.revision, labels = excluded.labels, body = excluded.body, hash = excluded.hash, \
            updated_us = excluded.updated_us";
    for rows in statements(puts, |(stored, _)| stored.body.len()) {
        let Names { kinds, namespaces, names } = Names::of(rows.iter().map(|(stored, _)| &stored.key));
        sqlx::query(SQL)
            .bind(kinds)
            .bind(namespaces)
            .bind(names)
            .bind(column(rows, |(stored, _)| signed(stored.generation)))
            .bind(column(rows, |(stored, _)| signed(stored.revision)))
            .bind(column(rows, |(_, labels)| labels.as_str()))
            .bind(column(rows, |(stored, _)| &*stored.body))
            .bind(column(rows, |(stored, _)| stored.hash.0.to_vec()))
            .bind(column(rows, |(stored, _)| stored.created.as_microsecond()))
            .bind(column(rows, |(stored, _)| stored.updated.as_microsecond()))
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Deletes objects that exist.
pub(super) async fn delete(connection: &mut Connection, keys: &[&Key]) -> Result<(), sqlx::Error> {
    const SQL: &str = "DELETE FROM resources r \
        USING UNNEST($1::text[], $2::text[], $3::text[]) AS k (kind, namespace, name) \
        WHERE r.kind = k.kind AND r.namespace = k.namespace AND r.name = k.name";
    if !keys.is_empty() {
        let Names { kinds, namespaces, names } = Names::of(keys.iter().copied());
        sqlx::query(SQL).bind(kinds).bind(namespaces).bind(names).execute(connection).await?;
    }
    Ok(())
}

/// Appends a revision's changes to history.
pub(super) async fn log(
    connection: &mut Connection,
    revision: u64,
    changes: &[Change],
) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO changelog (revision, seq, kind, namespace, name, op, hash, body) \
        SELECT $1, $2 + n.seq - 1, n.kind, n.namespace, n.name, \
            CASE WHEN n.body IS NULL THEN 'delete' ELSE 'put' END, n.hash, n.body \
        FROM UNNEST($3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[]) WITH ORDINALITY \
            AS n (kind, namespace, name, hash, body, seq)";
    let mut seq = 0;
    for rows in statements(changes, |change| stored(change).map_or(0, |stored| stored.body.len())) {
        let Names { kinds, namespaces, names } = Names::of(rows.iter().map(Change::key));
        sqlx::query(SQL)
            .bind(signed(revision))
            .bind(signed(seq))
            .bind(kinds)
            .bind(namespaces)
            .bind(names)
            .bind(column(rows, |change| stored(change).map(|stored| stored.hash.0.to_vec())))
            .bind(column(rows, |change| stored(change).map(|stored| &*stored.body)))
            .execute(&mut *connection)
            .await?;
        seq += rows.len() as u64;
    }
    Ok(())
}

/// Records nodes, sorted by name and each once; an entry of an older stream on another replica loses.
pub(super) async fn put_nodes(connection: &mut Connection, nodes: Vec<NodeSeen>) -> Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO nodes (node, replica, opened_us, seen_us, connected, revision, report) \
        SELECT n.node, n.replica, now.us - n.opened_ago, now.us - n.seen_ago, n.connected, n.revision, n.report \
        FROM UNNEST($1::text[], $2::uuid[], $3::bigint[], $4::bigint[], $5::boolean[], $6::bigint[], $7::text[]) \
            AS n (node, replica, opened_ago, seen_ago, connected, revision, report), \
            (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS us) now \
        ON CONFLICT (node) DO UPDATE SET replica = excluded.replica, opened_us = excluded.opened_us, \
            seen_us = excluded.seen_us, connected = excluded.connected, revision = excluded.revision, \
            report = excluded.report \
        WHERE nodes.replica = excluded.replica OR excluded.opened_us >= nodes.opened_us";
    sqlx::query(SQL)
        .bind(column(&nodes, |node| node.node.clone()))
        .bind(column(&nodes, |node| -> Uuid { node.replica }))
        .bind(column(&nodes, |node| micros(node.opened_ago)))
        .bind(column(&nodes, |node| micros(node.seen_ago)))
        .bind(column(&nodes, |node| node.connected))
        .bind(column(&nodes, |node| signed(node.revision)))
        .bind(column(&nodes, |node| node.report.to_string()))
        .execute(connection)
        .await?;
    Ok(())
}

/// Tells the other replicas, once the transaction is committed.
pub(super) async fn notify(connection: &mut Connection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await.map(drop)
}

const fn stored(change: &Change) -> Option<&Stored> {
    match change {
        Change::Put(stored) => Some(stored),
        Change::Delete(_) => None,
    }
}

/// Keys as three columns.
struct Names<'a> {
    kinds: Vec<&'static str>,
    namespaces: Vec<&'a str>,
    names: Vec<&'a str>,
}

impl<'a> Names<'a> {
    fn of(keys: impl Iterator<Item = &'a Key>) -> Self {
        let mut columns = Names { kinds: Vec::new(), namespaces: Vec::new(), names: Vec::new() };
        for key in keys {
            columns.kinds.push(key.kind.as_str());
            columns.namespaces.push(&key.namespace);
            columns.names.push(&key.name);
        }
        columns
    }
}

fn column<'a, T, V>(rows: &'a [T], value: impl FnMut(&'a T) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}

/// Cuts rows into statements of bounded size.
fn statements<T>(mut rows: &[T], bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    std::iter::from_fn(move || {
        let mut size = 0;
        let fits = rows.iter().take(ROWS).take_while(|row| {
            size += bytes(row);
            size <= BYTES
        });
        let count = fits.count().max(1).min(rows.len());
        let (statement, rest) = rows.split_at(count);
        rows = rest;
        (!statement.is_empty()).then_some(statement)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_by_number_and_by_size_and_none_is_lost() {
        let mib = 1 << 20;
        let cases = [
            (vec![], vec![]),
            (vec![1; ROWS + 1], vec![ROWS, 1]),
            (vec![mib; 33], vec![16, 16, 1]),
            (vec![20 * mib, 1, 20 * mib], vec![1, 1, 1]),
        ];
        for (rows, expected) in cases {
            assert_eq!(statements(&rows, |bytes| *bytes).map(<[usize]>::len).collect::<Vec<_>>(), expected);
        }
    }
}
