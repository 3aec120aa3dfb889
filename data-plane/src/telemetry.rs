//! What the data plane tells about itself: its own log, metrics and the request log.
//! Everything a request leaves behind is handed over once, at the end of its body, from one place in the proxy.

pub mod metrics;
pub mod request_log;

use std::io::IsTerminal as _;

pub use metrics::{Metrics, WorkerMetrics};
pub use request_log::RequestLog;

use crate::config::{Log, LogFormat};

/// Sends the process's own log to standard error. The second call in a process does nothing.
pub fn init(log: Log) {
    let out = std::io::stderr;
    let builder =
        tracing_subscriber::fmt().with_max_level(log.level).with_ansi(out().is_terminal()).with_writer(out);
    // An error only says that somebody installed a subscriber before: tests and `gatewayctl dev` do.
    let _already_set = match log.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.try_init(),
    };
}
