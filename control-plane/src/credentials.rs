//! The keys that are good, in memory: what data planes that ask for keys are brought to. Follows the store's counter of
//! credentials, which no revision moves; digests only.
//!
//! What a version touched is remembered once for all streams, which keep a place in it and read on page by page. A data
//! plane that was away gets what changed; one that was away for longer is asked for its sums, shard by shard.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
/// Touches of a page: more than a piece holds.
const PAGE: usize = PIECE / 32 + 1;

/// The keys of this replica.
#[derive(Debug)]
pub struct Credentials {
    store: Arc<dyn Store>,
    keys: Arc<Keys>,
    past: Mutex<Past>,
    head: watch::Sender<Cursor>,
}

/// What happened, version by version. Touches are numbered as they come, so that a place in them stays where it is while
/// old ones go and new ones come.
#[derive(Debug, Default)]
struct Past {
    /// After this version everything is known.
    since: u64,
    /// Number of the first touch that is remembered.
    first: u64,
    touched: VecDeque<(u64, KeyDigest)>,
}

/// A place among what happened: the number of the touch that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64);

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
        let mut past = Past { since, ..Past::default() };
        match changes.touched.filter(|_| changes.head == head) {
            Some(touched) => past.extend(&touched, head.version),
            None => past.forget(head.version),
        }
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

    /// Where what a version did not know begins; `None`: that is not known any more.
    pub fn after(&self, version: u64) -> Option<Place> {
        let past = self.past();
        let behind = || past.touched.partition_point(|(touched, _)| *touched <= version);
        (version >= past.since).then(|| Place(past.first + behind() as u64))
    }

    /// Behind everything that has happened.
    pub fn now(&self) -> Place {
        self.past().end()
    }

    /// Forgets what happened.
    #[cfg(test)]
    pub fn forget(&self) {
        self.past().forget(self.head().revision);
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
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
                self.past().extend(&touched, version);
                self.head.send_replace(cursor(changes.head, &self.keys));
            }
            None => {
                tracing::warn!("the store was replaced, or left behind for long: loading the keys anew");
                let head = fill(&*self.store, &self.keys).await?;
                self.past().forget(head.version);
                self.head.send_replace(cursor(head, &self.keys));
            }
        }
        Ok(())
    }

    /// A piece with what keys are now that were touched between two places, and the place where the next one begins.
    /// `None`: that is not known any more.
    pub fn piece_of_touched(&self, from: Place, upto: Place) -> Option<(PieceBuilder, Place)> {
        let page = self.past().page(from, upto)?;
        let mut piece = PieceBuilder::default();
        let mut next = from;
        let mut told = HashSet::with_capacity(page.len());
        for digest in page {
            if piece.size() >= PIECE {
                break;
            }
            next.0 += 1;
            if told.insert(digest) {
                match self.keys.grant(&digest) {
                    Some(grant) => piece.grant(&digest, &grant.consumer, grant.expires),
                    None => piece.revoke(&digest),
                }
            }
        }
        Some((piece, next))
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
    fn end(&self) -> Place {
        Place(self.first + self.touched.len() as u64)
    }

    /// The next touches between two places; `None`: they are forgotten.
    fn page(&self, from: Place, upto: Place) -> Option<Vec<KeyDigest>> {
        let at = |place: Place| {
            Some(usize::try_from(place.0.checked_sub(self.first)?).ok()?.min(self.touched.len()))
        };
        let (from, upto) = (at(from)?, at(upto)?);
        let range = from..upto.min(from + PAGE).max(from);
        Some(self.touched.range(range).map(|(_, digest)| *digest).collect())
    }

    /// Goes on at a version, with nothing known of how it came to that.
    fn forget(&mut self, head: u64) {
        // Whoever had not read to the end has missed something.
        *self = Past { since: head, first: self.end().0 + 1, touched: VecDeque::new() };
    }

    fn extend(&mut self, touched: &[TouchedKey], head: u64) {
        if touched.len() > MAX_TOUCHED {
            return self.forget(head);
        }
        self.touched.extend(touched.iter().map(|it| (it.version, it.digest)));
        while self.touched.len() > MAX_TOUCHED {
            // A version is known whole or not at all.
            self.since = self.touched.front().map_or(head, |(version, _)| *version);
            while self.touched.pop_front_if(|(version, _)| *version <= self.since).is_some() {
                self.first += 1;
            }
        }
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
