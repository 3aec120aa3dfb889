//! `/v1/tokens`: admin tokens. The secret is shown once, in the answer to its creation.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{CreateToken, FieldError, Role, Token, TokenList};
use gateway_proto::field::ViolationCode;
use http::StatusCode;
use jiff::Timestamp;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Segment};
use super::problem::{ApiError, ErrorCode};
use crate::auth::new_token;
use crate::store::TokenRecord;

/// Namespaces that a token may name.
const MAX_NAMESPACES: usize = 100;

/// By name.
pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<TokenList>, ApiError> {
    let tokens = api.store.tokens().await?;
    Ok(Json(TokenList { items: tokens.tokens.into_iter().map(shown).collect() }))
}

/// A new one, with its secret.
pub(super) async fn create(
    State(api): State<Arc<Api>>,
    caller: Caller,
    body: Body,
) -> Result<(StatusCode, Json<Token>), ApiError> {
    let wish: CreateToken = body.json()?;
    let expires = checked(&wish).map_err(|errors| ApiError::with(ErrorCode::ValidationFailed, errors))?;
    let audit = caller.audit("token.create", wish.name.clone(), StatusCode::CREATED.as_u16());
    let (secret, record) = new_token(wish.name, wish.role, wish.namespaces, expires);
    let token = Token { token: Some(secret.reveal().to_owned()), ..shown(record.clone()) };
    api.store.create_token(record, Some(audit)).await?;
    Ok((StatusCode::CREATED, Json(token)))
}

/// Revokes one.
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(name): Segment,
) -> Result<StatusCode, ApiError> {
    let audit = caller.audit("token.delete", name.clone(), StatusCode::NO_CONTENT.as_u16());
    if api.store.delete_token(&name, Some(audit)).await? {
        return Ok(StatusCode::NO_CONTENT);
    }
    Err(ApiError::new(ErrorCode::NotFound, format!("there is no token {name:?}")))
}

/// When the wanted token ends; or everything that is wrong with it.
fn checked(wish: &CreateToken) -> Result<Option<Timestamp>, Vec<FieldError>> {
    let mut faults = Vec::new();
    let mut fault = |field: String, code, message: String| {
        faults.push(FieldError { object: None, index: None, field, code, message });
    };
    if let Err(message) = gateway_engine::value::name(&wish.name) {
        fault("name".into(), ViolationCode::Invalid, message);
    }
    for (index, namespace) in wish.namespaces.iter().enumerate().take(MAX_NAMESPACES) {
        if let Err(message) = gateway_engine::value::name(namespace) {
            fault(format!("namespaces[{index}]"), ViolationCode::Invalid, message);
        }
    }
    if wish.role == Role::Admin && !wish.namespaces.is_empty() {
        let message =
            "an admin token is good for all namespaces: leave them out, or give it the role editor or viewer";
        fault("namespaces".into(), ViolationCode::Conflict, message.into());
    }
    if wish.namespaces.len() > MAX_NAMESPACES {
        let message =
            format!("names {} namespaces, at most {MAX_NAMESPACES} are taken", wish.namespaces.len());
        fault("namespaces".into(), ViolationCode::OutOfRange, message);
    }
    let expires = match wish.expires.as_deref().map(str::parse::<Timestamp>) {
        None => None,
        Some(Ok(end)) if end > Timestamp::now() => Some(end),
        Some(Ok(end)) => {
            fault("expires".into(), ViolationCode::OutOfRange, format!("{end} is in the past"));
            None
        }
        Some(Err(error)) => {
            let message = format!("is no RFC 3339 time such as 2027-01-31T00:00:00Z: {error}");
            fault("expires".into(), ViolationCode::Invalid, message);
            None
        }
    };
    if faults.is_empty() { Ok(expires) } else { Err(faults) }
}

fn shown(record: TokenRecord) -> Token {
    Token {
        name: record.name,
        role: record.role,
        namespaces: record.namespaces,
        created_at: record.created.to_string(),
        expires: record.expires.map(|end| end.to_string()),
        token: None,
    }
}
