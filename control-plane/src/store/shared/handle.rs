//! The store itself: which connection and which transaction each call uses, and how long it may take. Compiled once
//! for each database: `super` is the store's own module and names its `Database`, `Pool` and dialect.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;
use gateway_proto::kind::Key;
use jiff::Timestamp;
use sqlx::Transaction;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use uuid::Uuid;

use super::credentials::CredentialError;
use super::objects::signed;
use super::seat::Seat;
use super::{Connection, Database, Pool, chores, credentials, dialect, endpoints, objects, records, secrets};
use crate::store::plan::{self, Plan, text_without_nul};
use crate::store::watching::Watching;
use crate::store::{
    AuditEntry, AuditRecord, Change, Changes, Commit, CommitError, Committed, Compacted, CredentialHead,
    CredentialPage, CredentialWrite, Difference, Fence, Head, KeptEndpoints, KeyChanges, MasterId,
    MasterRecord, Node, NodeSeen, Origin, Page, PageRequest, Retention, Revision, SecretId, SecretRecord,
    Store, StoreError, Stored, TokenError, TokenRecord, Tokens, Touched, Visit, VisitKey, failure,
};

/// For reads of a few rows; longer than the time to wait for a connection.
pub(super) const SHORT: Duration = Duration::from_secs(5);
/// For what may touch every object, and for writes, which may have to wait for one that does. A server that is gone or
/// hangs is found out when a connection is asked for, long before that.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// For a commit to be confirmed: a disk that is busy takes seconds to flush, and giving up on it leaves the caller with
/// an outcome that nobody knows. A connection that breaks is noticed at once.
const CONFIRM: Duration = Duration::from_secs(30);

type Result<T> = std::result::Result<T, StoreError>;

/// An open store of this database.
#[derive(Debug)]
pub(super) struct Handle {
    /// For reads; the same as `writer` where the database takes several writers.
    pub(super) readers: Pool,
    pub(super) writer: Pool,
    pub(super) watching: std::sync::Arc<Watching>,
    pub(super) poller: AbortHandle,
    pub(super) seat: Seat,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.poller.abort();
    }
}

impl Handle {
    /// One consistent state for several statements.
    pub(super) async fn snapshot(&self) -> Result<Transaction<'static, Database>> {
        Ok(self.readers.begin_with(dialect::BEGIN_READ).await?)
    }

    pub(super) async fn write(&self) -> Result<Transaction<'static, Database>> {
        Ok(self.writer.begin_with(dialect::BEGIN_WRITE).await?)
    }

    /// After a change of tokens.
    pub(super) async fn finish_tokens(
        &self,
        mut transaction: Transaction<'static, Database>,
        version: u64,
    ) -> Result<()> {
        dialect::notify(&mut transaction).await?;
        confirm(transaction).await?;
        self.watching.saw_tokens_version(version);
        Ok(())
    }

    /// Everything but the confirmation.
    async fn prepare(&self, mut commit: Commit) -> PrepareResult {
        plan::check(&mut commit)?;
        let mut transaction = self.writer.begin_with(dialect::BEGIN_COMMIT).await?;
        let head = objects::position(&mut transaction).await?.head;
        if (head.epoch, head.revision) != (commit.base.epoch, commit.base.revision) {
            return Err(PrepareError::Moved(Some(head)));
        }
        if let Origin::Revision(revision) = commit.origin
            && revision < objects::oldest(&mut transaction).await?
        {
            return Err(PrepareError::Moved(Some(head)));
        }
        commit.base = head;
        let audit = commit.audit.take();
        let credentials = std::mem::take(&mut commit.credentials);
        let keys = commit.writes.iter().map(|write| write.key()).collect::<Vec<_>>();
        let existing: HashMap<_, _> = dialect::existing(&mut transaction, &keys).await?;
        drop(keys);
        let plan = plan::plan(commit, &existing, now())?;
        if !secrets::are_current(&mut transaction, plan.secrets.iter()).await? {
            return Err(PrepareError::Failed(CommitError::Resealed));
        }
        let consumers = plan.deleted_consumers();
        if !consumers.is_empty() || !credentials.is_empty() {
            credentials::hold(&mut transaction).await?;
        }
        write_plan(&mut transaction, &plan, audit).await?;
        let mut moved = None;
        if !credentials.is_empty() {
            let version = credentials::write(&mut transaction, &credentials, plan.header.at).await?;
            moved = Some(CredentialHead { epoch: plan.head.epoch, version });
        }
        if !consumers.is_empty()
            && let Some((consumer, credential)) =
                credentials::of_consumers(&mut transaction, &consumers).await?
        {
            return Err(CommitError::HasCredentials { consumer, credential }.into());
        }
        advance(&mut transaction, &plan).await?;
        Ok(Prepared { transaction, moved, plan })
    }
}

