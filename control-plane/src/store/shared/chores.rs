//! Chores, and the fence that keeps them to one replica at a time. Compiled once for each database: `super` is the
//! store's own module and names its `Connection` and dialect.
//!
//! Every chore begins with [`hold`]: whoever takes the right to do chores counts the fence up, and waits for chores
//! under way; a replica that was paused and does not know that another has taken over finds its own fence gone.

use jiff::{SignedDuration, Timestamp};

use super::objects::{number, oldest, position, signed};
use super::{Connection, dialect};
use crate::store::{Compacted, Fence, Retention, StoreError, record};

type Result<T> = std::result::Result<T, StoreError>;

/// Most revisions that one transaction drops.
const STEP: u64 = 1_000;

/// Counts the fence up: the chores are the caller's from here on.
pub(super) async fn claim(connection: &mut Connection) -> Result<Fence> {
    const SQL: &str = "UPDATE leader SET fence = fence + 1 RETURNING fence";
    Ok(Fence(number(&sqlx::query(SQL).fetch_one(connection).await?, "fence")?))
}

/// Sees to it that nobody takes the chores away before the transaction ends.
pub(super) async fn hold(connection: &mut Connection, fence: Fence) -> Result<()> {
    let row = sqlx::query(dialect::HOLD_FENCE).bind(signed(fence.0)).fetch_optional(connection).await?;
    if row.is_some() { Ok(()) } else { Err(StoreError::Deposed) }
}

/// Drops one piece of history. What is kept of what lies before the oldest revision is the newest content of each
/// object there, and the headers of the revisions that brought it.
pub(super) async fn compact(connection: &mut Connection, keep: Retention) -> Result<Compacted> {
    // Only objects that were touched since the last time can have more than one content there.
    const CHANGES: &str = "DELETE FROM changelog WHERE (revision, seq) IN (SELECT c.revision, c.seq FROM \
        (SELECT DISTINCT kind, namespace, name FROM changelog WHERE revision > $1 AND revision <= $2) t \
        JOIN changelog c ON c.kind = t.kind AND c.namespace = t.namespace AND c.name = t.name AND c.revision <= $2 \
        WHERE c.op = 'delete' OR EXISTS (SELECT 1 FROM changelog n WHERE n.kind = c.kind \
            AND n.namespace = c.namespace AND n.name = c.name AND n.revision > c.revision AND n.revision <= $2))";
    const REVISIONS: &str = "DELETE FROM revisions WHERE revision < $1 \
        AND NOT EXISTS (SELECT 1 FROM changelog c WHERE c.revision = revisions.revision) \
        AND NOT EXISTS (SELECT 1 FROM resources r WHERE r.revision = revisions.revision) \
        AND NOT EXISTS (SELECT 1 FROM secrets s WHERE s.revision = revisions.revision)";
    let from = oldest(connection).await?;
    let wanted = wanted(connection, keep, from).await?;
    let to = wanted.min(from + STEP);
    if to <= from {
        return Ok(Compacted { oldest: from, changes: 0, secrets: 0, more: false });
    }
    let changes = sqlx::query(CHANGES).bind(signed(from)).bind(signed(to)).execute(&mut *connection).await?;
    let secrets = sqlx::query(dialect::DROP_SECRETS).bind(signed(to)).execute(&mut *connection).await?;
    sqlx::query(REVISIONS).bind(signed(to)).execute(&mut *connection).await?;
    // Last, because commits wait for it. One that was under way is made again: what it takes from history may be gone.
    sqlx::query("UPDATE meta SET oldest = $1").bind(signed(to)).execute(&mut *connection).await?;
    Ok(Compacted {
        oldest: to,
        changes: changes.rows_affected(),
        secrets: secrets.rows_affected(),
        more: to < wanted,
    })
}

/// The oldest revision that is to be kept.
async fn wanted(connection: &mut Connection, keep: Retention, oldest: u64) -> Result<u64> {
    // Where clocks of replicas differ, the first that is young enough counts.
    const YOUNG: &str = "SELECT COALESCE(min(revision), $2) AS revision FROM revisions \
        WHERE revision >= $1 AND at_us >= $3";
    let head = position(connection).await?.head.revision;
    let newest = |count: u64| (head + 1).saturating_sub(count);
    let mut wanted = newest(keep.revisions);
    if let Some(age) = keep.age {
        let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
        let since = Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN);
        let young = sqlx::query(YOUNG)
            .bind(signed(oldest))
            .bind(signed(head))
            .bind(since.as_microsecond())
            .fetch_one(connection)
            .await?;
        let young = number(&young, "revision")?;
        // What was before the first revision is as old as that.
        wanted = wanted.max(if young == 1 { 0 } else { young });
    }
    Ok(wanted.min(newest(record::MIN_REVISIONS)))
}
