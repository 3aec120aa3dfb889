//! The admin port: `/livez`, `/readyz`, `/metrics` and, on loopback only, `/config` and `/snapshot`. Read only, without
//! authentication, small: HTTP/1.1 by hyper on the control runtime, so that it answers while workers are busy.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gateway_proto::kind::Resource;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use crate::apply::State;
use crate::endpoints::{Shown, Window};
use crate::snapshot::Live;
use crate::telemetry::Metrics;

/// Connections served at a time; more wait in the backlog.
const MAX_CONNECTIONS: usize = 64;
/// Time a client has to send its request head.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failure to accept (out of descriptors).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the admin port shows.
#[derive(Debug)]
pub(crate) struct Admin {
    pub(crate) identity: Identity,
    pub(crate) state: watch::Receiver<State>,
    /// True once the signal to stop came.
    pub(crate) draining: watch::Receiver<bool>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) live: Arc<Live>,
    pub(crate) endpoints: Window,
    /// The port is reachable from elsewhere: no `/config`, no `/snapshot`.
    pub(crate) is_public: bool,
    /// The copy of the configuration on disk, if others can open it too.
    pub(crate) copy: Option<PathBuf>,
}

/// Who this data plane is.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Identity {
    pub(crate) node: String,
    pub(crate) group: String,
    pub(crate) zone: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// Where its configuration comes from.
    pub(crate) source: Vec<String>,
    pub(crate) version: &'static str,
}

/// Answers until dropped.
pub(crate) async fn serve(admin: Arc<Admin>, listener: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("never closed");
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    connection(admin, stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection on the admin port");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(admin: Arc<Admin>, stream: TcpStream) {
    let service = service_fn(move |request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move { Ok::<_, Infallible>(answer(&admin, request.method(), request.uri().path())) }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "admin connection");
    }
}

/// Binds the port.
///
/// # Errors
/// Those of the system.
pub(crate) async fn bind(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    tracing::info!(admin = %bound, address = %bound, "admin port listening");
    Ok((listener, bound))
}

fn answer(admin: &Admin, method: &Method, path: &str) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if method != Method::GET && method != Method::HEAD {
        let mut response = respond(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n");
        response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/livez" => respond(StatusCode::OK, TEXT, "ok\n"),
        "/readyz" => match unready(&admin.state.borrow(), *admin.draining.borrow()) {
            None => respond(StatusCode::OK, TEXT, "ok\n"),
            Some(why) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, why),
        },
        "/metrics" => {
            respond(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", admin.metrics.render())
        }
        "/config" | "/snapshot" if admin.is_public => {
            respond(StatusCode::FORBIDDEN, TEXT, "the configuration is shown on a loopback admin port only\n")
        }
        "/config" => respond(StatusCode::OK, "application/json", config(admin)),
        "/snapshot" => snapshot(admin.copy.as_deref()),
        _ => respond(
            StatusCode::NOT_FOUND,
            TEXT,
            "there are /livez, /readyz, /metrics, /config and /snapshot\n",
        ),
    }
}

/// The last good configuration as it is on disk: sealed, for `--bootstrap-snapshot` of another data plane.
fn snapshot(copy: Option<&Path>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    let Some(copy) = copy else {
        let why = "copies are sealed with a key of this data plane alone: give it and others a --snapshot-key-file\n";
        return respond(StatusCode::NOT_FOUND, TEXT, why);
    };
    match std::fs::read(copy) {
        Ok(sealed) => respond(StatusCode::OK, "application/octet-stream", sealed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            respond(StatusCode::SERVICE_UNAVAILABLE, TEXT, "no configuration is kept yet\n")
        }
        Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn respond(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

/// Why no traffic should come; `None`: it may.
fn unready(state: &State, draining: bool) -> Option<String> {
    if draining {
        return Some("draining\n".to_owned());
    }
    if !state.complete {
        return Some("no configuration yet\n".to_owned());
    }
    if state.ready {
        return None;
    }
    Some(state.rejects.iter().map(|reject| format!("{reject}\n")).collect())
}

/// The configuration in service, as JSON, without secrets.
fn config(admin: &Admin) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Config<'a> {
        #[serde(flatten)]
        identity: &'a Identity,
        ready: bool,
        epoch: &'a str,
        revision: u64,
        root_hash: String,
        listeners: &'a BTreeMap<String, SocketAddr>,
        rejects: Vec<Reject<'a>>,
        endpoints: Vec<Shown>,
        resources: Vec<Resource>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Reject<'a> {
        kind: &'a str,
        namespace: &'a str,
        name: &'a str,
        field: &'a str,
        code: &'static str,
        message: &'a str,
    }
    let state = admin.state.borrow().clone();
    let engine = admin.live.load().engine.clone();
    let rejects = state.rejects.iter().map(|reject| Reject {
        kind: &reject.object.kind,
        namespace: &reject.object.namespace,
        name: &reject.object.name,
        field: &reject.field,
        code: reject.code.as_str(),
        message: &reject.message,
    });
    let objects = engine.objects().into_iter();
    let config = Config {
        identity: &admin.identity,
        ready: unready(&state, *admin.draining.borrow()).is_none(),
        epoch: &state.cursor.epoch,
        revision: state.cursor.revision,
        root_hash: state.cursor.root.to_string(),
        listeners: &state.listeners,
        rejects: rejects.collect(),
        endpoints: admin.endpoints.show(),
        resources: objects.filter_map(|stored| engine.resource(stored.key).map(Resource::masked)).collect(),
    };
    serde_json::to_vec_pretty(&config).expect("names and numbers written to memory")
}
