//! How a replica finds out what the others committed: `LISTEN` for speed, polling for certainty.
//! A notification only says "look"; nothing is read out of it, and losing one costs a second at most.

use std::sync::Arc;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgListener;

use super::dialect::CHANNEL;
use super::objects;
use crate::store::StoreError;
use crate::store::watching::{Position, Watching};

/// Between two looks while notifications come.
const LISTENING: Duration = Duration::from_secs(1);
/// And while they do not.
const DEAF: Duration = Duration::from_millis(250);
/// A server that hangs is as good as gone.
const ANSWER: Duration = Duration::from_secs(3);

/// Runs until it is aborted.
pub(super) async fn follow(pool: PgPool, watching: Arc<Watching>) {
    let mut listener = None;
    let mut down = false;
    loop {
        let position = match &listener {
            Some(_) => within(position(&pool)).await,
            None => match within(listen(&pool)).await {
                Ok(new) => {
                    listener = Some(new);
                    // After the LISTEN, so that nothing falls in between.
                    within(position(&pool)).await
                }
                // No connection to be had: the poll would wait for one just as long.
                Err(away @ StoreError::Unavailable(_)) => Err(away),
                Err(_) => within(position(&pool)).await,
            },
        };
        down = watching.saw_poll(position, down);
        listener = wait(listener).await;
    }
}

async fn within<T>(work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let late = || StoreError::Unavailable("no answer from the database within 3 s".to_owned());
    tokio::time::timeout(ANSWER, work).await.unwrap_or_else(|_| Err(late()))
}

async fn position(pool: &PgPool) -> Result<Position, StoreError> {
    objects::position(&mut *pool.acquire().await?).await
}

async fn listen(pool: &PgPool) -> Result<PgListener, StoreError> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    Ok(listener)
}

/// Waits for a notification or the next poll; gives the listener back if its connection still lives.
async fn wait(listener: Option<PgListener>) -> Option<PgListener> {
    let Some(mut listener) = listener else {
        tokio::time::sleep(DEAF).await;
        return None;
    };
    match tokio::time::timeout(LISTENING, listener.try_recv()).await {
        Err(_) => Some(listener),
        Ok(Ok(Some(_))) => {
            while listener.next_buffered().is_some() {}
            Some(listener)
        }
        Ok(Ok(None) | Err(_)) => None,
    }
}
