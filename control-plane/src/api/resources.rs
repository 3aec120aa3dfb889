//! `/v1/{plural}` and `/v1/{plural}/{name}`: the objects themselves, one at a time or in pages.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{Action, ApplyResponse, FieldError, List, Role};
use gateway_proto::kind::{Key, Kind, Resource};
use http::header::ETAG;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Api;
use super::access::Caller;
use super::apply::response;
use super::credentials;
use super::extract::{Body, Condition, Params, Place, kind};
use super::problem::{ApiError, ErrorCode};
use crate::admission::{Batch, Document, Outcome, Request};
use crate::selector::Selector;
use crate::state::{State as Head, blocking};
use crate::store::Stored;
use crate::{document, secrets};

/// Objects of a page when the request names no limit, and the most it may ask for.
const PAGE: usize = 100;
const MAX_PAGE: usize = 1_000;

/// Query of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    namespace: Option<String>,
    labels: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(default)]
    secrets: Shown,
}

/// What stands in the place of secrets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shown {
    /// `***`.
    #[default]
    Masked,
    /// The sealed value, for a restore.
    Sealed,
}

/// Query of a read of one object; the namespace is taken by [`Place`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadQuery {
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
}

/// Query of a write of one object; the namespace is taken by [`Place`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct WriteQuery {
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

/// What a list is to hold.
pub(super) struct Wanted {
    kind: Kind,
    /// `None`: all that the caller sees.
    pub(super) namespace: Option<String>,
    selector: Selector,
    pub(super) after: Option<Key>,
    pub(super) limit: usize,
}

impl Wanted {
    /// Whether its labels are those that are asked for.
    pub(super) fn is_selected(&self, resource: &Resource) -> bool {
        self.selector.is_empty()
            || resource.metadata().is_some_and(|metadata| self.selector.matches(&metadata.labels))
    }
}

/// A page of one kind, by namespace and name.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Path(plural): Path<String>,
    Params(query): Params<ListQuery>,
) -> Result<axum::Json<List>, ApiError> {
    let shown = query.secrets;
    let wanted = wanted(kind(&plural)?, query)?;
    if let Some(namespace) = &wanted.namespace {
        caller.enter(namespace)?;
    }
    if wanted.kind == Kind::Credential {
        return Ok(axum::Json(credentials::list(&api, &caller, &wanted).await?));
    }
    if shown == Shown::Sealed && caller.principal().role < Role::Admin {
        let detail = "sealed secrets are for backups: use a token with the role admin";
        return Err(ApiError::new(ErrorCode::Forbidden, detail));
    }
    let head = api.live.get();
    let revision = head.head.revision;
    let (mut items, next_cursor) = blocking(move || page(&head, &caller, &wanted)).await?;
    if shown == Shown::Sealed {
        secrets::dump(&*api.store, &mut items).await?;
    }
    let items = blocking(move || {
        let masked = |it: Resource| if shown == Shown::Masked { it.masked() } else { it };
        let items = items.into_iter().map(|it| serde_json::value::to_raw_value(&masked(it)));
        items.collect::<Result<_, _>>().map_err(ApiError::internal)
    });
    Ok(axum::Json(List { items: items.await?, revision, next_cursor }))
}

/// One object, with its ETag.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Place(key): Place,
    Params(_): Params<ReadQuery>,
) -> Result<Response, ApiError> {
    if key.kind == Kind::Credential {
        return credentials::get(&api, &key).await;
    }
    let head = api.live.get();
    let stored = head.objects.get(&key).ok_or_else(|| missing(&key))?;
    let body = view(stored)?;
    Ok(tagged(StatusCode::OK, stored.revision, axum::Json(body)))
}

/// Creates or replaces one object.
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Place(key): Place,
    Params(query): Params<WriteQuery>,
    Condition(expected): Condition,
    body: Body,
) -> Result<Response, ApiError> {
    let resource = document::read_at(&key, body.text()?).map_err(|fault| about(&key, fault))?;
    let batch = Batch { documents: vec![Document::new(resource)], expected, ..Batch::default() };
    let intent = caller.intent("put", key.to_string(), String::new(), query.dry_run);
    let outcome = api.submit(&caller, Request::Batch(Arc::new(batch)), intent).await?;
    Ok(written(&key, &outcome))
}

/// Changes parts of one object (RFC 7396).
pub(super) async fn patch(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Place(key): Place,
    Params(query): Params<WriteQuery>,
    Condition(expected): Condition,
    body: Body,
) -> Result<Response, ApiError> {
    let patch: Value = body.json()?;
    if !patch.is_object() {
        return Err(ApiError::bad_request("a merge patch of an object is a JSON object"));
    }
    let intent = caller.intent("patch", key.to_string(), String::new(), query.dry_run);
    let request = Request::Patch { key: key.clone(), patch: Arc::new(patch), expected };
    let outcome = api.submit(&caller, request, intent).await?;
    Ok(written(&key, &outcome))
}

