//! Listening sockets: binding them (one per worker, sharing the port), and accepting.
//!
//! Binding is done by the control side, before the snapshot that needs it goes live. A plain bind comes first, because
//! `SO_REUSEPORT` alone would silently share a port with another process of the same user. A closing listener accepts
//! what is queued until nothing is left, and only then closes its socket, so that no established connection is reset.
//!
//! Invariant: `TCP_NODELAY` is set on the listening socket and inherited; it costs no system call per connection.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use gateway_engine::listener::Listener;
use mio::net::{TcpListener, TcpStream as Accepted};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::spawn_local;

use crate::runtime::{Phase, Worker};
use crate::server::tls::Acceptor;
use crate::server::{http1, tls};
use crate::snapshot::Pinned;
use crate::stream::socket::Socket as Connected;

/// Connections that may wait to be accepted, per worker; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// How long to wait when the process is out of descriptors.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// Why an address cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot bind {address}: {source}")]
pub(crate) struct BindError {
    /// The address asked for.
    pub(crate) address: SocketAddr,
    /// What the system said.
    pub(crate) source: io::Error,
}

impl BindError {
    /// Another socket has the port: worth trying again later.
    pub(crate) fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

/// Bound and listening sockets, one per worker, not yet accepting.
#[derive(Debug)]
pub(crate) struct Bound {
    address: SocketAddr,
    sockets: Vec<std::net::TcpListener>,
}

impl Bound {
    /// The address, with the real port where 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Other handles of the same sockets: as long as one is open, no connection in their queues is reset.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub(crate) fn try_clone(&self) -> Result<Bound, BindError> {
        let sockets = self.sockets.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<_>>();
        let address = self.address;
        sockets.map(|sockets| Bound { address, sockets }).map_err(|source| BindError { address, source })
    }

    pub(crate) fn into_sockets(self) -> Vec<std::net::TcpListener> {
        self.sockets
    }
}

/// Binds one socket per worker to an address that nobody else may have.
///
/// # Errors
/// When any process, this one included, listens there, or the system refuses otherwise.
pub(crate) fn bind(address: SocketAddr, workers: NonZeroUsize) -> Result<Bound, BindError> {
    // Without SO_REUSEPORT: fails while anybody listens there.
    bind_one(address, Sharing::None).map(drop)?;
    bind_beside(address, workers)
}

/// Binds one socket per worker to an address that this process may be listening on already (a listener that changes
/// its name keeps its port).
///
/// # Errors
/// When another process listens there, or the system refuses otherwise.
pub(crate) fn bind_beside(address: SocketAddr, workers: NonZeroUsize) -> Result<Bound, BindError> {
    let first = bind_one(address, Sharing::Port)?;
    let bound = first.local_addr().map_err(|source| BindError { address, source })?;
    let mut sockets = vec![first];
    for _ in 1..workers.get() {
        sockets.push(bind_one(bound, Sharing::Port)?);
    }
    for socket in &sockets {
        // Last, so that no connection lands on the socket of a set that fails half way.
        socket2::SockRef::from(socket).listen(BACKLOG).map_err(|source| BindError { address, source })?;
    }
    Ok(Bound { address: bound, sockets })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    None,
    Port,
}

fn bind_one(address: SocketAddr, sharing: Sharing) -> Result<std::net::TcpListener, BindError> {
    let open = || -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        // Connections of an earlier life in TIME_WAIT are no reason to fail.
        socket.set_reuse_address(true)?;
        if sharing == Sharing::Port {
            socket.set_reuse_port(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        Ok(socket)
    };
    open().map(Into::into).map_err(|source| BindError { address, source })
}

/// A listener as one request sees it: the snapshot that it is served by, whole.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Pinned,
    pub(crate) listener: Arc<Listener>,
}

/// A socket that the reactor watches, but not for those it accepts: see [`Connected::accepted`].
pub(crate) type Listening = AsyncFd<TcpListener>;

/// One worker's side of a listener.
#[derive(Debug)]
pub(crate) struct Door {
    name: Arc<str>,
    view: RefCell<Option<Rc<View>>>,
    closing: Cell<bool>,
    closed: Notify,
    acceptor: Acceptor,
}

