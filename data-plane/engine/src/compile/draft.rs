//! Draft: a configuration being changed. It starts as a clone of the previous one (everything shared), takes the
//! batch object by object, and either becomes the next engine or is thrown away. Faulty listeners, upstreams and
//! policies are put in too (certificates without what they hold), so that what refers to them is not called dangling on top.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::Secrets;
use gateway_proto::wire;

use super::object::{Checked, Name, Object, PolicyObject, check_metadata};
use super::reference::References;
use super::{Changed, level};
use crate::certificate;
use crate::engine::{Engine, Referrers, State};
use crate::identity::{Consumer, IssuerSlot, consumer, issuer};
use crate::listener::{self, Listener, ListenerSlot};
use crate::policy::{self, PolicySet};
use crate::route::table::Seed;
use crate::route::{self, Route, RouteSlot};
use crate::sharing::{Map, hash};
use crate::upstream::{self, UpstreamSlot};
use crate::violations::Violations;

/// A configuration between two engines.
pub(super) struct Draft {
    pub(super) state: State,
    changed: Changed,
    /// Policies as they were, of those that are updated or gone.
    pub(super) former_policies: Vec<Arc<PolicyObject>>,
}

impl Draft {
    /// Nothing changed yet.
    pub(super) fn of(previous: &Engine) -> Self {
        Draft {
            state: State::clone(&previous.state),
            changed: Changed::default(),
            former_policies: Vec::new(),
        }
    }

    /// Objects of the batch that are new or differ.
    pub(super) fn touched(&self) -> impl Iterator<Item = &Key> {
        self.changed.added.iter().chain(&self.changed.updated)
    }

    /// Becomes the next engine.
    pub(super) fn finish(mut self) -> (Engine, Changed) {
        let changed = &mut self.changed;
        for list in [&mut changed.added, &mut changed.updated, &mut changed.removed, &mut changed.affected] {
            list.sort_unstable();
        }
        (Engine { state: Arc::new(self.state) }, self.changed)
    }

    /// Takes objects out. What still refers to them is found by [`Draft::in_use`] once the batch is in.
    pub(super) fn delete(&mut self, keys: &[Key]) {
        for key in keys {
            let Some(object) = self.state.objects.remove(hash(&self.state.seed, key), key) else { continue };
            self.forget_references(&object.name, &object.references);
            match &object.checked {
                Checked::Listener(listener) => self.state.listeners.free(listener.slot.0),
                Checked::Upstream(upstream) => self.state.upstreams.free(upstream.slot.0),
                Checked::Policy(policy) => self.former_policies.push(Arc::clone(policy)),
                Checked::Certificate(_) => {}
                Checked::Consumer(consumer) => {
                    self.state.consumers.remove(consumer.hash, &*consumer.name);
                }
                Checked::TokenIssuer(slot, _) => self.state.issuers.free(slot.0),
                Checked::Route(route) => {
                    self.state.unroute(route);
                    self.state.routes.free(route.slot.0);
                }
            }
            self.changed.removed.push(key.clone());
        }
    }

    /// Puts an object in. Returns what is wrong with it.
    pub(super) fn upsert(&mut self, key: Key, resource: Resource, secrets: Secrets) -> Vec<Violation> {
        let mut out = Violations::of(key.clone());
        check_metadata(&resource, &mut out);
        let mut resource = resource.canonical();
        let body = resource.encode();
        let former = self.state.object(&key).cloned();
        if out.is_empty() && former.as_ref().is_some_and(|former| former.body == body) {
            return Vec::new();
        }
        let (name, slot) = match &former {
            Some(former) => (Arc::clone(&former.name), former.checked.slot()),
            None => (Arc::new(Name::new(&self.state.seed, key.clone())), self.reserve(key.kind)),
        };
        match former {
            Some(_) => self.changed.updated.push(key),
            None => self.changed.added.push(key),
        }
        secrets.fill(&mut resource);
        let mut references = References::of(&self.state, &name.key.namespace);
        let qualified: Arc<str> = name.key.qualified().into();
        let seed = &self.state.seed;
        let checked = check(&resource, (qualified, slot), seed, &mut references, &mut out);
        let references = references.into_names();
        if let Some(checked) = checked {
            self.put(Object { name, body, secrets, references, checked }, former.as_deref());
        }
        out.into_vec()
    }

    /// A number for a new object.
    fn reserve(&mut self, kind: Kind) -> u32 {
        match kind {
            Kind::Listener => self.state.listeners.reserve(),
            Kind::Upstream => self.state.upstreams.reserve(),
            Kind::Route => self.state.routes.reserve(),
            Kind::TokenIssuer => self.state.issuers.reserve(),
            Kind::Policy | Kind::Certificate | Kind::Consumer => 0,
        }
    }

