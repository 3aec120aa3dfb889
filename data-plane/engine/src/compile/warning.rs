//! Warnings: what is allowed but probably not meant. Computed from the finished engine, never stored, so that they
//! cannot disagree with it however it was reached.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind};

use super::object::Checked;
use crate::certificate::Certificate;
use crate::engine::Engine;
use crate::listener::Listener;
use crate::route::table::Table;
use crate::route::{Alike, Candidate, HostPattern, Reach, Route, Slot};
use crate::violations::Violations;

/// The warnings about these objects, and about routes that they put in the shade. Sorted.
pub(super) fn about(engine: &Engine, keys: &BTreeSet<&Key>) -> Vec<Violation> {
    let mut warner = Warner { engine, by_namespace: None, groups: HashMap::default() };
    let mut shaded = BTreeSet::new();
    let mut warnings = Vec::new();
    for &key in keys {
        let Some(object) = engine.state.object(key) else { continue };
        let mut out = Violations::of(key.clone());
        match &object.checked {
            Checked::Route(route) => {
                warner.route(route, &mut out);
                warner.shaded_by(route, &mut shaded);
            }
            Checked::Policy(policy) => {
                let used = policy.global || engine.state.referrers(key).next().is_some();
                let message = match (policy.set.is_empty(), used) {
                    (true, _) => "it holds no policies",
                    (false, false) => "nothing refers to it and it is not global",
                    (false, true) => continue,
                };
                out.push(&FieldPath::root().field("spec"), ViolationCode::NoEffect, message);
            }
            Checked::Upstream(upstream) => {
                if upstream.discovery.is_none() && upstream.targets.iter().all(|it| it.weight == 0) {
                    let message = "every target has weight 0, so that requests are answered with 503";
                    out.push(
                        &FieldPath::root().field("spec").field("targets"),
                        ViolationCode::NoEffect,
                        message,
                    );
                }
            }
            Checked::Certificate(_) => {
                if engine.state.referrers(key).next().is_none() {
                    let message = "no listener refers to it";
                    out.push(&FieldPath::root().field("spec"), ViolationCode::NoEffect, message);
                }
            }
            Checked::TokenIssuer(..) => {
                if engine.state.referrers(key).next().is_none() {
                    let message = "no auth policy names it";
                    out.push(&FieldPath::root().field("spec"), ViolationCode::NoEffect, message);
                }
            }
            Checked::DiscoverySource => {
                if engine.state.referrers(key).next().is_none() {
                    let message = "no upstream names it";
                    out.push(&FieldPath::root().field("spec"), ViolationCode::NoEffect, message);
                }
            }
            Checked::Consumer(_) => {}
            Checked::Listener(listener) => unused_certificates(listener, &mut out),
        }
        warnings.extend(out.into_vec());
    }
    for key in shaded.iter().filter(|key| !keys.contains(key)) {
        if let Some(Checked::Route(route)) = engine.state.object(key).map(|object| &object.checked) {
            let mut out = Violations::of(key.clone());
            warner.route(route, &mut out);
            warnings.extend(out.into_vec());
        }
    }
    warnings.sort_by(|one, two| one.object.cmp(&two.object));
    warnings
}

/// The candidates of a slot by what they ask for, the best first.
type Groups<'e> = HashMap<Alike<'e>, Vec<&'e Arc<Candidate>>, foldhash::fast::RandomState>;

/// Most routes that one entry is said to put in the shade.
const MAX_SHADED: usize = 100;

struct Warner<'e> {
    engine: &'e Engine,
    by_namespace: Option<HashMap<&'e str, Vec<&'e Arc<Listener>>>>,
    /// By the slot's address: what is in it.
    groups: HashMap<usize, Groups<'e>, foldhash::fast::RandomState>,
}

impl<'e> Warner<'e> {
    fn route(&mut self, route: &'e Route, out: &mut Violations) {
        let root = FieldPath::root();
        let spec = root.field("spec");
        let listeners = self.listeners(route);
        if listeners.is_empty() {
            let namespace = route.namespace();
            let also = if namespace == DEFAULT_NAMESPACE { "" } else { " or default" };
            let message = format!("no listener takes it: there is none in namespace {namespace}{also}");
            out.push(&spec.field("listeners"), ViolationCode::NoEffect, message);
            return;
        }
        let matches = spec.field("matches");
        for candidate in &*route.candidates {
            let at = matches.index(candidate.index as usize);
            for host in &*route.hosts {
                if let Some(other) = self.shader(candidate, host, &listeners) {
                    out.push(&at, ViolationCode::Shadowed, shadow(candidate, host, other));
                    break;
                }
            }
        }
    }

