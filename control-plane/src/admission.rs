//! From a request for change to a revision: what the batch would make of the head is worked out, compiled as a
//! whole, and stored by compare-and-set. When another writer was faster, the same is done on the new head. Writers of
//! this process take turns, so that only those of other replicas can be faster.
//!
//! Invariants: nothing is stored that `engine::compile` does not take; equal content is no change, and a batch
//! without a change makes no revision; nothing is deleted that the batch does not name or prune by its labels; nothing is
//! refused or found unchanged for what another replica has changed meanwhile.

mod credentials;
pub mod plan;
mod settle;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gateway_proto::admin::FieldError;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::discovery::Abilities;
use crate::document;
use crate::secrets::{self, Rewrapped, SecretError, Vault};
use crate::state::{Live, State, blocking};
use crate::store::{AuditRecord, Commit, CommitError, Head, Origin, Store, StoreError, Stored, Write};
use crate::telemetry::Metrics;
pub use credentials::Rotation;
pub use plan::{Batch, Expected, Plan, Planned, Refusal};
pub use settle::Document;

/// How often a write is tried when other writers move the head under it.
const TRIES: usize = 5;
/// Longest pause before a try, doubled with each: two replicas must not go on in step.
const PAUSE: Duration = Duration::from_millis(5);
/// Longest wait for the writers before.
const TURN: Duration = Duration::from_secs(30);
/// Time that the state has to come to a head that another writer made.
const CATCH_UP: Duration = Duration::from_secs(3);

/// Who wants a change, for history and audit.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Entry of the audit log; its `who` is the author in history.
    pub audit: AuditRecord,
    /// Why; may be empty.
    pub message: String,
    /// Work everything out, but store nothing.
    pub dry_run: bool,
}

/// What is to be changed.
#[derive(Clone, Debug)]
pub enum Request {
    /// A batch as given.
    Batch(Arc<Batch>),
    /// An RFC 7396 merge patch of one object, if it is as expected.
    Patch {
        /// The object.
        key: Key,
        /// The patch.
        patch: Arc<Value>,
        /// How the object must be.
        expected: Expected,
    },
    /// The content of an earlier revision.
    Rollback(u64),
    /// A backup: what it names, and nothing else.
    Restore {
        /// Its objects; sealed values of a dump are opened.
        batch: Arc<Batch>,
        /// Delete what else there is; otherwise there must be nothing.
        replace: bool,
    },
}

impl Request {
    const fn origin(&self) -> Origin {
        match self {
            Request::Batch(_) | Request::Patch { .. } => Origin::Request,
            Request::Rollback(to) => Origin::Revision(*to),
            Request::Restore { .. } => Origin::Backup,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The state after it; for a dry run or when nothing changed, the state it was worked out on.
    pub state: Arc<State>,
    /// What happened to each object named or pruned, in the order of the batch.
    pub changes: Vec<Planned>,
    /// What was accepted but looks wrong.
    pub warnings: Vec<FieldError>,
    /// The revision that was made; `None`: none was.
    pub revision: Option<u64>,
    /// The version of the credentials that was made; `None`: none was.
    pub version: Option<u64>,
}

/// What this control plane does not take.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most credentials that are kept.
    pub max_credentials: u64,
    /// Sources that it can read.
    pub sources: Abilities,
}

/// The way of every write of configuration.
#[derive(Debug)]
pub struct Admission {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    bounds: Bounds,
    /// Held by the one that writes; first come, first served.
    turn: Mutex<()>,
}

/// Why one try came to nothing.
enum Missed {
    Moved(u64),
    Refused(Refusal),
}

impl Admission {
    /// Writes go to `store`, secrets sealed by `vault`; `live` follows it.
    pub fn new(
        store: Arc<dyn Store>,
        vault: Arc<Vault>,
        live: Arc<Live>,
        metrics: Arc<Metrics>,
        bounds: Bounds,
    ) -> Self {
        Admission { store, vault, live, metrics, bounds, turn: Mutex::new(()) }
    }

