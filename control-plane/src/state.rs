//! The head of the store, compiled and held in memory: what every read of the API is answered from, what admission
//! compiles against, and what the streams publish. Follows the commits of this replica at once and those of others
//! as soon as the store tells of them.
//!
//! Invariant: a [`State`] is whole. Its head, objects and engine belong to one revision, and it never changes; a new
//! revision is a new `State` that shares what stayed. Within an epoch the revision never goes back.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use gateway_engine::Engine;
use gateway_engine::compile::{self, compile};
use gateway_proto::field::Violation;
use gateway_proto::kind::{Key, Resource};
use gateway_proto::secret::Secrets;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::secrets::{self, SecretError, Vault};
use crate::sorted::SortedMap;
use crate::store::{Change, Committed, Head, SecretId, Store, StoreError, Stored};

/// Wait before the store is asked again after it failed.
const RETRY: Duration = Duration::from_secs(1);

/// Objects by name.
pub type Objects = SortedMap<Key, Arc<Stored>>;

/// Everything at one revision.
#[derive(Clone, Debug)]
pub struct State {
    /// Which revision of which history.
    pub head: Head,
    /// The objects as stored.
    pub objects: Objects,
    /// The same, compiled.
    pub engine: Engine,
}

/// The newest [`State`] of this replica.
#[derive(Debug)]
pub struct Live {
    store: Arc<dyn Store>,
    vault: Arc<Vault>,
    state: ArcSwap<State>,
    head: watch::Sender<Head>,
    installing: Mutex<()>,
    following: AtomicBool,
}

/// Why the store's content cannot be taken into memory.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object's body does not decode: the store was changed by hand, or by a later version.
    #[error("cannot read {key} from the store: {source}")]
    Decode {
        /// The object.
        key: Key,
        /// What is wrong.
        source: prost::DecodeError,
    },
    /// A secret cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// What is stored does not compile: another version of this program admitted it.
    #[error("the store holds {} objects that this version does not take, first: {}", .0.len(), .0.first().map(ToString::to_string).unwrap_or_default())]
    Compile(Vec<Violation>),
}

impl Live {
    /// Reads and compiles everything.
    ///
    /// # Errors
    /// [`StateError`]: a control plane that cannot read its store does not start.
    pub async fn load(store: Arc<dyn Store>, vault: Arc<Vault>) -> Result<Arc<Self>, StateError> {
        let state = load(&*store, &vault).await?;
        Ok(Arc::new(Live {
            head: watch::Sender::new(state.head),
            state: ArcSwap::from_pointee(state),
            store,
            vault,
            installing: Mutex::new(()),
            following: AtomicBool::new(true),
        }))
    }

    /// The newest state. Take it once for one answer.
    pub fn get(&self) -> Arc<State> {
        self.state.load_full()
    }

