//! Who is asking, and whether he may. One layer in front of every route but the public ones: it finds the token,
//! checks the role that the route table demands, and records refused writes in the audit log.
//!
//! Namespaces are for the handlers, which know what the request is about; [`Caller`] answers them.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gateway_proto::admin::Role;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use super::problem::{ApiError, ErrorCode};
use super::{Access, Api};
use crate::admission::Intent;
use crate::auth::{self, Principal};
use crate::store::AuditRecord;

/// Longest object that the audit log keeps, in bytes; names are at most half as long.
const MAX_OBJECT: usize = 256;

/// Address of the client, put into each request by the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Who is asking.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    principal: Principal,
    from: IpAddr,
}

/// What the layer needs to know of a route.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    /// The API.
    pub(super) api: Arc<Api>,
    /// Who may.
    pub(super) access: Access,
    /// Name in the audit log of what the route changes.
    pub(super) action: Option<&'static str>,
}

/// The layer.
pub(super) async fn guard(State(guard): State<Guard>, mut request: Request, next: Next) -> Response {
    let from = request.extensions().get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let path = request.uri().path().to_owned();
    let token =
        request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(auth::bearer);
    let token = token.map(str::to_owned);
    let (who, response) = match admit(&guard, token.as_deref()).await {
        Ok(None) => return next.run(request).await,
        Ok(Some(principal)) => {
            let who = Arc::clone(&principal.name);
            request.extensions_mut().insert(Caller { principal, from });
            (Some(who), next.run(request).await)
        }
        Err((who, error)) => (who, error.into_response()),
    };
    if let Some(action) = guard.action
        && (response.status().is_client_error() || response.status().is_server_error())
    {
        let status = response.status().as_u16();
        match who {
            Some(who) => guard.api.audit.refused(record(who.to_string(), from, action, path, status)),
            None => guard.api.audit.anonymous(record("anonymous".to_owned(), from, action, path, status)),
        }
    }
    response
}

/// The caller of a route that needs one; or the answer, and the name on the token if it was good for a name.
async fn admit(
    guard: &Guard,
    token: Option<&str>,
) -> Result<Option<Principal>, (Option<Arc<str>>, ApiError)> {
    let Access::Role(needed) = guard.access else { return Ok(None) };
    let Some(token) = token else {
        let detail = "send the header `Authorization: Bearer TOKEN`";
        return Err((None, ApiError::new(ErrorCode::Unauthorized, detail)));
    };
    let principal = guard.api.auth.authenticate(token).await.map_err(|error| (None, error.into()))?;
    if principal.role < needed {
        let detail = format!(
            "the token {:?} has the role {}, this needs {}",
            principal.name,
            principal.role.as_str(),
            needed.as_str()
        );
        return Err((Some(Arc::clone(&principal.name)), ApiError::new(ErrorCode::Forbidden, detail)));
    }
    Ok(Some(principal))
}

impl Caller {
    /// Whether objects of a namespace are his business at all.
    pub(super) fn sees(&self, namespace: &str) -> bool {
        self.principal.allows(Role::Viewer, Some(namespace))
    }

    /// Whether every namespace is his business.
    pub(super) fn sees_all(&self) -> bool {
        self.principal.allows(Role::Viewer, None)
    }

    /// The token he showed.
    pub(super) const fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Refuses what is in a namespace that the token is not good for. (The role was checked with the route.)
    ///
    /// # Errors
    /// `forbidden`, naming the namespace.
    pub(super) fn enter(&self, namespace: &str) -> Result<(), ApiError> {
        if self.sees(namespace) {
            return Ok(());
        }
        let own = self.principal.namespaces.join(", ");
        let detail = format!(
            "the token {:?} is good for {own} only, not for namespace {namespace:?}",
            self.principal.name
        );
        Err(ApiError::new(ErrorCode::Forbidden, detail))
    }

    /// His wish to change something.
    pub(super) fn intent(
        &self,
        action: &'static str,
        object: String,
        message: String,
        dry_run: bool,
    ) -> Intent {
        Intent { audit: self.audit(action, object, 200), message, dry_run }
    }

    /// His entry in the audit log.
    pub(super) fn audit(&self, action: &'static str, object: String, status: u16) -> AuditRecord {
        record(self.principal.name.to_string(), self.from, action, object, status)
    }
}

fn record(who: String, from: IpAddr, action: &'static str, mut object: String, status: u16) -> AuditRecord {
    object.truncate(object.floor_char_boundary(MAX_OBJECT));
    AuditRecord {
        at: Timestamp::now(),
        who,
        from: from.to_string(),
        action: action.to_owned(),
        object,
        status,
    }
}
