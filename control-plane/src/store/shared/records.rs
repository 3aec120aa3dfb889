//! Tokens, audit entries and nodes. Compiled once for each database: `super` is the store's own module and names its
//! `Connection`, `Row` and dialect.

use std::time::Duration;

use gateway_proto::admin::Role;
use jiff::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::objects::{before, broken, cut, limit, number, signed, time};
use super::{Connection, Row, dialect};
use crate::store::plan::text_without_nul;
use crate::store::{
    AuditEntry, AuditRecord, Node, NodeSeen, Page, PageRequest, StoreError, TokenError, TokenRecord, Tokens,
    record,
};

type Result<T> = std::result::Result<T, StoreError>;

/// Makes the rows of an empty store, with its first token; false if it is not empty.
pub(super) async fn create(connection: &mut Connection, first_token: &TokenRecord) -> Result<bool> {
    const META: &str = "INSERT INTO meta (singleton, epoch, revision, root_hash, created_us) \
                        VALUES (1, $1, 0, $2, $3) ON CONFLICT DO NOTHING";
    const TOKENS: &str = "INSERT INTO token_version (singleton, version) VALUES (1, 1)";
    let made = sqlx::query(META)
        .bind(Uuid::new_v4())
        .bind([0_u8; 16].as_slice())
        .bind(Timestamp::now().as_microsecond())
        .execute(&mut *connection)
        .await?;
    if made.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(TOKENS).execute(&mut *connection).await?;
    insert_token(connection, first_token).await?;
    Ok(true)
}

/// All tokens, by name; the caller's transaction keeps them and their version together.
pub(super) async fn tokens(connection: &mut Connection) -> Result<Tokens> {
    const SQL: &str =
        "SELECT name, digest, role, namespaces, created_us, expires_us FROM tokens ORDER BY name";
    let version = tokens_version(connection).await?;
    let rows = sqlx::query(SQL).fetch_all(connection).await?;
    Ok(Tokens { version, tokens: rows.iter().map(token).collect::<Result<_>>()? })
}

/// The tokens' version.
pub(super) async fn tokens_version(connection: &mut Connection) -> Result<u64> {
    let row = sqlx::query("SELECT version FROM token_version").fetch_one(connection).await?;
    number(&row, "version")
}

/// Moves the tokens' version; first in a transaction, so that writers of tokens come one after the other.
pub(super) async fn move_tokens_version(connection: &mut Connection) -> Result<u64> {
    const SQL: &str = "UPDATE token_version SET version = version + 1 RETURNING version";
    let row = sqlx::query(SQL).fetch_one(connection).await?;
    number(&row, "version")
}

/// Adds a token whose name is free.
pub(super) async fn create_token(
    connection: &mut Connection,
    token: &TokenRecord,
) -> std::result::Result<(), TokenError> {
    const COUNT: &str = "SELECT count(*) AS count FROM tokens";
    let row = sqlx::query(COUNT).fetch_one(&mut *connection).await.map_err(StoreError::from)?;
    if number(&row, "count")? >= u64::from(record::MAX_TOKENS) {
        return Err(TokenError::Full(record::MAX_TOKENS));
    }
    if insert_token(connection, token).await? { Ok(()) } else { Err(TokenError::Exists(token.name.clone())) }
}

/// Adds or replaces a token; false if it is already so.
pub(super) async fn put_token(connection: &mut Connection, wanted: &TokenRecord) -> Result<bool> {
    const SQL: &str =
        "SELECT name, digest, role, namespaces, created_us, expires_us FROM tokens WHERE name = $1";
    let row = sqlx::query(SQL).bind(&*wanted.name).fetch_optional(&mut *connection).await?;
    if let Some(row) = row {
        let present = token(&row)?;
        if (present.digest, present.role, &present.namespaces, present.expires)
            == (wanted.digest, wanted.role, &wanted.namespaces, wanted.expires)
        {
            return Ok(false);
        }
        delete_token(connection, &wanted.name).await?;
    }
    insert_token(connection, wanted).await
}

/// Removes a token; false if there is none.
pub(super) async fn delete_token(connection: &mut Connection, name: &str) -> Result<bool> {
    let done = sqlx::query("DELETE FROM tokens WHERE name = $1").bind(name).execute(connection).await?;
    Ok(done.rows_affected() > 0)
}

async fn insert_token(connection: &mut Connection, token: &TokenRecord) -> Result<bool> {
    const SQL: &str = "INSERT INTO tokens (name, digest, role, namespaces, created_us, expires_us) \
                       VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let namespaces = serde_json::to_string(&token.namespaces).expect("a list of strings always serialises");
    let done = sqlx::query(SQL)
        .bind(&*token.name)
        .bind(token.digest.as_slice())
        .bind(token.role.as_str())
        .bind(namespaces)
        .bind(token.created.as_microsecond())
        .bind(token.expires.map(Timestamp::as_microsecond))
        .execute(connection)
        .await?;
    Ok(done.rows_affected() > 0)
}

