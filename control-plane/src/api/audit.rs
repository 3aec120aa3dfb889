//! `GET /v1/audit`: who did or tried what, from where, and what came of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use gateway_proto::admin::{AuditEntry, AuditList};

use super::Api;
use super::extract::Params;
use super::problem::ApiError;
use super::revisions::PageQuery;
use crate::store;

/// Newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Params(query): Params<PageQuery>,
) -> Result<Json<AuditList>, ApiError> {
    let page = api.store.audit(query.page()?).await?;
    let next_cursor = page.next.map(|next| next.to_string());
    Ok(Json(AuditList { items: page.items.into_iter().map(shown).collect(), next_cursor }))
}

fn shown(entry: store::AuditEntry) -> AuditEntry {
    AuditEntry {
        id: entry.id,
        at: entry.record.at.to_string(),
        who: entry.record.who,
        from: entry.record.from,
        action: entry.record.action,
        object: entry.record.object,
        status: entry.record.status,
        revision: entry.revision,
    }
}
