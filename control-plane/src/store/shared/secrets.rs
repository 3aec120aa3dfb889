//! Sealed values and the record of the master key. Compiled once for each database: `super` is the store's own module
//! and names its `Connection`, `Row` and dialect.

use sqlx::Row as _;

use super::objects::{broken, key, number, signed};
use super::{Connection, Row, dialect};
use crate::store::{MasterId, MasterRecord, SecretId, SecretRecord, StoreError};

type Result<T> = std::result::Result<T, StoreError>;

/// Names of one statement.
const NAMES: usize = 1_000;

/// Adds the values that a commit brings.
pub(super) async fn insert(
    connection: &mut Connection,
    secrets: &[SecretRecord],
) -> std::result::Result<(), sqlx::Error> {
    const SQL: &str = "INSERT INTO secrets (kind, namespace, name, field, revision, master, data_key, value) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    for SecretRecord { id, master, data_key, value } in secrets {
        sqlx::query(SQL)
            .bind(id.key.kind.as_str())
            .bind(&*id.key.namespace)
            .bind(&*id.key.name)
            .bind(&*id.field)
            .bind(signed(id.revision))
            .bind(master.as_slice())
            .bind(data_key.as_slice())
            .bind(value.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Whether values are sealed with the master key that is named, which stays so until the transaction ends.
pub(super) async fn are_current(
    connection: &mut Connection,
    mut secrets: impl Iterator<Item = &SecretRecord>,
) -> std::result::Result<bool, sqlx::Error> {
    let Some(first) = secrets.next() else { return Ok(true) };
    let row = sqlx::query(dialect::HOLD_MASTER).fetch_optional(connection).await?;
    let named = row.map(|row| row.try_get::<Vec<u8>, _>("id")).transpose()?;
    let is_named = |secret: &SecretRecord| named.as_ref().is_none_or(|named| secret.master == **named);
    Ok(is_named(first) && secrets.all(is_named))
}

/// Values whose data keys are encrypted with another master key.
pub(super) async fn of_other_masters(
    connection: &mut Connection,
    master: MasterId,
    limit: u32,
) -> Result<Vec<SecretRecord>> {
    const SQL: &str = "SELECT kind, namespace, name, field, revision, master, data_key, value FROM secrets \
         WHERE master <> $1 ORDER BY kind, namespace, name, field, revision LIMIT $2";
    let rows = sqlx::query(SQL).bind(master.as_slice()).bind(i64::from(limit)).fetch_all(connection).await?;
    rows.iter().map(secret).collect()
}

/// Replaces data keys, each unless it is encrypted with another master key than that by now.
pub(super) async fn put_data_keys(
    connection: &mut Connection,
    secrets: &[(MasterId, SecretRecord)],
) -> Result<()> {
    const SQL: &str = "UPDATE secrets SET master = $1, data_key = $2 \
         WHERE kind = $3 AND namespace = $4 AND name = $5 AND field = $6 AND revision = $7 AND master = $8";
    for (from, SecretRecord { id, master, data_key, .. }) in secrets {
        sqlx::query(SQL)
            .bind(master.as_slice())
            .bind(data_key.as_slice())
            .bind(id.key.kind.as_str())
            .bind(&*id.key.namespace)
            .bind(&*id.key.name)
            .bind(&*id.field)
            .bind(signed(id.revision))
            .bind(from.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// Names another master key, if that is the one that is named now.
pub(super) async fn replace_master(
    connection: &mut Connection,
    from: MasterId,
    record: &MasterRecord,
) -> Result<bool> {
    const SQL: &str = "UPDATE master SET id = $1, tag_key = $2 WHERE id = $3";
    let done = sqlx::query(SQL)
        .bind(record.id.as_slice())
        .bind(record.tag_key.as_slice())
        .bind(from.as_slice())
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// The values that are asked for and there.
pub(super) async fn find(connection: &mut Connection, wanted: &[SecretId]) -> Result<Vec<SecretRecord>> {
    let mut found = Vec::with_capacity(wanted.len());
    for wanted in wanted.chunks(NAMES) {
        // Both databases read a list of lists alike.
        let rows = sqlx::query(dialect::SECRETS).bind(names(wanted)).fetch_all(&mut *connection).await?;
        for row in &rows {
            found.push(secret(row)?);
        }
    }
    Ok(found)
}

fn names(wanted: &[SecretId]) -> String {
    let name = |it: &SecretId| {
        let SecretId { key, field, revision } = it;
        (key.kind.as_str(), key.namespace.clone(), key.name.clone(), field.clone(), signed(*revision))
    };
    serde_json::to_string(&wanted.iter().map(name).collect::<Vec<_>>())
        .expect("strings and numbers always serialise")
}

fn secret(row: &Row) -> Result<SecretRecord> {
    let id = SecretId { key: key(row)?, field: row.try_get("field")?, revision: number(row, "revision")? };
    let master = row.try_get::<&[u8], _>("master")?.try_into().map_err(|_| broken("master"))?;
    Ok(SecretRecord { id, master, data_key: row.try_get("data_key")?, value: row.try_get("value")? })
}

/// The record of the master key.
pub(super) async fn master(connection: &mut Connection) -> Result<Option<MasterRecord>> {
    let row = sqlx::query("SELECT id, tag_key FROM master").fetch_optional(connection).await?;
    row.map(|row| {
        let id = row.try_get::<&[u8], _>("id")?.try_into().map_err(|_| broken("id"))?;
        Ok(MasterRecord { id, tag_key: row.try_get("tag_key")? })
    })
    .transpose()
}

/// Records the master key, unless there is one already.
pub(super) async fn create_master(
    connection: &mut Connection,
    record: &MasterRecord,
) -> Result<MasterRecord> {
    const SQL: &str = "INSERT INTO master (singleton, id, tag_key) VALUES (1, $1, $2) ON CONFLICT DO NOTHING";
    sqlx::query(SQL)
        .bind(record.id.as_slice())
        .bind(record.tag_key.as_slice())
        .execute(&mut *connection)
        .await?;
    master(connection).await?.ok_or_else(|| broken("id"))
}
