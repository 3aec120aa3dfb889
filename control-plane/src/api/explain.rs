//! `POST /v1/explain`: how a request would be routed, answered by the compiled head, with the reasons. What lies in
//! namespaces that the caller does not see is left out; if such a route wins, only that is said.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_engine::route::ExplainError;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::{Candidate, ExplainRequest, ExplainResponse, Explanation, FieldError};
use gateway_proto::field::ViolationCode;

use super::Api;
use super::access::Caller;
use super::extract::{Body, Params};
use super::problem::{ApiError, ErrorCode};
use crate::state::blocking;

/// No parameters.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

/// The route that wins, those that lost, the policies in order.
pub(super) async fn explain(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(_): Params<NoQuery>,
    body: Body,
) -> Result<Json<ExplainResponse>, ApiError> {
    let question: ExplainRequest = body.json()?;
    if let Some(listener) = &question.listener {
        // The same answer as for one that does not exist.
        let place = listener.split_once('/');
        if place.is_some_and(|(namespace, _)| !caller.sees(namespace)) {
            return Err(refused(&ExplainError::NoListener(listener.clone())));
        }
        if place.is_none() && !caller.sees(DEFAULT_NAMESPACE) {
            return Err(refused(&ExplainError::NoListener(format!("{DEFAULT_NAMESPACE}/{listener}"))));
        }
    }
    let head = api.live.get();
    let revision = head.head.revision;
    let answers = blocking(move || head.engine.explain(&question)).await;
    let answers = answers.map_err(|fault| refused(&fault))?;
    let listeners = answers.into_iter().filter_map(|answer| seen(answer, &caller)).collect();
    Ok(Json(ExplainResponse { revision, listeners }))
}

fn refused(fault: &ExplainError) -> ApiError {
    let (field, code) = match fault {
        ExplainError::NoListener(_) => ("listener", ViolationCode::DanglingReference),
        ExplainError::BadSource(_) => ("source", ViolationCode::Invalid),
        ExplainError::BadMethod(_) => ("method", ViolationCode::Invalid),
    };
    let fault =
        FieldError { object: None, index: None, field: field.to_owned(), code, message: fault.to_string() };
    ApiError::with(ErrorCode::ValidationFailed, vec![fault])
}

fn seen(mut answer: Explanation, caller: &Caller) -> Option<Explanation> {
    let sees =
        |qualified: &str| qualified.split_once('/').is_some_and(|(namespace, _)| caller.sees(namespace));
    if !sees(&answer.listener) {
        return None;
    }
    answer.losers.retain(|loser| sees(&loser.route));
    if answer.winner.as_ref().is_some_and(|winner| !sees(&winner.route)) {
        let reason = "a route of a namespace that this token is not good for".to_owned();
        answer.winner = Some(Candidate { route: String::new(), match_index: 0, reason });
        answer.policies.clear();
        answer.action = None;
    }
    Some(answer)
}