    /// Makes the change, or says why not.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is stored then (but see [`StoreError::OutcomeUnknown`]).
    pub async fn submit(&self, request: Request, intent: Intent) -> Result<Outcome, Refusal> {
        // Keys come and go beside all that.
        let is_apart = match &request {
            Request::Batch(batch) => batch.is_apart(),
            Request::Patch { key, .. } => key.kind == Kind::Credential,
            Request::Rollback(_) | Request::Restore { .. } => false,
        };
        let _turn = if intent.dry_run || is_apart {
            None
        } else {
            Some(timeout(TURN, self.turn.lock()).await.map_err(|_| Refusal::Busy)?)
        };
        for attempt in 0..TRIES {
            match self.attempt(&request, &intent).await {
                Ok(outcome) => return Ok(outcome),
                Err(Missed::Refused(refusal)) => return Err(refusal),
                Err(Missed::Moved(revision)) => {
                    // The follower brings the state there; compiling on an old one again would miss again.
                    // While the store is away it cannot, and the next try says so.
                    let _ = timeout(CATCH_UP, self.live.reach(revision)).await;
                    sleep(PAUSE.mul_f64(rand::random::<f64>()) * (1 << attempt)).await;
                }
            }
        }
        Err(Refusal::Contended)
    }

    async fn attempt(&self, request: &Request, intent: &Intent) -> Result<Outcome, Missed> {
        let base = self.live.get();
        let planned = self.plan(request, &base).await;
        let changes_any = |plan: &Plan| !plan.writes.is_empty() || !plan.credentials.is_empty();
        let is_write = !intent.dry_run && planned.as_ref().is_ok_and(changes_any);
        if !is_write && !matches!(planned, Err(Refusal::Store(_))) {
            self.check_head(base.head).await?;
        }
        let Plan { changes, warnings, writes, credentials, engine } = planned.map_err(Missed::Refused)?;
        if !is_write {
            return Ok(Outcome { state: base, changes, warnings, revision: None, version: None });
        }
        if writes.is_empty() {
            let committed = self.store.commit_credentials(credentials, Some(intent.audit.clone())).await;
            let head = committed.map_err(|error| missed(error, base.head))?;
            let version = Some(head.version);
            return Ok(Outcome { state: base, changes, warnings, revision: None, version });
        }
        let moves_credentials = !credentials.is_empty();
        let commit = Commit {
            base: base.head,
            author: intent.audit.who.clone(),
            message: intent.message.clone(),
            writes,
            credentials,
            audit: Some(intent.audit.clone()),
            origin: request.origin(),
        };
        let begun = Instant::now();
        let committed = self.store.commit(commit).await;
        if matches!(committed, Err(CommitError::Resealed)) {
            self.follow_master().await.map_err(|error| Missed::Refused(error.into()))?;
            return Err(Missed::Moved(base.head.revision));
        }
        if matches!(committed, Err(CommitError::Moved { .. })) {
            self.metrics.commit_conflicts.inc();
        }
        let committed = committed.map_err(|error| missed(error, base.head))?;
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        let revision = Some(committed.head.revision);
        let live = Arc::clone(&self.live);
        let state = blocking(move || live.committed(&base, &committed, engine)).await;
        let version = moves_credentials.then(|| self.store.watch_credentials().borrow().version);
        Ok(Outcome { state, changes, warnings, revision, version })
    }

    /// What is not committed is not held against the store's head by the commit. While the store is away, what is in
    /// memory is the newest there is.
    async fn check_head(&self, base: Head) -> Result<(), Missed> {
        match self.store.head().await {
            Ok(head) if head.epoch == base.epoch && head.revision > base.revision => {
                Err(Missed::Moved(head.revision))
            }
            _ => Ok(()),
        }
    }

