//! `/v1/secrets`: what is done with sealed values as a whole. Single ones are shown nowhere.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::RewrapResponse;
use http::StatusCode;

use super::Api;
use super::access::Caller;
use super::problem::ApiError;
use crate::admission::Refusal;
use crate::secrets;

/// Encrypts every data key with the master key in use. Goes on, and is written into the audit log, when the caller goes
/// away.
pub(super) async fn rewrap(
    State(api): State<Arc<Api>>,
    caller: Caller,
) -> Result<Json<RewrapResponse>, ApiError> {
    let work = tokio::spawn(async move {
        let done = api.admission.rewrap().await.map_err(Refusal::from)?;
        let master = secrets::shown(done.master);
        let audit = caller.audit("secrets.rewrap", master.clone(), StatusCode::OK.as_u16());
        api.store.append_audit(vec![audit]).await?;
        let other_keys = u32::try_from(done.other_keys).unwrap_or(u32::MAX);
        Ok(Json(RewrapResponse { master, data_keys: done.data_keys, other_keys }))
    });
    work.await.map_err(ApiError::internal)?
}
