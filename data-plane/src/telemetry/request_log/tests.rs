//! Tests of `request_log.rs`.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

fn record(path: &str) -> Record<'_> {
    Record {
        request_id: "r-1",
        revision: 7,
        listener: "default/public",
        route: Some("default/users"),
        method: "GET",
        host: "api.example.com",
        path,
        status: 503,
        reason: Some(Reason::NoHealthyTarget),
        bytes_received: 10,
        bytes_sent: 20,
        duration: Duration::from_micros(1_250),
        upstream: None,
        target: None,
        client: IpAddr::from([10, 0, 0, 1]),
    }
}

/// Tells when a write begins and waits until it may end.
struct Gate {
    began: SyncSender<usize>,
    go_on: Receiver<()>,
}

impl Write for Gate {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.began.send(lines.iter().filter(|&&byte| byte == b'\n').count()).map_err(io::Error::other)?;
        self.go_on.recv().map_err(io::Error::other)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_line_is_one_json_object_with_every_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.log");
    let log = RequestLog::start(&AccessLog::File(path.clone())).unwrap();
    log.write(&record("/a\"b\n"));
    drop(log);
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
    let time = line["time"].as_str().unwrap().to_owned();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 27, "{time}");
    let expected = serde_json::json!({
        "time": time, "requestId": "r-1", "revision": 7, "listener": "default/public", "route": "default/users",
        "method": "GET", "host": "api.example.com", "path": "/a\"b\n", "status": 503, "reason": "no_healthy_target",
        "bytesReceived": 10, "bytesSent": 20, "durationMs": 1.25, "upstream": null, "target": null, "client": "10.0.0.1",
    });
    assert_eq!(line, expected);
}

#[test]
fn after_a_reopen_lines_go_to_the_new_file_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rotated) = (dir.path().join("requests.log"), dir.path().join("requests.log.1"));
    let log = RequestLog::start(&AccessLog::File(path.clone())).unwrap();
    log.write(&record("/one"));
    std::fs::rename(&path, &rotated).unwrap();
    log.reopen();
    // Lines are written before the reopen that was asked after them: the new file appears after "/one" is out.
    while !path.exists() {
        std::thread::yield_now();
    }
    log.write(&record("/two"));
    drop(log);
    assert!(std::fs::read_to_string(rotated).unwrap().contains("/one"));
    assert!(std::fs::read_to_string(path).unwrap().contains("/two"));
}

#[test]
fn a_stuck_writer_costs_lines_and_never_blocks_or_grows() {
    let (began, has_begun) = sync_channel(16);
    let (let_go, go_on) = sync_channel(16);
    let log = RequestLog::start_with(Sink::Test(Box::new(Gate { began, go_on }))).unwrap();
    log.write(&record("/first"));
    assert_eq!(has_begun.recv().unwrap(), 1);
    // The writer is stuck with the first line: what follows must stay within the buffer.
    let long = "x".repeat(64 << 10);
    for _ in 0..100 {
        log.write(&record(&long));
    }
    let shared = Arc::clone(&log.on.as_ref().unwrap().shared);
    let (held, dropped) = {
        let pending = shared.pending();
        (pending.lines.len(), pending.dropped)
    };
    assert!(held <= MAX_BUFFER_BYTES && held > MAX_BUFFER_BYTES / 2, "{held}");
    let_go.send(()).unwrap();
    let kept = has_begun.recv().unwrap() as u64;
    assert_eq!(kept + dropped, 100);
    let_go.send(()).unwrap();
}

#[test]
fn off_means_off() {
    assert!(!RequestLog::start(&AccessLog::Off).unwrap().enabled());
    let nowhere = AccessLog::File("/nowhere/requests.log".into());
    assert_eq!(RequestLog::start(&nowhere).unwrap_err().kind(), io::ErrorKind::NotFound);
}
