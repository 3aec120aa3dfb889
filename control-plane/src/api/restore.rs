//! `POST /v1/restore`: the store becomes what a backup says, as the first revision of a new epoch. Sealed values of a
//! dump are opened with the master key here and nowhere else (admins, who are bound to no namespace, ask for it); data planes are allowed to shrink to what comes of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::ApplyResponse;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Api;
use super::access::Caller;
use super::apply::{bounded_list, checked_message, envelope_fault, read, response};
use super::extract::BatchBody;
use super::problem::ApiError;
use crate::admission::{Batch, Request};
use crate::state::blocking;

/// [`gateway_proto::admin::RestoreRequest`] as it is read: the documents stay text in the body until they are read one by
/// one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "bounded_list")]
    resources: Vec<&'a RawValue>,
    #[serde(default)]
    replace: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    message: Option<String>,
}

/// Makes the store what a backup says, all or nothing.
pub(super) async fn restore(
    State(api): State<Arc<Api>>,
    caller: Caller,
    BatchBody { text, turn }: BatchBody,
) -> Result<Json<ApplyResponse>, ApiError> {
    let read = blocking(move || {
        let wish: Envelope<'_> = serde_json::from_slice(&text).map_err(envelope_fault)?;
        let message = checked_message(wish.message)?;
        let documents = read(&wish.resources)?;
        let count = documents.len();
        let batch = Arc::new(Batch { documents, ..Batch::default() });
        let request = Request::Restore { batch, replace: wish.replace };
        Ok::<_, ApiError>((request, message, count, wish.dry_run))
    });
    let (request, message, count, is_dry) = read.await?;
    let intent = caller.intent("restore", format!("{count} objects"), message, is_dry);
    let outcome = api.submit(&caller, request, intent).await?;
    drop(turn);
    if outcome.revision.is_some() {
        let (epoch, by) = (outcome.state.head.epoch, &*caller.principal().name);
        tracing::info!(%epoch, by, "restored a backup: data planes of other histories may shrink to it");
    }
    Ok(Json(blocking(move || response(&outcome)).await))
}