    /// Who is in front of a candidate on every listener that takes it.
    fn shader(
        &mut self,
        candidate: &'e Arc<Candidate>,
        host: &HostPattern,
        listeners: &[&'e Arc<Listener>],
    ) -> Option<&'e Arc<Candidate>> {
        let mut shader = None;
        for listener in listeners {
            let tables = self.engine.tables(listener).into_iter().flatten();
            let slots =
                tables.clone().filter_map(|table| table.slot_of(self.engine.seed(), host, &candidate.path));
            // Nearly always it is alone.
            if slots.map(|slot| slot.iter().len()).sum::<usize>() <= 1 {
                return None;
            }
            let firsts = tables.filter_map(|table| self.group(table, host, candidate)?.first().copied());
            let first = firsts.min_by(|one, two| one.rank(two))?;
            if Arc::ptr_eq(first, candidate) {
                return None;
            }
            shader = Some(first);
        }
        shader
    }

    /// The candidates of a table that ask for the same on the same host.
    #[expect(clippy::mutable_key_type, reason = "patterns are hashed and compared by their text")]
    fn group(
        &mut self,
        table: &'e Table,
        host: &HostPattern,
        like: &'e Candidate,
    ) -> Option<&[&'e Arc<Candidate>]> {
        let slot = table.slot_of(self.engine.seed(), host, &like.path)?;
        let groups = self.groups.entry(std::ptr::from_ref::<Slot>(slot).addr()).or_insert_with(|| {
            let mut groups = Groups::default();
            for candidate in slot.iter() {
                groups.entry(candidate.alike()).or_default().push(candidate);
            }
            groups
        });
        groups.get(&like.alike()).map(|group| &**group)
    }

    /// Adds the routes of candidates that ask for the same as one of this route's and come after it.
    fn shaded_by(&mut self, route: &'e Route, shaded: &mut BTreeSet<Key>) {
        let mut tables: Vec<&Table> = Vec::new();
        for listener in self.listeners(route) {
            for table in self.engine.tables(listener).into_iter().flatten().filter(|table| !table.is_empty())
            {
                if !tables.iter().any(|known| std::ptr::eq(*known, table)) {
                    tables.push(table);
                }
            }
        }
        for table in tables {
            for candidate in &*route.candidates {
                for host in &*route.hosts {
                    let slot = table.slot_of(self.engine.seed(), host, &candidate.path);
                    if slot.is_none_or(|slot| slot.iter().all(|other| Arc::ptr_eq(other, candidate))) {
                        continue;
                    }
                    let group = self.group(table, host, candidate).unwrap_or_default();
                    let after = group.partition_point(|other| other.rank(candidate).is_le());
                    shaded.extend(group[after..].iter().take(MAX_SHADED).map(|other| route_key(&other.name)));
                }
            }
        }
    }

    fn listeners(&mut self, route: &Route) -> Vec<&'e Arc<Listener>> {
        let engine = self.engine;
        match &route.reach {
            Reach::Named(slots) => {
                slots.iter().filter_map(|slot| engine.state.listeners.get(slot.0)).collect()
            }
            Reach::Implicit => {
                let by_namespace = self.by_namespace.get_or_insert_with(|| {
                    let mut by_namespace: HashMap<&str, Vec<&Arc<Listener>>> = HashMap::new();
                    for listener in engine.listeners() {
                        by_namespace.entry(listener.namespace()).or_default().push(listener);
                    }
                    by_namespace
                });
                let own = (route.namespace() != DEFAULT_NAMESPACE).then(|| route.namespace());
                let namespaces = own.into_iter().chain([DEFAULT_NAMESPACE]);
                namespaces.filter_map(|namespace| by_namespace.get(namespace)).flatten().copied().collect()
            }
        }
    }
}

/// Certificates of a listener that no client can get: others come first for every name they have.
fn unused_certificates(listener: &Listener, out: &mut Violations) {
    let Some(tls) = &listener.tls else { return };
    let root = FieldPath::root();
    let spec = root.field("spec");
    let tls_at = spec.field("tls");
    let at = tls_at.field("certificates");
    for (index, certificate) in tls.certificates.iter().enumerate().skip(1) {
        let algorithm = |certificate: &Certificate| certificate.key.key.algorithm();
        let is_first = |name: &str| {
            let mut holders = tls.holders(name).filter(|other| algorithm(other) == algorithm(certificate));
            holders.next().is_some_and(|first| Arc::ptr_eq(first, certificate))
        };
        if !certificate.dns_names.iter().any(|name| is_first(name)) {
            let message = "no client gets it: certificates before it have all of its names";
            out.push(&at.index(index), ViolationCode::NoEffect, message);
        }
    }
}

fn route_key(qualified: &str) -> Key {
    let (namespace, name) = qualified.split_once('/').unwrap_or_default();
    Key::new(Kind::Route, namespace, name)
}

fn shadow(candidate: &Candidate, host: &HostPattern, other: &Candidate) -> String {
    let why = if other.priority == candidate.priority {
        "by name".to_owned()
    } else {
        format!("by priority {} over {}", other.priority, candidate.priority)
    };
    format!(
        "for {host} this is never reached: Route {} matches[{}] asks for the same and comes first {why}",
        other.name, other.index
    )
}