    /// Tells of every new head.
    pub fn watch(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    /// False while this replica cannot take in what the store holds.
    pub fn is_following(&self) -> bool {
        self.following.load(Ordering::Relaxed)
    }

    /// Takes in a commit of this replica, which `engine` was compiled for, so that its author reads what he wrote.
    pub fn committed(&self, base: &State, committed: &Committed, engine: Engine) -> Arc<State> {
        let next = Arc::new(State {
            head: committed.head,
            objects: with(&base.objects, &committed.changes),
            engine,
        });
        // When the follower was faster, what it has is this revision or a later one.
        self.install(base.head, Arc::clone(&next));
        next
    }

    /// Waits until the state is at a revision or past it.
    pub async fn reach(&self, revision: u64) {
        let mut head = self.watch();
        // An error means that the sender is gone, which is `self`.
        let _ = head.wait_for(|head| head.revision >= revision).await;
    }

    /// Follows the store until cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut heads = self.store.watch();
        loop {
            let seen = *heads.borrow_and_update();
            if let Err(error) = self.catch_up(seen).await {
                if self.following.swap(false, Ordering::Relaxed) {
                    tracing::error!(%error, revision = seen.revision, "cannot take in a revision, serving the one before it");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            if !self.following.swap(true, Ordering::Relaxed) {
                tracing::info!(revision = self.get().head.revision, "following the store again");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn catch_up(&self, seen: Head) -> Result<(), StateError> {
        loop {
            let base = self.get();
            if base.head == seen || (base.head.epoch == seen.epoch && base.head.revision >= seen.revision) {
                return Ok(());
            }
            let changes = self.store.changes_since(base.head.revision).await?;
            let replaced =
                changes.head.epoch != base.head.epoch || changes.head.revision < base.head.revision;
            let next = if replaced || changes.cut {
                if replaced {
                    tracing::warn!(epoch = %changes.head.epoch, "the store was replaced, loading it anew");
                } else {
                    tracing::warn!(
                        revision = base.head.revision,
                        "history does not reach back to where this replica stands, loading the store anew"
                    );
                }
                load(&*self.store, &self.vault).await?
            } else {
                let from = Arc::clone(&base);
                advance(&*self.store, &self.vault, from, changes.head, changes.changes).await?
            };
            if self.install(base.head, Arc::new(next)) {
                return Ok(());
            }
        }
    }

    /// Makes a state current if the one it was made from still is.
    fn install(&self, base: Head, next: Arc<State>) -> bool {
        let _one_at_a_time = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.state.load().head != base {
            return false;
        }
        let head = next.head;
        self.state.store(next);
        self.head.send_replace(head);
        true
    }
}

/// Runs work that takes longer than a few milliseconds beside the runtime's workers.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

async fn load(store: &dyn Store, vault: &Vault) -> Result<State, StateError> {
    let mut puts = Vec::new();
    let head = store.load(&mut |stored| puts.push(Change::Put(stored))).await?;
    let empty = Head { revision: 0, ..head };
    let empty = State { head: empty, objects: Objects::default(), engine: Engine::default() };
    advance(store, vault, Arc::new(empty), head, puts).await
}

/// The state after changes that were read from the store.
async fn advance(
    store: &dyn Store,
    vault: &Vault,
    base: Arc<State>,
    head: Head,
    changes: Vec<Change>,
) -> Result<State, StateError> {
    let from = Arc::clone(&base);
    let (changes, edits, sealed) = blocking(move || {
        let (edits, sealed) = decode(&from, &changes)?;
        Ok::<_, StateError>((changes, edits, sealed))
    })
    .await?;
    let values = vault.values(store, sealed).await?;
    blocking(move || {
        let edits = edits.into_iter().map(|edit| with_values(edit, &values)).collect();
        let compiled = compile(&base.engine, edits).map_err(StateError::Compile)?;
        Ok(State { head, objects: with(&base.objects, &changes), engine: compiled.engine })
    })
    .await
}

/// Changes as they are compiled, and the sealed values that they need for it.
fn decode(base: &State, changes: &[Change]) -> Result<(Vec<compile::Change>, Vec<SecretId>), StateError> {
    let mut edits = Vec::with_capacity(changes.len());
    let mut sealed = Vec::new();
    for change in changes {
        match change {
            Change::Put(stored) => {
                let mut resource = Resource::decode(stored.key.kind, &stored.body)
                    .map_err(|source| StateError::Decode { key: stored.key.clone(), source })?;
                sealed.extend(secrets::references(&mut resource)?);
                edits.push(compile::Change::Upsert(resource));
            }
            Change::Delete(key) if base.objects.get(key).is_some() => {
                edits.push(compile::Change::Delete(key.clone()));
            }
            Change::Delete(_) => {}
        }
    }
    Ok((edits, sealed))
}

fn with_values(edit: compile::Change, values: &HashMap<Key, Secrets>) -> compile::Change {
    match edit {
        compile::Change::Upsert(resource) if !values.is_empty() => match values.get(&resource.key()) {
            Some(secrets) => compile::Change::Sealed(resource, secrets.clone()),
            None => compile::Change::Upsert(resource),
        },
        other => other,
    }
}

fn with(objects: &Objects, changes: &[Change]) -> Objects {
    let mut objects = objects.clone();
    for change in changes {
        match change {
            Change::Put(stored) => objects.insert(stored.key.clone(), Arc::new(stored.clone())),
            Change::Delete(key) => objects.remove(key),
        };
    }
    objects
}
