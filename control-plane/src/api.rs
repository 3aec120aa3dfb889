//! The admin REST API. Read `routes` first: every path, its method, who may call it and the function that answers.
//! A file per noun holds the handlers; `access.rs` stands in front of them, `extract.rs` checks what they take,
//! `problem.rs` renders every error.
//!
//! Refuses to reach the streams: what data planes do is read through `nodes`.

mod access;
mod apply;
mod audit;
mod ca;
mod change;
mod credentials;
mod data_planes;
mod discovery;
mod explain;
mod extract;
mod health;
mod join_tokens;
mod openapi;
mod problem;
mod redact;
mod resources;
mod restore;
mod revisions;
mod secrets;
pub mod server;
mod tokens;
mod watch;

use std::sync::Arc;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, delete, get, patch, post, put};
use gateway_proto::admin::Role;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::admission::Admission;
use crate::audit::AuditLog;
use crate::auth::Authenticator;
use crate::discovery::Discovery;
use crate::identity::Authority;
use crate::nodes::Nodes;
use crate::publish::Publisher;
use crate::state::Live;
use crate::store::Store;
use crate::telemetry::Metrics;
use problem::{ApiError, ErrorCode};

/// Bodies over a document's size that are held at the same time.
const LARGE_BODIES: usize = 4;
/// Clients of `/v1/watch` at the same time.
const WATCHERS: usize = 256;

/// What the handlers work with.
#[derive(Debug)]
pub struct Api {
    /// Everything at the head.
    pub live: Arc<Live>,
    /// The way of every write.
    pub admission: Admission,
    /// History, tokens and the audit log.
    pub store: Arc<dyn Store>,
    /// Who is calling.
    pub auth: Authenticator,
    /// What is known of discovery sources.
    pub discovery: Arc<Discovery>,
    /// Who data planes are.
    pub authority: Arc<Authority>,
    /// Refused attempts.
    pub audit: AuditLog,
    /// Who runs what.
    pub nodes: Arc<Nodes>,
    /// What each group of data planes takes.
    pub publisher: Arc<Publisher>,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Turns for large bodies.
    pub large_bodies: Arc<Semaphore>,
    /// Turns for watchers.
    pub watchers: Arc<Semaphore>,
    /// Cancelled when the process is to end: watchers leave, readiness goes.
    pub stop: CancellationToken,
}

impl Api {
    /// Turns for large bodies and for watchers.
    pub fn turns() -> (Arc<Semaphore>, Arc<Semaphore>) {
        (Arc::new(Semaphore::new(LARGE_BODIES)), Arc::new(Semaphore::new(WATCHERS)))
    }
}

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// A token with this role or a higher one.
    Role(Role),
}

/// One line of the table.
struct Route {
    /// As in the request line.
    method: &'static str,
    /// With `{parameters}`.
    path: &'static str,
    access: Access,
    /// Name in the audit log; `None`: it changes nothing.
    action: Option<&'static str>,
    handler: MethodRouter<Arc<Api>>,
}

/// The table.
fn routes() -> Vec<Route> {
    use Access::Public;
    const VIEWER: Access = Access::Role(Role::Viewer);
    const EDITOR: Access = Access::Role(Role::Editor);
    const ADMIN: Access = Access::Role(Role::Admin);
    let read = |path, access, handler| Route { method: "GET", path, access, action: None, handler };
    let ask = |path, access, handler| Route { method: "POST", path, access, action: None, handler };
    let write =
        |method, path, access, action, handler| Route { method, path, access, action: Some(action), handler };
    vec![
        read("/v1/{plural}", VIEWER, get(resources::list)),
        read("/v1/{plural}/{name}", VIEWER, get(resources::get)),
        write("PUT", "/v1/{plural}/{name}", EDITOR, "put", put(resources::put)),
        write("PATCH", "/v1/{plural}/{name}", EDITOR, "patch", patch(resources::patch)),
        write("DELETE", "/v1/{plural}/{name}", EDITOR, "delete", delete(resources::delete)),
        write(
            "POST",
            "/v1/credentials/{name}/rotate",
            EDITOR,
            "credential.rotate",
            post(credentials::rotate),
        ),
        write("POST", "/v1/apply", EDITOR, "apply", post(apply::apply)),
        ask("/v1/diff", VIEWER, post(apply::diff)),
        write("POST", "/v1/restore", ADMIN, "restore", post(restore::restore)),
        read("/v1/revisions", VIEWER, get(revisions::list)),
        read("/v1/revisions/{range}", VIEWER, get(revisions::get)),
        write("POST", "/v1/revisions/{range}/rollback", ADMIN, "rollback", post(revisions::rollback)),
        read("/v1/data-planes", VIEWER, get(data_planes::list)),
        read("/v1/data-planes/{id}", VIEWER, get(data_planes::get)),
        read("/v1/status/{plural}/{name}", VIEWER, get(data_planes::status)),
        read("/v1/discovery", VIEWER, get(discovery::list)),
        read("/v1/discovery/{name}", VIEWER, get(discovery::get)),
        ask("/v1/explain", VIEWER, post(explain::explain)),
        read("/v1/tokens", ADMIN, get(tokens::list)),
        write("POST", "/v1/tokens", ADMIN, "token.create", post(tokens::create)),
        write("DELETE", "/v1/tokens/{name}", ADMIN, "token.delete", delete(tokens::delete)),
        write("POST", "/v1/data-planes/{id}/revoke", ADMIN, "data_plane.revoke", post(ca::revoke)),
        read("/v1/ca", VIEWER, get(ca::status)),
        write("POST", "/v1/ca/rotate", ADMIN, "ca.rotate", post(ca::rotate)),
        read("/v1/join-tokens", ADMIN, get(join_tokens::list)),
        write("POST", "/v1/join-tokens", ADMIN, "join_token.create", post(join_tokens::create)),
        write("DELETE", "/v1/join-tokens/{name}", ADMIN, "join_token.delete", delete(join_tokens::delete)),
        write("POST", "/v1/secrets/rewrap", ADMIN, "secrets.rewrap", post(secrets::rewrap)),
        read("/v1/audit", ADMIN, get(audit::list)),
        read("/v1/watch", VIEWER, get(watch::watch)),
        read("/livez", Public, get(health::live)),
        read("/readyz", Public, get(health::ready)),
        read("/metrics", VIEWER, get(health::metrics)),
        read("/openapi.json", VIEWER, get(openapi::document)),
    ]
}

/// The API as a service.
pub fn router(api: Arc<Api>) -> Router {
    let mut router = Router::new();
    for route in routes() {
        let guard = access::Guard { api: Arc::clone(&api), access: route.access, action: route.action };
        router = router.route(route.path, route.handler.layer(from_fn_with_state(guard, access::guard)));
    }
    router
        .fallback(|| async { ApiError::new(ErrorCode::NotFound, "there is no such path, see /openapi.json") })
        .method_not_allowed_fallback(|| async { ApiError::method_not_allowed(None) })
        .layer(CatchPanicLayer::custom(panicked))
        .with_state(api)
}

fn panicked(reason: Box<dyn std::any::Any + Send>) -> Response {
    let text = reason.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| reason.downcast_ref::<String>().cloned()).unwrap_or_default();
    ApiError::internal(format!("panic: {text}")).into_response()
}
