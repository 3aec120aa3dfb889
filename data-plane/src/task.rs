//! A task that ends with its owner, so that dropping the owner leaves nothing running behind; and work that stays
//! behind the workers.

use std::thread;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Niceness (setpriority(2)): whoever has the usual one goes first when it wakes; on a core that is never idle it still
/// gets a tenth, so that its work has an end.
const BEHIND: i32 = 10;

/// Aborts its task when dropped.
#[derive(Debug)]
pub(crate) struct Task(JoinHandle<()>);

impl Task {
    /// Starts it on the calling runtime.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Task(tokio::spawn(work))
    }

    /// Whether it is over.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Ends it at its next await and waits until what it held is dropped.
    pub(crate) async fn stop(mut self) {
        self.0.abort();
        let _aborted = (&mut self.0).await;
    }

    /// Waits for its own end.
    pub(crate) async fn ended(mut self) {
        let _ended = (&mut self.0).await;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does work that takes long and that nobody waits for, on a thread of its own that gives way to the workers: where
/// they share a core with it, a request does not wait for the end of its turn. It must hold no lock that others take.
/// `None`: no thread could be had, or it panicked.
pub(crate) async fn behind<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (done, outcome) = oneshot::channel();
    let body = move || {
        // For this thread alone, on Linux. Where it is not allowed, it is one among others; who began lower stays there.
        let own = rustix::process::getpriority_process(None).unwrap_or_default();
        let _same = rustix::process::setpriority_process(None, own.max(BEHIND));
        // Nobody waits any more: that was a task that was stopped.
        let _unheard = done.send(work());
    };
    thread::Builder::new().name("behind".to_owned()).spawn(body).ok()?;
    outcome.await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("it can be asked")
    }

    #[tokio::test]
    async fn what_stays_behind_gives_way_and_nobody_else_does() {
        let before = nice();
        assert_eq!(behind(nice).await, Some(before.max(BEHIND)));
        assert_eq!((nice(), tokio::task::spawn_blocking(nice).await.expect("it ends")), (before, before));
    }

    #[tokio::test]
    async fn a_panic_behind_is_no_answer() {
        assert_eq!(behind(|| panic!("on purpose")).await, None::<()>);
    }
}