    /// What a request comes to on a state.
    async fn plan(&self, request: &Request, base: &Arc<State>) -> Result<Plan, Refusal> {
        let batch = match request {
            Request::Batch(batch) => Arc::clone(batch),
            Request::Patch { key, patch, expected } => {
                Arc::new(patched(&*self.stored(base, key).await?, patch, *expected)?)
            }
            Request::Rollback(to) => Arc::new(self.rollback(base, *to).await?),
            Request::Restore { batch, replace } => {
                let (state, vault) = (Arc::clone(base), Arc::clone(&self.vault));
                let (batch, replace) = (Arc::clone(batch), *replace);
                Arc::new(blocking(move || restored(&state, &batch, replace, &vault)).await?)
            }
        };
        let (state, vault, wish) = (Arc::clone(base), Arc::clone(&self.vault), Arc::clone(&batch));
        let mut plan = blocking(move || Plan::make(&state, &wish, &vault)).await?;
        self.check_sources(&plan, &batch)?;
        let most = self.bounds.max_credentials;
        let apart = credentials::plan(&*self.store, &plan.engine, &batch, most).await?;
        plan.changes.extend(apart.changes);
        plan.credentials = apart.writes;
        Ok(plan)
    }

    /// Refuses sources that this control plane cannot read: what is stored with them would find nothing.
    fn check_sources(&self, plan: &Plan, batch: &Batch) -> Result<(), Refusal> {
        let written = plan.writes.iter().map(Write::key).filter(|key| key.kind == Kind::DiscoverySource);
        let refused = written.filter_map(|key| {
            let Resource::DiscoverySource(source) = plan.engine.resource(key)? else { return None };
            let (field, why) = self.bounds.sources.refuses(&source)?;
            let index = batch.documents.iter().position(|document| document.key() == key);
            Some(FieldError {
                object: Some(key.clone()),
                index: index.and_then(|index| u32::try_from(index).ok()),
                field: field.to_owned(),
                code: ViolationCode::Conflict,
                message: why.to_owned(),
            })
        });
        let refused: Vec<FieldError> = refused.collect();
        if refused.is_empty() { Ok(()) } else { Err(Refusal::Invalid(plan::bounded(refused))) }
    }

    /// An object as it is, wherever it is kept.
    async fn stored(&self, base: &State, key: &Key) -> Result<Arc<Stored>, Refusal> {
        let stored = match key.kind {
            Kind::Credential => self.store.credentials(vec![key.clone()]).await?.pop().map(Arc::new),
            _ => base.objects.get(key).cloned(),
        };
        stored.ok_or_else(|| Refusal::NotFound(key.clone()))
    }

    /// Seals everything with the first of the master keys that this process was given.
    ///
    /// # Errors
    /// As `secrets::rewrap`.
    pub async fn rewrap(&self) -> Result<Rewrapped, SecretError> {
        secrets::rewrap(&self.vault, &*self.store).await
    }

    /// Another replica has named another master key.
    async fn follow_master(&self) -> Result<(), SecretError> {
        match self.store.master().await? {
            Some(record) => self.vault.follow(&record),
            None => Ok(()),
        }
    }

