//! Tests of `request_log.rs` and `writer.rs`.

use std::io::Write;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use gateway_engine::reject::Reason;
use tokio::runtime::{Builder, LocalOptions};

use super::writer::MAX_WAITING;
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

/// A sink that tells when a write begins, waits until it may end, and keeps what was written.
struct Gate {
    began: SyncSender<()>,
    go_on: Receiver<io::Result<()>>,
    written: SyncSender<Vec<u8>>,
}

impl Write for Gate {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.began.send(()).map_err(io::Error::other)?;
        self.go_on.recv().map_err(io::Error::other)??;
        self.written.send(lines.to_vec()).map_err(io::Error::other)?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The other side of the gate.
struct Keeper {
    has_begun: Receiver<()>,
    let_go: SyncSender<io::Result<()>>,
    written: Receiver<Vec<u8>>,
}

fn gated() -> (RequestLog, Arc<Metrics>, Keeper) {
    // Room for all that a test sends.
    let ((began, has_begun), (let_go, go_on), (write, written)) =
        (sync_channel(128), sync_channel(128), sync_channel(128));
    let metrics = Arc::new(Metrics::default());
    let sink = Sink::Test(Box::new(Gate { began, go_on, written: write }));
    let writer = Writer::start(sink, Arc::clone(&metrics)).unwrap();
    (RequestLog { writer: Some(Arc::new(writer)) }, metrics, Keeper { has_begun, let_go, written })
}

fn dropped(metrics: &Metrics) -> u64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("gateway_request_log_dropped_total")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn in_file(path: &std::path::Path) -> RequestLog {
    RequestLog::start(&AccessLog::File(path.to_owned()), &Arc::default()).unwrap()
}

fn paths(log: &str) -> Vec<String> {
    let path =
        |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["path"].as_str().unwrap().to_owned();
    log.lines().map(path).collect()
}

#[test]
fn a_line_is_one_json_object_with_every_field() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.log");
    in_file(&path).worker().write(&record("/a\"b\n"));
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.strip_suffix('\n').unwrap()).unwrap();
    let time = line["time"].as_str().unwrap().to_owned();
    assert!(time.parse::<jiff::Timestamp>().is_ok() && time.len() == 27, "{time}");
    let expected = serde_json::json!({
        "time": time, "requestId": "r-1", "revision": 7, "listener": "default/public", "route": "default/users",
        "method": "GET", "host": "api.example.com", "path": "/a\"b\n", "status": 503, "reason": "no_healthy_target",
        "bytesReceived": 10, "bytesSent": 20, "durationMs": 1.25, "upstream": null, "target": null, "client": "10.0.0.1",
    });
    assert_eq!(text.trim_end(), expected.to_string(), "also in this order");
}

#[test]
fn lines_of_a_worker_keep_their_order_and_none_is_lost_when_it_ends() {
    const LINES: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("requests.log");
    let log = in_file(&path);
    let worker = |name: &'static str| {
        let log = RequestLog { writer: log.writer.clone() };
        std::thread::spawn(move || {
            let log = log.worker();
            (0..LINES).for_each(|number| log.write(&record(&format!("/{name}/{number}"))));
        })
    };
    for thread in ["a", "b"].map(worker) {
        thread.join().unwrap();
    }
    drop(log);
    let paths = paths(&std::fs::read_to_string(path).unwrap());
    for name in ["a", "b"] {
        let prefix = format!("/{name}/");
        let numbers: Vec<usize> = paths
            .iter()
            .filter_map(|path| path.strip_prefix(&prefix))
            .map(|number| number.parse().unwrap())
            .collect();
        assert_eq!(numbers, (0..LINES).collect::<Vec<_>>());
    }
}

#[test]
fn a_batch_is_handed_over_when_it_is_full() {
    let (log, _, keeper) = gated();
    let worker = log.worker();
    let mut lines = 0;
    while log.writer.as_ref().unwrap().held() == 0 {
        worker.write(&record("/x"));
        lines += 1;
    }
    keeper.has_begun.recv().unwrap();
    keeper.let_go.send(Ok(())).unwrap();
    let written = keeper.written.recv().unwrap();
    assert!(
        lines > 50 && written.len() >= FULL && written.len() < FULL + 1024,
        "{lines} lines, {}",
        written.len()
    );
}

