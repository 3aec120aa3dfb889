//! One level's policies: what an object says itself, joined with the Policy objects it refers to.

use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::Kind;

use super::object::{Checked, PolicyObject};
use super::reference::References;
use crate::policy::PolicySet;
use crate::violations::Violations;

/// Most references to policies of an object.
pub const MAX_POLICY_REFS: usize = 64;

/// As [`join`]. What refers to one Policy and says nothing itself shares that one's set, and what refers to none its
/// own.
pub(crate) fn join_shared(
    inline: Option<&Arc<PolicySet>>,
    refs: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Option<Arc<PolicySet>> {
    let joined = match (inline, refs) {
        (own, []) => return own.cloned(),
        (None, [text]) => {
            let object = references.resolve(Kind::Policy, text, &at.index(0), out)?;
            let Checked::Policy(policy) = &object.checked else { return None };
            return (!policy.set.is_empty()).then(|| Arc::clone(&policy.referred));
        }
        (None, refs) => join(&PolicySet::EMPTY, refs, at, references, out),
        (Some(own), refs) => join(own, refs, at, references, out),
    };
    (!joined.is_empty()).then(|| Arc::new(joined))
}

/// Joins `inline` with what `policyRefs` (at `at`) names.
pub(crate) fn join(
    inline: &PolicySet,
    refs: &[String],
    at: &FieldPath<'_>,
    references: &mut References<'_>,
    out: &mut Violations,
) -> PolicySet {
    if refs.len() > MAX_POLICY_REFS {
        let message =
            format!("{} references are too many, at most {MAX_POLICY_REFS} are allowed", refs.len());
        out.push(at, ViolationCode::OutOfRange, message);
        return inline.clone();
    }
    // With the place in the list, because faulty ones are left out.
    let mut named: Vec<(usize, Arc<PolicyObject>)> = Vec::with_capacity(refs.len());
    for (index, text) in refs.iter().enumerate() {
        let at = at.index(index);
        let Some(object) = references.resolve(Kind::Policy, text, &at, out) else { continue };
        let Checked::Policy(policy) = &object.checked else { continue };
        if named.iter().any(|(_, other)| other.name == policy.name) {
            out.push(&at, ViolationCode::Duplicate, format!("{text:?} is already in this list"));
            continue;
        }
        named.push((index, Arc::clone(policy)));
    }
    let sets: Vec<(Arc<str>, &PolicySet)> =
        named.iter().map(|(_, policy)| (Arc::clone(&policy.name), &policy.set)).collect();
    let (joined, clashes) = PolicySet::merge(inline, &sets);
    for clash in clashes {
        let ((_, first), (second_at, second)) = (&named[clash.first], &named[clash.second]);
        let message = format!(
            "{} is in Policy {} and in Policy {}, and one level takes it once; drop one or write it inline",
            clash.kind.name(),
            first.name,
            second.name
        );
        out.push(&at.index(*second_at), ViolationCode::Duplicate, message);
    }
    joined
}
