//! The request log: one JSON object a line for each request, to standard output or a file; off by default.
//!
//! A worker writes its lines into a batch of its own, without locks or system calls, and hands it over once it is full
//! or `FLUSH_AFTER` old. A thread of its own writes the batches out, so that a slow disk or reader never holds up a
//! request: what does not fit the bounded queue between them is dropped and counted.
//!
//! Invariant: the lines of one worker keep their order; a worker that ends hands over what it has, and the last handle
//! waits until that is written.

mod line;
mod writer;

use std::cell::RefCell;
use std::future::pending;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::config::AccessLog;
use crate::telemetry::Metrics;
use line::Clock;
pub(crate) use line::Record;
use writer::{Batch, Sink, Writer};

/// A batch that has so many bytes is handed over: about a hundred lines.
const FULL: usize = 32 << 10;
/// How long a line waits for others.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

/// Where lines go. The file is closed when the last handle, this or a worker's, is dropped.
#[derive(Debug)]
pub struct RequestLog {
    writer: Option<Arc<Writer>>,
}

impl RequestLog {
    /// A log that writes nothing.
    #[cfg(test)]
    pub(crate) const fn off() -> Self {
        RequestLog { writer: None }
    }

    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the system refuses a thread.
    pub fn start(to: &AccessLog, metrics: &Arc<Metrics>) -> io::Result<Self> {
        let writer = match Sink::open(to)? {
            Some(sink) => Some(Arc::new(Writer::start(sink, Arc::clone(metrics))?)),
            None => None,
        };
        Ok(RequestLog { writer })
    }

    /// One worker's end of it.
    pub(crate) fn worker(&self) -> Rc<WorkerLog> {
        let on = self.writer.as_ref().map(|writer| On {
            batch: RefCell::new(writer.spare()),
            clock: Clock::default(),
            begun: Notify::new(),
            writer: Arc::clone(writer),
        });
        Rc::new(WorkerLog { on })
    }

    /// Opens the file anew, so that a rotated one is let go. What workers have not handed over yet goes to the new one.
    pub fn reopen(&self) {
        if let Some(writer) = &self.writer {
            writer.reopen();
        }
    }
}

/// A worker's end of the log.
#[derive(Debug)]
pub(crate) struct WorkerLog {
    on: Option<On>,
}

#[derive(Debug)]
struct On {
    batch: RefCell<Batch>,
    clock: Clock,
    /// The batch has its first line.
    begun: Notify,
    writer: Arc<Writer>,
}

impl WorkerLog {
    /// Whether a record is worth filling.
    pub(crate) const fn enabled(&self) -> bool {
        self.on.is_some()
    }

    /// Adds one line.
    #[inline(never)]
    pub(crate) fn write(&self, record: &Record<'_>) {
        let Some(on) = &self.on else { return };
        let mut batch = on.batch.borrow_mut();
        if batch.lines == 0 {
            on.begun.notify_one();
        }
        line::push(record, &on.clock, &mut batch.bytes);
        batch.lines += 1;
        if batch.bytes.len() >= FULL {
            on.writer.hand_over(&mut batch);
        }
    }

    /// Hands over what has waited long enough, for ever.
    pub(crate) async fn flush(self: Rc<Self>) {
        let Some(on) = &self.on else { return pending().await };
        loop {
            on.begun.notified().await;
            tokio::time::sleep(FLUSH_AFTER).await;
            on.hand_over();
        }
    }
}

impl On {
    fn hand_over(&self) {
        let mut batch = self.batch.borrow_mut();
        if batch.lines > 0 {
            self.writer.hand_over(&mut batch);
        }
    }
}

impl Drop for On {
    fn drop(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
mod tests;
