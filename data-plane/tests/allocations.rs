//! A warm worker allocates nothing for a plain request, logged or not, counted over the whole process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;

use gateway_data_plane::Config;
use gateway_data_plane::config::{AccessLog, Source};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// What the timers and the sweeper of an otherwise idle process may do meanwhile.
const BACKGROUND: usize = 20;

/// Reads until the bytes end so; allocates nothing.
fn read_until(stream: &mut TcpStream, end: &[u8], buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while !buffer[..filled].ends_with(end) {
        match stream.read(&mut buffer[filled..]) {
            Ok(count @ 1..) => filled += count,
            _ => return false,
        }
    }
    true
}

/// A target that answers every request without a body alike.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while read_until(&mut stream, b"\r\n\r\n", &mut buffer) {
                    let answer =
                        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello!";
                    stream.write_all(answer).expect("sent");
                }
            });
        }
    });
    address
}

fn manifest(target: SocketAddr) -> String {
    format!(
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: public }}\nspec: {{ address: 127.0.0.1, port: 0 }}\n---\n\
         apiVersion: gateway/v1\nkind: Upstream\nmetadata: {{ name: u }}\nspec: {{ targets: [{{ address: '{target}' }}] }}\n---\n\
         apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: r }}\nspec:\n  matches: [{{ path: {{ prefix: /api }} }}]\n  \
         forward: {{ backends: [{{ upstream: u }}] }}\n  policies: [{{ responseHeaders: {{ set: {{ x-set: 'yes' }} }} }}]\n"
    )
}

#[test]
fn a_plain_request_allocates_nothing_once_the_worker_is_warm() {
    // One after the other: what is counted is the process.
    assert_no_allocations("off");
    assert_no_allocations("on");
}

fn assert_no_allocations(log: &str) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("gateway.yaml");
    std::fs::write(&file, manifest(target())).expect("written");
    let mut config = Config::new(Source::Manifests(file), directory.path().join("state"));
    config.workers = NonZeroUsize::new(1);
    // Not beside the manifests: that folder is watched.
    let log_folder = tempfile::tempdir().expect("a temporary directory");
    let log_file = log_folder.path().join("requests.log");
    if log == "on" {
        config.access_log = AccessLog::File(log_file.clone());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let (running, address) = runtime.block_on(async {
        let running = gateway_data_plane::run(config).await.expect("starts");
        let address = running.listener("default/public").await;
        (running, address)
    });
    let mut client = TcpStream::connect(address).expect("connected");
    let mut buffer = [0; 4096];
    let mut ask = |count: usize| {
        for _ in 0..count {
            let request = b"GET /api/users?page=2 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n";
            client.write_all(request).expect("sent");
            assert!(read_until(&mut client, b"hello!", &mut buffer), "answered");
        }
    };
    ask(200);
    let region = Region::new(ALLOCATOR);
    ask(2_000);
    let allocations = region.change().allocations;
    assert!(allocations <= BACKGROUND, "{allocations} allocations in 2,000 requests, log {log}");
    drop(client);
    runtime.block_on(running.shutdown());
    let lines = std::fs::read_to_string(log_file).map_or(0, |text| text.lines().count());
    assert_eq!(lines, if log == "on" { 2_200 } else { 0 });
}
