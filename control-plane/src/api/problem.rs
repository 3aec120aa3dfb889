//! Every error answer of the API: a closed list of codes, rendered in one place as `application/problem+json`
//! (RFC 9457). Refuses to show internals: what is not the caller's business is logged here and answered as `internal`.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use gateway_proto::admin::{FieldError, Problem};
use gateway_proto::secret::without_keys;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

use crate::admission::Refusal;
use crate::auth::AuthError;
use crate::store::{StoreError, TokenError};

/// What kind of error; the slug is what programs branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ErrorCode {
    /// The request makes no sense.
    BadRequest,
    /// No token, or not a good one.
    Unauthorized,
    /// The token may not do that.
    Forbidden,
    /// No such object, collection or path.
    NotFound,
    /// The path does not take that method.
    MethodNotAllowed,
    /// Somebody else changed it first, or it exists already.
    Conflict,
    /// Others refer to what would go.
    InUse,
    /// `If-Match` does not hold.
    PreconditionFailed,
    /// Over a stated bound.
    TooLarge,
    /// Not JSON.
    UnsupportedMediaType,
    /// The content is not valid; `errors` says where.
    ValidationFailed,
    /// Not now; trying again may help.
    Unavailable,
    /// A defect.
    Internal,
}

impl ErrorCode {
    /// Every code.
    #[cfg(test)]
    pub(super) const ALL: [ErrorCode; 13] = [
        ErrorCode::BadRequest,
        ErrorCode::Unauthorized,
        ErrorCode::Forbidden,
        ErrorCode::NotFound,
        ErrorCode::MethodNotAllowed,
        ErrorCode::Conflict,
        ErrorCode::InUse,
        ErrorCode::PreconditionFailed,
        ErrorCode::TooLarge,
        ErrorCode::UnsupportedMediaType,
        ErrorCode::ValidationFailed,
        ErrorCode::Unavailable,
        ErrorCode::Internal,
    ];

    /// Status, slug and title.
    pub(super) const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad_request", "the request is malformed"),
            Self::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized", "a valid token is needed"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "the token does not allow this"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "there is no such thing"),
            Self::MethodNotAllowed => {
                (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "the path does not take this method")
            }
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "somebody else was faster"),
            Self::InUse => (StatusCode::CONFLICT, "in_use", "other objects refer to it"),
            Self::PreconditionFailed => {
                (StatusCode::PRECONDITION_FAILED, "precondition_failed", "the object is not as expected")
            }
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the request is over a limit"),
            Self::UnsupportedMediaType => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "the body must be JSON")
            }
            Self::ValidationFailed => {
                (StatusCode::UNPROCESSABLE_ENTITY, "validation_failed", "the configuration is not valid")
            }
            Self::Unavailable => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "not possible at this moment")
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal", "a defect of the control plane")
            }
        }
    }
}

/// An error answer.
#[derive(Debug)]
pub(super) struct ApiError {
    code: ErrorCode,
    detail: String,
    errors: Vec<FieldError>,
    allow: Option<HeaderValue>,
}

impl ApiError {
    /// With what happened and what to do next.
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        ApiError { code, detail: detail.into(), errors: Vec::new(), allow: None }
    }

    /// With everything that is wrong.
    pub(super) fn with(code: ErrorCode, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [only] if only.field.is_empty() => only.message.clone(),
            [only] => format!("{}: {}", only.field, only.message),
            more => format!("{} faults, listed in errors", more.len()),
        };
        ApiError { code, detail, errors, allow: None }
    }

    /// The request makes no sense.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::BadRequest, detail)
    }

    /// A defect: logged with its reason, answered without it.
    pub(super) fn internal(reason: impl std::fmt::Display) -> Self {
        tracing::error!(%reason, "request failed");
        ApiError::new(ErrorCode::Internal, "the control plane's log has the reason")
    }

    /// The path takes only these methods.
    pub(super) fn method_not_allowed(allow: Option<HeaderValue>) -> Self {
        let detail = "use one of the methods that Allow lists";
        ApiError { allow, ..ApiError::new(ErrorCode::MethodNotAllowed, detail) }
    }
}

