//! Credentials. Compiled once for each database: `super` is the store's own module and names its `Connection`, `Row` and
//! dialect. Rows go in as one JSON list a statement, which both databases read alike.
//!
//! Invariant: who writes credentials, or deletes consumers, takes the row of the counter first. So no two of them look
//! at the same state at once, and none is left that belongs to nobody.

use std::collections::{BTreeSet, HashMap};

use futures_util::TryStreamExt as _;
use gateway_proto::credential::{Grant, KeyDigest};
use gateway_proto::digest::ItemHash;
use gateway_proto::kind::{Key, Kind};
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row as _};

use super::dialect::{HOLD_CREDENTIALS, LIST, unhex};
use super::objects::{broken, number, signed, time};
use super::{Connection, Row};
use crate::store::credential::{
    CredentialHead, CredentialPage, CredentialWrite, KEPT_VERSIONS, KeyChanges, TouchedKey, VisitKey,
};
use crate::store::{CommitError, Precondition, StoreError, Stored};

type Result<T> = std::result::Result<T, StoreError>;

/// Rows of one statement.
const ROWS: usize = 2_000;

/// The counter, in the transaction that holds it from now on.
pub(super) async fn hold(connection: &mut Connection) -> std::result::Result<(), sqlx::Error> {
    sqlx::query(HOLD_CREDENTIALS).fetch_one(connection).await.map(drop)
}

/// Moves the counter; first in a transaction.
async fn advance(connection: &mut Connection) -> std::result::Result<u64, CredentialError> {
    const SQL: &str = "UPDATE credential_version SET version = version + 1 RETURNING version";
    Ok(number(&sqlx::query(SQL).fetch_one(connection).await?, "version")?)
}

/// Why credentials are not written.
#[derive(Debug)]
pub(super) enum CredentialError {
    Sql(sqlx::Error),
    Refused(CommitError),
}

impl From<sqlx::Error> for CredentialError {
    fn from(error: sqlx::Error) -> Self {
        CredentialError::Sql(error)
    }
}

impl From<StoreError> for CredentialError {
    fn from(error: StoreError) -> Self {
        CredentialError::Refused(CommitError::Store(error))
    }
}

/// Makes the writes; the version that they made.
pub(super) async fn write(
    connection: &mut Connection,
    writes: &[CredentialWrite],
    at: Timestamp,
) -> std::result::Result<u64, CredentialError> {
    let version = advance(connection).await?;
    let mut grown = 0;
    for writes in writes.chunks(ROWS) {
        let existing = existing(connection, writes).await?;
        check(writes, &existing)?;
        check_consumers(connection, writes).await?;
        put(connection, writes, &existing, (version, at)).await?;
        grown += writes.iter().filter(|write| write.content.is_some()).count() as i64 - existing.len() as i64;
    }
    if grown != 0 {
        let query = sqlx::query("UPDATE credential_version SET amount = amount + $1").bind(grown);
        query.execute(&mut *connection).await?;
    }
    if version % (KEPT_VERSIONS / 10) == 0 && version > KEPT_VERSIONS {
        trim(connection, version - KEPT_VERSIONS).await?;
    }
    Ok(version)
}

/// What a credential was before: version, generation, first write.
type Existing = HashMap<(String, String), (u64, u64, i64)>;

fn was<'e>(existing: &'e Existing, key: &Key) -> Option<&'e (u64, u64, i64)> {
    existing.get(&(key.namespace.clone(), key.name.clone()))
}

async fn existing(connection: &mut Connection, writes: &[CredentialWrite]) -> Result<Existing> {
    let sql = format!(
        "SELECT c.namespace, c.name, c.version, c.generation, c.created_us FROM {LIST} CROSS JOIN credentials c \
         WHERE c.namespace = k.value ->> 0 AND c.name = k.value ->> 1"
    );
    let mut existing = HashMap::with_capacity(writes.len());
    for row in sqlx::query(AssertSqlSafe(sql)).bind(names(writes)).fetch_all(connection).await? {
        let name = (row.try_get("namespace")?, row.try_get("name")?);
        existing.insert(
            name,
            (number(&row, "version")?, number(&row, "generation")?, row.try_get("created_us")?),
        );
    }
    Ok(existing)
}

fn check(writes: &[CredentialWrite], existing: &Existing) -> std::result::Result<(), CredentialError> {
    for CredentialWrite { key, expected, .. } in writes {
        let found = was(existing, key).map(|(version, ..)| *version);
        if !expected.holds(found) {
            let (key, expected): (Key, Precondition) = (key.clone(), *expected);
            return Err(CredentialError::Refused(CommitError::Precondition { key, expected, found }));
        }
    }
    Ok(())
}

