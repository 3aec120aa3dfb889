//! Who may be sent everything, and when: after a restart of the control plane, or of the whole fleet, a thousand data
//! planes may ask at once. A token bucket of objects bounds the work a second, so that small configurations go out at
//! once and large ones one after the other; places bound how many are under way at a time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Transfers under way at the same time.
const PLACES: usize = 64;
/// Objects a second: what about half a core encodes.
const RATE: f64 = 500_000.0;
/// Objects that may go out at once after a rest.
const BURST: f64 = 1_000_000.0;

/// The turns of this process.
#[derive(Debug)]
pub(super) struct Turns {
    places: Arc<Semaphore>,
    budget: Mutex<Budget>,
}

/// The token bucket, kept as the time at which it is full again.
#[derive(Debug)]
struct Budget {
    full_at: Instant,
}

impl Turns {
    /// All free.
    pub(super) fn new() -> Self {
        Turns {
            places: Arc::new(Semaphore::new(PLACES)),
            budget: Mutex::new(Budget { full_at: Instant::now() }),
        }
    }

    /// Takes so many objects from the budget now; ready when they may be sent and there is a place.
    pub(super) fn take(&self, objects: usize) -> impl Future<Output = Option<OwnedSemaphorePermit>> + use<> {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let due = budget.take(Instant::now(), objects);
        let places = Arc::clone(&self.places);
        async move {
            sleep_until(due).await;
            // Never closed.
            places.acquire_owned().await.ok()
        }
    }
}

impl Budget {
    /// When so many objects may be sent: at once while the burst lasts. More than the burst has to wait no longer than
    /// for a full bucket.
    fn take(&mut self, now: Instant, objects: usize) -> Instant {
        let cost = Duration::from_secs_f64((objects as f64).min(BURST) / RATE);
        self.full_at = self.full_at.max(now) + cost;
        self.full_at.checked_sub(Duration::from_secs_f64(BURST / RATE)).map_or(now, |due| due.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut budget = Budget { full_at: now };
        let wait =
            |budget: &mut Budget, at, objects| budget.take(at, objects).duration_since(at).as_secs_f64();
        for n in 0..10 {
            assert!(wait(&mut budget, now, 100_000) < 0.001, "transfer {n} of the burst");
        }
        assert!((wait(&mut budget, now, 100_000) - 0.2).abs() < 0.001);
        assert!((wait(&mut budget, now, 100_000) - 0.4).abs() < 0.001);
        // After as long as it takes to fill it, the burst is there again, and no more than that.
        let later = now + Duration::from_secs(60);
        assert!(
            wait(&mut budget, later, 5_000_000) < 0.001,
            "larger than the burst: a full bucket is enough"
        );
        assert!((wait(&mut budget, later, 1) - 0.000_002).abs() < 0.001);
        assert!((wait(&mut budget, later, 500_000) - 1.0).abs() < 0.001);
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let turns = Turns::new();
        let mut taken = Vec::new();
        for _ in 0..PLACES {
            taken.push(turns.take(1).await);
        }
        let mut next = std::pin::pin!(turns.take(1));
        let waits = std::future::poll_fn(|cx| std::task::Poll::Ready(next.as_mut().poll(cx).is_pending()));
        assert!(waits.await);
        drop(taken);
        assert!(next.await.is_some());
    }
}
