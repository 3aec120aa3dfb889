//! The thread that writes the log out, and the queue to it. Whoever hands a batch over holds the lock for a few moves
//! of pointers; the thread writes without it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::FULL;
use crate::config::AccessLog;
use crate::telemetry::Metrics;

/// Bytes that may wait for the disk or the reader; beyond it batches are dropped.
pub(super) const MAX_WAITING: usize = 4 << 20;
/// What a batch holds before it grows: the last line begins below [`FULL`].
const ROOM: usize = FULL + (4 << 10);
/// Empty batches kept for reuse.
const MAX_SPARE: usize = 64;

/// How long the end of the process waits for a disk or reader that takes nothing.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// Lines of one worker.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// The way to the thread. Dropping it ends the thread, once what is there is written.
#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    pub(super) patience: Duration,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Batch>,
    /// Bytes of the batches that wait or are being written.
    held: usize,
    /// Empty, to be filled again.
    spare: Vec<Batch>,
    /// Lines dropped since that was last told.
    dropped: u64,
    reopen: bool,
    closed: bool,
    /// The thread has written everything.
    ended: bool,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn spare(&mut self) -> Batch {
        self.spare.pop().unwrap_or_else(|| Batch { bytes: Vec::with_capacity(ROOM), lines: 0 })
    }
}

impl Writer {
    pub(super) fn start(sink: Sink, metrics: Arc<Metrics>) -> io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), metrics });
        let theirs = Arc::clone(&shared);
        let body = move || run(&theirs, sink);
        // Not joined: it might be stuck in a write for ever. It says when it has ended.
        std::thread::Builder::new().name("request-log".to_owned()).spawn(body)?;
        Ok(Writer { shared, patience: LAST_PATIENCE })
    }

    /// An empty batch.
    pub(super) fn spare(&self) -> Batch {
        self.shared.queue().spare()
    }

    /// Takes the lines and leaves an empty batch. Drops them when the thread is too far behind. Never blocks on I/O.
    pub(super) fn hand_over(&self, batch: &mut Batch) {
        let mut queue = self.shared.queue();
        if queue.held + batch.bytes.len() > MAX_WAITING {
            queue.dropped += batch.lines;
            self.shared.metrics.request_log_dropped(batch.lines);
            batch.bytes.clear();
            batch.lines = 0;
            return;
        }
        queue.held += batch.bytes.len();
        let empty = queue.spare();
        queue.waiting.push(std::mem::replace(batch, empty));
        drop(queue);
        self.shared.wake.notify_one();
    }

    pub(super) fn reopen(&self) {
        self.shared.queue().reopen = true;
        self.shared.wake.notify_one();
    }

    /// Bytes that wait or are being written.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.shared.queue().held
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let mut queue = self.shared.queue();
        queue.closed = true;
        self.shared.wake.notify_all();
        let goes_on = |queue: &mut Queue| !queue.ended;
        let ended = self.shared.wake.wait_timeout_while(queue, self.patience, goes_on);
        let (queue, waited) = ended.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            tracing::warn!(
                bytes = queue.held,
                "request log left unwritten: its reader or disk takes nothing"
            );
        }
    }
}

/// Where the lines end up.
pub(super) enum Sink {
    Stdout,
    File(File, PathBuf),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

fn append_to(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Sink {
    /// `None`: the log is off.
    pub(super) fn open(to: &AccessLog) -> io::Result<Option<Self>> {
        Ok(match to {
            AccessLog::Off => None,
            AccessLog::Stdout => Some(Sink::Stdout),
            AccessLog::File(path) => Some(Sink::File(append_to(path)?, path.clone())),
        })
    }

    fn write(&mut self, batches: &[Batch]) -> io::Result<()> {
        match self {
            Sink::Stdout => write_all(&mut io::stdout().lock(), batches),
            Sink::File(file, _) => write_all(file, batches),
            #[cfg(test)]
            Sink::Test(out) => write_all(out, batches),
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(file, path) = self {
            match append_to(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot reopen the request log: writing on to the old file");
                }
            }
        }
    }
}

fn write_all(out: &mut impl Write, batches: &[Batch]) -> io::Result<()> {
    for batch in batches {
        out.write_all(&batch.bytes)?;
    }
    out.flush()
}

/// The thread: takes all that waits, writes it, gives the memory back.
fn run(shared: &Shared, mut sink: Sink) {
    let mut batches: Vec<Batch> = Vec::new();
    let mut failing = false;
    loop {
        let (dropped, reopen, closed) = {
            let mut queue = shared.queue();
            give_back(&mut batches, &mut queue);
            while queue.waiting.is_empty() && !queue.reopen && !queue.closed {
                queue = shared.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut batches, &mut queue.waiting);
            (std::mem::take(&mut queue.dropped), std::mem::take(&mut queue.reopen), queue.closed)
        };
        if dropped > 0 {
            tracing::warn!(dropped, "request log lines dropped: the reader or disk is too slow");
        }
        match sink.write(&batches) {
            Ok(()) => failing = false,
            Err(error) => {
                // Once per outage, not once per request.
                if !std::mem::replace(&mut failing, true) {
                    tracing::error!(%error, "cannot write the request log: its lines are lost until that works again");
                }
                shared.metrics.request_log_dropped(batches.iter().map(|batch| batch.lines).sum());
            }
        }
        if reopen {
            sink.reopen();
        }
        // Nobody is left who could hand over more.
        if closed {
            shared.queue().ended = true;
            shared.wake.notify_all();
            return;
        }
    }
}

fn give_back(written: &mut Vec<Batch>, queue: &mut Queue) {
    for mut batch in written.drain(..) {
        queue.held -= batch.bytes.len();
        // One that a huge line made grow is not kept.
        if queue.spare.len() < MAX_SPARE && batch.bytes.capacity() <= ROOM {
            batch.bytes.clear();
            queue.spare.push(Batch { lines: 0, ..batch });
        }
    }
}