/// Their consumers exist.
async fn check_consumers(
    connection: &mut Connection,
    writes: &[CredentialWrite],
) -> std::result::Result<(), CredentialError> {
    let sql = format!(
        "SELECT r.namespace, r.name FROM {LIST} CROSS JOIN resources r WHERE r.kind = 'Consumer' \
         AND r.namespace = k.value ->> 0 AND r.name = k.value ->> 1"
    );
    let wanted: BTreeSet<(String, String)> = writes
        .iter()
        .filter_map(|write| Some((write.key.namespace.clone(), write.content.as_ref()?.consumer.clone())))
        .collect();
    let rows = sqlx::query(AssertSqlSafe(sql)).bind(json!(wanted).to_string()).fetch_all(connection).await?;
    let mut there = BTreeSet::new();
    for row in &rows {
        there.insert((row.try_get("namespace")?, row.try_get("name")?));
    }
    match wanted.difference(&there).next() {
        None => Ok(()),
        Some((namespace, name)) => {
            let consumer = Key::new(Kind::Consumer, &**namespace, &**name);
            Err(CredentialError::Refused(CommitError::NoConsumer(consumer)))
        }
    }
}

async fn put(
    connection: &mut Connection,
    writes: &[CredentialWrite],
    existing: &Existing,
    (version, at): (u64, Timestamp),
) -> std::result::Result<(), CredentialError> {
    let at = at.as_microsecond();
    let all = names(writes);
    let log_former = format!(
        "INSERT INTO credential_log (version, digest) SELECT {version}, d.digest FROM {LIST} CROSS JOIN \
         credential_keys d WHERE d.namespace = k.value ->> 0 AND d.name = k.value ->> 1 ON CONFLICT DO NOTHING"
    );
    execute(connection, log_former, &all).await?;
    let spend = format!(
        "INSERT INTO spent_keys (digest, version) SELECT d.digest, {version} FROM {LIST} CROSS JOIN credential_keys d \
         WHERE d.namespace = k.value ->> 0 AND d.name = k.value ->> 1 ON CONFLICT DO NOTHING"
    );
    execute(connection, spend, &all).await?;
    for table in ["credential_keys", "credentials"] {
        let forget = format!(
            "DELETE FROM {table} WHERE (namespace, name) IN (SELECT k.value ->> 0, k.value ->> 1 FROM {LIST})"
        );
        execute(connection, forget, &all).await?;
    }
    let body = unhex("k.value ->> 4");
    let insert = format!(
        "INSERT INTO credentials (namespace, name, consumer, generation, version, body, created_us, updated_us) \
         SELECT k.value ->> 0, k.value ->> 1, k.value ->> 2, CAST(k.value ->> 3 AS BIGINT), {version}, {body}, \
         CAST(k.value ->> 5 AS BIGINT), {at} FROM {LIST}"
    );
    execute(connection, insert, &contents(writes, existing, at)).await?;
    let (rows, wanted) = grants(writes);
    let digest = unhex("k.value ->> 0");
    check_spent(connection, writes, version).await?;
    let unspend = format!("DELETE FROM spent_keys WHERE digest IN (SELECT {digest} FROM {LIST})");
    execute(connection, unspend, &rows).await?;
    let insert = format!(
        "INSERT INTO credential_keys (digest, namespace, name, consumer, expires) SELECT {digest}, k.value ->> 1, \
         k.value ->> 2, k.value ->> 3, CAST(k.value ->> 4 AS BIGINT) FROM {LIST} WHERE true ON CONFLICT DO NOTHING"
    );
    if execute(connection, insert, &rows).await? != wanted {
        return Err(taken(connection, writes).await?);
    }
    let log = format!(
        "INSERT INTO credential_log (version, digest) SELECT {version}, {digest} FROM {LIST} WHERE true \
         ON CONFLICT DO NOTHING"
    );
    execute(connection, log, &rows).await?;
    Ok(())
}

/// None of the keys was good once, and gone before this version, unless that is said. One that goes from a credential to
/// another by this version is no such.
async fn check_spent(
    connection: &mut Connection,
    writes: &[CredentialWrite],
    version: u64,
) -> std::result::Result<(), CredentialError> {
    let digest = unhex("k.value ->> 0");
    let sql = format!(
        "SELECT k.value ->> 1 AS namespace, k.value ->> 2 AS name FROM {LIST} CROSS JOIN spent_keys s \
         WHERE s.digest = {digest} AND s.version < {version} LIMIT 1"
    );
    let (rows, _) = grants(writes.iter().filter(|write| !write.revives));
    let row = sqlx::query(AssertSqlSafe(sql)).bind(rows).fetch_optional(connection).await?;
    row.map_or(Ok(()), |row| {
        let (namespace, name): (&str, &str) = (row.try_get("namespace")?, row.try_get("name")?);
        let key = Key::new(Kind::Credential, namespace, name);
        Err(CredentialError::Refused(CommitError::KeySpent(key)))
    })
}

