//! What happens to an object, with its content before and after as people may see it: secrets are masked, and those
//! that differ are named beside it.

use gateway_proto::admin::{Action, Change};
use gateway_proto::kind::{Key, Resource};

use super::problem::ApiError;
use crate::admission::Planned;
use crate::store::Difference;

/// What a request comes to.
pub(super) fn planned(change: &Planned) -> Result<Change, ApiError> {
    let before = change.before.as_ref().map(|stored| decoded(&stored.key, &stored.body)).transpose()?;
    shown(change.key.clone(), change.action, before, change.after.clone())
}

/// What lies between two revisions.
pub(super) fn stored(difference: Difference) -> Result<Change, ApiError> {
    let key = difference.key;
    let side = |body: Option<_>| body.map(|body| decoded(&key, body)).transpose();
    let (before, after) = (side(difference.before.as_deref())?, side(difference.after.as_deref())?);
    let action = match (&before, &after) {
        (None, _) => Action::Created,
        (Some(_), Some(_)) => Action::Updated,
        (Some(_), None) => Action::Deleted,
    };
    shown(key, action, before, after)
}

fn decoded(key: &Key, body: &[u8]) -> Result<Resource, ApiError> {
    Resource::decode(key.kind, body).map_err(ApiError::internal)
}

fn shown(
    object: Key,
    action: Action,
    mut before: Option<Resource>,
    mut after: Option<Resource>,
) -> Result<Change, ApiError> {
    let secrets = match (&mut before, &mut after) {
        (Some(before), Some(after)) => differing(before, after),
        _ => Vec::new(),
    };
    let side = |side: Option<Resource>| side.map(|it| serde_json::to_value(it.masked())).transpose();
    let (before, after) =
        (side(before).map_err(ApiError::internal)?, side(after).map_err(ApiError::internal)?);
    Ok(Change { object, action, before, after, secrets })
}

/// The secrets that two forms of an object refer to and that are not the same.
fn differing(before: &mut Resource, after: &mut Resource) -> Vec<String> {
    let before = before.secrets_mut();
    let is_held = |path: &str, text: &str| before.iter().any(|(held, value)| held == path && **value == text);
    let after = after.secrets_mut().into_iter();
    after.filter(|(path, text)| !is_held(path, text)).map(|(path, _)| path).collect()
}
