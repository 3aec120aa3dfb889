//! `POST /v1/apply` and `/v1/diff`: a batch, read strictly, then admitted as a whole. Every document that does not
//! read is told of at once, by its index.

use std::marker::PhantomData;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{
    Action, ApplyResponse, Change, DiffResponse, FieldError, MAX_DOCUMENT_BYTES, MAX_DOCUMENTS, Prune,
};
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::Key;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;

use super::Api;
use super::access::Caller;
use super::change::planned;
use super::extract::{BatchBody, Params};
use super::problem::{ApiError, ErrorCode};
use crate::admission::plan::{MAX_ERRORS, bounded};
use crate::admission::{Batch, Document, Outcome, Request};
use crate::document;
use crate::state::blocking;

/// [`gateway_proto::admin::ApplyRequest`] as it is read: the documents stay text in the body until they are read one by one.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Envelope<'a> {
    #[serde(borrow, default, deserialize_with = "bounded_list")]
    resources: Vec<&'a RawValue>,
    #[serde(default, deserialize_with = "bounded_list")]
    deletes: Vec<Key>,
    #[serde(default)]
    prune: Option<Prune>,
    #[serde(default)]
    base_revision: Option<u64>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    allow_shrink: bool,
    #[serde(default)]
    revive_keys: bool,
}

/// Longest message of a revision, in bytes.
const MAX_MESSAGE: usize = 4_096;

/// Query of an apply; either place may ask for a dry run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct ApplyQuery {
    #[serde(default)]
    dry_run: bool,
}

/// A batch that was read.
struct Wish {
    batch: Batch,
    dry_run: bool,
    message: String,
    allow_shrink: bool,
    /// The body's place among the large ones, held until the batch is done with.
    _turn: Option<OwnedSemaphorePermit>,
}

/// Makes a batch of changes, all or nothing.
pub(super) async fn apply(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<ApplyQuery>,
    body: BatchBody,
) -> Result<Json<ApplyResponse>, ApiError> {
    let wish = wish(caller.clone(), body).await?;
    let shrink = if wish.allow_shrink { ", allows to shrink" } else { "" };
    let revive = if wish.batch.revives_keys { ", may revive keys" } else { "" };
    let object = format!("{} objects{shrink}{revive}", wish.batch.documents.len() + wish.batch.deletes.len());
    let is_dry = wish.dry_run || query.dry_run;
    if wish.allow_shrink && !caller.sees_all() {
        let detail = "allowShrink concerns every namespace: use a token that is bound to none";
        return Err(ApiError::new(ErrorCode::Forbidden, detail));
    }
    let intent = caller.intent("apply", object, wish.message, is_dry);
    let outcome = api.submit(&caller, Request::Batch(Arc::new(wish.batch)), intent).await?;
    if wish.allow_shrink && !is_dry {
        api.store.allow_shrink().await?;
        tracing::info!(by = &*caller.principal().name, "data planes of another store may shrink to this one");
    }
    Ok(Json(blocking(move || response(&outcome)).await))
}

/// What an apply would change, with contents.
pub(super) async fn diff(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(_): Params<ApplyQuery>,
    body: BatchBody,
) -> Result<Json<DiffResponse>, ApiError> {
    let wish = wish(caller.clone(), body).await?;
    let intent = caller.intent("diff", String::new(), String::new(), true);
    let outcome = api.submit(&caller, Request::Batch(Arc::new(wish.batch)), intent).await?;
    let shown = blocking(move || {
        let changed = outcome.changes.iter().filter(|change| change.action != Action::Unchanged);
        let changes = changed.map(planned).collect::<Result<Vec<_>, _>>()?;
        Ok::<_, ApiError>(DiffResponse {
            revision: outcome.state.head.revision,
            changes,
            warnings: outcome.warnings,
        })
    });
    Ok(Json(shown.await?))
}

/// The answer to a write.
pub(super) fn response(outcome: &Outcome) -> ApplyResponse {
    let changes = outcome.changes.iter().map(|change| Change {
        object: change.key.clone(),
        action: change.action,
        before: None,
        after: None,
        secrets: Vec::new(),
    });
    ApplyResponse {
        revision: outcome.revision.unwrap_or(outcome.state.head.revision),
        changes: changes.collect(),
        warnings: outcome.warnings.clone(),
    }
}