/// How many there are.
pub(super) async fn count(connection: &mut Connection) -> Result<u64> {
    let row = sqlx::query("SELECT amount FROM credential_version").fetch_one(connection).await?;
    number(&row, "amount")
}

async fn execute(
    connection: &mut Connection,
    sql: String,
    list: &str,
) -> std::result::Result<u64, sqlx::Error> {
    Ok(sqlx::query(AssertSqlSafe(sql)).bind(list).execute(connection).await?.rows_affected())
}

/// Rows of `credentials`.
fn contents(writes: &[CredentialWrite], existing: &Existing, at: i64) -> String {
    let mut rows: Vec<Value> = Vec::with_capacity(writes.len());
    for CredentialWrite { key, content, .. } in writes {
        let Some(content) = content else { continue };
        let (generation, created) =
            was(existing, key).map_or((1, at), |(_, generation, created)| (generation + 1, *created));
        rows.push(json!([
            key.namespace,
            key.name,
            content.consumer,
            generation,
            hex(&content.body),
            created
        ]));
    }
    Value::from(rows).to_string()
}

/// Rows of `credential_keys`, and how many they are.
fn grants<'w>(writes: impl IntoIterator<Item = &'w CredentialWrite>) -> (String, u64) {
    let mut rows: Vec<Value> = Vec::new();
    for CredentialWrite { key, content, .. } in writes {
        let Some(content) = content else { continue };
        for Grant { digest, expires, .. } in &content.grants {
            rows.push(json!([digest.to_string(), key.namespace, key.name, content.consumer, expires]));
        }
    }
    let count = rows.len() as u64;
    (Value::from(rows).to_string(), count)
}

/// Which key is good by another credential already.
async fn taken(connection: &mut Connection, writes: &[CredentialWrite]) -> Result<CredentialError> {
    const SQL: &str = "SELECT namespace, name FROM credential_keys WHERE digest = $1";
    for CredentialWrite { key, content, .. } in writes {
        let Some(content) = content else { continue };
        for grant in &content.grants {
            let query = sqlx::query(SQL).bind(grant.digest.0.as_slice());
            let row = query.fetch_one(&mut *connection).await?;
            let (namespace, name): (&str, &str) = (row.try_get("namespace")?, row.try_get("name")?);
            if (namespace, name) != (&*key.namespace, &*key.name) {
                return Ok(CredentialError::Refused(CommitError::KeyTaken(key.clone())));
            }
        }
    }
    // Twice in one credential: the two are the same key.
    Ok(CredentialError::Refused(CommitError::Refused("a credential names a key twice".to_owned())))
}

async fn trim(connection: &mut Connection, upto: u64) -> std::result::Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM credential_log WHERE version <= $1")
        .bind(signed(upto))
        .execute(&mut *connection)
        .await?;
    sqlx::query("UPDATE credential_version SET trimmed = $1").bind(signed(upto)).execute(connection).await?;
    Ok(())
}

/// A credential of one of these consumers.
pub(super) async fn of_consumers(
    connection: &mut Connection,
    consumers: &[&Key],
) -> Result<Option<(Key, Key)>> {
    let sql = format!(
        "SELECT c.namespace, c.name, c.consumer FROM {LIST} CROSS JOIN credentials c \
         WHERE c.namespace = k.value ->> 0 AND c.consumer = k.value ->> 1 LIMIT 1"
    );
    let wanted: Vec<(&str, &str)> = consumers.iter().map(|key| (&*key.namespace, &*key.name)).collect();
    let row =
        sqlx::query(AssertSqlSafe(sql)).bind(json!(wanted).to_string()).fetch_optional(connection).await?;
    row.map(|row| {
        let namespace: &str = row.try_get("namespace")?;
        let consumer = Key::new(Kind::Consumer, namespace, row.try_get::<&str, _>("consumer")?);
        Ok((consumer, Key::new(Kind::Credential, namespace, row.try_get::<&str, _>("name")?)))
    })
    .transpose()
}

/// Those of these names that exist.
pub(super) async fn find(connection: &mut Connection, keys: &[Key]) -> Result<Vec<Stored>> {
    let sql = format!(
        "SELECT c.namespace, c.name, c.version, c.generation, c.body, c.created_us, c.updated_us FROM {LIST} \
         CROSS JOIN credentials c WHERE c.namespace = k.value ->> 0 AND c.name = k.value ->> 1"
    );
    let mut found = Vec::with_capacity(keys.len());
    for keys in keys.chunks(ROWS) {
        let names: Vec<(&str, &str)> = keys.iter().map(|key| (&*key.namespace, &*key.name)).collect();
        let query = sqlx::query(AssertSqlSafe(sql.clone())).bind(json!(names).to_string());
        for row in query.fetch_all(&mut *connection).await? {
            found.push(stored(&row)?);
        }
    }
    Ok(found)
}