type PrepareResult = std::result::Result<Prepared, PrepareError>;

/// A commit that waits for its confirmation.
struct Prepared {
    transaction: Transaction<'static, Database>,
    plan: Plan,
    /// Where it moved the credentials.
    moved: Option<CredentialHead>,
}

/// Why a commit came to nothing before its confirmation.
enum PrepareError {
    /// Another commit came first; the head that it made, if it was seen already.
    Moved(Option<Head>),
    Failed(CommitError),
}

impl From<sqlx::Error> for PrepareError {
    fn from(error: sqlx::Error) -> Self {
        if failure::is_serialization_failure(&error) {
            return PrepareError::Moved(None);
        }
        PrepareError::Failed(CommitError::Store(error.into()))
    }
}

impl From<StoreError> for PrepareError {
    fn from(error: StoreError) -> Self {
        PrepareError::Failed(CommitError::Store(error))
    }
}

impl From<CommitError> for PrepareError {
    fn from(error: CommitError) -> Self {
        PrepareError::Failed(error)
    }
}

impl From<CredentialError> for PrepareError {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Sql(error) => error.into(),
            CredentialError::Refused(error) => error.into(),
        }
    }
}

/// Executes a plan, but for [`advance`]. The revision is claimed first, so that of two writers on one base the second
/// waits here, at the price of one row.
async fn write_plan(
    connection: &mut Connection,
    plan: &Plan,
    audit: Option<AuditRecord>,
) -> std::result::Result<(), PrepareError> {
    const CLAIM: &str = "INSERT INTO revisions \
        (revision, parent, at_us, author, message, created, updated, deleted, root_hash) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING";
    let header = &plan.header;
    let (revision, parent) = (signed(header.revision), signed(header.revision - 1));
    let root = header.root.to_bytes();
    let claimed = sqlx::query(CLAIM)
        .bind(revision)
        .bind(parent)
        .bind(header.at.as_microsecond())
        .bind(text_without_nul(&header.author))
        .bind(text_without_nul(&header.message))
        .bind(i64::from(header.created))
        .bind(i64::from(header.updated))
        .bind(i64::from(header.deleted))
        .bind(root.as_slice())
        .execute(&mut *connection)
        .await?;
    if claimed.rows_affected() == 0 {
        return Err(PrepareError::Moved(None));
    }
    let puts = plan.changes.iter().filter_map(|change| match change {
        Change::Put(stored) => Some(stored),
        Change::Delete(_) => None,
    });
    let puts = puts.zip(&plan.labels).collect::<Vec<_>>();
    let deletes = plan.changes.iter().filter_map(|change| match change {
        Change::Put(_) => None,
        Change::Delete(key) => Some(key),
    });
    dialect::put(connection, &puts).await?;
    dialect::delete(connection, &deletes.collect::<Vec<_>>()).await?;
    dialect::log(connection, header.revision, &plan.changes).await?;
    secrets::insert(connection, &plan.secrets).await?;
    if let Some(mut audit) = audit {
        audit.at = header.at;
        records::append_audit(connection, &audit, Some(header.revision)).await?;
    }
    Ok(())
}

/// The compare-and-set of the head: the last statement of a commit.
async fn advance(connection: &mut Connection, plan: &Plan) -> std::result::Result<(), PrepareError> {
    // Data planes may shrink to a new epoch, from its first revision on.
    const SQL: &str = "UPDATE meta SET revision = $1, root_hash = $2, epoch = $5, \
        shrink_epoch = CASE WHEN epoch = $5 THEN shrink_epoch ELSE $5 END, \
        shrink_revision = CASE WHEN epoch = $5 THEN shrink_revision ELSE $1 END WHERE revision = $3 AND epoch = $4";
    dialect::notify(connection).await?;
    let moved = sqlx::query(SQL)
        .bind(signed(plan.header.revision))
        .bind(plan.header.root.to_bytes().as_slice())
        .bind(signed(plan.header.revision - 1))
        .bind(plan.epoch)
        .bind(plan.head.epoch)
        .execute(connection)
        .await?;
    if moved.rows_affected() == 1 { Ok(()) } else { Err(PrepareError::Moved(None)) }
}

