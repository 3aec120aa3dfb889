//! `/v1/credentials`: as other objects, but read from the store, because they are no part of the head that is held in
//! memory; and rotation, which shows a new key once.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use gateway_engine::value;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{Action, FieldError, List, RotateCredential, RotatedCredential};
use gateway_proto::credential::{KeyDigest, RANDOM_LEN, key};
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use http::StatusCode;
use jiff::SignedDuration;
use rand::distr::{Alphanumeric, SampleString as _};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Params};
use super::problem::{ApiError, ErrorCode};
use super::resources::{Wanted, decoded, missing, tagged, view, write_cursor};
use crate::admission::{Batch, Request, Rotation};
use crate::store::{CredentialPage, Stored};

/// Longest grace of a key that was rotated: 90 days.
const MAX_GRACE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Query of a rotation.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RotateQuery {
    namespace: Option<String>,
}

/// A page, by namespace and name.
pub(super) async fn list(api: &Api, caller: &Caller, wanted: &Wanted) -> Result<List, ApiError> {
    let revision = api.live.get().head.revision;
    let mut items = Vec::new();
    let mut after = wanted.after.as_ref().map(|key| (key.namespace.clone(), key.name.clone()));
    let mut last: Option<Key> = None;
    loop {
        let limit = u32::try_from(wanted.limit + 1).unwrap_or(u32::MAX);
        let page = CredentialPage { namespace: wanted.namespace.clone(), after: after.take(), limit };
        let page = api.store.credential_page(page).await?;
        let is_last = page.len() < wanted.limit + 1;
        for stored in &page {
            after = Some((stored.key.namespace.clone(), stored.key.name.clone()));
            if !caller.sees(&stored.key.namespace) || !wanted.is_selected(&decoded(stored)?) {
                continue;
            }
            if items.len() == wanted.limit {
                return Ok(List { items, revision, next_cursor: last.as_ref().map(write_cursor) });
            }
            items.push(view(stored)?);
            last = Some(stored.key.clone());
        }
        if is_last {
            return Ok(List { items, revision, next_cursor: None });
        }
    }
}

/// One credential, with its ETag.
pub(super) async fn get(api: &Api, key: &Key) -> Result<Response, ApiError> {
    let stored = find(api, key).await?;
    Ok(tagged(StatusCode::OK, stored.revision, Json(view(&stored)?)))
}

async fn find(api: &Api, key: &Key) -> Result<Stored, ApiError> {
    api.store.credentials(vec![key.clone()]).await?.pop().ok_or_else(|| missing(key))
}

/// Another key in the place of the one there is, shown this once.
pub(super) async fn rotate(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(name): Path<String>,
    Params(RotateQuery { namespace }): Params<RotateQuery>,
    body: Body,
) -> Result<Json<RotatedCredential>, ApiError> {
    let object = Key::new(Kind::Credential, namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE), name);
    caller.enter(&object.namespace)?;
    let wish: RotateCredential = if body.0.is_empty() { RotateCredential::default() } else { body.json()? };
    let grace = grace(&object, wish.grace.as_deref())?;
    let random = Zeroizing::new(Alphanumeric.sample_string(&mut rand::rng(), RANDOM_LEN));
    let secret = key(&random);
    let digest = KeyDigest::of(secret.as_bytes());
    let rotation = Some(Rotation { key: object.clone(), digest, grace });
    let intent = caller.intent("credential.rotate", object.to_string(), String::new(), false);
    let outcome =
        api.submit(&caller, Request::Batch(Arc::new(Batch { rotation, ..Batch::default() })), intent).await?;
    let after = outcome.changes.into_iter().find(|change| change.action != Action::Deleted);
    let Some(Resource::Credential(after)) = after.and_then(|change| change.after) else {
        return Err(ApiError::internal("a rotation made no credential"));
    };
    let spec = after.spec.unwrap_or_default();
    let retiring_until = spec.api_key.map(|key| key.retiring_until).filter(|until| !until.is_empty());
    let (id, consumer) = (digest.id().as_str().to_owned(), spec.consumer);
    Ok(Json(RotatedCredential { object, consumer, id, key: secret, expires: spec.expires, retiring_until }))
}

fn grace(object: &Key, text: Option<&str>) -> Result<SignedDuration, ApiError> {
    let Some(text) = text else { return Ok(SignedDuration::ZERO) };
    let fault = |code, message| {
        let (object, field) = (Some(object.clone()), "grace".to_owned());
        ApiError::with(
            ErrorCode::ValidationFailed,
            vec![FieldError { object, index: None, field, code, message }],
        )
    };
    let grace = value::duration(text).map_err(|message| fault(ViolationCode::Invalid, message))?;
    let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::MAX);
    if grace > MAX_GRACE {
        return Err(fault(ViolationCode::OutOfRange, "at most 2160h (90 days) are taken".to_owned()));
    }
    Ok(grace)
}