    async fn rollback(&self, base: &State, to: u64) -> Result<Batch, Refusal> {
        let differences = self.store.diff(base.head.revision, to).await?;
        let (deletes, puts, sealed) = blocking(move || {
            let (mut deletes, mut puts, mut sealed) = (Vec::new(), Vec::new(), Vec::new());
            for difference in differences {
                let Some(body) = difference.after else {
                    deletes.push(difference.key);
                    continue;
                };
                let mut resource = Resource::decode(difference.key.kind, &body).map_err(|error| {
                    StoreError::Broken(format!("{} at revision {to}: {error}", difference.key))
                })?;
                sealed.extend(secrets::references(&mut resource)?);
                puts.push((difference.key, resource));
            }
            Ok::<_, Refusal>((deletes, puts, sealed))
        })
        .await?;
        let mut values = self.vault.values(&*self.store, sealed).await?;
        blocking(move || {
            let put = |(key, resource)| Document::stored(resource, values.remove(&key).unwrap_or_default());
            Ok(Batch { documents: puts.into_iter().map(put).collect(), deletes, ..Batch::default() })
        })
        .await
    }
}

/// What a failed commit comes to.
fn missed(error: CommitError, base: Head) -> Missed {
    match error {
        CommitError::Moved { head } => Missed::Moved(head.revision),
        CommitError::Store(error) => Missed::Refused(Refusal::Store(error)),
        // Somebody was faster with the same credential, or with its consumer: the next try finds out what is left.
        CommitError::Precondition { key, .. } if key.kind == Kind::Credential => Missed::Moved(base.revision),
        CommitError::NoConsumer(_) => Missed::Moved(base.revision),
        CommitError::KeyTaken(key) => Missed::Refused(credentials::taken(key)),
        CommitError::KeySpent(key) => Missed::Refused(credentials::spent(key)),
        CommitError::HasCredentials { consumer, credential } => {
            Missed::Refused(credentials::in_use(consumer, &credential))
        }
        // All say that the plan was not made from the state it was made from.
        defect @ (CommitError::Precondition { .. } | CommitError::Refused(_) | CommitError::Resealed) => {
            Missed::Refused(Refusal::Store(StoreError::Broken(defect.to_string())))
        }
    }
}

/// The batch that a backup comes to on a state.
fn restored(base: &State, backup: &Batch, replace: bool, vault: &Vault) -> Result<Batch, Refusal> {
    if !replace && base.objects.count() > 0 {
        return Err(Refusal::NotEmpty(base.objects.count()));
    }
    let (mut documents, mut faults) = (Vec::with_capacity(backup.documents.len()), Vec::new());
    for (index, document) in backup.documents.iter().enumerate() {
        match document.opened(vault) {
            Ok(document) => documents.push(document),
            Err(mut found) => {
                found.iter_mut().for_each(|fault| fault.index = u32::try_from(index).ok());
                faults.extend(found);
            }
        }
    }
    if !faults.is_empty() {
        return Err(Refusal::Invalid(plan::bounded(faults)));
    }
    let named: HashSet<&Key> = documents.iter().map(Document::key).collect();
    let others = base.objects.iter().map(|(key, _)| key).filter(|key| !named.contains(key));
    let deletes = others.cloned().collect();
    // The store becomes what the backup says: that is meant.
    Ok(Batch { documents, deletes, revives_keys: true, ..Batch::default() })
}

/// The batch that a patch comes to on an object.
fn patched(stored: &Stored, patch: &Value, expected: Expected) -> Result<Batch, Refusal> {
    let key = &stored.key;
    let resource = Resource::decode(key.kind, &stored.body)
        .map_err(|error| StoreError::Broken(format!("{key}: {error}")))?;
    // What the patch does not name stays, secrets too.
    let mut target = serde_json::to_value(resource.masked())
        .map_err(|error| StoreError::Broken(format!("{key}: {error}")))?;
    merge(&mut target, patch);
    let resource = document::read_at(key, &target.to_string())
        .map_err(|fault| Refusal::Invalid(vec![FieldError { object: Some(key.clone()), ..fault }]))?;
    Ok(Batch { documents: vec![Document::new(resource)], expected, ..Batch::default() })
}

/// RFC 7396: objects merge, null removes, everything else replaces. Depth is bounded by that of the parsed patch.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = target else { return };
    for (name, value) in patch {
        if value.is_null() {
            target.remove(name);
        } else {
            merge(target.entry(name.as_str()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_merge_patch_does_what_rfc_7396_lists() {
        // Appendix A of the RFC.
        for (mut target, patch, expected) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a":"b"}), json!(["c"]), json!(["c"])),
            (json!({"a":"foo"}), json!(null), json!(null)),
            (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
            (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
            (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
        ] {
            merge(&mut target, &patch);
            assert_eq!(target, expected, "patch {patch}");
        }
    }
}
