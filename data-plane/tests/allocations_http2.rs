//! A request that comes by HTTP/2 allocates no more than one that a bare hyper server answers by itself, although it goes
//! on to a target and comes back. Counted over the whole process; client and target allocate nothing.

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroUsize;

use bytes::Bytes;
use gateway_data_plane::Config;
use gateway_data_plane::config::Source;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: u32 = 2_000;
/// `GET http://a.example/api`, a user agent, and what is accepted: fields in literals that no table keeps.
const BLOCK: &[u8] = b"\x82\x86\x04\x04/api\x01\x09a.example\x0f\x2b\x04test\x0f\x04\x03*/*";
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// A client of one stream at a time.
struct Client {
    stream: TcpStream,
    next: u32,
}

impl Client {
    fn connect(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).expect("connected");
        stream.set_nodelay(true).expect("a socket");
        // The preface, empty settings, the answer to the other side's, and room for every response.
        stream
            .write_all(
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\0\0\x04\x08\0\0\0\0\0\x10\0\0\0",
            )
            .expect("sent");
        Client { stream, next: 1 }
    }

    fn ask(&mut self, count: u32) {
        for _ in 0..count {
            let mut frame = [0; 128];
            frame[2] = u8::try_from(BLOCK.len()).expect("short");
            // END_STREAM and END_HEADERS.
            (frame[3], frame[4]) = (HEADERS, 5);
            frame[5..9].copy_from_slice(&self.next.to_be_bytes());
            frame[9..9 + BLOCK.len()].copy_from_slice(BLOCK);
            self.stream.write_all(&frame[..9 + BLOCK.len()]).expect("sent");
            self.read_response();
            self.next += 2;
        }
    }

    fn read_response(&mut self) {
        loop {
            let (mut head, mut payload) = ([0; 9], [0; 4096]);
            self.stream.read_exact(&mut head).expect("a frame");
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            self.stream.read_exact(&mut payload[..length]).expect("whole");
            let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            // Data or fields; only settings use that bit otherwise.
            if stream == self.next && head[3] <= HEADERS && head[4] & END_STREAM != 0 {
                assert!(payload[..length].ends_with(b"hello!"), "frame {head:?}");
                return;
            }
        }
    }
}

/// Allocations of a request once everything is warm.
fn counted(address: SocketAddr) -> f64 {
    let mut client = Client::connect(address);
    client.ask(500);
    let region = Region::new(ALLOCATOR);
    client.ask(REQUESTS);
    region.change().allocations as f64 / f64::from(REQUESTS)
}

/// A target that answers every request alike.
fn target() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("accepted");
            std::thread::spawn(move || {
                let (mut buffer, mut filled) = ([0; 4096], 0);
                while let Ok(count @ 1..) = stream.read(&mut buffer[filled..]) {
                    filled += count;
                    if buffer[..filled].ends_with(b"\r\n\r\n") {
                        filled = 0;
                        let answer =
                            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 6\r\n\r\nhello!";
                        stream.write_all(answer).expect("sent");
                    }
                }
            });
        }
    });
    address
}

/// A server that makes the same answer itself.
async fn bare_hyper() -> SocketAddr {
    async fn answer(_request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        // An id and a body of its own for each, as the gateway has.
        let id = format!("{:032}", 7);
        let response = Response::builder().header("content-type", "text/plain").header("x-request-id", id);
        Ok(response.body(Full::new(Bytes::copy_from_slice(b"hello!"))).expect("a response"))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ended = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    address
}

#[test]
fn a_proxied_request_allocates_no_more_than_hyper_does_to_answer_it() {
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
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (running, gateway, hyper) = runtime.block_on(async {
        let running = gateway_data_plane::run(config).await.expect("starts");
        let gateway = running.listener("default/public").await;
        (running, gateway, bare_hyper().await)
    });
    let (hyper, gateway) = (counted(hyper), counted(gateway));
    runtime.block_on(running.shutdown());
    assert!(gateway <= hyper, "{gateway} allocations in a request, {hyper} in one that hyper answers");
    println!("{gateway} allocations in a request, {hyper} in one that hyper answers");
}
