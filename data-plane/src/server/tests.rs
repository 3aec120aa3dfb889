//! What a connection costs while it waits, and what it leaves to others while it works.

use std::future::poll_fn;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_engine::manifest;
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::buffer::SMALL;
use crate::jwks::KeySets;
use crate::runtime::{Shared, Worker};
use crate::server::http1;
use crate::server::listener::Door;
use crate::server::tls::Tickets;
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::{Metrics, RequestLog};
use crate::upstream::dns::Resolver;

/// A worker that serves this.
fn worker(snapshot: Snapshot) -> Rc<Worker> {
    let shared = Arc::new(Shared {
        live: Arc::new(Live::new(snapshot)),
        metrics: Arc::new(Metrics::default()),
        request_log: RequestLog::off(),
        discovered: Arc::default(),
        resolver: Resolver::new(Handle::current()),
        key_sets: KeySets::new(Handle::current()),
        tickets: Tickets::new(),
    });
    let metrics = shared.metrics.worker();
    Worker::new(shared, metrics)
}

/// A configuration of one listener.
fn listening() -> Snapshot {
    let manifest = "apiVersion: gateway/v1\nkind: Listener\nmetadata: { name: public }\nspec: { port: 1 }\n";
    let documents =
        manifest::parse("test", manifest.as_bytes(), &manifest::Resolver::environment()).expect("a manifest");
    let changes = documents.iter().map(|it| Change::Upsert(it.resource.clone().canonical())).collect();
    let engine = compile(&Engine::default(), changes).expect("valid").engine;
    Snapshot { engine, ..Snapshot::default() }
}

fn door() -> Rc<Door> {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    Door::open("default/public".into(), socket).expect("registered").0
}

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let (worker, door) = (worker(Snapshot::default()), door());
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let (stream, _client) = connected();
    let presence = worker.connection(&door);
    let task = http1::serve(worker, door, stream, peer, presence);
    // Beside it: the reactor's entry (about 200 bytes) and the timer's (40). The rule is 2 KB for all of it.
    let size = size_of_val(&task);
    assert!(size <= 1_280, "{size} bytes: box what is rare");
}

#[tokio::test]
async fn a_connection_that_has_not_said_anything_holds_no_buffer() {
    let (worker, door) = (worker(listening()), door());
    drop(worker.buffers.take(SMALL));
    let (stream, mut client) = connected();
    let presence = worker.connection(&door);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut task = pin!(http1::serve(Rc::clone(&worker), door, stream, peer, presence));
    for said in [&b""[..], b"GET"] {
        client.write_all(said).expect("sent");
        let waiting = tokio::time::timeout(Duration::from_millis(100), &mut task).await;
        assert!(waiting.is_err(), "it goes on");
        assert_eq!(worker.buffers.free(), usize::from(said.is_empty()), "{said:?}");
    }
}

#[tokio::test]
async fn a_client_that_sends_many_requests_at_once_leaves_others_their_turn() {
    const REQUESTS: usize = 500;
    // What the runtime lets a task do between two turns of the others.
    const BUDGET: usize = 128;
    let (worker, door) = (worker(listening()), door());
    let (stream, mut client) = connected();
    client.write_all(&b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS)).expect("sent");
    client.set_nonblocking(true).expect("a socket");
    let presence = worker.connection(&door);
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut task = pin!(http1::serve(worker, door, stream, peer, presence));
    let (mut answers, mut before) = (Vec::new(), 0);
    while before < REQUESTS {
        tokio::task::yield_now().await;
        assert!(poll_fn(|cx| Poll::Ready(task.as_mut().poll(cx))).await.is_pending(), "it goes on");
        let _all_that_is_there = client.read_to_end(&mut answers);
        let answered = answers.windows(12).filter(|line| line == b"HTTP/1.1 404").count();
        assert!(answered - before <= BUDGET, "{} at once", answered - before);
        before = answered;
    }
}

/// Both ends of a connection, as if it had just been accepted.
fn connected() -> (TcpStream, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    let (stream, _) = listener.accept().expect("accepted");
    stream.set_nonblocking(true).expect("a socket");
    (TcpStream::from_std(stream).expect("registered"), client)
}
