//! Who may be sent everything, and when: after a restart of the control plane, or of the whole fleet, a thousand data
//! planes may ask at once. They stand in line. A token bucket of objects bounds the work a second, so that small
//! configurations go out at once and large ones one after the other; places bound how many are under way at a time.
//!
//! Invariant: only what is sent costs. Who leaves the line has paid nothing, and a turn that is not used is paid back;
//! otherwise data planes that come and go would run up a debt that all others wait for.

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
    /// Held by the first of those who wait.
    line: tokio::sync::Mutex<()>,
    places: Arc<Semaphore>,
    budget: Mutex<Budget>,
}

/// The token bucket, kept as the time at which it is full again.
#[derive(Debug)]
struct Budget {
    full_at: Instant,
}

/// One transfer: its place, which is given back when dropped, and what it paid, if it was not used.
#[derive(Debug)]
pub(super) struct Place {
    turns: Arc<Turns>,
    unused: Duration,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Turns {
    /// All free.
    pub(super) fn new() -> Self {
        Turns {
            line: tokio::sync::Mutex::default(),
            places: Arc::new(Semaphore::new(PLACES)),
            budget: Mutex::new(Budget { full_at: Instant::now() }),
        }
    }

    /// Waits in line until so many objects may be sent and there is a place; takes both.
    pub(super) async fn take(self: Arc<Self>, objects: usize) -> Place {
        let cost = cost(objects);
        let first = self.line.lock().await;
        let due = self.budget(|budget| budget.due(Instant::now(), cost));
        sleep_until(due).await;
        // Never closed.
        let permit = Arc::clone(&self.places).acquire_owned().await.ok();
        self.budget(|budget| budget.pay(Instant::now(), cost));
        drop(first);
        Place { turns: self, unused: cost, _permit: permit }
    }

    fn budget<T>(&self, with: impl FnOnce(&mut Budget) -> T) -> T {
        with(&mut self.budget.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// The transfer begins.
    pub(super) const fn begin(&mut self) {
        self.unused = Duration::ZERO;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.turns.budget(|budget| budget.pay_back(self.unused));
    }
}

/// Of so many objects, as time that the bucket takes to fill by as much: at most a full one.
fn cost(objects: usize) -> Duration {
    Duration::from_secs_f64((objects as f64).min(BURST) / RATE)
}

impl Budget {
    /// When there is enough in the bucket.
    fn due(&self, now: Instant, cost: Duration) -> Instant {
        let full_at = self.full_at.max(now) + cost;
        full_at.checked_sub(Duration::from_secs_f64(BURST / RATE)).map_or(now, |due| due.max(now))
    }

    fn pay(&mut self, now: Instant, cost: Duration) {
        self.full_at = self.full_at.max(now) + cost;
    }

    /// A bucket that is full already takes no more.
    fn pay_back(&mut self, cost: Duration) {
        self.full_at = self.full_at.checked_sub(cost).unwrap_or(self.full_at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_rate() {
        let now = Instant::now();
        let mut budget = Budget { full_at: now };
        let wait = |budget: &mut Budget, at: Instant, objects| {
            let due = budget.due(at, cost(objects));
            budget.pay(due, cost(objects));
            due.duration_since(at).as_secs_f64()
        };
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

    async fn is_waiting(turn: std::pin::Pin<&mut impl Future<Output = Place>>) -> bool {
        let mut turn = Some(turn);
        std::future::poll_fn(|cx| {
            std::task::Poll::Ready(turn.take().is_some_and(|turn| turn.poll(cx).is_pending()))
        })
        .await
    }

    #[tokio::test]
    async fn places_are_given_back() {
        let turns = Arc::new(Turns::new());
        let mut taken = Vec::new();
        for _ in 0..PLACES {
            taken.push(Arc::clone(&turns).take(1).await);
        }
        let mut next = std::pin::pin!(Arc::clone(&turns).take(1));
        assert!(is_waiting(next.as_mut()).await);
        drop(taken);
        next.await;
    }

    #[tokio::test]
    async fn who_leaves_the_line_or_does_not_use_its_turn_costs_the_others_nothing() {
        let turns = Arc::new(Turns::new());
        let all = BURST as usize;
        let wait = || {
            let now = Instant::now();
            turns.budget(|budget| budget.due(now, cost(all))).duration_since(now).as_secs_f64()
        };
        drop(Arc::clone(&turns).take(all).await);
        assert!(wait() < 0.001, "nothing was sent");
        // One is sent, and so the others have to wait: until they give up.
        Arc::clone(&turns).take(all).await.begin();
        let mut line: Vec<_> = (0..100).map(|_| Box::pin(Arc::clone(&turns).take(all))).collect();
        for waiting in &mut line {
            assert!(is_waiting(waiting.as_mut()).await);
        }
        drop(line);
        assert!(wait() <= BURST / RATE, "no more than what was sent");
    }
}
