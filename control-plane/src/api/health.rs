//! `/livez`, `/readyz` and `/metrics`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use jiff::Timestamp;

use super::Api;
use super::problem::{ApiError, ErrorCode};
use crate::telemetry::Expiries;

/// The process answers.
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// The head of the store is in memory and this process is not about to end. A store that is away does not make it
/// unready: reads and streams go on from memory.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    if api.stop.is_cancelled() {
        return Err(ApiError::new(ErrorCode::Unavailable, "this control plane is about to end"));
    }
    if !api.live.is_following() {
        return Err(ApiError::new(
            ErrorCode::Unavailable,
            "this control plane cannot follow the store, see its log",
        ));
    }
    Ok("ok\n")
}

/// Prometheus text.
pub(super) async fn metrics(State(api): State<Arc<Api>>) -> Response {
    let (now, trust) = (Timestamp::now().as_second(), api.authority.trust());
    let roots = trust.roots().iter().map(|root| (root.state.as_str(), root.expires.as_second() - now));
    api.metrics.expiries(&Expiries {
        roots: roots.collect(),
        stream: api.authority.stream_certificate_expires().map(|end| end.as_second() - now),
        data_planes: api.nodes.first_certificate_to_end().map(|end| end - now),
    });
    let _turn = api.metrics.forget_sources();
    api.discovery.seen(|source| api.metrics.source(source));
    let text = api.metrics.render(&api.live.get());
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
