//! The right to do the chores: an advisory lock that belongs to a connection, for as long as that lives. A replica that
//! is paused, or whose host is gone, does not use its connection, and the server ends it: the lock is free then, and the
//! next that takes it counts the fence up.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection, PgPool, Row as _};
use tokio::sync::Mutex;

use super::chores;
use crate::store::{Fence, StoreError};

/// Advisory locks have numbers: this one is ours, in a database of ours.
const LOCK: i64 = 0x6761_7465_7761_7901;
/// A connection that is not used for so long is ended; it is used whenever somebody asks whether it still leads.
const ALIVE: &str = "SET idle_session_timeout = '10s'; SET application_name = 'gateway-control-plane chores'";
/// A server that hangs is as good as gone.
const ANSWER: Duration = Duration::from_secs(3);

/// This handle's place in the queue for the chores.
#[derive(Debug, Default)]
pub(super) struct Seat(Mutex<Option<Place>>);

#[derive(Debug)]
struct Place {
    connection: PgConnection,
    fence: Option<Fence>,
}

impl Seat {
    /// The fence, if the chores are ours; takes them if they are nobody's. A connection that does not answer is
    /// dropped, and with it the lock.
    pub(super) async fn take(&self, pool: &PgPool) -> Result<Option<Fence>, StoreError> {
        let mut seat = self.0.lock().await;
        let present = seat.take();
        let late = |_| StoreError::Unavailable("no answer from the database within 3 s".to_owned());
        let place = tokio::time::timeout(ANSWER, Place::look(present, pool)).await.map_err(late)??;
        let fence = place.fence;
        *seat = Some(place);
        Ok(fence)
    }

    /// Leaves the chores to whoever asks next.
    pub(super) async fn leave(&self) {
        if let Some(place) = self.0.lock().await.take() {
            // The server gives the lock back when the connection ends, however it does.
            let _ended = tokio::time::timeout(ANSWER, place.connection.close()).await;
        }
    }
}

impl Place {
    async fn look(present: Option<Place>, pool: &PgPool) -> Result<Place, StoreError> {
        let mut place = match present {
            Some(place) => place,
            None => {
                let mut connection = pool.acquire().await?.detach();
                connection.execute(ALIVE).await?;
                Place { connection, fence: None }
            }
        };
        if place.fence.is_some() {
            place.connection.ping().await?;
            return Ok(place);
        }
        let row = sqlx::query("SELECT pg_try_advisory_lock($1)").bind(LOCK).fetch_one(&mut place.connection);
        if row.await?.try_get(0)? {
            place.fence = Some(chores::claim(&mut place.connection).await?);
        }
        Ok(place)
    }
}
