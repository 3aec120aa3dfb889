//! The TLS handshake of a fresh connection, and what comes after it: HTTP/2 or HTTP/1.1, as both sides agreed (ALPN).
//!
//! The configuration of handshakes is made anew, per worker, when the listener's certificates change; connections that
//! stand are not touched. Session tickets are sealed with keys of the process, changed every six hours, so that a
//! client resumes on any worker, and after a change of the configuration.
//!
//! Invariant: a client that does not finish its handshake within the listener's header timeout is cut off, and soon when
//! the listener closes.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use gateway_engine::certificate::provider;
use gateway_engine::listener::tls::{Tls, TlsVersion};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, ServerConfig,
};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::{http1, http2};
use crate::runtime::{Phase, Presence, Worker};
use crate::server::listener::Door;
use crate::stream::Stream;
use crate::stream::socket::Socket;
use crate::stream::tls::Session;
use crate::telemetry::metrics::{Handshake, Slot};
use crate::wire::Wire;

/// What is offered, in this order.
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Seals session tickets; shared by all workers.
#[derive(Debug)]
pub(crate) struct Tickets(Option<Arc<dyn ProducesTickets>>);

impl Tickets {
    /// With fresh keys. Without randomness there are no tickets.
    pub(crate) fn new() -> Self {
        Tickets(rustls::crypto::aws_lc_rs::Ticketer::new().ok())
    }
}

/// How a listener shakes hands, as long as its certificates stay what they are.
#[derive(Debug, Default)]
pub(super) struct Acceptor(RefCell<Option<(Arc<Tls>, Arc<ServerConfig>)>>);

impl Acceptor {
    fn config(&self, tls: &Arc<Tls>, tickets: &Tickets) -> Result<Arc<ServerConfig>, rustls::Error> {
        let mut known = self.0.borrow_mut();
        if let Some((of, config)) = &*known
            && Arc::ptr_eq(of, tls)
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(tls, tickets)?);
        *known = Some((Arc::clone(tls), Arc::clone(&config)));
        Ok(config)
    }
}

fn config(tls: &Arc<Tls>, tickets: &Tickets) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match tls.min_version {
        TlsVersion::Tls12 => &[&TLS13, &TLS12],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chooser(Arc::clone(tls))));
    config.alpn_protocols = vec![H2.to_vec(), HTTP1.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    match &tickets.0 {
        Some(ticketer) => config.ticketer = Arc::clone(ticketer),
        None => config.send_tls13_tickets = 0,
    }
    Ok(config)
}

/// Finds the certificate for the name that a client asks for.
#[derive(Debug)]
struct Chooser(Arc<Tls>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let chosen = self.0.choose(hello.server_name(), hello.signature_schemes())?;
        Some(Arc::clone(&chosen.key))
    }
}

/// Serves a connection whose first byte is that of a handshake. The handshake has a task of its own: what it needs is
/// not kept while requests are served.
pub(super) async fn serve(
    worker: Rc<Worker>,
    door: Rc<Door>,
    stream: TcpStream,
    peer: SocketAddr,
    presence: Presence,
) {
    let outcome = shake_hands(&worker, &door, stream).await;
    let slot = door.view(&worker).map(|view| view.listener.slot.0);
    if let Some(index) = slot {
        let result = match &outcome {
            Ok(_) => Handshake::Done,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Handshake::TimedOut,
            Err(_) => Handshake::Failed,
        };
        worker.metrics.handshake(Slot { index, name: door.name() }, result);
    }
    match outcome {
        Ok(session) => {
            let is_h2 = session.protocol() == Some(H2);
            let stream = Stream::Tls(Box::new(session));
            if is_h2 {
                spawn_local(serve_h2(worker, door, stream, peer, presence));
            } else {
                spawn_local(http1::serve(worker, door, stream, peer, presence));
            }
        }
        // The client's affair: it does not trust us, speaks something else, or went away.
        Err(error) => {
            tracing::debug!(listener = %door.name(), client = %peer.ip(), %error, "no TLS handshake");
        }
    }
}

async fn serve_h2(worker: Rc<Worker>, door: Rc<Door>, stream: Stream, peer: SocketAddr, presence: Presence) {
    let timer = poll_fn(|cx| Poll::Ready(worker.wheel.timer(cx.waker()))).await;
    let wire = Wire::new(stream, worker.buffers.none());
    http2::serve(&worker, &door, wire, peer, timer).await;
    drop(presence);
}

async fn shake_hands(worker: &Rc<Worker>, door: &Rc<Door>, stream: TcpStream) -> io::Result<Session> {
    let view = door.view(worker).ok_or(io::ErrorKind::NotConnected)?;
    // It spoke TLS when this connection was accepted.
    let tls = view.listener.tls.as_ref().ok_or(io::ErrorKind::NotConnected)?;
    let config = door.acceptor().config(tls, &worker.shared.tickets).map_err(io::Error::other)?;
    let patience = view.listener.http.header_timeout;
    drop(view);
    let timer = poll_fn(|cx| Poll::Ready(worker.wheel.timer(cx.waker()))).await;
    timer.set(Some(patience).filter(|patience| !patience.is_zero()));
    let mut session = Session::new(config, Socket::new(stream), &worker.buffers).map_err(io::Error::other)?;
    let mut hurried = false;
    poll_fn(|cx| {
        let polled = session.poll_handshake(cx);
        if polled.is_pending() && timer.expired() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let closing = door.is_closing() || worker.phase() == Phase::Closing;
        if closing && !std::mem::replace(&mut hurried, true) {
            timer.set(Some(http1::LAST_CALL));
        }
        polled
    })
    .await?;
    Ok(session)
}
