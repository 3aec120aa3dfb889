//! Reads of objects and their history. Compiled once for each database: `super` is the store's own module and names
//! its `Connection` and `Row`.

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use jiff::Timestamp;
use sqlx::Row as _;
use uuid::Uuid;

use super::{Connection, Row};
use crate::store::watching::Position;
use crate::store::{
    Change, Changes, CredentialHead, Difference, Head, Page, PageRequest, Revision, StoreError, Stored,
    Touched, Visit, record,
};

type Result<T> = std::result::Result<T, StoreError>;

/// The head, and the versions of tokens and credentials, in one statement.
pub(super) async fn position(connection: &mut Connection) -> Result<Position> {
    const SQL: &str = "SELECT epoch, revision, root_hash, (SELECT version FROM token_version) AS version, \
         (SELECT version FROM credential_version) AS credentials FROM meta";
    let row = sqlx::query(SQL).fetch_one(connection).await?;
    let head = Head { epoch: row.try_get("epoch")?, revision: number(&row, "revision")?, root: root(&row)? };
    let credentials = CredentialHead { epoch: head.epoch, version: number(&row, "credentials")? };
    Ok(Position { head, tokens_version: number(&row, "version")?, credentials })
}

/// Records that data planes of other histories may shrink to this one.
pub(super) async fn allow_shrink(connection: &mut Connection) -> Result<()> {
    // What was allowed stays allowed.
    const SQL: &str = "UPDATE meta SET shrink_epoch = epoch, \
        shrink_revision = CASE WHEN shrink_epoch = epoch THEN shrink_revision ELSE revision END";
    sqlx::query(SQL).execute(connection).await?;
    Ok(())
}

/// Whether they may.
pub(super) async fn is_shrink_allowed(
    connection: &mut Connection,
    epoch: Uuid,
    revision: u64,
) -> Result<bool> {
    const SQL: &str = "SELECT CAST(count(*) AS BIGINT) AS allowed FROM meta \
        WHERE shrink_epoch = $1 AND shrink_revision <= $2";
    let row = sqlx::query(SQL).bind(epoch).bind(signed(revision)).fetch_one(connection).await?;
    Ok(number(&row, "allowed")? > 0)
}

/// The oldest revision that can be had.
pub(super) async fn oldest(connection: &mut Connection) -> Result<u64> {
    number(&sqlx::query("SELECT oldest FROM meta").fetch_one(connection).await?, "oldest")
}

/// Every object, by name.
pub(super) async fn load(connection: &mut Connection, visit: &mut Visit<'_>) -> Result<()> {
    const SQL: &str = "SELECT kind, namespace, name, generation, revision, body, hash, created_us, updated_us \
                       FROM resources ORDER BY kind, namespace, name";
    let mut rows = sqlx::query(SQL).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        visit(stored(&row)?);
    }
    Ok(())
}

/// What changed after a revision: puts from what exists now, deletes from history.
pub(super) async fn changes_since(connection: &mut Connection, revision: u64) -> Result<Changes> {
    const PUTS: &str = "SELECT kind, namespace, name, generation, revision, body, hash, created_us, updated_us \
                        FROM resources WHERE revision > $1";
    const DELETES: &str = "SELECT c.kind, c.namespace, c.name, max(c.revision) AS revision FROM changelog c \
         WHERE c.revision > $1 AND c.op = 'delete' AND NOT EXISTS (SELECT 1 FROM resources r \
             WHERE r.kind = c.kind AND r.namespace = c.namespace AND r.name = c.name) \
         GROUP BY c.kind, c.namespace, c.name";
    let after = signed(revision);
    let head = position(connection).await?.head;
    if revision < oldest(connection).await? {
        return Ok(Changes { head, changes: Vec::new(), cut: true });
    }
    let mut found = Vec::new();
    let mut rows = sqlx::query(PUTS).bind(after).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        let stored = stored(&row)?;
        found.push((stored.revision, Change::Put(stored)));
    }
    drop(rows);
    let mut rows = sqlx::query(DELETES).bind(after).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await? {
        found.push((number(&row, "revision")?, Change::Delete(key(&row)?)));
    }
    drop(rows);
    found.sort_by(|(at, change), (other_at, other)| {
        let name = crate::store::plan::by_name;
        at.cmp(other_at).then_with(|| name(change.key()).cmp(&name(other.key())))
    });
    Ok(Changes { head, changes: found.into_iter().map(|(_, change)| change).collect(), cut: false })
}

