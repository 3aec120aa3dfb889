//! Chores: what has to be done now and then and by one replica only. History is cut to what is to be kept, data planes
//! that are long gone are forgotten. On PostgreSQL replicas agree through the store on who does them; on SQLite there
//! is one anyway. Nothing that serves depends on it: without a leader the store grows, that is all.
//!
//! Invariant: a chore is done under the fence of whoever leads, in one transaction with the check that it is still the
//! newest. A leader that was paused, and replaced meanwhile, does nothing when it wakes up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::store::{Fence, Retention, Store, StoreError};
use crate::telemetry::Metrics;

/// How often a replica asks whether it leads; the store gives the chores of one that does not to another.
const LOOK: Duration = Duration::from_secs(3);
/// Longest time between two rounds of chores.
const ROUND: Duration = Duration::from_secs(60);
/// Part of the kept history that may lie beyond it until the next round.
const SLACK: u64 = 10;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chores {
    /// Which history is kept.
    pub history: Retention,
    /// Data planes that were not seen for so long are forgotten.
    pub forget_nodes: Duration,
}

/// Does the chores, when it is this replica's turn, until cancelled; gives the turn away at the end.
pub async fn run(store: Arc<dyn Store>, chores: Chores, metrics: Arc<Metrics>, stop: CancellationToken) {
    let mut leader = Leader { store, chores, metrics, fence: None, round: None, failing: false };
    while stop.run_until_cancelled(leader.look()).await.is_some() {
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            break;
        }
    }
    leader.store.step_down().await;
}

struct Leader {
    store: Arc<dyn Store>,
    chores: Chores,
    metrics: Arc<Metrics>,
    /// While this replica leads.
    fence: Option<Fence>,
    /// The last round: when, and the head at it.
    round: Option<(Instant, u64)>,
    failing: bool,
}

impl Leader {
    async fn look(&mut self) {
        let outcome = match self.store.lead().await {
            Ok(fence) => {
                self.turn(fence);
                self.work().await
            }
            // Whether it still leads, the next chore would find out.
            Err(error) => Err(error),
        };
        match outcome {
            Ok(()) => self.failing = false,
            Err(StoreError::Deposed) => {
                self.store.step_down().await;
                self.turn(None);
            }
            Err(error) if self.failing => tracing::debug!(%error, "still cannot do the chores"),
            Err(error) => {
                self.failing = true;
                tracing::warn!(%error, "cannot do the chores: history and data planes that are gone are kept");
            }
        }
    }

    fn turn(&mut self, fence: Option<Fence>) {
        if fence == self.fence {
            return;
        }
        match fence {
            Some(Fence(fence)) => tracing::info!(fence, "this replica does the chores"),
            None => tracing::info!("another replica does the chores"),
        }
        self.metrics.leader.set(i64::from(fence.is_some()));
        self.fence = fence;
        self.round = None;
    }

    async fn work(&mut self) -> Result<(), StoreError> {
        let Some(fence) = self.fence else { return Ok(()) };
        let head = self.store.watch().borrow().revision;
        let slack = (self.chores.history.revisions / SLACK).max(1);
        if self.round.is_some_and(|(at, before)| at.elapsed() < ROUND && head < before.saturating_add(slack))
        {
            return Ok(());
        }
        loop {
            let done = self.store.compact(fence, self.chores.history).await?;
            if done.changes > 0 || done.secrets > 0 {
                let (oldest, changes, secrets) = (done.oldest, done.changes, done.secrets);
                tracing::info!(oldest, changes, secrets, "dropped what history does not keep");
            }
            if !done.more {
                break;
            }
        }
        let forgotten = self.store.forget_nodes(fence, self.chores.forget_nodes).await?;
        if forgotten > 0 {
            tracing::info!(forgotten, "forgot data planes that are long gone");
        }
        self.round = Some((Instant::now(), head));
        Ok(())
    }
}
