//! One request through the whole data plane and back, over loopback: what a change costs, relative to the last run.
//! Absolute figures beside other proxies come from the side-by-side benchmark; this one only compares us with us.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;

use criterion::{Criterion, criterion_group, criterion_main};
use gateway_data_plane::Config;
use gateway_data_plane::config::Source;

const BODY: usize = 1024;

/// Reads so many bytes at least; whether they came.
fn read(stream: &mut TcpStream, count: usize, buffer: &mut [u8]) -> bool {
    let mut filled = 0;
    while filled < count {
        match stream.read(&mut buffer[filled..]) {
            Ok(more @ 1..) => filled += more,
            _ => return false,
        }
    }
    true
}

/// Answers whatever comes, one read at a time.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            let mut buffer = [0; 8192];
            while read(&mut stream, 1, &mut buffer) {
                stream.write_all(answer.as_bytes()).expect("sent");
            }
        }
    });
    address
}

fn get(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("gateway.yaml");
    let manifest = format!(
        "apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: public }}\nspec: {{ address: 127.0.0.1, port: 0 }}\n---\n\
         apiVersion: gateway/v1\nkind: Upstream\nmetadata: {{ name: u }}\nspec: {{ targets: [{{ address: '{}' }}] }}\n---\n\
         apiVersion: gateway/v1\nkind: Route\nmetadata: {{ name: r }}\nspec: {{ forward: {{ backends: [{{ upstream: u }}] }} }}\n",
        target()
    );
    std::fs::write(&file, manifest).expect("written");
    let mut config = Config::new(Source::Manifests(file), directory.path().join("state"));
    config.workers = NonZeroUsize::new(1);
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
    client.set_nodelay(true).expect("a TCP socket");
    let mut buffer = [0; 8192];
    criterion.bench_function("get_1k_keep_alive", |bencher| {
        bencher.iter(|| {
            client.write_all(b"GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n").expect("sent");
            assert!(read(&mut client, BODY + 60, &mut buffer));
        });
    });
    runtime.block_on(running.shutdown());
}

criterion_group!(benches, get);
criterion_main!(benches);
