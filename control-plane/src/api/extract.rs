//! What handlers take from a request, checked before they see it: query, place, body, preconditions. Everything that
//! is not as it should be ends here with a problem document; nothing is read beyond its bound.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{MAX_APPLY_BYTES, MAX_DOCUMENT_BYTES};
use gateway_proto::kind::{Key, Kind};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Api;
use super::access::Caller;
use super::problem::{ApiError, ErrorCode};
use crate::admission::Expected;

/// Time that a client has to send a body of up to a document's size, and of up to an apply's size.
const SMALL_BODY_TIME: Duration = Duration::from_secs(30);
const LARGE_BODY_TIME: Duration = Duration::from_secs(300);

/// The query, by field; unknown parameters are refused when `T` denies unknown fields.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Arc<Api>> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Params(params))
            .map_err(|error| ApiError::bad_request(error.body_text()))
    }
}

/// The one path parameter.
pub(super) struct Segment(pub(super) String);

impl FromRequestParts<Arc<Api>> for Segment {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path(segment) = Path::from_request_parts(parts, api)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        Ok(Segment(segment))
    }
}

/// `{plural}/{name}?namespace`: an object that the caller may see, whether it exists or not.
pub(super) struct Place(pub(super) Key);

#[derive(Deserialize)]
struct Namespace {
    namespace: Option<String>,
}

impl FromRequestParts<Arc<Api>> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Arc<Api>) -> Result<Self, ApiError> {
        let Path((plural, name)): Path<(String, String)> = Path::from_request_parts(parts, api)
            .await
            .map_err(|error| ApiError::bad_request(error.body_text()))?;
        let kind = kind(&plural)?;
        let Params(Namespace { namespace }) = Params::from_request_parts(parts, api).await?;
        let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        caller(parts)?.enter(&namespace)?;
        Ok(Place(Key::new(kind, namespace, name)))
    }
}

impl FromRequestParts<Arc<Api>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        caller(parts).cloned()
    }
}

fn caller(parts: &Parts) -> Result<&Caller, ApiError> {
    parts.extensions.get().ok_or_else(|| ApiError::internal("a public route asks who is calling"))
}

/// The kind of a collection.
///
/// # Errors
/// `not_found`, naming the collections there are.
pub(super) fn kind(plural: &str) -> Result<Kind, ApiError> {
    Kind::from_plural(plural).ok_or_else(|| {
        let known = Kind::ALL.iter().map(|kind| kind.plural()).collect::<Vec<_>>().join(", ");
        ApiError::new(ErrorCode::NotFound, format!("there is no collection {plural:?}, only {known}"))
    })
}

/// `If-Match` and `If-None-Match: *`, as a condition on the object that is written.
pub(super) struct Condition(pub(super) Expected);

impl FromRequestParts<Arc<Api>> for Condition {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<Api>) -> Result<Self, ApiError> {
        let expected = match (text(&parts.headers, &IF_MATCH)?, text(&parts.headers, &IF_NONE_MATCH)?) {
            (None, None) => Expected::Any,
            (Some("*"), None) => Expected::Present,
            (None, Some("*")) => Expected::Absent,
            (Some(tag), None) => tag
                .strip_prefix('"')
                .and_then(|tag| tag.strip_suffix('"'))
                .and_then(|tag| tag.parse().ok())
                .map(Expected::Revision)
                .ok_or_else(|| {
                    ApiError::bad_request(format!("If-Match takes one ETag of an answer, not {tag}"))
                })?,
            (_, Some(_)) => {
                return Err(ApiError::bad_request("If-None-Match takes * only, and not with If-Match"));
            }
        };
        Ok(Condition(expected))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ApiError> {
    headers
        .get(name)
        .map(|value| {
            value.to_str().map(str::trim).map_err(|_| ApiError::bad_request(format!("{name} is not text")))
        })
        .transpose()
}

/// A JSON body of at most one document.
pub(super) struct Body(pub(super) Bytes);

impl FromRequest<Arc<Api>> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Arc<Api>) -> Result<Self, ApiError> {
        read(request, MAX_DOCUMENT_BYTES, SMALL_BODY_TIME).await.map(Body)
    }
}

impl Body {
    /// As text.
    ///
    /// # Errors
    /// `bad_request` when it is not UTF-8.
    pub(super) fn text(&self) -> Result<&str, ApiError> {
        std::str::from_utf8(&self.0).map_err(|error| {
            ApiError::bad_request(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
        })
    }

    /// Read into a type.
    ///
    /// # Errors
    /// `bad_request` with line and column.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_slice(&self.0)
            .map_err(|error| ApiError::bad_request(format!("the body is no such JSON: {error}")))
    }
}

/// A JSON body of at most one apply.
pub(super) struct BatchBody(pub(super) Bytes);

impl FromRequest<Arc<Api>> for BatchBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let small = declared(request.headers()).is_some_and(|length| length <= MAX_DOCUMENT_BYTES);
        if small {
            return read(request, MAX_DOCUMENT_BYTES, SMALL_BODY_TIME).await.map(BatchBody);
        }
        // A few at a time, so that their bodies cannot fill the memory.
        let _turn = api.large_bodies.acquire().await.map_err(ApiError::internal)?;
        read(request, MAX_APPLY_BYTES, LARGE_BODY_TIME).await.map(BatchBody)
    }
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn read(request: Request, limit: usize, time: Duration) -> Result<Bytes, ApiError> {
    let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = media.split(';').next().unwrap_or("").trim();
    if !["application/json", "application/merge-patch+json"]
        .iter()
        .any(|json| media.eq_ignore_ascii_case(json))
    {
        let detail = format!("send the header `Content-Type: application/json`, not {media:?}");
        return Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail));
    }
    let too_large =
        || ApiError::new(ErrorCode::TooLarge, format!("the body is over {limit} bytes: split it"));
    let length = declared(request.headers()).unwrap_or(0);
    if length > limit {
        return Err(too_large());
    }
    let mut body = request.into_body();
    let whole = async {
        let mut whole = Vec::with_capacity(length);
        while let Some(frame) = body.frame().await {
            let frame =
                frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
            let Some(data) = frame.data_ref() else { continue };
            if whole.len() + data.len() > limit {
                return Err(too_large());
            }
            whole.extend_from_slice(data);
        }
        Ok(Bytes::from(whole))
    };
    let late =
        || ApiError::bad_request(Cow::from(format!("the body did not arrive within {} s", time.as_secs())));
    tokio::time::timeout(time, whole).await.map_err(|_| late())?
}
