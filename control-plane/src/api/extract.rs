//! What handlers take from a request, checked before they see it: query, place, body, preconditions. Everything that
//! is not as it should be ends here with a problem document; nothing is read beyond its bound.

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
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::Api;
use super::access::Caller;
use super::problem::{ApiError, ErrorCode};
use crate::admission::Expected;

/// Times that a client has to send a body, beside what it earns by sending at least so many bytes a second.
const BODY_TIME: Duration = Duration::from_secs(30);
const MIN_RATE: f64 = 128.0 * 1024.0;
/// Longest that any body may take.
const MAX_BODY_TIME: Duration = Duration::from_secs(300);
/// Longest wait for a place among the large bodies.
const TURN: Duration = Duration::from_secs(10);

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
        Reading::new(request, MAX_DOCUMENT_BYTES, BODY_TIME)?.whole().await.map(Body)
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
pub(super) struct BatchBody {
    /// The body.
    pub(super) text: Bytes,
    /// Its place among the large bodies, if it is one: held until what was read from it is done with.
    pub(super) turn: Option<OwnedSemaphorePermit>,
}

impl FromRequest<Arc<Api>> for BatchBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, ApiError> {
        let reading = Reading::new(request, MAX_APPLY_BYTES, BODY_TIME)?;
        batch(reading, &api.large_bodies, TURN).await
    }
}

/// Reads a body of up to a document's size at once, and the rest of a larger one when it has its turn: a few at a
/// time, so that their bodies cannot fill the memory, and none for a body that is only said to be large.
async fn batch(mut reading: Reading, turns: &Arc<Semaphore>, wait: Duration) -> Result<BatchBody, ApiError> {
    while reading.whole.len() <= MAX_DOCUMENT_BYTES {
        if !reading.more().await? {
            return Ok(BatchBody { text: reading.whole.into(), turn: None });
        }
    }
    let waiting = Instant::now();
    let turn = tokio::time::timeout(wait, Arc::clone(turns).acquire_owned()).await;
    let overloaded = |_| {
        let detail = "there are too many large requests at this moment: try again, or send smaller batches";
        ApiError::new(ErrorCode::Unavailable, detail)
    };
    let turn = turn.map_err(overloaded)?.map_err(ApiError::internal)?;
    reading.begun += waiting.elapsed();
    reading.whole.reserve(reading.declared.saturating_sub(reading.whole.len()));
    Ok(BatchBody { text: reading.whole().await?, turn: Some(turn) })
}

fn declared(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body on its way.
struct Reading {
    body: axum::body::Body,
    declared: usize,
    limit: usize,
    /// What it has beside what it earns by its rate.
    time: Duration,
    begun: Instant,
    whole: Vec<u8>,
}

impl Reading {
    /// Refuses what is no JSON and what is said to be over the limit.
    fn new(request: Request, limit: usize, time: Duration) -> Result<Self, ApiError> {
        let media = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let media = media.split(';').next().unwrap_or("").trim();
        if !["application/json", "application/merge-patch+json"]
            .iter()
            .any(|json| media.eq_ignore_ascii_case(json))
        {
            let detail = format!("send the header `Content-Type: application/json`, not {media:?}");
            return Err(ApiError::new(ErrorCode::UnsupportedMediaType, detail));
        }
        let declared = declared(request.headers()).unwrap_or(0);
        if declared > limit {
            return Err(too_large(limit));
        }
        let whole = Vec::with_capacity(declared.min(MAX_DOCUMENT_BYTES));
        Ok(Reading { body: request.into_body(), declared, limit, time, begun: Instant::now(), whole })
    }

    /// Takes what comes next; `false` at the end.
    async fn more(&mut self) -> Result<bool, ApiError> {
        let earned = Duration::from_secs_f64(self.whole.len() as f64 / MIN_RATE);
        let due = self.begun + (self.time + earned).min(MAX_BODY_TIME);
        let late = |_| {
            let rate = MIN_RATE / 1024.0;
            ApiError::bad_request(format!("the body came too slowly, at least {rate} KiB/s are expected"))
        };
        let Some(frame) = tokio::time::timeout_at(due, self.body.frame()).await.map_err(late)? else {
            return Ok(false);
        };
        let frame = frame.map_err(|error| ApiError::bad_request(format!("the body broke off: {error}")))?;
        if let Some(data) = frame.data_ref() {
            if self.whole.len() + data.len() > self.limit {
                return Err(too_large(self.limit));
            }
            self.whole.extend_from_slice(data);
        }
        Ok(true)
    }

    /// All of it.
    async fn whole(mut self) -> Result<Bytes, ApiError> {
        while self.more().await? {}
        Ok(self.whole.into())
    }
}

fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::TooLarge, format!("the body is over {limit} bytes: split it"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body as Content;
    use axum::response::IntoResponse as _;
    use futures_util::stream::{iter, pending};
    use futures_util::{Stream, StreamExt as _};
    use http::StatusCode;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    type Piece = Result<Vec<u8>, std::io::Error>;

    /// A chunked body of these lengths.
    fn pieces(lengths: &[usize]) -> impl Stream<Item = Piece> + use<> {
        iter(lengths.iter().map(|length| Ok(vec![b' '; *length])).collect::<Vec<_>>())
    }

    fn reading(body: impl Stream<Item = Piece> + Send + 'static, time: Duration) -> Reading {
        let request = Request::builder().header(CONTENT_TYPE, "application/json");
        let request = request.body(Content::from_stream(body)).expect("a request");
        Reading::new(request, MAX_APPLY_BYTES, time).expect("JSON")
    }

    fn status(refused: Result<BatchBody, ApiError>) -> StatusCode {
        refused.err().expect("refused").into_response().status()
    }

    #[tokio::test]
    async fn only_a_body_that_is_large_takes_a_turn_and_keeps_it() {
        let turns = Arc::new(Semaphore::new(1));
        let large = [MAX_DOCUMENT_BYTES, 1];
        let held = batch(reading(pieces(&large), BODY_TIME), &turns, SOON).await.expect("there is a place");
        assert_eq!((held.text.len(), turns.available_permits()), (MAX_DOCUMENT_BYTES + 1, 0));
        let second = batch(reading(pieces(&large), BODY_TIME), &turns, SOON).await;
        assert_eq!(status(second), StatusCode::SERVICE_UNAVAILABLE);
        let small = [1, MAX_DOCUMENT_BYTES - 1];
        let small = batch(reading(pieces(&small), BODY_TIME), &turns, SOON).await.expect("needs no place");
        assert!(small.turn.is_none());
        drop(held);
        assert_eq!(turns.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_body_that_does_not_go_on_is_given_up_with_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        for lengths in [&[][..], &[10]] {
            let stalled = pieces(lengths).chain(pending());
            let stalled = batch(reading(stalled, SOON), &turns, SOON).await;
            assert_eq!(status(stalled), StatusCode::BAD_REQUEST);
        }
        assert_eq!(turns.available_permits(), 1);
    }
}
