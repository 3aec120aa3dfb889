//! What a connection costs while it waits.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

use crate::runtime::{Shared, Worker};
use crate::server::listener::{self, Door};
use crate::snapshot::{Live, Snapshot};
use crate::telemetry::{Metrics, RequestLog};
use crate::upstream::dns::Resolver;

#[tokio::test]
async fn the_task_of_a_connection_is_small() {
    let shared = Arc::new(Shared {
        live: Arc::new(Live::new(Snapshot::default())),
        metrics: Arc::new(Metrics::default()),
        request_log: RequestLog::off(),
        resolver: Resolver::new(Handle::current()),
    });
    let metrics = shared.metrics.worker();
    let worker = Worker::new(shared, metrics);
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    socket.set_nonblocking(true).expect("a socket");
    let (door, _listener): (_, TcpListener) =
        Door::open("default/public".into(), socket).expect("registered");
    let peer = SocketAddr::from(([127, 0, 0, 1], 1));
    let stream = TcpStream::from_std(connected()).expect("registered");
    let presence = worker.connection(&door);
    let task = listener::serve(worker, door, stream, peer, presence);
    // Beside it: the reactor's entry (about 200 bytes) and the timer's (40). The rule is 2 KB for all of it.
    let size = size_of_val(&task);
    assert!(size <= 1_600, "{size} bytes: box what is rare");
}

fn connected() -> std::net::TcpStream {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let stream = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
    stream.set_nonblocking(true).expect("a socket");
    stream
}
