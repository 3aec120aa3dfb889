//! A task that ends with its owner, so that dropping the owner leaves nothing running behind.

use tokio::task::JoinHandle;

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