/// History, newest first.
pub(super) async fn revisions(connection: &mut Connection, page: PageRequest) -> Result<Page<Revision>> {
    const SQL: &str = "SELECT revision, at_us, author, message, created, updated, deleted, root_hash FROM revisions \
                       WHERE revision < $1 AND revision >= (SELECT oldest FROM meta) ORDER BY revision DESC LIMIT $2";
    let rows = sqlx::query(SQL).bind(before(page)).bind(limit(page) + 1).fetch_all(connection).await?;
    let items = rows.iter().map(header).collect::<Result<Vec<_>>>()?;
    Ok(cut(items, page, |item| item.revision))
}

/// One entry of history.
pub(super) async fn revision(connection: &mut Connection, revision: u64) -> Result<Option<Revision>> {
    const SQL: &str = "SELECT revision, at_us, author, message, created, updated, deleted, root_hash FROM revisions \
                       WHERE revision = $1";
    is_kept(connection, revision).await?;
    let row = sqlx::query(SQL).bind(signed(revision)).fetch_optional(connection).await?;
    row.as_ref().map(header).transpose()
}

/// What differs between two revisions.
pub(super) async fn diff(connection: &mut Connection, from: u64, to: u64) -> Result<Vec<Difference>> {
    // The newest entry of a touched object that is not newer than a side is its state on that side.
    const SQL: &str = "\
        SELECT t.kind, t.namespace, t.name, a.body AS before, b.body AS after FROM \
            (SELECT DISTINCT kind, namespace, name FROM changelog WHERE revision > $3 AND revision <= $4) t \
        LEFT JOIN changelog a ON a.kind = t.kind AND a.namespace = t.namespace AND a.name = t.name AND a.revision = \
            (SELECT max(x.revision) FROM changelog x WHERE x.kind = t.kind AND x.namespace = t.namespace \
                AND x.name = t.name AND x.revision <= $1) \
        LEFT JOIN changelog b ON b.kind = t.kind AND b.namespace = t.namespace AND b.name = t.name AND b.revision = \
            (SELECT max(x.revision) FROM changelog x WHERE x.kind = t.kind AND x.namespace = t.namespace \
                AND x.name = t.name AND x.revision <= $2) \
        ORDER BY t.kind, t.namespace, t.name";
    exists(connection, from.max(to)).await?;
    is_kept(connection, from.min(to)).await?;
    let sides = [from, to, from.min(to), from.max(to)];
    let query = sides.into_iter().fold(sqlx::query(SQL), |query, side| query.bind(signed(side)));
    let mut differences = Vec::new();
    let mut rows = query.fetch(connection);
    while let Some(row) = rows.try_next().await? {
        let body = |side| Ok::<_, StoreError>(row.try_get::<Option<Vec<u8>>, _>(side)?.map(Bytes::from));
        let (before, after) = (body("before")?, body("after")?);
        // It was changed in between and changed back.
        if before != after {
            differences.push(Difference { key: key(&row)?, before, after });
        }
    }
    Ok(differences)
}

/// The namespaces that revisions changed something in.
pub(super) async fn namespaces(connection: &mut Connection, from: u64, to: u64) -> Result<Touched> {
    const SQL: &str = "SELECT DISTINCT revision, namespace FROM changelog WHERE revision BETWEEN $1 AND $2";
    let mut rows = sqlx::query(SQL).bind(signed(from)).bind(signed(to)).fetch(connection);
    let mut touched = Touched::new();
    while let Some(row) = rows.try_next().await? {
        touched.entry(number(&row, "revision")?).or_default().insert(row.try_get("namespace")?);
    }
    Ok(touched)
}

