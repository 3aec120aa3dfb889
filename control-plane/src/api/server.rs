//! The admin API on a socket: HTTP/1.1 and HTTP/2, in clear text or over TLS, with bounds on what a client may hold.
//!
//! Invariants: a first request or a head that does not arrive in time ends the connection; connections beyond the bound wait in the
//! kernel's queue; at the end, answers under way are finished before the socket is forgotten.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::access::Peer;

/// Connections at the same time.
const MAX_CONNECTIONS: usize = 1_024;
/// Time for a TLS handshake, and for a request head.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(10);
/// How often a silent HTTP/2 connection is asked whether it still lives, and how long it has to answer.
const PING: Duration = Duration::from_secs(20);
/// Largest request head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// Wait after the socket refused to accept (no file descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time that answers under way have to finish at the end.
const FINISH: Duration = Duration::from_secs(10);

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    tls: Option<Arc<ServerConfig>>,
    stop: CancellationToken,
) {
    let tls = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let builder = Arc::new(builder());
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let Some((stream, peer, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (router, tls, builder, watcher) =
            (router.clone(), tls.clone(), Arc::clone(&builder), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            match tls {
                None => connection(stream, peer, router, &builder, watcher, HEAD).await,
                Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
                    Ok(Ok(stream)) => connection(stream, peer, router, &builder, watcher, HEAD).await,
                    Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                },
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(FINISH, graceful.shutdown()).await.is_err() {
        tracing::warn!("some answers of the admin API were not finished in time");
    }
}

type Accepted = (TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit);

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<Accepted> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => {
            // Only latency is lost without it.
            let _ = stream.set_nodelay(true);
            Some((stream, peer, place))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection of the admin API");
            None
        }
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .max_concurrent_streams(64)
        .max_header_list_size(64 << 10);
    builder
}

/// Serves a connection whose first request has so long to begin: hyper's own timer for heads does not run before it
/// knows the protocol, and a client that sends nothing, or half of HTTP/2's preface, would keep its place for ever.
async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    builder: &Builder<TokioExecutor>,
    watcher: hyper_util::server::graceful::Watcher,
    time: Duration,
) {
    let begun = Arc::new(Notify::new());
    let begins = Arc::clone(&begun);
    let service = router.map_request(move |mut request: http::Request<Incoming>| {
        begins.notify_one();
        request.extensions_mut().insert(Peer(peer));
        request.map(axum::body::Body::new)
    });
    let service = TowerToHyperService::new(service.map_err(|never: Infallible| never));
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(watcher.watch(connection.into_owned()));
    let ended = tokio::select! {
        ended = &mut serving => ended,
        begun = tokio::time::timeout(time, begun.notified()) => match begun {
            Ok(()) => serving.await,
            Err(_) => return tracing::debug!(%peer, "no request came on a connection of the admin API"),
        },
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection of the admin API broke");
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// What comes back on a connection that was sent these bytes, until the server ends it.
    async fn exchange(sent: &[u8]) -> Vec<u8> {
        let (mut client, server) = tokio::io::duplex(4_096);
        client.write_all(sent).await.expect("there is room");
        let router = Router::new().route("/", get(|| async { "here" }));
        let graceful = GracefulShutdown::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let (builder, time) = (builder(), Duration::from_millis(50));
        let serving = connection(server, peer, router, &builder, graceful.watcher(), time);
        let mut answer = Vec::new();
        let both = async { tokio::join!(serving, client.read_to_end(&mut answer)).1.map(drop) };
        tokio::time::timeout(Duration::from_secs(9), both).await.expect("it is ended").expect("in order");
        answer
    }

    #[tokio::test]
    async fn a_connection_without_a_request_is_ended_whatever_it_began_with() {
        for sent in ["", "PRI * HTT", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HT"] {
            let answer = exchange(sent.as_bytes()).await;
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{sent:?}: {}", String::from_utf8_lossy(&answer));
        }
        let answer = exchange(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    }
}
