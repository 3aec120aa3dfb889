//! Backends to proxy to: a server of HTTP/1.1 and HTTP/2 (by prior knowledge) that tells what it received, and can be slow, big or broken when the
//! path or the test asks for it. Every proxied request of the system tests ends here, over real sockets.
//!
//! | path | what it does |
//! |---|---|
//! | `/status/{code}` | answers with that status |
//! | `/bytes/{n}` | answers with n bytes |
//! | `/hold` | answers after [`Upstream::release`] |
//! | `/hang` | never answers |
//! | `/reset` | closes without an answer |
//! | `/cut` | promises 1000 bytes and closes after 10 |
//! | anything else | answers with a JSON description of the request ([`Seen`]) |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};

use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What a request looked like on arrival, as the echo answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Name of the upstream that answered.
    pub upstream: String,
    /// Version of HTTP it came by.
    pub version: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields, names lower-cased, repeated ones joined with `, `.
    pub headers: BTreeMap<String, String>,
    /// Bytes of the body.
    pub body_bytes: u64,
}

impl Seen {
    /// Reads the echo's answer.
    ///
    /// # Errors
    /// When it is no echo's answer.
    pub fn parse(body: &[u8]) -> anyhow::Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(body)
            .with_context(|| format!("not an echo: {:?}", String::from_utf8_lossy(body)))?;
        let text = |key: &str| {
            value[key].as_str().map(str::to_owned).with_context(|| format!("no {key} in {value}"))
        };
        Ok(Seen {
            upstream: text("upstream")?,
            version: text("version")?,
            method: text("method")?,
            target: text("target")?,
            headers: serde_json::from_value(value["headers"].clone())?,
            body_bytes: value["bodyBytes"].as_u64().context("no bodyBytes")?,
        })
    }
}

/// A running upstream; it stops when dropped.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    served: Arc<AtomicU64>,
    released: watch::Sender<bool>,
    accepting: JoinHandle<()>,
}

impl Upstream {
    /// Starts one on a free loopback port.
    ///
    /// # Errors
    /// When it cannot bind.
    pub async fn start(name: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let served = Arc::new(AtomicU64::new(0));
        let (released, _) = watch::channel(false);
        let accepting =
            tokio::spawn(accept(listener, name.to_owned(), Arc::clone(&served), released.clone()));
        Ok(Upstream { address, served, released, accepting })
    }

    /// Lets it answer what it holds.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests it has seen.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, name: String, served: Arc<AtomicU64>, released: watch::Sender<bool>) {
    let name: Arc<str> = name.into();
    while let Ok((stream, _)) = listener.accept().await {
        let (name, served, released) = (Arc::clone(&name), Arc::clone(&served), released.clone());
        let service = service_fn(move |request| {
            served.fetch_add(1, Ordering::Relaxed);
            answer(Arc::clone(&name), request, released.subscribe())
        });
        tokio::spawn(async move {
            // A connection that ends badly is what the broken paths are for.
            let mut server = auto::Builder::new(TokioExecutor::new());
            server.http1().timer(TokioTimer::new());
            let _ended = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

type Body = BoxBody<Bytes, std::io::Error>;

async fn answer(
    name: Arc<str>,
    request: Request<Incoming>,
    mut released: watch::Receiver<bool>,
) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().path().to_owned();
    let mut segments = path.trim_start_matches('/').split('/');
    let (verb, argument) =
        (segments.next().unwrap_or(""), segments.next().and_then(|it| it.parse::<u64>().ok()));
    match (verb, argument) {
        ("status", Some(code)) => {
            let status = u16::try_from(code).ok().and_then(|code| StatusCode::from_u16(code).ok());
            Ok(with(status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), Bytes::new()))
        }
        ("bytes", Some(count)) => Ok(zeros(count)),
        ("hold", None) => {
            released.wait_for(|released| *released).await.map_err(std::io::Error::other)?;
            Ok(with(StatusCode::OK, Bytes::from_static(b"held")))
        }
        ("hang", None) => std::future::pending().await,
        ("reset", None) => Err(std::io::ErrorKind::ConnectionReset.into()),
        ("cut", None) => Ok(cut()),
        _ => describe(&name, request).await,
    }
}

fn with(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn zeros(count: u64) -> Response<Body> {
    const PIECE: u64 = 65_536;
    static ZEROS: [u8; PIECE as usize] = [0; PIECE as usize];
    let pieces = (0..count.div_ceil(PIECE)).map(move |piece| {
        let length = PIECE.min(count - piece * PIECE);
        Ok(Frame::data(Bytes::from_static(&ZEROS).slice(..usize::try_from(length).unwrap_or(0))))
    });
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(pieces))));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, count.into());
    response
}

fn cut() -> Response<Body> {
    let pieces =
        [Ok(Frame::data(Bytes::from_static(b"0123456789"))), Err(std::io::ErrorKind::ConnectionReset.into())];
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream::iter(pieces))));
    response.headers_mut().insert(http::header::CONTENT_LENGTH, 1000.into());
    response
}

async fn describe(name: &str, request: Request<Incoming>) -> Result<Response<Body>, std::io::Error> {
    let (head, mut body) = request.into_parts();
    let mut body_bytes = 0_u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(std::io::Error::other)?;
        body_bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        headers
            .entry(key.as_str().to_owned())
            .and_modify(|joined| {
                joined.push_str(", ");
                joined.push_str(&value);
            })
            .or_insert_with(|| value.into_owned());
    }
    let description = serde_json::json!({
        "upstream": name,
        "version": format!("{:?}", head.version),
        "method": head.method.as_str(),
        "target": head.uri.to_string(),
        "headers": headers,
        "bodyBytes": body_bytes,
    });
    Ok(with(StatusCode::OK, description.to_string().into()))
}