/// Every object as it was at a revision.
pub(super) async fn state_at(
    connection: &mut Connection,
    revision: u64,
    visit: &mut Visit<'_>,
) -> Result<()> {
    const SQL: &str = "\
        SELECT c.kind, c.namespace, c.name, CAST(0 AS BIGINT) AS generation, c.revision, c.body, c.hash, \
            r.at_us AS created_us, r.at_us AS updated_us \
        FROM (SELECT kind, namespace, name, max(revision) AS revision FROM changelog WHERE revision <= $1 \
            GROUP BY kind, namespace, name) l \
        JOIN changelog c ON c.kind = l.kind AND c.namespace = l.namespace AND c.name = l.name \
            AND c.revision = l.revision \
        JOIN revisions r ON r.revision = c.revision \
        WHERE c.op = 'put' ORDER BY c.kind, c.namespace, c.name";
    exists(connection, revision).await?;
    is_kept(connection, revision).await?;
    let mut rows = sqlx::query(SQL).bind(signed(revision)).fetch(connection);
    while let Some(row) = rows.try_next().await? {
        visit(stored(&row)?);
    }
    Ok(())
}

async fn exists(connection: &mut Connection, revision: u64) -> Result<()> {
    let head = position(connection).await?.head.revision;
    if revision > head { Err(StoreError::NoSuchRevision { revision, head }) } else { Ok(()) }
}

async fn is_kept(connection: &mut Connection, revision: u64) -> Result<()> {
    let oldest = oldest(connection).await?;
    if revision < oldest { Err(StoreError::NotKept { revision, oldest }) } else { Ok(()) }
}

fn stored(row: &Row) -> Result<Stored> {
    Ok(Stored {
        key: key(row)?,
        generation: number(row, "generation")?,
        revision: number(row, "revision")?,
        body: row.try_get::<Vec<u8>, _>("body")?.into(),
        hash: item_hash(row)?,
        created: time(row, "created_us")?,
        updated: time(row, "updated_us")?,
    })
}

fn header(row: &Row) -> Result<Revision> {
    let count = |name| u32::try_from(number(row, name)?).map_err(|_| broken(name));
    Ok(Revision {
        revision: number(row, "revision")?,
        at: time(row, "at_us")?,
        author: row.try_get("author")?,
        message: row.try_get("message")?,
        created: count("created")?,
        updated: count("updated")?,
        deleted: count("deleted")?,
        root: root(row)?,
    })
}

/// The object that a row is about.
pub(super) fn key(row: &Row) -> Result<Key> {
    let kind: &str = row.try_get("kind")?;
    let kind = kind
        .parse()
        .map_err(|_| StoreError::Broken(format!("this release does not know the kind {kind:?}")))?;
    Ok(Key::new(kind, row.try_get::<String, _>("namespace")?, row.try_get::<String, _>("name")?))
}

/// The content hash in a row.
pub(super) fn item_hash(row: &Row) -> Result<ItemHash> {
    ItemHash::from_slice(row.try_get("hash")?).ok_or_else(|| broken("hash"))
}

fn root(row: &Row) -> Result<RootHash> {
    RootHash::from_slice(row.try_get("root_hash")?).ok_or_else(|| broken("root_hash"))
}

/// A column that is never negative.
pub(super) fn number(row: &Row, column: &'static str) -> Result<u64> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| broken(column))
}

/// A column of microseconds since 1970.
pub(super) fn time(row: &Row, column: &'static str) -> Result<Timestamp> {
    Timestamp::from_microsecond(row.try_get(column)?).map_err(|_| broken(column))
}

/// A column that does not hold what it must.
pub(super) fn broken(column: &'static str) -> StoreError {
    StoreError::Broken(format!("column {column} holds an impossible value"))
}

/// A number for a parameter; what is too large for the database is larger than anything in it.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Upper bound of a page.
pub(super) fn before(page: PageRequest) -> i64 {
    page.before.map_or(i64::MAX, signed)
}

/// Items of a page.
pub(super) fn limit(page: PageRequest) -> i64 {
    i64::from(page.limit.clamp(1, record::MAX_PAGE))
}

/// A page from one item more than it holds: the surplus item only says that there is a next page.
pub(super) fn cut<T>(mut items: Vec<T>, page: PageRequest, number: impl Fn(&T) -> u64) -> Page<T> {
    let keep = usize::try_from(limit(page)).expect("at most MAX_PAGE");
    let more = items.len() > keep;
    items.truncate(keep);
    let next = items.last().filter(|_| more).map(number);
    Page { items, next }
}
