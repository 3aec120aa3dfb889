//! One level's references: the Policy objects that an object refers to, as one list.

use std::borrow::Cow;
use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::Kind;

use super::object::{Name, Object};
use super::reference::References;
use crate::policy::joins::join;
use crate::policy::{Clash, PolicySet};
use crate::violations::Violations;

/// Most references to policies of an object.
pub const MAX_POLICY_REFS: usize = 64;

/// Resolves `policyRefs` (at `at`) and leaves the list with `references`, for the object that it belongs to.
pub(crate) fn refer(
    refs: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) {
    refer_to(refs, at, references, out, |_, _| {});
}

/// The same, with a look at what the list says.
pub(crate) fn refer_to(
    refs: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
    said: impl FnOnce(&PolicySet, &mut Violations),
) {
    if refs.len() > MAX_POLICY_REFS {
        let message =
            format!("{} references are too many, at most {MAX_POLICY_REFS} are allowed", refs.len());
        return out.push(at, ViolationCode::OutOfRange, message);
    }
    // Places in the list, because faulty ones are left out.
    let mut places: Vec<usize> = Vec::with_capacity(refs.len());
    let mut policies: Vec<Arc<Object>> = Vec::with_capacity(refs.len());
    for (index, text) in refs.iter().enumerate() {
        let at = at.index(index);
        let Some(policy) = references.resolve(Kind::Policy, text, &at, out) else { continue };
        if policies.iter().any(|other| Arc::ptr_eq(&other.name, &policy.name)) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
            continue;
        }
        places.push(index);
        policies.push(policy);
    }
    if policies.is_empty() {
        return;
    }
    let (set, clashes) = match references.joined(&policies) {
        Some(joined) => (Cow::Borrowed(joined.set()), Cow::Borrowed(joined.clashes())),
        None => {
            let (set, clashes) = join(&policies);
            (Cow::Owned(set), Cow::Owned(clashes))
        }
    };
    for clash in &*clashes {
        let message = clash_of(clash, &policies[clash.first].name, &policies[clash.second].name);
        out.push(&at.index(places[clash.second]), ViolationCode::Duplicate, message);
    }
    said(&set, out);
    references.refer(policies);
}

/// Two policies of a list that say the same.
pub(super) fn clash_of(clash: &Clash, first: &Name, second: &Name) -> String {
    format!(
        "{} is in Policy {} and in Policy {}, and one level takes it once; drop one or write it inline",
        clash.kind.name(),
        first.key.qualified(),
        second.key.qualified()
    )
}