    fn put(&mut self, object: Object, former: Option<&Object>) {
        let state = &mut self.state;
        match (&object.checked, former.map(|former| &former.checked)) {
            (Checked::Listener(listener), _) => {
                state.listeners.set(listener.slot.0, Arc::clone(listener));
                state.named.resize_with(state.listeners.bound(), Arc::default);
            }
            (Checked::Upstream(upstream), _) => state.upstreams.set(upstream.slot.0, Arc::clone(upstream)),
            (Checked::Policy(_), Some(Checked::Policy(former))) => {
                self.former_policies.push(Arc::clone(former));
            }
            (Checked::Consumer(consumer), _) => {
                state.consumers.insert(Arc::clone(consumer).into());
            }
            (Checked::TokenIssuer(slot, Some(issuer)), _) => state.issuers.set(slot.0, Arc::clone(issuer)),
            (Checked::Policy(_) | Checked::Certificate(_) | Checked::TokenIssuer(_, None), _) => {}
            (Checked::Route(route), former) => {
                if let Some(Checked::Route(former)) = former {
                    state.unroute(former);
                }
                state.route(route);
                state.routes.set(route.slot.0, Arc::clone(route));
            }
        }
        let former: &[Arc<Name>] = former.map_or(&[], |former| &former.references);
        let lost = |name: &&Arc<Name>| !object.references.iter().any(|other| Arc::ptr_eq(other, name));
        let gone: Vec<Arc<Name>> = former.iter().filter(lost).cloned().collect();
        self.forget_references(&object.name, &gone);
        self.add_references(&object.name, &object.references);
        self.state.objects.insert(Arc::new(object).into());
    }

    fn add_references(&mut self, by: &Arc<Name>, targets: &[Arc<Name>]) {
        for target in targets {
            let make = || Arc::new(Referrers { target: Arc::clone(target), by: Map::default() }).into();
            let referrers = self.state.referrers.get_mut_or_insert(target.hash, &target.key, make);
            if referrers.by.get(by.hash, &by.key).is_none() {
                referrers.make_mut().by.insert(Arc::clone(by).into());
            }
        }
    }

    fn forget_references(&mut self, by: &Name, targets: &[Arc<Name>]) {
        for target in targets {
            let Some(referrers) = self.state.referrers.get_mut(target.hash, &target.key) else { continue };
            let referrers = referrers.make_mut();
            referrers.by.remove(by.hash, &by.key);
            if referrers.by.is_empty() {
                self.state.referrers.remove(target.hash, &target.key);
            }
        }
    }

    /// Makes listeners and routes anew that are not in the batch but refer to a Policy or Certificate that is. What
    /// does not join any more is the Policy's fault.
    pub(super) fn refresh_referrers(&mut self) -> Vec<Violation> {
        let is_shared = |key: &&Key| matches!(key.kind, Kind::Policy | Kind::Certificate);
        let updated: Vec<&Key> = self.changed.updated.iter().filter(is_shared).collect();
        if updated.is_empty() {
            return Vec::new();
        }
        let touched: BTreeSet<&Key> = self.touched().collect();
        let mut stale = BTreeMap::new();
        for shared in updated {
            for name in self.state.referrers(shared).filter(|name| !touched.contains(&name.key)) {
                stale.entry(name.key.clone()).or_insert_with(|| shared.clone());
            }
        }
        let mut blamed = BTreeMap::new();
        for (referrer, shared) in stale {
            for fault in self.refresh(referrer) {
                blamed.entry(shared.clone()).or_insert(fault);
            }
        }
        blamed.into_iter().map(|(shared, fault)| blame(shared, &fault)).collect()
    }

    fn refresh(&mut self, key: Key) -> Vec<Violation> {
        let Some(object) = self.state.object(&key).cloned() else { return Vec::new() };
        let resource = Resource::decode(key.kind, &object.body).expect("compile encoded it");
        let mut out = Violations::of(key.clone());
        let mut references = References::of(&self.state, &key.namespace);
        let root = FieldPath::root();
        let spec = root.field("spec");
        let at = spec.field("policyRefs");
        let checked = match (&object.checked, &resource) {
            (Checked::Listener(listener), Resource::Listener(wire)) => {
                let wire = wire.spec.clone().unwrap_or_default();
                let policies =
                    level::join(&listener.inline, &wire.policy_refs, &at, &mut references, &mut out);
                let tls = listener::tls::check(&wire, &spec, &mut references, &mut out);
                let listener = Arc::new(Listener { policies, tls, ..Listener::clone(listener) });
                self.state.listeners.set(listener.slot.0, Arc::clone(&listener));
                Checked::Listener(listener)
            }
            (Checked::Route(route), Resource::Route(wire)) => {
                let refs = wire.spec.as_ref().map_or(&[][..], |spec| &spec.policy_refs);
                let inline = route.inline.as_ref();
                let policies = level::join_shared(inline, refs, &at, &mut references, &mut out);
                self.state.unroute(route);
                let route = Arc::new(Route { policies, ..Route::clone(route) });
                self.state.route(&route);
                self.state.routes.set(route.slot.0, Arc::clone(&route));
                Checked::Route(route)
            }
            (Checked::Consumer(consumer), Resource::Consumer(wire)) => {
                let refs = wire.spec.as_ref().map_or(&[][..], |spec| &spec.policy_refs);
                let policies = join_for_consumer(&consumer.inline, refs, &mut references, &mut out);
                let consumer = Arc::new(Consumer { policies, ..Consumer::clone(consumer) });
                self.state.consumers.insert(Arc::clone(&consumer).into());
                Checked::Consumer(consumer)
            }
            // Nothing else refers to policies or certificates.
            _ => return Vec::new(),
        };
        let Object { name, body, secrets, references, .. } = &*object;
        let (body, secrets, references) = (body.clone(), secrets.clone(), references.clone());
        let refreshed = Object { name: Arc::clone(name), body, secrets, references, checked };
        self.state.objects.insert(Arc::new(refreshed).into());
        self.changed.affected.push(key);
        out.into_vec()
    }