#[test]
fn a_line_that_no_other_follows_is_written_all_the_same() {
    const { assert!(FLUSH_AFTER.as_millis() <= 250, "who looks at a log does not like to wait") };
    let (log, _, keeper) = gated();
    let worker = log.worker();
    let runtime = Builder::new_current_thread().enable_time().build_local(LocalOptions::default()).unwrap();
    runtime.block_on(async {
        let writer = Arc::clone(log.writer.as_ref().unwrap());
        tokio::task::spawn_local(Rc::clone(&worker).flush());
        for path in ["/one", "/two"] {
            worker.write(&record(path));
            assert_eq!(writer.held(), 0, "not line by line");
            while writer.held() == 0 {
                tokio::task::yield_now().await;
            }
            keeper.let_go.send(Ok(())).unwrap();
            assert_eq!(paths(&String::from_utf8(keeper.written.recv().unwrap()).unwrap()), [path]);
            while writer.held() > 0 {
                tokio::task::yield_now().await;
            }
        }
    });
}

#[test]
fn after_a_reopen_lines_go_to_the_new_file_and_none_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (path, rotated) = (dir.path().join("requests.log"), dir.path().join("requests.log.1"));
    let log = in_file(&path);
    log.worker().write(&record("/one"));
    std::fs::rename(&path, &rotated).unwrap();
    log.reopen();
    // Lines are written before the reopen that was asked after them: the new file appears after "/one" is out.
    while !path.exists() {
        std::thread::yield_now();
    }
    log.worker().write(&record("/two"));
    drop(log);
    assert_eq!(paths(&std::fs::read_to_string(rotated).unwrap()), ["/one"]);
    assert_eq!(paths(&std::fs::read_to_string(path).unwrap()), ["/two"]);
}

#[test]
fn a_stuck_writer_costs_lines_which_are_counted_and_never_blocks_or_grows() {
    const LINES: usize = 100;
    let (log, metrics, keeper) = gated();
    let worker = log.worker();
    let long = "x".repeat(64 << 10);
    // Each is a batch of its own; the writer is stuck with the first.
    (0..LINES).for_each(|_| worker.write(&record(&long)));
    let held = log.writer.as_ref().unwrap().held();
    assert!(held <= MAX_WAITING && held > MAX_WAITING / 2, "{held}");
    (0..LINES).for_each(|_| keeper.let_go.send(Ok(())).unwrap());
    drop((worker, log));
    let kept = keeper.written.iter().count();
    assert!(kept < LINES);
    assert_eq!(kept as u64 + dropped(&metrics), LINES as u64);
}

#[test]
fn lines_that_a_failing_disk_did_not_take_are_counted() {
    let (log, metrics, keeper) = gated();
    log.worker().write(&record("/lost"));
    keeper.has_begun.recv().unwrap();
    keeper.let_go.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    keeper.let_go.send(Ok(())).unwrap();
    while log.writer.as_ref().unwrap().held() > 0 {
        std::thread::yield_now();
    }
    log.worker().write(&record("/kept"));
    drop(log);
    assert_eq!(paths(&String::from_utf8(keeper.written.recv().unwrap()).unwrap()), ["/kept"]);
    assert_eq!(dropped(&metrics), 1);
}

#[test]
fn a_stuck_writer_does_not_hold_up_the_end_for_ever() {
    let (mut log, _, keeper) = gated();
    Arc::get_mut(log.writer.as_mut().unwrap()).unwrap().patience = Duration::from_millis(20);
    log.worker().write(&record("/x"));
    keeper.has_begun.recv().unwrap();
    drop(log);
    assert!(keeper.written.try_recv().is_err(), "it is still at it");
}

#[test]
fn off_means_off() {
    let off = RequestLog::start(&AccessLog::Off, &Arc::default()).unwrap();
    assert!(!off.worker().enabled());
    let nowhere = AccessLog::File("/nowhere/requests.log".into());
    assert_eq!(RequestLog::start(&nowhere, &Arc::default()).unwrap_err().kind(), io::ErrorKind::NotFound);
}
