//! The audit log's other half: attempts that changed nothing because they were refused.
//! Successful writes are recorded by the store, in the transaction that makes them; a refused attempt must not cost
//! the caller a database round trip, and a flood of them must not fill the disk. So they go through a bounded queue to
//! one writer, at most [`PER_SECOND`] a second; what does not fit is counted and named in the program's log.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::store::{AuditRecord, Store};

/// Most refused attempts that are kept per second; also the length of the queue.
pub const PER_SECOND: usize = 256;

/// Takes refused attempts; clones share one writer.
#[derive(Clone, Debug)]
pub struct AuditLog {
    queue: mpsc::Sender<AuditRecord>,
    dropped: Arc<AtomicU64>,
}

impl AuditLog {
    /// Starts the writer. It ends, with everything queued written if the store answers, when the last clone is gone.
    pub fn start(store: Arc<dyn Store>) -> (Self, JoinHandle<()>) {
        let (queue, incoming) = mpsc::channel(PER_SECOND);
        let dropped = Arc::new(AtomicU64::new(0));
        let writer = tokio::spawn(write(store, incoming, Arc::clone(&dropped)));
        (AuditLog { queue, dropped }, writer)
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
    loop {
        let entries = incoming.recv_many(&mut batch, PER_SECOND - written).await;
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
}
