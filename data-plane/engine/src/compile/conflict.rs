//! Conflicts between objects: listeners that would bind the same address, global policies that say the same.
//! Only what the batch touches is blamed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind};

use super::draft::Draft;
use super::object::{Checked, PolicyObject};
use crate::engine::Globals;
use crate::listener::Listener;
use crate::policy::PolicySet;
use crate::violations::Violations;

/// Two listeners that one data plane could take, on overlapping addresses and one port. Looks at all listeners, but
/// only when the batch has one.
pub(super) fn ports(draft: &Draft) -> Vec<Violation> {
    let touched: BTreeSet<String> =
        draft.touched().filter(|key| key.kind == Kind::Listener).map(Key::qualified).collect();
    if touched.is_empty() {
        return Vec::new();
    }
    let mut by_port: BTreeMap<u16, Vec<&Arc<Listener>>> = BTreeMap::new();
    for listener in draft.state.listeners.iter() {
        by_port.entry(listener.address.port()).or_default().push(listener);
    }
    let mut violations = Vec::new();
    for name in &touched {
        let Some(listener) = listener(draft, name) else { continue };
        let others = by_port.get(&listener.address.port()).map_or(&[][..], |others| others);
        let taken = others.iter().find(|other| {
            // Of two that are both in the batch the second by name is blamed.
            let blamed = !touched.contains(&*other.name) || *other.name < *listener.name;
            other.name != listener.name && blamed && other.overlaps(listener) && other.meets(listener)
        });
        if let Some(other) = taken {
            violations.extend(port_conflict(listener, other));
        }
    }
    violations
}

fn listener<'d>(draft: &'d Draft, qualified: &str) -> Option<&'d Arc<Listener>> {
    let (namespace, name) = qualified.split_once('/')?;
    match &draft.state.object(&Key::new(Kind::Listener, namespace, name))?.checked {
        Checked::Listener(listener) => Some(listener),
        _ => None,
    }
}

fn port_conflict(listener: &Listener, other: &Listener) -> Vec<Violation> {
    let (namespace, name) = listener.name.split_once('/').unwrap_or_default();
    let mut out = Violations::of(Key::new(Kind::Listener, namespace, name));
    let root = FieldPath::root();
    let whom = match (&listener.group, &other.group) {
        (Some(group), _) | (None, Some(group)) => format!("a data plane of group {group} would take both"),
        (None, None) => "every data plane would take both".to_owned(),
    };
    let message = format!(
        "{} overlaps with Listener {} on {}, and {whom}; choose another port, address or group",
        listener.address, other.name, other.address
    );
    out.push(&root.field("spec").field("port"), ViolationCode::PortConflict, message);
    out.into_vec()
}

/// Joins the global policies of the namespaces where they changed. Two of one namespace that say the same policy
/// are a violation.
pub(super) fn globals(draft: &mut Draft) -> Vec<Violation> {
    let former = std::mem::take(&mut draft.former_policies);
    let current: Vec<Arc<PolicyObject>> = draft
        .touched()
        .filter(|key| key.kind == Kind::Policy)
        .filter_map(|key| match &draft.state.object(key)?.checked {
            Checked::Policy(policy) => Some(Arc::clone(policy)),
            _ => None,
        })
        .collect();
    let mut namespaces: BTreeMap<&str, Vec<Arc<PolicyObject>>> = BTreeMap::new();
    for policy in former.iter().filter(|policy| policy.global) {
        namespaces.entry(namespace(policy)).or_default();
    }
    for policy in current.iter().filter(|policy| policy.global) {
        namespaces.entry(namespace(policy)).or_default().push(Arc::clone(policy));
    }
    if namespaces.is_empty() {
        return Vec::new();
    }
    let former_names: BTreeSet<&str> = former.iter().map(|policy| &*policy.name).collect();
    let globals = Arc::make_mut(&mut draft.state.globals);
    let mut violations = Vec::new();
    for (namespace, mut policies) in namespaces {
        let touched: BTreeSet<Arc<str>> = policies.iter().map(|policy| Arc::clone(&policy.name)).collect();
        let place = globals.binary_search_by(|globals| (*globals.namespace).cmp(namespace));
        if let Ok(at) = place {
            let others = globals[at].policies.iter().filter(|policy| !former_names.contains(&*policy.name));
            policies.extend(others.cloned());
        }
        policies.sort_unstable_by(|one, two| one.name.cmp(&two.name));
        let (joined, found) = join(&policies, &touched);
        violations.extend(found);
        let entry = Globals { namespace: namespace.into(), policies, joined };
        match place {
            Ok(at) if entry.policies.is_empty() => drop(globals.remove(at)),
            Ok(at) => globals[at] = entry,
            Err(_) if entry.policies.is_empty() => {}
            Err(at) => globals.insert(at, entry),
        }
    }
    violations
}

fn namespace(policy: &PolicyObject) -> &str {
    policy.name.split_once('/').map_or("", |(namespace, _)| namespace)
}

fn join(policies: &[Arc<PolicyObject>], touched: &BTreeSet<Arc<str>>) -> (PolicySet, Vec<Violation>) {
    let sets: Vec<(Arc<str>, &PolicySet)> =
        policies.iter().map(|policy| (Arc::clone(&policy.name), &policy.set)).collect();
    let (joined, clashes) = PolicySet::merge(&PolicySet::EMPTY, &sets);
    let mut violations = Vec::new();
    for clash in clashes {
        let (first, second) = (&policies[clash.first].name, &policies[clash.second].name);
        let (blamed, other) = if touched.contains(second) { (second, first) } else { (first, second) };
        let (namespace, name) = blamed.split_once('/').unwrap_or_default();
        let mut out = Violations::of(Key::new(Kind::Policy, namespace, name));
        let root = FieldPath::root();
        let message =
            format!("{} is in the global Policy {other} too, and one level takes it once", clash.kind.name());
        out.push(&root.field("spec").field("policies"), ViolationCode::Duplicate, message);
        violations.extend(out.into_vec());
    }
    (joined, violations)
}
