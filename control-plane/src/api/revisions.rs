//! `/v1/revisions`: numbered history, what each revision did, what lies between two, and the way back.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use gateway_proto::admin::{ApplyResponse, Change, Revision, RevisionDiff, RevisionList};
use serde::Deserialize;

use super::Api;
use super::access::Caller;
use super::apply::response;
use super::change::stored;
use super::extract::{Params, Segment};
use super::problem::{ApiError, ErrorCode};
use crate::admission::Request;
use crate::state::blocking;
use crate::store::{self, Difference, PageRequest, StoreError};

/// Entries of a page when the request names no limit, and the most it may ask for.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;
/// Most changes that are answered with their contents.
const MAX_CHANGES: u64 = 10_000;

/// Query of a page of history or of the audit log.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    limit: Option<u32>,
    cursor: Option<u64>,
}

impl PageQuery {
    /// The page it asks for.
    ///
    /// # Errors
    /// `bad_request` when the limit is out of range.
    pub(super) fn page(&self) -> Result<PageRequest, ApiError> {
        let limit = self.limit.unwrap_or(PAGE);
        if (1..=MAX_PAGE).contains(&limit) {
            return Ok(PageRequest { before: self.cursor, limit });
        }
        Err(ApiError::bad_request(format!("limit is {limit}, expected 1 to {MAX_PAGE}")))
    }
}

/// Query of a rollback.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct RollbackQuery {
    #[serde(default)]
    dry_run: bool,
}

/// Newest first.
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<PageQuery>,
) -> Result<Json<RevisionList>, ApiError> {
    let page = api.store.revisions(query.page()?).await?;
    let next_cursor = page.next.map(|next| next.to_string());
    Ok(Json(RevisionList { items: shown(&api, &caller, page.items).await?, next_cursor }))
}

/// `{n}`: what a revision did; without its changes if they are too many. `{a}...{b}`: what lies between two.
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Segment(range): Segment,
) -> Result<Response, ApiError> {
    if let Some((from, to)) = range.split_once("...") {
        let (from, to) = (number(from)?, number(to)?);
        if distance(&api, from.min(to), from.max(to)).await? > MAX_CHANGES {
            let detail = format!(
                "more than {MAX_CHANGES} changes lie between revisions {from} and {to}: name closer ones"
            );
            return Err(ApiError::new(ErrorCode::TooLarge, detail));
        }
        let changes = changes(&api, caller, from, to).await?;
        return Ok(Json(RevisionDiff { from, to, changes }).into_response());
    }
    let revision = number(&range)?;
    let header = api.store.revision(revision).await?.ok_or_else(|| {
        ApiError::new(ErrorCode::NotFound, format!("there is no revision {revision}, see /v1/revisions"))
    })?;
    let few = size(&header) <= MAX_CHANGES;
    let header = shown(&api, &caller, vec![header]).await?.swap_remove(0);
    // What the oldest one changed, nobody knows any more.
    let has_changes = few && revision > api.store.oldest().await?;
    let changes = if has_changes { Some(changes(&api, caller, revision - 1, revision).await?) } else { None };
    Ok(Json(Revision { changes, ..header }).into_response())
}

/// How many objects a revision changed.
fn size(revision: &store::Revision) -> u64 {
    [revision.created, revision.updated, revision.deleted].into_iter().map(u64::from).sum()
}

/// How many changes the revisions after `from` up to `to` made; not counted on once there are too many.
async fn distance(api: &Api, from: u64, to: u64) -> Result<u64, StoreError> {
    let mut page = PageRequest { before: Some(to.saturating_add(1)), limit: MAX_PAGE };
    let mut sum = 0;
    loop {
        let part = api.store.revisions(page).await?;
        sum += part.items.iter().filter(|it| it.revision > from).map(size).sum::<u64>();
        match part.next.filter(|next| *next > from && sum <= MAX_CHANGES) {
            Some(next) => page.before = Some(next),
            None => return Ok(sum),
        }
    }
}

/// A new revision with the content of an earlier one.
pub(super) async fn rollback(
    State(api): State<Arc<Api>>,
    caller: Caller,
    Params(query): Params<RollbackQuery>,
    Segment(to): Segment,
) -> Result<Json<ApplyResponse>, ApiError> {
    let to = number(&to)?;
    let intent =
        caller.intent("rollback", format!("revision {to}"), format!("rollback to {to}"), query.dry_run);
    let outcome = api.submit(&caller, Request::Rollback(to), intent).await?;
    Ok(Json(response(&outcome)))
}

/// History entries in a row as a caller is shown them, without their changes. Of a revision that changed nothing he
/// sees, he is told that there is one, not whose, why and how much.
pub(super) async fn shown(
    api: &Api,
    caller: &Caller,
    entries: Vec<store::Revision>,
) -> Result<Vec<Revision>, StoreError> {
    let numbers = || entries.iter().map(|entry| entry.revision);
    let touched = match (numbers().min(), numbers().max()) {
        (Some(from), Some(to)) if !caller.sees_all() => Some(api.store.namespaces(from, to).await?),
        _ => None,
    };
    let his = |revision: &Revision| {
        let namespaces = touched.as_ref().map(|touched| touched.get(&revision.revision));
        namespaces.is_none_or(|namespaces| namespaces.into_iter().flatten().any(|it| caller.sees(it)))
    };
    Ok(entries.into_iter().map(entry).map(|it| if his(&it) { it } else { masked(it) }).collect())
}

fn masked(revision: Revision) -> Revision {
    let (author, message) = (String::new(), String::new());
    Revision { author, message, created: 0, updated: 0, deleted: 0, ..revision }
}

fn entry(revision: store::Revision) -> Revision {
    Revision {
        revision: revision.revision,
        at: revision.at.to_string(),
        author: revision.author,
        message: revision.message,
        created: revision.created,
        updated: revision.updated,
        deleted: revision.deleted,
        root_hash: revision.root.to_string(),
        changes: None,
    }
}

async fn changes(api: &Api, caller: Caller, from: u64, to: u64) -> Result<Vec<Change>, ApiError> {
    let differences = api.store.diff(from, to).await?;
    let seen = move |difference: &Difference| caller.sees(&difference.key.namespace);
    blocking(move || differences.into_iter().filter(seen).map(stored).collect()).await
}

fn number(text: &str) -> Result<u64, ApiError> {
    text.parse()
        .map_err(|_| ApiError::bad_request(format!("{text:?} is no revision number, nor two as in 7...9")))
}
