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
        if listener.is_none() {
            listener = listen(&pool).await;
        }
        // After the LISTEN, so that nothing falls in between.
        let position = match tokio::time::timeout(ANSWER, position(&pool)).await {
            Ok(position) => position,
            Err(_) => Err(StoreError::Unavailable("no answer from the database within 3 s".to_owned())),
        };
        down = watching.saw_poll(position, down);
        listener = wait(listener).await;
    }
}

async fn position(pool: &PgPool) -> Result<Position, StoreError> {
    objects::position(&mut *pool.acquire().await?).await
}

async fn listen(pool: &PgPool) -> Option<PgListener> {
    let start = async {
        let mut listener = PgListener::connect_with(pool).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok::<_, sqlx::Error>(listener)
    };
    // Why it failed is told by the poll that follows.
    tokio::time::timeout(ANSWER, start).await.ok()?.ok()
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
