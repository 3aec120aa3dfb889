//! Waiting for a state or an event: the only place in the harness that looks at a clock.

use std::fmt::Debug;
use std::future::Future;
use std::time::{Duration, Instant};

use crate::PATIENCE;

/// Between two looks; short against anything measured here, long enough to leave the cores to what is tested.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits for an event.
///
/// # Errors
/// After [`PATIENCE`], naming what was waited for.
pub async fn within<T>(what: &str, event: impl Future<Output = T>) -> anyhow::Result<T> {
    match tokio::time::timeout(PATIENCE, event).await {
        Ok(value) => Ok(value),
        Err(_) => anyhow::bail!("waited {PATIENCE:?} for {what}"),
    }
}

/// Looks until `look` gives a value, and returns it.
///
/// # Errors
/// After [`PATIENCE`], naming what was waited for and what the last look saw.
pub async fn until<T, E, F>(what: &str, look: impl FnMut() -> F) -> anyhow::Result<T>
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    until_within(PATIENCE, what, look).await
}

/// The same for what may take longer.
///
/// # Errors
/// After `patience`, naming what was waited for and what the last look saw.
pub async fn until_within<T, E, F>(
    patience: Duration,
    what: &str,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let deadline = Instant::now() + patience;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() > deadline => {
                anyhow::bail!("waited {patience:?} for {what}; last seen: {last:?}")
            }
            Err(_) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}
