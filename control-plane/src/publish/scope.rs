//! Which objects a group of data planes takes: the listeners without `dataPlanes` or naming it, the routes that are
//! reached through those, every consumer (whoever asks may ask anywhere), the upstreams, policies, certificates, token
//! issuers and discovery sources that any of these refer to, and global policies.
//! Secrets go where their objects go, and nowhere else.
//!
//! A change of a route or of what is referred to costs what it touches, by counting references; only a listener that comes
//! or goes has everything looked at again. Invariant: `items` is what [`Scope::build`] would make of the same state.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use gateway_proto::wire::auth_method::Method;
use gateway_proto::wire::policy_entry::Policy;

use super::Edit;
use crate::sorted::SortedMap;
use crate::state::Objects;
use crate::store::Stored;

/// What one group takes, at one revision. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// `None`: the groups that no listener names.
    group: Option<String>,
    items: Objects,
    root: RootHash,
    /// How many references each object has from others in the scope.
    references: SortedMap<Key, u32>,
}

/// The kinds that are in a scope because something in it refers to them. In the order of their keys; what refers to
/// another of them (a policy to token issuers, an upstream to a source) comes first.
const REFERRED_TO: [Kind; 5] =
    [Kind::Upstream, Kind::Policy, Kind::Certificate, Kind::TokenIssuer, Kind::DiscoverySource];

/// An object that came into the scope, changed or left it: what it was before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The object.
    pub key: Key,
    /// Its content before; `None`: it was not in the scope.
    pub before: Option<ItemHash>,
}

impl Scope {
    /// From nothing.
    pub fn build(group: Option<String>, objects: &Objects) -> Self {
        let empty = Scope { group, ..Scope::default() };
        let mut edit = Editing { scope: empty, touched: HashMap::new() };
        for (key, stored, group) in listeners(objects) {
            if edit.scope.takes(group.as_deref()) {
                edit.set(key, Some(stored));
                edit.refer(stored, 1);
            }
        }
        let from =
            |kind| objects.range_from(&Key::new(kind, "", "")).take_while(move |(key, _)| key.kind == kind);
        for (key, stored) in from(Kind::Route) {
            if edit.scope.reaches(stored) {
                edit.set(key, Some(stored));
                edit.refer(stored, 1);
            }
        }
        for (key, stored) in from(Kind::Consumer) {
            edit.set(key, Some(stored));
            edit.refer(stored, 1);
        }
        for (key, stored) in REFERRED_TO.into_iter().flat_map(from) {
            if edit.scope.needs(key, stored) {
                edit.set(key, Some(stored));
                edit.refer(stored, 1);
            }
        }
        edit.scope
    }

    /// The same content, from now on for a group that gets listeners of its own.
    #[must_use]
    pub fn for_group(self, group: String) -> Self {
        Scope { group: Some(group), ..self }
    }

    /// Follows the edits that led to `objects`, or back to them; returns what they did to the scope, each object once.
    pub fn advance(&mut self, objects: &Objects, edits: &[Edit]) -> Vec<Touched> {
        if edits.iter().any(|edit| self.moves_border(edit)) {
            let next = Scope::build(self.group.clone(), objects);
            let mut touched = Vec::new();
            SortedMap::diff(&self.items, &next.items, |key, before, _| {
                touched.push(Touched { key: key.clone(), before: before.map(|stored| stored.hash) });
            });
            *self = next;
            return touched;
        }
        let scope = std::mem::take(self);
        let mut edit = Editing { scope, touched: HashMap::new() };
        let mut loose: BTreeSet<Key> = BTreeSet::new();
        for (key, before, after) in edits {
            if REFERRED_TO.contains(&key.kind) {
                loose.insert(key.clone());
                continue;
            }
            if let Some(before) = before.as_ref().filter(|_| edit.scope.items.get(key).is_some()) {
                loose.extend(edit.refer(before, -1));
            }
            let taken = after.as_ref().filter(|after| match key.kind {
                // Its membership did not change, or the border would have moved.
                Kind::Listener => edit.scope.items.get(key).is_some(),
                Kind::Consumer => true,
                _ => edit.scope.reaches(after),
            });
            if let Some(after) = taken {
                loose.extend(edit.refer(after, 1));
            }
            edit.set(key, taken);
        }
        while let Some(key) = loose.pop_first() {
            let before = edit.scope.items.get(&key).cloned();
            let after = objects.get(&key).filter(|stored| edit.scope.needs(&key, stored));
            if before.as_ref() == after {
                continue;
            }
            let targets = before.into_iter().flat_map(|before| edit.refer(&before, -1));
            loose.extend(targets.collect::<Vec<_>>());
            loose.extend(after.map(|after| edit.refer(after, 1)).unwrap_or_default());
            edit.set(&key, after);
        }
        let Editing { scope, touched } = edit;
        *self = scope;
        let mut touched: Vec<_> = touched.into_iter().map(|(key, before)| Touched { key, before }).collect();
        touched.retain(|it| self.items.get(&it.key).map(|stored| stored.hash) != it.before);
        touched.sort_by(|left, right| left.key.cmp(&right.key));
        touched
    }

