//! Draft: a configuration being changed. It starts as a clone of the previous one (everything shared), takes the
//! batch object by object, and either becomes the next engine or is thrown away. Faulty listeners, upstreams and
//! policies are put in too (certificates without what they hold), so that what refers to them is not called dangling on top.

use std::collections::BTreeSet;
use std::sync::Arc;

use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::Secrets;
use gateway_proto::wire;

use super::object::{Checked, Name, Object, PolicyObject, check_metadata};
use super::reference::References;
use super::{Changed, level};
use crate::certificate;
use crate::discovery;
use crate::engine::{Engine, Referrers, State};
use crate::identity::{IssuerSlot, consumer, issuer};
use crate::listener::{self, Listener, ListenerSlot};
use crate::policy::joins::{JoinSlot, Joined};
use crate::policy::{self, PolicySet};
use crate::route::table::Seed;
use crate::route::{self, RouteSlot};
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
            self.state.joins.release(&self.state.seed, object.checked.referred(), key.kind);
            self.state.asking -= usize::from(object.asks_for_keys);
            match &object.checked {
                Checked::Listener(listener) => self.state.listeners.free(listener.slot.0),
                Checked::Upstream(upstream) => self.state.upstreams.free(upstream.slot.0),
                Checked::Policy(policy) => self.former_policies.push(Arc::clone(policy)),
                Checked::Certificate(_) | Checked::DiscoverySource => {}
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
        let asks_for_keys = references.asks_for_keys();
        let (references, policies) = references.into_parts();
        if let Some(mut checked) = checked {
            checked.refer(self.state.joins.hold(&self.state.seed, &policies, name.key.kind));
            self.put(Object { name, body, secrets, references, asks_for_keys, checked }, former.as_deref());
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
            Kind::Policy | Kind::Certificate | Kind::Consumer | Kind::Credential | Kind::DiscoverySource => 0,
        }
    }

    fn put(&mut self, object: Object, former: Option<&Object>) {
        let state = &mut self.state;
        if let Some(former) = former {
            state.joins.release(&state.seed, former.checked.referred(), former.name.key.kind);
        }
        state.asking -= usize::from(former.is_some_and(|former| former.asks_for_keys));
        state.asking += usize::from(object.asks_for_keys);
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
            (
                Checked::Policy(_)
                | Checked::Certificate(_)
                | Checked::TokenIssuer(_, None)
                | Checked::DiscoverySource,
                _,
            ) => {}
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

    /// Joins anew the lists that name a Policy of the batch. To be done once all of them are in, before what refers to
    /// them.
    pub(super) fn rejoin(&mut self) {
        let State { joins, objects, seed, .. } = &mut self.state;
        for policy in self.changed.updated.iter().filter(|key| key.kind == Kind::Policy) {
            let Some(policy) = objects.look(seed, policy) else { continue };
            for slot in joins.naming(&policy.name).collect::<Vec<_>>() {
                joins.rejoin(slot, |name| objects.get(name.hash, &name.key).map(|object| &**object));
            }
        }
    }

    /// What is wrong with lists that name a Policy of the batch, for those who hold them and are not in the batch: it
    /// is the Policy's fault.
    pub(super) fn faulty_lists(&self) -> Vec<Violation> {
        let policies = self.changed.updated.iter().filter(|key| key.kind == Kind::Policy);
        let mut blamed: Vec<JoinSlot> = Vec::new();
        let mut violations = Vec::new();
        for policy in policies.filter_map(|key| self.state.object(key)) {
            let joins = &self.state.joins;
            let lists = joins.naming(&policy.name).filter_map(|slot| Some((slot, &**joins.get(slot)?)));
            let faulty: Vec<(JoinSlot, &Joined)> =
                lists.filter(|(slot, list)| may_be_faulty(list) && !blamed.contains(slot)).collect();
            if let Some(fault) = self.fault_of(&policy.name, &faulty) {
                violations.push(fault);
                blamed.extend(faulty.iter().map(|(slot, _)| *slot));
            }
        }
        violations
    }

    /// The fault that shows in the first by name of those who hold one of these lists. Costs all that refer to the
    /// Policy: but for consumers it is looked for only where there is one.
    fn fault_of(&self, policy: &Name, lists: &[(JoinSlot, &Joined)]) -> Option<Violation> {
        if lists.is_empty() {
            return None;
        }
        let touched: BTreeSet<&Key> = self.touched().collect();
        let others = self.state.referrers(&policy.key).filter(|name| !touched.contains(&name.key));
        let faults = others.filter_map(|name| {
            let held = self.state.objects.get(name.hash, &name.key)?.checked.referred()?;
            let (_, list) = lists.iter().find(|(slot, _)| *slot == held)?;
            Some((&name.key, fault_of_list(list, &name.key)?))
        });
        let (holder, fault) = faults.min_by_key(|(key, _)| *key)?;
        let (code, why) = fault;
        let mut out = Violations::of(policy.key.clone());
        let root = FieldPath::root();
        let message = format!("{holder} refers to this policy: {why}");
        out.push(&root.field("spec").field("policies"), code, message);
        out.into_vec().pop()
    }

    /// Makes listeners anew that are not in the batch but refer to a Certificate that is.
    pub(super) fn refresh_listeners(&mut self) {
        let touched: BTreeSet<&Key> = self.touched().collect();
        let mut stale = BTreeSet::new();
        for certificate in self.changed.updated.iter().filter(|key| key.kind == Kind::Certificate) {
            let listeners = self.state.referrers(certificate).map(|name| &name.key);
            stale.extend(listeners.filter(|key| !touched.contains(key)).cloned());
        }
        stale.into_iter().for_each(|key| self.refresh(key));
    }

    fn refresh(&mut self, key: Key) {
        let Some(object) = self.state.object(&key).cloned() else { return };
        let Checked::Listener(listener) = &object.checked else { return };
        let resource = Resource::decode(key.kind, &object.body).expect("compile encoded it");
        let Resource::Listener(wire) = resource else { return };
        let wire = wire.spec.unwrap_or_default();
        // Nothing can come of it: what refers to a certificate was sound before.
        let mut out = Violations::of(key.clone());
        let mut references = References::of(&self.state, &key.namespace);
        let root = FieldPath::root();
        let tls = listener::tls::check(&wire, &root.field("spec"), &mut references, &mut out);
        let listener = Arc::new(Listener { tls, ..Listener::clone(listener) });
        self.state.listeners.set(listener.slot.0, Arc::clone(&listener));
        let Object { name, body, secrets, references, .. } = &*object;
        let (body, secrets, references) = (body.clone(), secrets.clone(), references.clone());
        let (checked, asks_for_keys) = (Checked::Listener(listener), object.asks_for_keys);
        let refreshed = Object { name: Arc::clone(name), body, secrets, references, asks_for_keys, checked };
        self.state.objects.insert(Arc::new(refreshed).into());
        self.changed.affected.push(key);
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

/// A list has something that keeps it, or could keep it, from being held.
fn may_be_faulty(list: &Joined) -> bool {
    !list.clashes().is_empty() || list.has_consumers() && consumer::early(list.set()).next().is_some()
}

/// What keeps an object from holding a list.
fn fault_of_list(list: &Joined, holder: &Key) -> Option<(ViolationCode, String)> {
    if let Some(clash) = list.clashes().first() {
        let (first, second) = (&list.policies()[clash.first], &list.policies()[clash.second]);
        return Some((ViolationCode::Duplicate, level::clash_of(clash, first, second)));
    }
    let early = consumer::early(list.set()).next().filter(|_| holder.kind == Kind::Consumer)?;
    Some((ViolationCode::Conflict, consumer::too_early(early)))
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
            let listener = listener::check((name, ListenerSlot(slot)), &spec, &at, references, out);
            level::refer(&spec.policy_refs, &at.field("policyRefs"), references, out);
            Some(Checked::Listener(Arc::new(listener)))
        }
        Resource::Upstream(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let slot = UpstreamSlot(slot);
            Some(Checked::Upstream(Arc::new(upstream::check((name, slot), &spec, &at, references, out))))
        }
        Resource::Policy(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let scope = policy::Scope::shared(references);
            let set = PolicySet::compile(&spec.policies, &at.field("policies"), out, scope);
            Some(Checked::Policy(Arc::new(PolicyObject { name, global: spec.global, set })))
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
            consumer.policies =
                PolicySet::compile(&spec.policies, &policies_at, out, policy::Scope::shared(references));
            consumer::refuse_early(&consumer.policies, &policies_at, out);
            let refs_at = at.field("policyRefs");
            let refuse = |said: &PolicySet, out: &mut Violations| {
                consumer::refuse_early(said, &refs_at, out);
            };
            level::refer_to(&spec.policy_refs, &refs_at, references, out, refuse);
            Some(Checked::Consumer(Arc::new(consumer)))
        }
        Resource::TokenIssuer(wire) => {
            let spec = wire.spec.clone().unwrap_or_default();
            let slot = IssuerSlot(slot);
            let issuer = issuer::check((name, slot), &spec, &at, out).map(Arc::new);
            Some(Checked::TokenIssuer(slot, issuer))
        }
        Resource::Credential(_) => {
            out.push(&root, ViolationCode::Conflict, "credentials are no part of a configuration");
            None
        }
        Resource::DiscoverySource(wire) => {
            discovery::check(&wire.spec.clone().unwrap_or_default(), &at, out);
            Some(Checked::DiscoverySource)
        }
        Resource::Route(wire) => {
            let nothing = wire::RouteSpec::default();
            let spec = wire.spec.as_ref().unwrap_or(&nothing);
            let route = route::check::check((name, RouteSlot(slot)), spec, &at, references, out)?;
            Some(Checked::Route(Arc::new(route)))
        }
    }
}
