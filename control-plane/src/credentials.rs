//! The keys that are good, in memory: what data planes that ask for keys are brought to. Follows the store's counter of
//! credentials, which no revision moves; digests only.
//!
//! What a version touched is remembered, so that a data plane that was away gets what changed; one that was away for
//! longer is asked for its sums, shard by shard.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gateway_engine::identity::Keys;
use gateway_proto::buckets::{BucketSet, Buckets};
use gateway_proto::credential::{Grant, KeyDigest, PieceBuilder, SHARDS};
use gateway_proto::wire;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::publish::Cursor;
use crate::state::blocking;
use crate::store::{CredentialHead, Store, StoreError, TouchedKey};

/// Touches of keys that are remembered.
const MAX_TOUCHED: usize = 200_000;
/// Versions that a new process asks the store about.
const RECALLED: u64 = 1_000;
/// Wait before the store is asked again after it failed.
const RETRY: Duration = Duration::from_secs(1);
/// Bytes of a piece, about: what is in a slow client's way at once.
const PIECE: usize = 60 << 10;

/// The keys of this replica.
#[derive(Debug)]
pub struct Credentials {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    past: Mutex<Past>,
    head: watch::Sender<Cursor>,
}

/// What happened, version by version.
#[derive(Debug, Default)]
struct Past {
    /// After this version everything is known.
    since: u64,
    touched: VecDeque<(u64, KeyDigest)>,
}

impl Credentials {
    /// Reads everything.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn load(store: Arc<dyn Store>) -> Result<Arc<Self>, StoreError> {
        let keys = Arc::new(Keys::default());
        let head = fill(&*store, &keys).await?;
        // Data planes may be some versions behind, as after a restart of this process.
        let since = head.version.saturating_sub(RECALLED);
        let changes = store.key_changes_since(since).await?;
        let past = match changes.touched.filter(|_| changes.head == head) {
            Some(touched) => Past { since, touched: VecDeque::new() }.with(touched, head.version),
            None => Past { since: head.version, touched: VecDeque::new() },
        };
        let head = watch::Sender::new(cursor(head, &keys));
        Ok(Arc::new(Credentials { store, keys, past: Mutex::new(past), head }))
    }

    /// Where they stand, and every change of it.
    pub fn watch(&self) -> watch::Receiver<Cursor> {
        self.head.subscribe()
    }

    /// Where they stand.
    pub fn head(&self) -> Cursor {
        *self.head.borrow()
    }

    /// Sums of the shards.
    pub fn sums(&self) -> Buckets {
        self.keys.sums()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// There is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What was touched after a version; `None`: that is not known any more.
    pub fn touched_since(&self, version: u64) -> Option<Vec<KeyDigest>> {
        let past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
        if version < past.since {
            return None;
        }
        let from = past.touched.partition_point(|(touched, _)| *touched <= version);
        let touched: BTreeSet<KeyDigest> = past.touched.range(from..).map(|(_, digest)| *digest).collect();
        Some(touched.into_iter().collect())
    }

    /// Follows the store until cancelled.
    pub async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut heads = self.store.watch_credentials();
        let mut is_down = false;
        loop {
            let seen = *heads.borrow_and_update();
            if let Err(error) = self.catch_up(seen).await {
                if !std::mem::replace(&mut is_down, true) {
                    tracing::error!(%error, version = seen.version, "cannot take in credentials, data planes keep those before");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            is_down = false;
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn catch_up(&self, seen: CredentialHead) -> Result<(), StoreError> {
        let held = self.head();
        if (held.epoch, held.revision) == (seen.epoch, seen.version) {
            return Ok(());
        }
        let changes = self.store.key_changes_since(held.revision).await?;
        let same = changes.head.epoch == held.epoch && changes.head.version >= held.revision;
        match changes.touched.filter(|_| same) {
            Some(touched) => {
                let (keys, version) = (Arc::clone(&self.keys), changes.head.version);
                let touched = blocking(move || {
                    take_in(&keys, &touched);
                    touched
                });
                let touched = touched.await;
                let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
                *past = std::mem::take(&mut *past).with(touched, version);
                drop(past);
                self.head.send_replace(cursor(changes.head, &self.keys));
            }
            None => {
                tracing::warn!("the store was replaced, or left behind for long: loading the keys anew");
                let head = fill(&*self.store, &self.keys).await?;
                let mut past = self.past.lock().unwrap_or_else(PoisonError::into_inner);
                *past = Past { since: head.version, touched: VecDeque::new() };
                drop(past);
                self.head.send_replace(cursor(head, &self.keys));
            }
        }
        Ok(())
    }

    /// A piece with what these keys are now, the next of them taken from the front.
    pub fn piece_of_touched(&self, left: &mut VecDeque<KeyDigest>) -> PieceBuilder {
        let mut piece = PieceBuilder::default();
        while piece.size() < PIECE
            && let Some(digest) = left.pop_front()
        {
            match self.keys.grant(&digest) {
                Some(grant) => piece.grant(&digest, &grant.consumer, grant.expires),
                None => piece.revoke(&digest),
            }
        }
        piece
    }

    /// A piece with all of these shards, the next of them taken from the front.
    pub fn piece_of_shards(&self, left: &mut VecDeque<usize>) -> PieceBuilder {
        let mut piece = PieceBuilder::default();
        while piece.size() < PIECE
            && let Some(shard) = left.pop_front()
        {
            piece.shard(shard);
            for Grant { digest, consumer, expires } in self.keys.shard(shard) {
                piece.grant(&digest, &consumer, expires);
            }
        }
        piece
    }
}

impl Past {
    fn with(mut self, touched: Vec<TouchedKey>, head: u64) -> Self {
        if touched.len() > MAX_TOUCHED {
            return Past { since: head, touched: VecDeque::new() };
        }
        self.touched.extend(touched.iter().map(|it| (it.version, it.digest)));
        while self.touched.len() > MAX_TOUCHED {
            // A version is known whole or not at all.
            self.since = self.touched.front().map_or(head, |(version, _)| *version);
            while self.touched.front().is_some_and(|(version, _)| *version <= self.since) {
                self.touched.pop_front();
            }
        }
        self
    }
}

/// All shards.
pub fn all_shards() -> VecDeque<usize> {
    (0..SHARDS).collect()
}

/// Those that differ.
pub fn shards(of: &BucketSet) -> VecDeque<usize> {
    of.iter().collect()
}

async fn fill(store: &dyn Store, keys: &Arc<Keys>) -> Result<CredentialHead, StoreError> {
    let mut all: Vec<Vec<Grant>> = vec![Vec::new(); SHARDS];
    let head = store.load_keys(&mut |grant| all[grant.digest.shard()].push(grant)).await?;
    let keys = Arc::clone(keys);
    blocking(move || all.into_iter().enumerate().for_each(|(shard, grants)| keys.replace(shard, grants)))
        .await;
    Ok(head)
}

fn take_in(keys: &Keys, touched: &[TouchedKey]) {
    let gone = touched.iter().filter(|it| it.grant.is_none()).map(|it| it.digest);
    keys.change(touched.iter().filter_map(|it| it.grant.clone()).collect(), &gone.collect::<Vec<_>>());
}

fn cursor(head: CredentialHead, keys: &Keys) -> Cursor {
    Cursor { epoch: head.epoch, revision: head.version, root: keys.root() }
}

/// A piece of the way to a head.
pub fn finish(piece: PieceBuilder, target: Cursor, last: bool) -> wire::CredentialsChunk {
    piece.finish(target.into(), last)
}