/// The store keeps microseconds; what is answered now must equal what is read later.
fn now() -> Timestamp {
    Timestamp::from_microsecond(Timestamp::now().as_microsecond()).expect("the present is in range")
}

pub(super) async fn confirm(transaction: Transaction<'static, Database>) -> Result<()> {
    match tokio::time::timeout(CONFIRM, transaction.commit()).await {
        Ok(Ok(())) => Ok(()),
        // The database itself says no: it is rolled back.
        Ok(Err(error @ sqlx::Error::Database(_))) => Err(error.into()),
        Ok(Err(_)) | Err(_) => Err(StoreError::OutcomeUnknown),
    }
}

pub(super) async fn within<T, E: From<StoreError>>(
    limit: Duration,
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    let late =
        || StoreError::Unavailable(format!("no answer from the database within {} s", limit.as_secs()));
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late().into()))
}

#[async_trait]
impl Store for Handle {
    async fn head(&self) -> Result<Head> {
        let position =
            within(SHORT, async { objects::position(&mut *self.readers.acquire().await?).await }).await?;
        self.watching.saw(position);
        Ok(position.head)
    }

    fn watch(&self) -> watch::Receiver<Head> {
        self.watching.head()
    }

    async fn load(&self, visit: &mut Visit<'_>) -> Result<Head> {
        within(LONG, async {
            let mut snapshot = self.snapshot().await?;
            let head = objects::position(&mut snapshot).await?.head;
            objects::load(&mut snapshot, visit).await?;
            Ok(head)
        })
        .await
    }

    async fn changes_since(&self, revision: u64) -> Result<Changes> {
        within(LONG, async { objects::changes_since(&mut *self.snapshot().await?, revision).await }).await
    }

    async fn commit(&self, commit: Commit) -> std::result::Result<Committed, CommitError> {
        let Prepared { transaction, plan, moved } = match within(LONG, self.prepare(commit)).await {
            Ok(prepared) => prepared,
            Err(PrepareError::Moved(Some(head))) => return Err(CommitError::Moved { head }),
            Err(PrepareError::Moved(None)) => return Err(CommitError::Moved { head: self.head().await? }),
            Err(PrepareError::Failed(error)) => return Err(error),
        };
        confirm(transaction).await?;
        self.watching.saw_head(plan.head);
        moved.into_iter().for_each(|head| self.watching.saw_credentials(head));
        Ok(Committed { head: plan.head, at: plan.header.at, changes: plan.changes })
    }

    async fn commit_credentials(
        &self,
        writes: Vec<CredentialWrite>,
        audit: Option<AuditRecord>,
    ) -> std::result::Result<CredentialHead, CommitError> {
        let prepared = within(LONG, async {
            let mut transaction = self.write().await?;
            let at = now();
            let version = credentials::write(&mut transaction, &writes, at).await?;
            if let Some(audit) = audit {
                records::append_audit(&mut transaction, &AuditRecord { at, ..audit }, None).await?;
            }
            let head = credentials::head(&mut transaction).await?;
            dialect::notify(&mut transaction).await?;
            Ok::<_, PrepareError>((transaction, CredentialHead { version, ..head }))
        });
        let (transaction, head) = match prepared.await {
            Ok(prepared) => prepared,
            // Nothing else that it reads can move, and the database's own reason is as good as any.
            Err(PrepareError::Moved(_)) => {
                let why = "other writers of credentials were faster, try again".to_owned();
                return Err(StoreError::Unavailable(why).into());
            }
            Err(PrepareError::Failed(error)) => return Err(error),
        };
        confirm(transaction).await?;
        self.watching.saw_credentials(head);
        Ok(head)
    }

    async fn credential_count(&self) -> Result<u64> {
        within(SHORT, async { credentials::count(&mut *self.readers.acquire().await?).await }).await
    }