    /// Whose it is.
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Everything in the scope.
    pub const fn items(&self) -> &Objects {
        &self.items
    }

    /// Sum of the hashes of everything in the scope.
    pub const fn root(&self) -> RootHash {
        self.root
    }

    fn takes(&self, selected: Option<&str>) -> bool {
        selected.is_none_or(|selected| self.group.as_deref() == Some(selected))
    }

    /// An edit of a listener that changes whether it is in the scope.
    fn moves_border(&self, (key, _, after): &Edit) -> bool {
        let is_in = self.items.get(key).is_some();
        let will_be = after.as_ref().is_some_and(|after| self.takes(selected_group(after).as_deref()));
        key.kind == Kind::Listener && is_in != will_be
    }

    /// A route that comes in through a listener of the scope.
    fn reaches(&self, route: &Stored) -> bool {
        let Some(Resource::Route(route)) = decode(route) else { return false };
        let namespace = namespace(route.metadata.as_ref());
        let named = route.spec.map(|spec| spec.listeners).unwrap_or_default();
        if named.is_empty() {
            return [namespace.as_str(), DEFAULT_NAMESPACE].iter().any(|namespace| {
                let first = Key::new(Kind::Listener, *namespace, "");
                let next = self.items.range_from(&first).next();
                next.is_some_and(|(key, _)| key.kind == Kind::Listener && key.namespace == *namespace)
            });
        }
        named.iter().any(|name| self.items.get(&qualified(Kind::Listener, &namespace, name)).is_some())
    }

    fn needs(&self, key: &Key, stored: &Stored) -> bool {
        if self.references.get(key).is_some_and(|count| *count > 0) {
            return true;
        }
        key.kind == Kind::Policy
            && match decode(stored) {
                Some(Resource::Policy(policy)) => policy.spec.is_some_and(|spec| spec.global),
                _ => false,
            }
    }
}

/// A scope being changed, and what its objects were before.
struct Editing {
    scope: Scope,
    touched: HashMap<Key, Option<ItemHash>>,
}

impl Editing {
    fn set(&mut self, key: &Key, stored: Option<&Arc<Stored>>) {
        let before = match stored {
            Some(stored) => {
                self.scope.root = self.scope.root.plus(stored.hash);
                self.scope.items.insert(key.clone(), Arc::clone(stored))
            }
            None => self.scope.items.remove(key),
        };
        let before = before.map(|before| before.hash);
        if let Some(before) = before {
            self.scope.root = self.scope.root.minus(before);
        }
        self.touched.entry(key.clone()).or_insert(before);
    }

    /// Counts the references of an object in or out; returns what they are to.
    fn refer(&mut self, stored: &Stored, by: i32) -> Vec<Key> {
        let targets = references(stored);
        for target in &targets {
            let count = self.scope.references.get(target).copied().unwrap_or(0).saturating_add_signed(by);
            match count {
                0 => self.scope.references.remove(target),
                count => self.scope.references.insert(target.clone(), count),
            };
        }
        targets
    }
}

