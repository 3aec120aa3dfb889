//! The right to do the chores: a SQLite file belongs to one process, which always has it. Handles of one process (tests,
//! replicas played in one) take it from each other.

use sqlx::SqlitePool;
use tokio::sync::Mutex;

use super::chores;
use crate::store::{Fence, StoreError};

/// This handle's right.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Option<Fence>>);

impl Seat {
    /// The fence; a new one if there is none.
    pub(super) async fn take(&self, pool: &SqlitePool) -> Result<Option<Fence>, StoreError> {
        let mut seat = self.0.lock().await;
        if seat.is_none() {
            *seat = Some(chores::claim(&mut *pool.acquire().await?).await?);
        }
        Ok(*seat)
    }

    /// Leaves the chores to whoever asks next.
    pub(super) async fn leave(&self) {
        *self.0.lock().await = None;
    }
}
