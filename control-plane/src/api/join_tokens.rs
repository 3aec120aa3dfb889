//! `/v1/join-tokens`: what data planes get their first certificate with. The secret is shown once, in the answer to
//! its creation.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{CreateJoinToken, FieldError, JoinToken, JoinTokenList};
use gateway_proto::field::ViolationCode;
use gateway_proto::identity::{MAX_NAME, is_name};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};

use super::Api;
use super::access::Caller;
use super::extract::{Body, Segment};
use super::problem::{ApiError, ErrorCode};
use crate::identity::hex;
use crate::store::identity::JoinTokenRecord;

/// How long a token is good for when nothing is said, and at the longest.
const DEFAULT_TTL: Duration = Duration::from_secs(3600);
const MAX_TTL: Duration = Duration::from_secs(8760 * 3600);
/// Most data planes that one token lets join.
const MAX_USES: u32 = 100_000;

/// By name.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<JoinTokenList>, ApiError> {
    let tokens = api.store.join_tokens().await?;
    Ok(Json(JoinTokenList { items: tokens.into_iter().map(shown).collect() }))
}

/// A new one, with its secret.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<JoinToken>), ApiError> {
    let wish: CreateJoinToken = body.json()?;
    let (uses, ttl) = checked(&wish).map_err(|errors| ApiError::with(ErrorCode::ValidationFailed, errors))?;
    let audit = caller.audit("join_token.create", wish.name.clone(), StatusCode::CREATED.as_u16());
    let made = api.authority.new_join_token(wish.name, wish.group, uses, ttl, Timestamp::now());
    let (secret, record) = made;
    let token = JoinToken { token: Some(secret.reveal().to_owned()), ..shown(record.clone()) };
    api.store.create_join_token(record, audit).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// Revokes one. Certificates that it has led to stay good.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(name): Segment,
) -> Result<StatusCode, ApiError> {
    let audit = caller.audit("join_token.delete", name.clone(), StatusCode::NO_CONTENT.as_u16());
    if api.store.delete_join_token(&name, audit).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no join token {name:?}")))
}

/// Uses and life of the wanted token; or everything that is wrong with it.
fn checked(wish: &CreateJoinToken) -> Result<(u32, SignedDuration), Vec<FieldError>> {
    let mut faults = Vec::new();
    let mut fault = |field: &str, code, message: String| {
        faults.push(FieldError { object: None, index: None, field: field.to_owned(), code, message });
    };
    if let Err(message) = gateway_engine::value::name(&wish.name) {
        fault("name", ViolationCode::Invalid, message);
    }
    if !is_name(&wish.group) {
        let message = format!("expected 1 to {MAX_NAME} letters, digits, dots, dashes and underscores");
        fault("group", ViolationCode::Invalid, message);
    }
    let uses = wish.uses.unwrap_or(1);
    if !(1..=MAX_USES).contains(&uses) {
        fault("uses", ViolationCode::OutOfRange, format!("is {uses}, expected 1 to {MAX_USES}"));
    }
    let ttl = match wish.ttl.as_deref().map(gateway_engine::value::duration) {
        None => DEFAULT_TTL,
        Some(Ok(ttl)) if !ttl.is_zero() && ttl <= MAX_TTL => ttl,
        Some(Ok(_)) => {
            fault("ttl", ViolationCode::OutOfRange, "is over 8760h, or nothing at all".to_owned());
            DEFAULT_TTL
        }
        Some(Err(message)) => {
            fault("ttl", ViolationCode::Invalid, message);
            DEFAULT_TTL
        }
    };
    if faults.is_empty() {
        Ok((uses, SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX)))
    } else {
        Err(faults)
    }
}

fn shown(record: JoinTokenRecord) -> JoinToken {
    JoinToken {
        name: record.name,
        group: record.group,
        uses: record.uses,
        used: record.used,
        created_at: record.created.to_string(),
        expires: record.expires.to_string(),
        ca: hex(&record.authority),
        token: None,
    }
}