    async fn credentials(&self, keys: Vec<Key>) -> Result<Vec<Stored>> {
        within(LONG, async { credentials::find(&mut *self.snapshot().await?, &keys).await }).await
    }

    async fn credential_page(&self, page: CredentialPage) -> Result<Vec<Stored>> {
        within(SHORT, async { credentials::page(&mut *self.readers.acquire().await?, &page).await }).await
    }

    async fn load_keys(&self, visit: &mut VisitKey<'_>) -> Result<CredentialHead> {
        within(LONG, async { credentials::load(&mut *self.snapshot().await?, visit).await }).await
    }

    async fn key_changes_since(&self, version: u64) -> Result<KeyChanges> {
        within(LONG, async { credentials::changes_since(&mut *self.snapshot().await?, version).await }).await
    }

    fn watch_credentials(&self) -> watch::Receiver<CredentialHead> {
        self.watching.credentials()
    }

    async fn allow_shrink(&self) -> Result<()> {
        within(LONG, async { objects::allow_shrink(&mut *self.writer.acquire().await?).await }).await
    }

    async fn is_shrink_allowed(&self, epoch: Uuid, revision: u64) -> Result<bool> {
        within(SHORT, async {
            objects::is_shrink_allowed(&mut *self.readers.acquire().await?, epoch, revision).await
        })
        .await
    }

    async fn revisions(&self, page: PageRequest) -> Result<Page<Revision>> {
        within(SHORT, async { objects::revisions(&mut *self.readers.acquire().await?, page).await }).await
    }

    async fn revision(&self, revision: u64) -> Result<Option<Revision>> {
        within(SHORT, async { objects::revision(&mut *self.readers.acquire().await?, revision).await }).await
    }

    async fn namespaces(&self, from: u64, to: u64) -> Result<Touched> {
        within(SHORT, async { objects::namespaces(&mut *self.readers.acquire().await?, from, to).await })
            .await
    }

    async fn diff(&self, from: u64, to: u64) -> Result<Vec<Difference>> {
        within(LONG, async { objects::diff(&mut *self.snapshot().await?, from, to).await }).await
    }

    async fn oldest(&self) -> Result<u64> {
        within(SHORT, async { objects::oldest(&mut *self.readers.acquire().await?).await }).await
    }

    async fn state_at(&self, revision: u64, visit: &mut Visit<'_>) -> Result<()> {
        within(LONG, async { objects::state_at(&mut *self.snapshot().await?, revision, visit).await }).await
    }

    async fn secrets(&self, wanted: Vec<SecretId>) -> Result<Vec<SecretRecord>> {
        within(LONG, async { secrets::find(&mut *self.snapshot().await?, &wanted).await }).await
    }

    async fn master(&self) -> Result<Option<MasterRecord>> {
        within(SHORT, async { secrets::master(&mut *self.readers.acquire().await?).await }).await
    }