    /// Deleted objects that others refer to which the batch does not mend.
    pub(super) fn in_use(&self, deleted: &[Key]) -> Vec<Violation> {
        let touched: BTreeSet<&Key> = self.touched().collect();
        let mut violations = Vec::new();
        for key in deleted {
            // Those that the batch upserts have been called dangling themselves if they still refer to it.
            let mut by: Vec<&Key> = self
                .state
                .referrers(key)
                .map(|name| &name.key)
                .filter(|key| !touched.contains(key))
                .collect();
            if by.is_empty() {
                continue;
            }
            by.sort_unstable();
            let mut out = Violations::of(key.clone());
            let message =
                format!("{key} is in use by {}; change or delete them in the same batch", list(&by));
            out.push(&FieldPath::root(), ViolationCode::InUse, message);
            violations.extend(out.into_vec());
        }
        violations
    }
}

/// The first five and how many more.
fn list(keys: &[&Key]) -> String {
    let shown: Vec<String> = keys.iter().take(5).map(ToString::to_string).collect();
    match keys.len().saturating_sub(shown.len()) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Turns a fault that shows in a referrer outside the batch into one of the Policy that brought it about. (A
/// Certificate brings none about: what refers to it was sound before.)
fn blame(policy: Key, fault: &Violation) -> Violation {
    Violation {
        message: format!("{} refers to this policy: {}", fault.object, fault.message),
        object: policy,
        field: "spec.policies".to_owned(),
        code: fault.code,
    }
}

/// A consumer's level: nothing in it may have to be decided before it is known.
fn join_for_consumer(
    inline: &PolicySet,
    refs: &[String],
    references: &mut References<'_>,
    out: &mut Violations,
) -> PolicySet {
    let root = FieldPath::root();
    let spec = root.field("spec");
    let at = spec.field("policyRefs");
    let policies = level::join(inline, refs, &at, references, out);
    let referred = policies.without(inline);
    consumer::refuse_early(&referred, &at, out);
    policies
}

/// Checks one object. `None` only with a violation noted.
fn check(
    resource: &Resource,
    (name, slot): (Arc<str>, u32),
    seed: &Seed,
    references: &mut References<'_>,
    out: &mut Violations,
) -> Option<Checked> {
    let root = FieldPath::root();
    let at = root.field("spec");
    match resource {
        Resource::Listener(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let mut listener = listener::check((name, ListenerSlot(slot)), &spec, &at, references, out);
            let refs = at.field("policyRefs");
            listener.policies = level::join(&listener.inline, &spec.policy_refs, &refs, references, out);
            Some(Checked::Listener(Arc::new(listener)))
        }
        Resource::Upstream(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            Some(Checked::Upstream(Arc::new(upstream::check(name, UpstreamSlot(slot), &spec, &at, out))))
        }
        Resource::Policy(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let scope = policy::Scope::shared(references);
            let set = PolicySet::compile(&spec.policies, &at.field("policies"), out, scope);
            Some(Checked::Policy(Arc::new(PolicyObject::new(name, spec.global, set))))
        }
        Resource::Certificate(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            Some(Checked::Certificate(certificate::check(name, &spec, &at, out).map(Arc::new)))
        }
        Resource::Consumer(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let hash = hash(seed, &*name);
            let mut consumer = consumer::check((name, hash), &spec, &at, out);
            let policies_at = at.field("policies");
            consumer.inline =
                PolicySet::compile(&spec.policies, &policies_at, out, policy::Scope::shared(references));
            consumer::refuse_early(&consumer.inline, &policies_at, out);
            consumer.policies = join_for_consumer(&consumer.inline, &spec.policy_refs, references, out);
            Some(Checked::Consumer(Arc::new(consumer)))
        }
        Resource::TokenIssuer(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let slot = IssuerSlot(slot);
            let issuer = issuer::check((name, slot), &spec, &at, out).map(Arc::new);
            Some(Checked::TokenIssuer(slot, issuer))
        }
        Resource::Route(wire) => {
            let nothing = wire::RouteSpec::default();
            let spec = wire.spec.as_ref().unwrap_or(&nothing);
            let route = route::check::check((name, RouteSlot(slot)), spec, &at, references, out)?;
            Some(Checked::Route(Arc::new(route)))
        }
    }
}
