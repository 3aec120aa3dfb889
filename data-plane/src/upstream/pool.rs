//! Idle connections to one address, for one worker: last in, first out, so that the warmest is used and the rest can
//! grow old.
//!
//! A connection is looked at before it is used again: if the reactor has seen anything on it since its last response
//! (a FIN, a reset, bytes nobody asked for) it is closed. That costs no system call in the usual case, and is as
//! fresh as the poll that brought the request in.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::http2::Sessions;
use crate::wire::Wire;

/// Idle connections kept per address and worker; beyond it the oldest goes.
const MAX_IDLE: usize = 512;

/// The idle connections to one address.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    idle: RefCell<VecDeque<Idle>>,
    /// Connections that speak HTTP/2, at work or idle.
    pub(super) sessions: Sessions,
}

#[derive(Debug)]
struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

impl Pool {
    /// The connection used last that is still sound.
    pub(crate) fn take(&self) -> Option<Box<Wire>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let Idle { wire, .. } = idle.pop_back()?;
            if wire.is_quiet() {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection whose last response was read to its end.
    pub(crate) fn put(&self, wire: Box<Wire>, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if idle.len() == MAX_IDLE {
            idle.pop_front();
        }
        idle.push_back(Idle { wire, since: now });
    }

    /// Closes what idled for `timeout` or is dead; whether anything is left.
    pub(crate) fn sweep(&self, now: Instant, timeout: Duration) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain(|idle| now.duration_since(idle.since) < timeout && idle.wire.is_quiet());
        let sessions = self.sessions.sweep(now, timeout);
        !idle.is_empty() || sessions
    }
}

/// Opens a connection. The caller bounds the time.
///
/// # Errors
/// Those of the system.
pub(crate) async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    fn wire(stream: TcpStream) -> Box<Wire> {
        Box::new(Wire::new(stream, crate::buffer::Pool::new().none()))
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let ours = connect(listener.local_addr().expect("bound")).await.expect("connected");
        let (theirs, _) = listener.accept().await.expect("accepted");
        (ours, theirs)
    }

    #[tokio::test]
    async fn the_connection_used_last_is_used_next() {
        let pool = Pool::default();
        let ((one, _one), (two, _two)) = (pair().await, pair().await);
        let last = two.local_addr().expect("connected");
        pool.put(wire(one), Instant::now());
        pool.put(wire(two), Instant::now());
        assert_eq!(pool.take().expect("two are there").into_stream().local_addr().expect("connected"), last);
        assert!(pool.take().is_some());
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn a_connection_that_the_other_side_closed_is_not_used() {
        let pool = Pool::default();
        let (ours, theirs) = pair().await;
        drop(theirs);
        ours.readable().await.expect("the FIN is seen");
        pool.put(wire(ours), Instant::now());
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn a_connection_with_bytes_that_nobody_asked_for_is_not_used() {
        let pool = Pool::default();
        let (ours, mut theirs) = pair().await;
        theirs.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.expect("sent");
        ours.readable().await.expect("seen");
        pool.put(wire(ours), Instant::now());
        assert!(pool.take().is_none());
    }

    #[tokio::test]
    async fn what_idles_too_long_is_closed_by_the_sweep() {
        let pool = Pool::default();
        let (ours, theirs) = pair().await;
        let now = Instant::now();
        pool.put(wire(ours), now);
        assert!(pool.sweep(now + Duration::from_secs(9), Duration::from_secs(10)));
        assert!(!pool.sweep(now + Duration::from_secs(10), Duration::from_secs(10)));
        let mut byte = [0];
        theirs.readable().await.expect("the FIN is seen");
        assert_eq!(theirs.try_read(&mut byte).expect("closed cleanly"), 0);
    }

    #[tokio::test]
    async fn the_pool_is_bounded() {
        let pool = Pool::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let mut theirs = Vec::new();
        for _ in 0..MAX_IDLE + 2 {
            pool.put(wire(connect(address).await.expect("connected")), Instant::now());
            theirs.push(listener.accept().await.expect("accepted"));
        }
        assert_eq!(pool.idle.borrow().len(), MAX_IDLE);
    }
}