async fn wish(caller: Caller, body: BatchBody) -> Result<Wish, ApiError> {
    blocking(move || {
        let BatchBody { text, turn } = body;
        let text = std::str::from_utf8(&text).map_err(|error| {
            ApiError::bad_request(format!("the body is not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        let envelope: Envelope<'_> = serde_json::from_str(text).map_err(envelope_fault)?;
        let message = checked_message(envelope.message)?;
        let documents = read(&envelope.resources)?;
        let (deletes, prune, base_revision) = (envelope.deletes, envelope.prune, envelope.base_revision);
        for key in documents.iter().map(Document::key).chain(&deletes) {
            caller.enter(&key.namespace)?;
        }
        let Envelope { dry_run, allow_shrink, revive_keys, .. } = envelope;
        let revives_keys = revive_keys;
        let batch = Batch { documents, deletes, prune, base_revision, revives_keys, ..Batch::default() };
        Ok(Wish { batch, dry_run, message, allow_shrink, _turn: turn })
    })
    .await
}

/// The message of a revision.
pub(super) fn checked_message(message: Option<String>) -> Result<String, ApiError> {
    let message = message.unwrap_or_default();
    if message.len() > MAX_MESSAGE {
        let detail = format!("message is over {MAX_MESSAGE} bytes: shorten it");
        return Err(ApiError::new(ErrorCode::TooLarge, detail));
    }
    if message.chars().any(char::is_control) {
        let why = "must not hold control characters such as line breaks: write it as one line".to_owned();
        let (field, code) = ("message".to_owned(), ViolationCode::Invalid);
        let fault = FieldError { object: None, index: None, field, code, message: why };
        return Err(ApiError::with(ErrorCode::ValidationFailed, vec![fault]));
    }
    Ok(message)
}

/// Reads every document, or tells of every one that does not read.
pub(super) fn read(texts: &[&RawValue]) -> Result<Vec<Document>, ApiError> {
    let mut documents = Vec::with_capacity(texts.len());
    let mut faults = Vec::new();
    for (index, text) in texts.iter().map(|raw| raw.get()).enumerate() {
        let index = u32::try_from(index).ok();
        if text.len() > MAX_DOCUMENT_BYTES {
            let message = format!("is {} bytes long, at most {MAX_DOCUMENT_BYTES} are taken", text.len());
            let code = ViolationCode::OutOfRange;
            let fault = FieldError { object: None, index, field: String::new(), code, message };
            return Err(ApiError::with(ErrorCode::TooLarge, vec![fault]));
        }
        match document::read(text) {
            Ok(resource) => documents.push(Document::new(resource)),
            Err(fault) => faults.push(FieldError { index, ..fault }),
        }
        if faults.len() > MAX_ERRORS {
            break;
        }
    }
    if faults.is_empty() {
        Ok(documents)
    } else {
        Err(ApiError::with(ErrorCode::ValidationFailed, bounded(faults)))
    }
}

pub(super) fn envelope_fault(error: serde_json::Error) -> ApiError {
    let text = error.to_string();
    let code = if text.contains(TOO_MANY) { ErrorCode::TooLarge } else { ErrorCode::BadRequest };
    ApiError::new(code, format!("the body is no apply: {text}"))
}

const TOO_MANY: &str = "too many objects";

/// A list that stops reading at the bound instead of filling the memory.
pub(super) fn bounded_list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    from: D,
) -> Result<Vec<T>, D::Error> {
    struct Bounded<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX_DOCUMENTS {
                    return Err(A::Error::custom(format!(
                        "{TOO_MANY}, at most {MAX_DOCUMENTS} are taken: split the batch"
                    )));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(Bounded(PhantomData))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use axum::response::IntoResponse as _;
    use gateway_proto::admin::ApplyRequest;
    use gateway_proto::kind::Kind;
    use http::StatusCode;

    use super::*;

    #[test]
    fn the_envelope_reads_what_the_shared_type_writes() {
        let request = ApplyRequest {
            resources: vec![RawValue::from_string(r#"{"kind":"Route"}"#.to_owned()).expect("JSON")],
            deletes: vec![Key::new(Kind::Route, "default", "old")],
            prune: Some(Prune { labels: BTreeMap::from([("a".into(), "b".into())]), max_delete: Some(3) }),
            base_revision: Some(7),
            dry_run: true,
            message: Some("why".into()),
            allow_shrink: true,
            revive_keys: true,
        };
        let text = serde_json::to_string(&request).expect("JSON");
        let envelope: Envelope<'_> = serde_json::from_str(&text).expect("the same shape");
        assert_eq!(envelope.resources[0].get(), r#"{"kind":"Route"}"#);
        assert_eq!(envelope.deletes, request.deletes);
        assert_eq!(envelope.prune.expect("set").max_delete, Some(3));
        assert_eq!(
            (envelope.base_revision, envelope.dry_run, envelope.message),
            (Some(7), true, Some("why".into()))
        );
        assert!(envelope.allow_shrink && envelope.revive_keys);
    }

    #[test]
    fn one_document_too_many_stops_the_reading() {
        let text = |count: usize| format!("{{\"resources\":[{}]}}", vec!["1"; count].join(","));
        assert!(serde_json::from_str::<Envelope<'_>>(&text(MAX_DOCUMENTS)).is_ok());
        let most = text(MAX_DOCUMENTS + 1);
        let error = serde_json::from_str::<Envelope<'_>>(&most).err().expect("too many");
        assert_eq!(envelope_fault(error).into_response().status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