impl Door {
    /// Registers the socket with this worker's runtime.
    pub(crate) fn open(name: Arc<str>, socket: std::net::TcpListener) -> io::Result<(Rc<Door>, Listening)> {
        let socket = TcpListener::from_std(socket);
        #[expect(
            deprecated,
            reason = "its successor is unsafe; mio's listener has one descriptor, and keeps it"
        )]
        let socket = AsyncFd::with_interest(socket, Interest::READABLE)?;
        let door = Door {
            name,
            view: RefCell::default(),
            closing: Cell::new(false),
            closed: Notify::new(),
            acceptor: Acceptor::default(),
        };
        Ok((Rc::new(door), socket))
    }

    /// `namespace/name` of the listener.
    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// How it shakes hands.
    pub(super) fn acceptor(&self) -> &Acceptor {
        &self.acceptor
    }

    /// Stops accepting; idle connections are to close.
    pub(crate) fn close(&self) {
        self.closing.set(true);
        self.closed.notify_one();
    }

    /// The listener is going away.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// What responses through this door must say about the connection: it ends after them.
    pub(crate) fn is_leaving(&self, worker: &Worker) -> bool {
        self.closing.get() || worker.phase() != Phase::Serving
    }

    /// What a request that begins now is served by: one atomic load, and a count that belongs to this thread.
    /// `None` while no snapshot has this listener. A listener that was removed serves its last requests by the last
    /// snapshot that had it.
    #[inline]
    pub(crate) fn view(&self, worker: &Worker) -> Option<Rc<View>> {
        self.look(worker, Rc::clone)
    }

    /// The same for a look only.
    #[inline]
    pub(crate) fn look<T>(&self, worker: &Worker, at: impl FnOnce(&Rc<View>) -> T) -> Option<T> {
        let mut view = self.view.borrow_mut();
        if !view.as_ref().is_some_and(|view| worker.reader.is_in_service(&view.snapshot)) {
            self.renew(worker, &mut view);
        }
        view.as_ref().map(at)
    }

    #[cold]
    fn renew(&self, worker: &Worker, view: &mut Option<Rc<View>>) {
        let current = worker.reader.pin();
        if let Some(listener) = current.engine.listener(&self.name).cloned() {
            *view = Some(Rc::new(View { listener, snapshot: current }));
        }
    }
}

/// Accepts until the door is closed and nothing is left in the queue.
pub(crate) async fn accept(worker: Rc<Worker>, door: Rc<Door>, socket: Listening) {
    while let Some(accepted) = next(&door, &socket).await {
        match accepted {
            Ok((stream, peer)) => admit(&worker, &door, stream, peer),
            Err(error) if is_of_the_connection(&error) => {}
            Err(error) => {
                tracing::warn!(listener = %door.name, %error, "cannot accept a connection");
                tokio::time::sleep(EXHAUSTED).await;
            }
        }
    }
    // The reactor may not have heard of the last ones: the system is asked until it has no more.
    let socket = socket.into_inner();
    loop {
        match socket.accept() {
            Ok((stream, peer)) => admit(&worker, &door, stream, peer),
            Err(error) if is_of_the_connection(&error) => {}
            Err(_) => return,
        }
    }
}

fn admit(worker: &Rc<Worker>, door: &Rc<Door>, stream: Accepted, peer: SocketAddr) {
    let stream = stream.into();
    let presence = worker.connection(door);
    let (own, at) = (Rc::clone(worker), Rc::clone(door));
    if door.view(worker).is_some_and(|view| view.listener.tls.is_some()) {
        match TcpStream::from_std(stream) {
            Ok(stream) => drop(spawn_local(tls::serve(own, at, stream, peer, presence))),
            Err(error) => tracing::warn!(listener = %door.name, %error, "cannot watch a connection"),
        }
    } else {
        spawn_local(http1::serve(own, at, Connected::accepted(stream), peer, presence));
    }
}

/// The next connection; `None` once the door is closed.
async fn next(door: &Door, socket: &Listening) -> Option<io::Result<(Accepted, SocketAddr)>> {
    let mut closed = std::pin::pin!(door.closed.notified());
    poll_fn(|cx| {
        if door.closing.get() || closed.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        loop {
            let mut ready = ready!(socket.poll_read_ready(cx))?;
            // Otherwise there is none left, and the reactor will tell of the next.
            if let Ok(accepted) = ready.try_io(|socket| socket.get_ref().accept()) {
                return Poll::Ready(Some(accepted));
            }
        }
    })
    .await
}

/// The client gave up between its handshake and our accept: no fault of the listener.
fn is_of_the_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("not zero");

    #[test]
    fn port_zero_gives_every_worker_the_same_port() {
        let bound = bind(SocketAddr::from(([127, 0, 0, 1], 0)), TWO).expect("a free port");
        assert_ne!(bound.address().port(), 0);
        let ports: Vec<_> =
            bound.into_sockets().iter().map(|socket| socket.local_addr().unwrap().port()).collect();
        assert_eq!(ports.len(), 2);
        assert_eq!(ports[0], ports[1]);
    }

    #[test]
    fn a_port_that_somebody_listens_on_is_refused_although_both_would_share_it() {
        let first = bind(SocketAddr::from(([127, 0, 0, 1], 0)), TWO).expect("a free port");
        let error = bind(first.address(), TWO).expect_err("taken");
        assert!(error.is_taken(), "{error}");
        assert!(error.to_string().contains(&first.address().to_string()), "{error}");
        let beside = bind_beside(first.address(), TWO).expect("the same process may");
        assert_eq!(beside.address(), first.address());
        drop((first, beside));
    }

    #[test]
    fn an_address_that_is_not_ours_is_no_retryable_fault() {
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0)), TWO).expect_err("TEST-NET");
        assert!(!error.is_taken());
    }
}