fn token(row: &Row) -> Result<TokenRecord> {
    let role: &str = row.try_get("role")?;
    let role = [Role::Viewer, Role::Editor, Role::Admin].into_iter().find(|known| known.as_str() == role);
    let expires = row.try_get::<Option<i64>, _>("expires_us")?;
    Ok(TokenRecord {
        name: row.try_get("name")?,
        digest: row.try_get::<&[u8], _>("digest")?.try_into().map_err(|_| broken("digest"))?,
        role: role.ok_or_else(|| broken("role"))?,
        namespaces: serde_json::from_str(row.try_get("namespaces")?).map_err(|_| broken("namespaces"))?,
        created: time(row, "created_us")?,
        expires: expires.map(Timestamp::from_microsecond).transpose().map_err(|_| broken("expires_us"))?,
    })
}

/// Appends one entry to the audit log.
pub(super) async fn append_audit(
    connection: &mut Connection,
    record: &AuditRecord,
    revision: Option<u64>,
) -> Result<()> {
    const SQL: &str = "INSERT INTO audit (at_us, who, source, action, object, status, revision) \
                       VALUES ($1, $2, $3, $4, $5, $6, $7)";
    sqlx::query(SQL)
        .bind(record.at.as_microsecond())
        .bind(text_without_nul(&record.who))
        .bind(text_without_nul(&record.from))
        .bind(text_without_nul(&record.action))
        .bind(text_without_nul(&record.object))
        .bind(i64::from(record.status))
        .bind(revision.map(signed))
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes all but the newest entries of the audit log; how many. Numbers that a lost transaction left unused count
/// as entries.
pub(super) async fn trim_audit(connection: &mut Connection, keep: u64) -> Result<u64> {
    const SQL: &str = "DELETE FROM audit WHERE id <= (SELECT max(id) FROM audit) - $1";
    Ok(sqlx::query(SQL).bind(signed(keep)).execute(connection).await?.rows_affected())
}

/// The audit log, newest first.
pub(super) async fn audit(connection: &mut Connection, page: PageRequest) -> Result<Page<AuditEntry>> {
    const SQL: &str = "SELECT id, at_us, who, source, action, object, status, revision FROM audit \
                       WHERE id < $1 ORDER BY id DESC LIMIT $2";
    let rows = sqlx::query(SQL).bind(before(page)).bind(limit(page) + 1).fetch_all(connection).await?;
    let items = rows.iter().map(audit_entry).collect::<Result<Vec<_>>>()?;
    Ok(cut(items, page, |entry| entry.id))
}

fn audit_entry(row: &Row) -> Result<AuditEntry> {
    let revision = row.try_get::<Option<i64>, _>("revision")?;
    Ok(AuditEntry {
        id: number(row, "id")?,
        record: AuditRecord {
            at: time(row, "at_us")?,
            who: row.try_get("who")?,
            from: row.try_get("source")?,
            action: row.try_get("action")?,
            object: row.try_get("object")?,
            status: u16::try_from(number(row, "status")?).map_err(|_| broken("status"))?,
        },
        revision: revision.map(u64::try_from).transpose().map_err(|_| broken("revision"))?,
    })
}

/// Records what data planes hold, in one statement. Of two entries for one node, the last of the list counts.
pub(super) async fn put_nodes(connection: &mut Connection, nodes: Vec<NodeSeen>) -> Result<()> {
    // A statement may touch a row once only, and all replicas lock rows in one order.
    let by_name: std::collections::BTreeMap<String, NodeSeen> =
        nodes.into_iter().map(|node| (node.node.clone(), node)).collect();
    if by_name.is_empty() {
        return Ok(());
    }
    Ok(dialect::put_nodes(connection, by_name.into_values().collect()).await?)
}

/// Every node, by name.
pub(super) async fn nodes(connection: &mut Connection) -> Result<Vec<Node>> {
    let rows = sqlx::query(dialect::NODES).fetch_all(connection).await?;
    rows.iter().map(node).collect()
}

/// Connected nodes that other replicas have written about in that time.
pub(super) async fn nodes_of_others(
    connection: &mut Connection,
    replica: Uuid,
    within: Duration,
) -> Result<Vec<Node>> {
    let query = sqlx::query(dialect::NODES_OF_OTHERS).bind(replica).bind(micros(within));
    query.fetch_all(connection).await?.iter().map(node).collect()
}

/// Notes where another process of the name of these nodes was refused.
pub(super) async fn note_twins(connection: &mut Connection, refused: &[(String, String)]) -> Result<()> {
    for (node, address) in refused {
        sqlx::query(dialect::NOTE_TWIN).bind(node).bind(address).execute(&mut *connection).await?;
    }
    Ok(())
}

fn node(row: &Row) -> Result<Node> {
    // A clock that was set back makes a negative age.
    let ago = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or(0));
    let twin: Option<String> = row.try_get("twin")?;
    let tried: Option<i64> = row.try_get("twin_ago_us")?;
    Ok(Node {
        node: row.try_get("node")?,
        replica: row.try_get("replica")?,
        seen_ago: ago(row.try_get("seen_ago_us")?),
        twin: twin.zip(tried).map(|(address, us)| (address, ago(us))),
        connected: row.try_get("connected")?,
        revision: number(row, "revision")?,
        report: serde_json::from_str(row.try_get("report")?).map_err(|_| broken("report"))?,
    })
}

/// Forgets nodes that were not seen for that long; how many.
pub(super) async fn forget_nodes(connection: &mut Connection, unseen_for: Duration) -> Result<u64> {
    let done = sqlx::query(dialect::FORGET_NODES).bind(micros(unseen_for)).execute(connection).await?;
    Ok(done.rows_affected())
}

/// A duration as a parameter.
pub(super) fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