/// Every listener, and the group it is for; `None`: for all.
pub fn listeners(objects: &Objects) -> impl Iterator<Item = (&Key, &Arc<Stored>, Option<String>)> {
    let first = Key::new(Kind::Listener, "", "");
    let all = objects.range_from(&first).take_while(|(key, _)| key.kind == Kind::Listener);
    all.map(|(key, stored)| (key, stored, selected_group(stored)))
}

fn selected_group(listener: &Stored) -> Option<String> {
    let Some(Resource::Listener(listener)) = decode(listener) else { return None };
    listener.spec?.data_planes.map(|selector| selector.group).filter(|group| !group.is_empty())
}

/// What an object names.
fn references(stored: &Stored) -> Vec<Key> {
    let (metadata, policies, own) = match decode(stored) {
        Some(Resource::Listener(it)) => {
            let spec = it.spec.unwrap_or_default();
            let certificates = spec.tls.unwrap_or_default().certificates.into_iter();
            let own = certificates.map(|name| (Kind::Certificate, name)).chain(issuers(spec.policies));
            (it.metadata, spec.policy_refs, own.collect())
        }
        Some(Resource::Route(it)) => {
            let spec = it.spec.unwrap_or_default();
            let backends = match spec.action {
                Some(wire::route_spec::Action::Forward(forward)) => forward.backends,
                _ => Vec::new(),
            };
            let upstreams = backends.into_iter().map(|backend| (Kind::Upstream, backend.upstream));
            (it.metadata, spec.policy_refs, upstreams.chain(issuers(spec.policies)).collect::<Vec<_>>())
        }
        Some(Resource::Policy(it)) => {
            (it.metadata, Vec::new(), issuers(it.spec.unwrap_or_default().policies).collect())
        }
        Some(Resource::Upstream(it)) => {
            let source = it.spec.and_then(|spec| spec.discovery).map(|discovery| discovery.source);
            let namespace = namespace(it.metadata.as_ref());
            let key = source.map(|source| qualified(Kind::DiscoverySource, &namespace, &source));
            return key.into_iter().collect();
        }
        Some(Resource::Consumer(it)) => (it.metadata, it.spec.unwrap_or_default().policy_refs, Vec::new()),
        _ => return Vec::new(),
    };
    let namespace = namespace(metadata.as_ref());
    let policies = policies.iter().map(|name| qualified(Kind::Policy, &namespace, name));
    // Of the same namespace, always.
    let own = own.iter().map(|(kind, name)| Key::new(*kind, namespace.as_str(), name.as_str()));
    policies.chain(own).collect()
}

/// The token issuers that policies name.
fn issuers(policies: Vec<wire::PolicyEntry>) -> impl Iterator<Item = (Kind, String)> {
    let methods = policies.into_iter().flat_map(|entry| match entry.policy {
        Some(Policy::Auth(auth)) => [auth.any, auth.all].concat(),
        _ => Vec::new(),
    });
    let issuers = methods.flat_map(|method| match method.method {
        Some(Method::Jwt(jwt)) => jwt.issuers,
        // Keys have a lane of their own.
        Some(Method::ApiKey(_)) | None => Vec::new(),
    });
    issuers.map(|name| (Kind::TokenIssuer, name))
}

/// What is stored was compiled, so that it decodes; anything else is in no scope.
fn decode(stored: &Stored) -> Option<Resource> {
    Resource::decode(stored.key.kind, &stored.body).ok()
}

fn namespace(metadata: Option<&wire::Metadata>) -> String {
    metadata.map(|metadata| metadata.namespace.clone()).unwrap_or_default()
}

fn qualified(kind: Kind, namespace: &str, name: &str) -> Key {
    match name.split_once('/') {
        Some((namespace, name)) => Key::new(kind, namespace, name),
        None => Key::new(kind, namespace, name),
    }
}

#[cfg(test)]
mod tests;