    async fn create_master(&self, record: MasterRecord) -> Result<MasterRecord> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let kept = secrets::create_master(&mut transaction, &record).await?;
            confirm(transaction).await?;
            Ok(kept)
        })
        .await
    }

    async fn replace_master(&self, from: MasterId, record: MasterRecord) -> Result<bool> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let done = secrets::replace_master(&mut transaction, from, &record).await?;
            confirm(transaction).await?;
            Ok(done)
        })
        .await
    }

    async fn secrets_of_other_masters(&self, master: MasterId, limit: u32) -> Result<Vec<SecretRecord>> {
        within(LONG, async {
            secrets::of_other_masters(&mut *self.readers.acquire().await?, master, limit).await
        })
        .await
    }

    async fn put_data_keys(&self, secrets: Vec<(MasterId, SecretRecord)>) -> Result<bool> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            if !secrets::are_current(&mut transaction, secrets.iter().map(|(_, record)| record)).await? {
                return Ok(false);
            }
            secrets::put_data_keys(&mut transaction, &secrets).await?;
            confirm(transaction).await?;
            Ok(true)
        })
        .await
    }

    async fn tokens(&self) -> Result<Tokens> {
        within(SHORT, async { records::tokens(&mut *self.snapshot().await?).await }).await
    }

    async fn tokens_version(&self) -> Result<u64> {
        within(SHORT, async { records::tokens_version(&mut *self.readers.acquire().await?).await }).await
    }

    fn watch_tokens(&self) -> watch::Receiver<u64> {
        self.watching.tokens_version()
    }

    async fn create_token(
        &self,
        token: TokenRecord,
        audit: Option<AuditRecord>,
    ) -> std::result::Result<(), TokenError> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            records::create_token(&mut transaction, &token).await?;
            if let Some(audit) = &audit {
                records::append_audit(&mut transaction, audit, None).await?;
            }
            Ok(self.finish_tokens(transaction, version).await?)
        })
        .await
    }

    async fn put_token(&self, token: TokenRecord) -> Result<()> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            if !records::put_token(&mut transaction, &token).await? {
                return Ok(transaction.rollback().await?);
            }
            self.finish_tokens(transaction, version).await
        })
        .await
    }

    async fn delete_token(&self, name: &str, audit: Option<AuditRecord>) -> Result<bool> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            let version = records::move_tokens_version(&mut transaction).await?;
            if !records::delete_token(&mut transaction, name).await? {
                transaction.rollback().await?;
                return Ok(false);
            }
            if let Some(audit) = &audit {
                records::append_audit(&mut transaction, audit, None).await?;
            }
            self.finish_tokens(transaction, version).await?;
            Ok(true)
        })
        .await
    }

    async fn append_audit(&self, entries: Vec<AuditRecord>) -> Result<()> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            for entry in &entries {
                records::append_audit(&mut transaction, entry, None).await?;
            }
            confirm(transaction).await
        })
        .await
    }

    async fn trim_audit(&self, keep: u64) -> Result<u64> {
        within(LONG, async { records::trim_audit(&mut *self.writer.acquire().await?, keep).await }).await
    }

    async fn audit(&self, page: PageRequest) -> Result<Page<AuditEntry>> {
        within(SHORT, async { records::audit(&mut *self.readers.acquire().await?, page).await }).await
    }

    async fn put_nodes(&self, nodes: Vec<NodeSeen>) -> Result<()> {
        within(LONG, async { records::put_nodes(&mut *self.writer.acquire().await?, nodes).await }).await
    }

    async fn nodes(&self) -> Result<Vec<Node>> {
        within(SHORT, async { records::nodes(&mut *self.readers.acquire().await?).await }).await
    }

    async fn nodes_of_others(&self, replica: Uuid, since: Duration) -> Result<Vec<Node>> {
        within(SHORT, async {
            records::nodes_of_others(&mut *self.readers.acquire().await?, replica, since).await
        })
        .await
    }

    async fn note_twins(&self, refused: Vec<(String, String)>) -> Result<()> {
        within(LONG, async { records::note_twins(&mut *self.writer.acquire().await?, &refused).await }).await
    }

    async fn keep_endpoints(&self, puts: Vec<KeptEndpoints>, gone: Vec<String>) -> Result<()> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            endpoints::keep(&mut transaction, &puts, &gone).await?;
            confirm(transaction).await
        })
        .await
    }

    async fn endpoints(&self) -> Result<Vec<KeptEndpoints>> {
        within(LONG, async { endpoints::all(&mut *self.readers.acquire().await?).await }).await
    }

    async fn lead(&self) -> Result<Option<Fence>> {
        within(LONG, self.seat.take(&self.writer)).await
    }

    async fn step_down(&self) {
        self.seat.leave().await;
    }

    async fn compact(&self, fence: Fence, keep: Retention) -> Result<Compacted> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            chores::hold(&mut transaction, fence).await?;
            let done = chores::compact(&mut transaction, keep).await?;
            confirm(transaction).await?;
            Ok(done)
        })
        .await
    }

    async fn forget_nodes(&self, fence: Fence, unseen_for: Duration) -> Result<u64> {
        within(LONG, async {
            let mut transaction = self.write().await?;
            chores::hold(&mut transaction, fence).await?;
            let forgotten = records::forget_nodes(&mut transaction, unseen_for).await?;
            confirm(transaction).await?;
            Ok(forgotten)
        })
        .await
    }

    async fn close(&self) {
        self.poller.abort();
        self.seat.leave().await;
        self.readers.close().await;
        self.writer.close().await;
    }
}