/// Deletes one object.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Place(key): Place,
    Params(query): Params<WriteQuery>,
    Condition(expected): Condition,
) -> Result<axum::Json<ApplyResponse>, ApiError> {
    let intent = caller.intent("delete", key.to_string(), String::new(), query.dry_run);
    let batch = Batch { deletes: vec![key], expected, ..Batch::default() };
    let outcome = api.submit(&caller, Request::Batch(Arc::new(batch)), intent).await?;
    Ok(axum::Json(response(&outcome)))
}

/// An object as it is shown: with generation, revision and times, and without its secrets.
pub(super) fn view(stored: &Stored) -> Result<Box<RawValue>, ApiError> {
    serde_json::value::to_raw_value(&dated(stored)?.masked()).map_err(ApiError::internal)
}

/// An object as it is stored, with generation, revision and times.
fn dated(stored: &Stored) -> Result<Resource, ApiError> {
    let mut resource = decoded(stored)?;
    let metadata = resource.metadata_mut();
    metadata.generation = stored.generation;
    metadata.revision = stored.revision;
    metadata.created_at = stored.created.to_string();
    metadata.updated_at = stored.updated.to_string();
    Ok(resource)
}

pub(super) fn decoded(stored: &Stored) -> Result<Resource, ApiError> {
    Resource::decode(stored.key.kind, &stored.body)
        .map_err(|error| ApiError::internal(format!("{}: {error}", stored.key)))
}

/// There is no such object.
pub(super) fn missing(key: &Key) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("there is no {key}"))
}

fn about(key: &Key, fault: FieldError) -> ApiError {
    ApiError::with(ErrorCode::ValidationFailed, vec![FieldError { object: Some(key.clone()), ..fault }])
}

pub(super) fn tagged(status: StatusCode, revision: u64, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{revision}\"")) {
        response.headers_mut().insert(ETAG, tag);
    }
    response
}

/// 201 when it is new; the ETag is that of what is stored, so a dry run of something new has none.
fn written(key: &Key, outcome: &Outcome) -> Response {
    let created = outcome.revision.or(outcome.version).is_some()
        && outcome.changes.iter().any(|change| change.action == Action::Created);
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let body = axum::Json(response(outcome));
    let revision = match key.kind {
        Kind::Credential => outcome.version,
        _ => outcome.state.objects.get(key).map(|stored| stored.revision),
    };
    match revision {
        Some(revision) => tagged(status, revision, body),
        None => (status, body).into_response(),
    }
}

fn wanted(kind: Kind, query: ListQuery) -> Result<Wanted, ApiError> {
    let namespace = query.namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::bad_request(format!("limit is {limit}, expected 1 to {MAX_PAGE}")));
    }
    let after = query.cursor.as_deref().map(|cursor| read_cursor(kind, cursor)).transpose()?;
    Ok(Wanted {
        kind,
        namespace: (namespace != "*").then_some(namespace),
        selector: query
            .labels
            .as_deref()
            .unwrap_or("")
            .parse()
            .map_err(|fault: String| ApiError::bad_request(fault))?,
        after,
        limit,
    })
}

/// The objects of a page as they are stored, and where the next one begins.
fn page(head: &Head, caller: &Caller, wanted: &Wanted) -> Result<(Vec<Resource>, Option<String>), ApiError> {
    let first = Key::new(wanted.kind, wanted.namespace.as_deref().unwrap_or(""), "");
    let from = wanted.after.as_ref().filter(|after| **after > first).unwrap_or(&first);
    let mut items = Vec::new();
    let mut last: Option<&Key> = None;
    let in_range = head.objects.range_from(from).take_while(|(key, _)| {
        key.kind == wanted.kind
            && wanted.namespace.as_ref().is_none_or(|namespace| key.namespace == *namespace)
    });
    for (key, stored) in
        in_range.filter(|(key, _)| Some(*key) != wanted.after.as_ref() && caller.sees(&key.namespace))
    {
        if !wanted.selector.is_empty() && !wanted.is_selected(&decoded(stored)?) {
            continue;
        }
        if items.len() == wanted.limit {
            return Ok((items, last.map(write_cursor)));
        }
        items.push(dated(stored)?);
        last = Some(key);
    }
    Ok((items, None))
}

pub(super) fn write_cursor(last: &Key) -> String {
    URL_SAFE_NO_PAD.encode(last.qualified())
}

fn read_cursor(kind: Kind, cursor: &str) -> Result<Key, ApiError> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    text.as_deref()
        .and_then(|text| text.split_once('/'))
        .map(|(namespace, name)| Key::new(kind, namespace, name))
        .ok_or_else(|| ApiError::bad_request("cursor is none of an earlier answer"))
}
