//! `/v1/ca`: the control plane's own CA; and the revocation of what it has given a data plane.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{CaRoot, CaStatus};
use gateway_proto::identity::{MAX_NAME, is_name};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::extract::{Params, Segment};
use super::problem::{ApiError, ErrorCode};
use crate::identity::{IdentityError, RotateError, hex};
use crate::store::identity::Revoked;

/// Query of a revocation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RevokeQuery {
    #[serde(default)]
    force: bool,
}

/// The roots, and what a replacement waits for.
pub(super) async fn status(State(api): State<Arc<Api>>) -> Result<Json<CaStatus>, ApiError> {
    shown(&api).await
}

/// Begins to replace it.
pub(super) async fn rotate(State(api): State<Arc<Api>>, caller: Caller) -> Result<Json<CaStatus>, ApiError> {
    let audit = caller.audit("ca.rotate", String::new(), StatusCode::OK.as_u16());
    match api.authority.rotate(audit, Timestamp::now()).await {
        Ok(_) => shown(&api).await,
        Err(error @ RotateError::Underway) => Err(ApiError::new(ErrorCode::Conflict, error.to_string())),
        Err(RotateError::Identity(error)) => Err(failed(error)),
    }
}

/// Refuses the certificates that a data plane has by now, whoever shows them.
pub(super) async fn revoke(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(node): Segment,
    Params(RevokeQuery { force }): Params<RevokeQuery>,
) -> Result<StatusCode, ApiError> {
    if !is_name(&node) {
        return Err(ApiError::bad_request(format!(
            "a data plane's name has 1 to {MAX_NAME} letters, digits, dots, dashes and underscores"
        )));
    }
    let audit = caller.audit("data_plane.revoke", node.clone(), StatusCode::NO_CONTENT.as_u16());
    match api.authority.revoke(&node, force, audit, Timestamp::now()).await.map_err(failed)? {
        Revoked::Yes => Ok(StatusCode::NO_CONTENT),
        Revoked::Unknown => Err(ApiError::new(
            ErrorCode::NotFound,
            format!(
                "no data plane {node:?} was ever seen: look at `gatewayctl nodes`, or say --force (`force=true`)"
            ),
        )),
    }
}

async fn shown(api: &Api) -> Result<Json<CaStatus>, ApiError> {
    let now = Timestamp::now();
    let waits_for = api.authority.waits_for(&*api.nodes, now).await.map_err(failed)?;
    let trust = api.authority.trust();
    let roots = trust.roots().iter().map(|root| CaRoot {
        sha256: hex(&root.id),
        state: root.state.as_str().to_owned(),
        since: root.since.to_string(),
        expires: root.expires.to_string(),
        expires_in_seconds: root.expires.as_second() - now.as_second(),
    });
    Ok(Json(CaStatus { roots: roots.collect(), waits_for }))
}

fn failed(error: IdentityError) -> ApiError {
    match error {
        IdentityError::Store(error) => error.into(),
        other => ApiError::internal(other),
    }
}