impl IntoResponse for ApiError {
    fn into_response(mut self) -> Response {
        let (status, slug, title) = self.code.parts();
        // What is wrong is quoted, and may be a key in the wrong place.
        for text in self.errors.iter_mut().map(|error| &mut error.message).chain([&mut self.detail]) {
            if let Cow::Owned(told) = without_keys(text) {
                *text = told;
            }
        }
        let problem = Problem {
            slug: slug.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail,
            errors: self.errors,
        };
        let mut response = (status, axum::Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.code {
            ErrorCode::Unauthorized => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"gateway\""));
            }
            ErrorCode::Unavailable => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, allow);
        }
        response
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(reason) => {
                tracing::warn!(%reason, "the store does not answer");
                ApiError::new(ErrorCode::Unavailable, "the store does not answer: try again in a moment")
            }
            unknown @ StoreError::OutcomeUnknown => {
                ApiError::new(ErrorCode::Unavailable, unknown.to_string())
            }
            missing @ (StoreError::NoSuchRevision { .. } | StoreError::NotKept { .. }) => {
                ApiError::new(ErrorCode::NotFound, missing.to_string())
            }
            defect @ (StoreError::Open(_)
            | StoreError::NewerSchema { .. }
            | StoreError::Deposed
            | StoreError::Broken(_)) => ApiError::internal(defect),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        let text = refusal.to_string();
        match refusal {
            Refusal::Invalid(errors) => ApiError::with(ErrorCode::ValidationFailed, errors),
            Refusal::InUse(errors) => ApiError::with(ErrorCode::InUse, errors),
            Refusal::StaleBase { .. } | Refusal::NotEmpty(_) | Refusal::Contended => {
                ApiError::new(ErrorCode::Conflict, text)
            }
            Refusal::Precondition { .. } => ApiError::new(ErrorCode::PreconditionFailed, text),
            Refusal::Busy => ApiError::new(ErrorCode::Unavailable, text),
            Refusal::NotFound(_) => ApiError::new(ErrorCode::NotFound, text),
            Refusal::Store(error) => error.into(),
        }
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unavailable(error) => error.into(),
            refused @ (AuthError::Malformed(_) | AuthError::Unknown | AuthError::Expired(_)) => {
                ApiError::new(ErrorCode::Unauthorized, refused.to_string())
            }
        }
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Store(error) => error.into(),
            taken @ (TokenError::Exists(_) | TokenError::Full(_)) => {
                ApiError::new(ErrorCode::Conflict, taken.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn every_code_has_a_slug_of_its_own_and_renders_as_a_problem() {
        let mut slugs = HashSet::new();
        for code in ErrorCode::ALL {
            let response = ApiError::new(code, "why").into_response();
            let (status, slug, _) = code.parts();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
            assert_eq!(response.headers().contains_key(RETRY_AFTER), code == ErrorCode::Unavailable);
            assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), code == ErrorCode::Unauthorized);
            let body = response.into_body().collect().await.expect("in memory").to_bytes();
            let problem: Problem = serde_json::from_slice(&body).expect("a problem");
            assert_eq!(
                (problem.slug.as_str(), problem.status, problem.detail.as_str()),
                (slug, status.as_u16(), "why")
            );
            assert!(slugs.insert(slug), "{slug} twice");
        }
    }

    #[tokio::test]
    async fn a_defect_does_not_show_its_reason() {
        let response =
            ApiError::from(StoreError::Broken("table resources has no column".into())).into_response();
        let body = response.into_body().collect().await.expect("in memory").to_bytes();
        assert!(!String::from_utf8_lossy(&body).contains("column"));
    }
}