/// A page, by namespace and name.
pub(super) async fn page(connection: &mut Connection, page: &CredentialPage) -> Result<Vec<Stored>> {
    const SQL: &str = "SELECT namespace, name, version, generation, body, created_us, updated_us FROM credentials \
         WHERE (CAST($1 AS TEXT) IS NULL OR namespace = $1) AND (namespace > $2 OR (namespace = $2 AND name > $3)) \
         ORDER BY namespace, name LIMIT $4";
    let (namespace, name) = page.after.as_ref().map_or(("", ""), |(namespace, name)| (namespace, name));
    let query = sqlx::query(SQL).bind(page.namespace.as_deref()).bind(namespace).bind(name);
    query.bind(i64::from(page.limit)).fetch_all(connection).await?.iter().map(stored).collect()
}

/// Where they stand.
pub(super) async fn head(connection: &mut Connection) -> Result<CredentialHead> {
    const SQL: &str = "SELECT epoch, (SELECT version FROM credential_version) AS version FROM meta";
    let row = sqlx::query(SQL).fetch_one(connection).await?;
    Ok(CredentialHead { epoch: row.try_get("epoch")?, version: number(&row, "version")? })
}

/// Every key that is good.
pub(super) async fn load(connection: &mut Connection, visit: &mut VisitKey<'_>) -> Result<CredentialHead> {
    const SQL: &str = "SELECT digest, namespace, consumer, expires FROM credential_keys";
    let head = head(connection).await?;
    let mut rows = sqlx::query(SQL).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        visit(grant(&row)?.ok_or_else(|| broken("namespace"))?);
    }
    Ok(head)
}

/// What was touched after a version.
pub(super) async fn changes_since(connection: &mut Connection, version: u64) -> Result<KeyChanges> {
    const SQL: &str = "SELECT l.digest, l.version, k.namespace, k.consumer, k.expires FROM \
         (SELECT digest, max(version) AS version FROM credential_log WHERE version > $1 GROUP BY digest) l \
         LEFT JOIN credential_keys k ON k.digest = l.digest ORDER BY l.version";
    let head = head(connection).await?;
    let trimmed = sqlx::query("SELECT trimmed FROM credential_version").fetch_one(&mut *connection).await?;
    if version < number(&trimmed, "trimmed")? {
        return Ok(KeyChanges { head, touched: None });
    }
    let rows = sqlx::query(SQL).bind(signed(version)).fetch_all(connection).await?;
    let touched = rows.iter().map(|row| {
        Ok(TouchedKey { version: number(row, "version")?, digest: digest(row)?, grant: grant(row)? })
    });
    Ok(KeyChanges { head, touched: Some(touched.collect::<Result<_>>()?) })
}

fn stored(row: &Row) -> Result<Stored> {
    let key =
        Key::new(Kind::Credential, row.try_get::<&str, _>("namespace")?, row.try_get::<&str, _>("name")?);
    let body = bytes::Bytes::from(row.try_get::<Vec<u8>, _>("body")?);
    Ok(Stored {
        hash: ItemHash::of(&key, &body),
        key,
        generation: number(row, "generation")?,
        revision: number(row, "version")?,
        body,
        created: time(row, "created_us")?,
        updated: time(row, "updated_us")?,
    })
}

fn digest(row: &Row) -> Result<KeyDigest> {
    KeyDigest::from_slice(row.try_get::<&[u8], _>("digest")?).ok_or_else(|| broken("digest"))
}

/// `None`: the key is good no more.
fn grant(row: &Row) -> Result<Option<Grant>> {
    let Some(namespace) = row.try_get::<Option<&str>, _>("namespace")? else { return Ok(None) };
    let consumer = format!("{namespace}/{}", row.try_get::<&str, _>("consumer")?).into();
    let expires = u32::try_from(number(row, "expires")?).map_err(|_| broken("expires"))?;
    Ok(Some(Grant { digest: digest(row)?, consumer, expires }))
}

fn names(writes: &[CredentialWrite]) -> String {
    let names: Vec<(&str, &str)> =
        writes.iter().map(|write| (&*write.key.namespace, &*write.key.name)).collect();
    json!(names).to_string()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(b"0123456789abcdef"[usize::from(byte >> 4)]));
        text.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
    }
    text
}
