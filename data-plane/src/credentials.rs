//! The lane of credentials in the data plane: takes in what the stream brings of them, puts it into the engine's table of
//! keys, says what is held, and keeps it on disk.
//!
//! Only a data plane whose configuration asks for keys takes part: others would hold for nothing what takes memory and
//! bandwidth by the million. All of them take all keys, whatever their group: there is one sum and one encoding for all,
//! and digests tell nothing.
//!
//! Invariants: a piece works from the moment it is taken in; while the first transaction is not complete, an unknown key
//! is not called wrong (503 instead of 401); what is not needed any more is forgotten, so that it cannot come back stale.

mod journal;

use std::sync::Arc;

use gateway_engine::engine::Engine;
use gateway_engine::identity::Keys;
use gateway_proto::credential::{Malformed, read};
use gateway_proto::wire;

use crate::task::Task;
pub(crate) use journal::Journal;
use journal::Writer;

/// What the stream brings of credentials.
#[derive(Debug)]
pub(crate) struct Lane {
    keys: Arc<Keys>,
    /// Where the last whole transaction led; an empty epoch: nowhere yet.
    target: wire::Cursor,
    /// The configuration asks for keys.
    is_wanted: bool,
    writer: Writer,
}

impl Lane {
    /// With what is on disk, if the configuration that came from there asks for keys. Beside it the task that writes,
    /// which ends once the lane is dropped and everything is written.
    pub(crate) async fn restore(journal: Journal, engine: &Engine) -> (Self, Task) {
        let keys = Arc::clone(engine.keys());
        let mut target = wire::Cursor::default();
        if engine.asks_for_keys() {
            let (journal, into) = (journal.clone(), Arc::clone(&keys));
            let restored = tokio::task::spawn_blocking(move || journal.replay(|chunk| take_in(&into, chunk)));
            if let Some(kept) = restored.await.expect("replaying does not panic") {
                tracing::info!(
                    keys = keys.len(),
                    version = kept.revision,
                    "taking the API keys that are on disk"
                );
                keys.set_complete(true);
                target = kept;
            }
        }
        let (writer, writing) = Writer::start(journal, Arc::clone(&keys));
        (Lane { keys, target, is_wanted: engine.asks_for_keys(), writer }, writing)
    }

    /// Looks whether a configuration asks for keys; what to say if that is something else than before.
    pub(crate) fn follow(&mut self, engine: &Engine) -> Option<wire::CredentialsHeld> {
        if engine.asks_for_keys() == self.is_wanted {
            return None;
        }
        self.is_wanted = engine.asks_for_keys();
        if !self.is_wanted {
            self.keys.clear();
            self.target = wire::Cursor::default();
            self.writer.forget();
        }
        Some(self.held())
    }

    /// What is held, as it is told; `None`: nothing is needed.
    pub(crate) fn cursor(&self) -> Option<wire::Cursor> {
        let root_hash = self.keys.root().to_bytes().to_vec();
        self.is_wanted.then(|| wire::Cursor { root_hash, ..self.target.clone() })
    }

    /// The same as a message of its own.
    pub(crate) fn held(&self) -> wire::CredentialsHeld {
        wire::CredentialsHeld { cursor: self.cursor(), sums: Vec::new() }
    }

    /// The same with the sums of the shards.
    pub(crate) fn compared(&self) -> wire::CredentialsHeld {
        wire::CredentialsHeld { sums: self.keys.sums().to_bytes(), ..self.held() }
    }

    /// Takes a piece in; what to answer when it was the last of a transaction.
    ///
    /// # Errors
    /// When it makes no sense: close the stream.
    pub(crate) fn receive(
        &mut self,
        chunk: wire::CredentialsChunk,
    ) -> Result<Option<wire::CredentialsHeld>, Malformed> {
        if !self.is_wanted {
            // Sent before the server heard that.
            return Ok(None);
        }
        take_in(&self.keys, &chunk)?;
        let target = chunk.target.clone().unwrap_or_default();
        if self.target.epoch != target.epoch {
            // Until it is whole it stands at the beginning, and sums tell what there is already.
            self.target = wire::Cursor { epoch: target.epoch.clone(), ..Default::default() };
        }
        let last = chunk.last;
        if last {
            tracing::debug!(version = target.revision, "API keys taken in");
            self.target = wire::Cursor { root_hash: Vec::new(), ..target };
            self.keys.set_complete(true);
        }
        self.writer.append(chunk, &self.target);
        Ok(last.then(|| self.held()))
    }
}

fn take_in(keys: &Keys, chunk: &wire::CredentialsChunk) -> Result<(), Malformed> {
    let (mut grants, revoked) = read(chunk)?;
    for shard in &chunk.shards {
        let shard = *shard as usize;
        let (of_shard, rest) = grants.into_iter().partition(|grant| grant.digest.shard() == shard);
        keys.replace(shard, of_shard);
        grants = rest;
    }
    keys.change(grants, &revoked);
    Ok(())
}
