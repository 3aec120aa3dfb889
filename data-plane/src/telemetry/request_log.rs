//! The request log: one JSON object a line for each request, to standard output or a file; off by default.
//! Workers format their line and append it to one bounded buffer; a thread of its own writes it out, so that a slow
//! disk or reader never holds up a request. What does not fit is dropped and counted.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_engine::reject::Reason;
use serde::{Serialize, Serializer};

use crate::config::AccessLog;

/// Bytes that may wait for the writer; beyond it lines are dropped.
const MAX_BUFFER_BYTES: usize = 4 << 20;

/// One request, as its line shows it. Borrowed: nothing is copied unless the log is on.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record<'a> {
    /// `X-Request-ID`, as sent upstream and returned.
    pub request_id: &'a str,
    /// Revision of the snapshot that the request was served by.
    pub revision: u64,
    /// `namespace/name`.
    pub listener: &'a str,
    /// `namespace/name`; null when none matched.
    pub route: Option<&'a str>,
    /// As received.
    pub method: &'a str,
    /// Host asked for, without port.
    pub host: &'a str,
    /// Normalised path, without query (which may hold secrets).
    pub path: &'a str,
    /// Status sent; 0: the client went away before one could be.
    pub status: u16,
    /// Slug; null when a response of the upstream, or of a `respond` or `redirect` route, got to the client whole.
    #[serde(serialize_with = "slug")]
    pub reason: Option<Reason>,
    /// Request head and body.
    pub bytes_received: u64,
    /// Response head and body.
    pub bytes_sent: u64,
    /// First byte of the request to last byte of the response.
    #[serde(rename = "durationMs", serialize_with = "millis")]
    pub duration: Duration,
    /// `namespace/name`; null when none was asked.
    pub upstream: Option<&'a str>,
    /// Address of the last target tried; null when none was.
    pub target: Option<&'a str>,
    /// Client address, after `trustedProxies`.
    pub client: IpAddr,
}

fn slug<S: Serializer>(reason: &Option<Reason>, to: S) -> Result<S::Ok, S::Error> {
    reason.map(Reason::slug).serialize(to)
}

fn millis<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
    // Microseconds are what the clock is good for.
    to.serialize_f64(duration.as_micros() as f64 / 1e3)
}

/// The record with its time in front.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    record: &'a Record<'a>,
}

/// Where lines go. Cheap to ask [`RequestLog::enabled`]; dropping the last handle writes out what is buffered.
#[derive(Debug)]
pub struct RequestLog {
    on: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    dropped: u64,
    reopen: bool,
    closed: bool,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestLog {
    /// A log that writes nothing.
    pub const fn off() -> Self {
        RequestLog { on: None }
    }

    /// Opens the log and starts its writer.
    ///
    /// # Errors
    /// When the file cannot be opened for appending, or the system refuses a thread.
    pub fn start(to: &AccessLog) -> io::Result<Self> {
        let sink = match to {
            AccessLog::Off => return Ok(RequestLog::off()),
            AccessLog::Stdout => Sink::Stdout,
            AccessLog::File(path) => Sink::File(open(path)?, path.clone()),
        };
        Self::start_with(sink)
    }

    fn start_with(sink: Sink) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("request-log".to_owned()).spawn(move || run(&theirs, sink))?;
        Ok(RequestLog { on: Some(Writer { shared, thread: Some(thread) }) })
    }

    /// Whether a record is worth filling.
    pub const fn enabled(&self) -> bool {
        self.on.is_some()
    }

    /// Appends one line, or drops it when the writer is too far behind. Never blocks on I/O.
    pub fn write(&self, record: &Record<'_>) {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let Some(writer) = &self.on else { return };
        SCRATCH.with_borrow_mut(|line| {
            line.clear();
            let time = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string();
            serde_json::to_writer(&mut *line, &Line { time, record }).expect("plain data written to memory");
            line.push(b'\n');
            let mut pending = writer.shared.pending();
            if pending.lines.len() + line.len() > MAX_BUFFER_BYTES {
                pending.dropped += 1;
                return;
            }
            let idle = pending.lines.is_empty();
            pending.lines.extend_from_slice(line);
            drop(pending);
            if idle {
                writer.shared.wake.notify_one();
            }
        });
    }

    /// Opens the file anew, so that a rotated one is let go.
    pub fn reopen(&self) {
        if let Some(writer) = &self.on {
            writer.shared.pending().reopen = true;
            writer.shared.wake.notify_one();
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.pending().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // It ends by itself once the buffer is out; a panic in it has been reported by its own hook.
            let _ended = thread.join();
        }
    }
}

enum Sink {
    Stdout,
    File(File, PathBuf),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Sink {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(lines)?;
                out.flush()
            }
            Sink::File(file, _) => file.write_all(lines),
            #[cfg(test)]
            Sink::Test(out) => out.write_all(lines),
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(file, path) = self {
            match open(path) {
                Ok(new) => *file = new,
                Err(error) => {
                    tracing::error!(path = %path.display(), %error, "cannot reopen the request log: writing on to the old file");
                }
            }
        }
    }
}

/// The writer thread: swaps the full buffer against its empty one, writes without the lock.
fn run(shared: &Shared, mut sink: Sink) {
    let mut lines = Vec::new();
    let mut failing = false;
    loop {
        let (dropped, reopen, closed) = {
            let mut pending = shared.pending();
            while pending.lines.is_empty() && !pending.reopen && !pending.closed {
                pending = shared.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut lines, &mut pending.lines);
            (std::mem::take(&mut pending.dropped), std::mem::take(&mut pending.reopen), pending.closed)
        };
        if dropped > 0 {
            tracing::warn!(dropped, "request log lines dropped: the reader or disk is too slow");
        }
        match sink.write(&lines) {
            Ok(()) => failing = false,
            // Once per outage, not once per request.
            Err(error) if !failing => {
                failing = true;
                tracing::error!(%error, "cannot write the request log: its lines are lost until that works again");
            }
            Err(_) => {}
        }
        lines.clear();
        if reopen {
            sink.reopen();
        }
        if closed && shared.pending().lines.is_empty() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
