//! Consumer: a checked one, with the policies of its level.

use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use crate::policy::joins::JoinSlot;
use crate::policy::{Kind, PolicySet};
use crate::sharing::Keyed;
use crate::violations::Violations;

/// Most groups of a consumer.
pub const MAX_GROUPS: usize = 64;
/// Longest name of a group.
const MAX_GROUP_NAME: usize = 63;

/// Somebody who asks.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// `namespace/name`.
    pub name: Arc<str>,
    /// Of `name`, with the configuration's seed.
    pub(crate) hash: u64,
    /// Its groups, joined with `, `.
    pub groups: Box<str>,
    /// Its own policies.
    pub(crate) policies: PolicySet,
    /// Those it refers to.
    pub(crate) referred: Option<JoinSlot>,
}

impl Consumer {
    /// Its name without the namespace.
    pub fn short_name(&self) -> &str {
        self.name.split_once('/').map_or(&self.name, |(_, name)| name)
    }
}

impl Keyed for Consumer {
    type Key = str;

    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &str {
        &self.name
    }
}

/// Groups as they are told to upstreams. A comma parts them there, so that none may hold one.
pub(crate) fn groups(names: &[String], at: &FieldPath<'_>, out: &mut Violations) -> Box<str> {
    if names.len() > MAX_GROUPS {
        let message = format!("{} groups are too many, at most {MAX_GROUPS} are allowed", names.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return Box::default();
    }
    for (index, name) in names.iter().enumerate() {
        let plain =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':' | b'/');
        if name.is_empty() || name.len() > MAX_GROUP_NAME || !name.bytes().all(plain) {
            let message = format!(
                "invalid group {name:?}, expected 1 to {MAX_GROUP_NAME} letters, digits, '-', '_', '.', ':' and '/'"
            );
            out.push(&at.index(index), ViolationCode::Invalid, message);
        } else if names[..index].contains(name) {
            out.push(&at.index(index), ViolationCode::Duplicate, format!("{name:?} is already in this list"));
        }
    }
    names.join(", ").into()
}

/// Refuses what must be decided before a consumer is known.
pub(crate) fn refuse_early(policies: &PolicySet, at: &FieldPath<'_>, out: &mut Violations) {
    for kind in early(policies) {
        out.push(at, ViolationCode::Conflict, too_early(kind));
    }
}

/// Why one is refused.
pub(crate) fn too_early(kind: Kind) -> String {
    format!("{} is decided before the consumer is known, put it on the listener or the route", kind.name())
}

/// The policies that must be.
pub(crate) fn early(policies: &PolicySet) -> impl Iterator<Item = Kind> {
    policies.kinds().filter(|kind| matches!(kind, Kind::Auth | Kind::Cors))
}

/// Everything but the policies.
pub(crate) fn check(
    (name, hash): (Arc<str>, u64),
    spec: &wire::ConsumerSpec,
    at: &FieldPath<'_>,
    out: &mut Violations,
) -> Consumer {
    let groups = groups(&spec.groups, &at.field("groups"), out);
    Consumer { name, hash, groups, policies: PolicySet::EMPTY, referred: None }
}
