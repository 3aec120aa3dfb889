//! The audit log's other half: attempts that changed nothing because they were refused.
//! Successful writes are recorded by the store, in the transaction that makes them; a refused attempt must not cost
//! the caller a database round trip, and a flood of them must not fill the disk. So they go through a bounded queue to
//! one writer, at most [`PER_SECOND`] a second and one a second of those without a token; what does not fit is counted
//! and named in the program's log. The same writer sees to it that the log keeps its newest [`KEPT`] entries.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

use crate::store::{AuditRecord, Store};

/// Most refused attempts that are kept per second; also the length of the queue.
pub const PER_SECOND: usize = 256;

/// Entries that the log keeps.
pub const KEPT: u64 = 100_000;
/// How often what is older is deleted: in between, a flood writes no more than half as much again.
const TRIM: Duration = Duration::from_secs(180);
/// Shortest time between two entries of callers without a token.
const ANONYMOUS: Duration = Duration::from_secs(1);

/// Takes refused attempts; clones share one writer.
#[derive(Clone, Debug)]
pub struct AuditLog {
    queue: mpsc::Sender<AuditRecord>,
    dropped: Arc<AtomicU64>,
    /// When a caller without a token was last recorded.
    anonymous: Arc<Mutex<Option<Instant>>>,
}

impl AuditLog {
    /// Starts the writer. It ends, with everything queued written if the store answers, when the last clone is gone.
    pub fn start(store: Arc<dyn Store>) -> (Self, JoinHandle<()>) {
        let (queue, incoming) = mpsc::channel(PER_SECOND);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = tokio::spawn(write(store, incoming, Arc::clone(&dropped)));
        (AuditLog { queue, dropped, anonymous: Arc::default() }, writer)
    }

    /// Records a refused attempt of somebody without a good token, unless another was recorded just now: whoever
    /// reaches the port can make as many as he likes.
    pub fn anonymous(&self, record: AuditRecord) {
        let mut last = self.anonymous.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < ANONYMOUS) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *last = Some(Instant::now());
        self.refused(record);
    }

    /// Records a refused attempt; never waits.
    pub fn refused(&self, record: AuditRecord) {
        if self.queue.try_send(record).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn write(store: Arc<dyn Store>, mut incoming: mpsc::Receiver<AuditRecord>, dropped: Arc<AtomicU64>) {
    let mut batch = Vec::with_capacity(PER_SECOND);
    let mut second = Instant::now();
    let mut written = 0;
    let mut trim = tokio::time::interval(TRIM);
    trim.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let entries = tokio::select! {
            entries = incoming.recv_many(&mut batch, PER_SECOND - written) => entries,
            _ = trim.tick() => {
                if let Err(error) = store.trim_audit(KEPT).await {
                    tracing::warn!(%error, "old entries of the audit log could not be deleted");
                }
                continue;
            }
        };
        if entries == 0 {
            return;
        }
        // An entry that the store does not take is lost: best effort, and the log says so.
        if let Err(error) = store.append_audit(std::mem::take(&mut batch)).await {
            tracing::warn!(entries, %error, "refused attempts could not be written to the audit log");
        }
        let dropped = dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            tracing::warn!(dropped, "too many refused attempts, the audit log names only some of them");
        }
        written += entries;
        if written >= PER_SECOND {
            tokio::time::sleep_until(second + Duration::from_secs(1)).await;
        }
        if second.elapsed() >= Duration::from_secs(1) {
            second = Instant::now();
            written = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::admin::Role;
    use jiff::Timestamp;

    use super::*;
    use crate::auth::new_token;
    use crate::store::{PageRequest, open};

    fn attempt(number: usize) -> AuditRecord {
        AuditRecord {
            at: Timestamp::UNIX_EPOCH,
            who: "ann".into(),
            from: "192.0.2.1".into(),
            action: "apply".into(),
            object: number.to_string(),
            status: 403,
        }
    }

    async fn store(directory: &std::path::Path) -> Arc<dyn Store> {
        let (_, token) = new_token("admin", Role::Admin, Vec::new(), None);
        open(&format!("sqlite://{}/gateway.db", directory.display()), &token).await.expect("opens").store
    }

    #[tokio::test]
    async fn refused_attempts_are_written_in_order_before_the_log_ends() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(directory.path()).await;
        let (log, writer) = AuditLog::start(Arc::clone(&store));
        log.clone().refused(attempt(1));
        log.refused(attempt(2));
        drop(log);
        writer.await.expect("it ends");
        let page = store.audit(PageRequest { before: None, limit: 10 }).await.expect("answers");
        let records = page.items.into_iter().map(|entry| (entry.record, entry.revision)).collect::<Vec<_>>();
        assert_eq!(records, [(attempt(2), None), (attempt(1), None)]);
    }

    #[tokio::test]
    async fn a_flood_is_cut_to_the_queue_and_never_waits() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(directory.path()).await;
        let (log, writer) = AuditLog::start(Arc::clone(&store));
        // The writer runs on this thread and gets no turn in between.
        (0..4 * PER_SECOND).for_each(|number| log.refused(attempt(number)));
        drop(log);
        writer.await.expect("it ends");
        let page = store.audit(PageRequest { before: None, limit: 1_000 }).await.expect("answers");
        assert_eq!(page.items.len(), PER_SECOND);
        assert_eq!(page.items[0].record, attempt(PER_SECOND - 1));
    }

    #[tokio::test]
    async fn of_callers_without_a_token_one_a_second_is_named_and_others_are_named_beside_them() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let store = store(directory.path()).await;
        let (log, writer) = AuditLog::start(Arc::clone(&store));
        log.anonymous(attempt(0));
        log.anonymous(attempt(1));
        log.refused(attempt(2));
        assert_eq!(log.dropped.load(Ordering::Relaxed), 1);
        drop(log);
        writer.await.expect("it ends");
        let page = store.audit(PageRequest { before: None, limit: 10 }).await.expect("answers");
        let objects = page.items.iter().map(|entry| entry.record.object.as_str()).collect::<Vec<_>>();
        assert_eq!(objects, ["2", "0"]);
    }
}
