//! States and views for the tests of this crate, without a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_engine::Engine;
use gateway_proto::digest::RootHash;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Edit, View};
use crate::sorted::SortedMap;
use crate::state::{Objects, State};
use crate::store::{Content, Difference, Head, Stored};

/// The one history of tests.
pub const EPOCH: Uuid = Uuid::from_u128(7);

fn metadata(name: &str) -> Option<wire::Metadata> {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Some(wire::Metadata { name: name.into(), namespace: namespace.into(), ..Default::default() })
}

/// A listener, for all or for a group. Names may be `namespace/name`, here and below.
pub fn listener(name: &str, group: Option<&str>, policies: &[&str]) -> Resource {
    let spec = wire::ListenerSpec {
        data_planes: group.map(|group| wire::DataPlaneSelector { group: group.into() }),
        policy_refs: policies.iter().map(ToString::to_string).collect(),
        ..Default::default()
    };
    wire::Listener { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// A route to an upstream.
pub fn route(name: &str, listeners: &[&str], upstream: &str, policies: &[&str]) -> Resource {
    let backend = wire::Backend { upstream: upstream.into(), weight: None };
    let forward = wire::Forward { backends: vec![backend], host: None };
    let spec = wire::RouteSpec {
        listeners: listeners.iter().map(ToString::to_string).collect(),
        policy_refs: policies.iter().map(ToString::to_string).collect(),
        action: Some(wire::route_spec::Action::Forward(forward)),
        ..Default::default()
    };
    wire::Route { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// An upstream; different numbers are different contents.
pub fn upstream(name: &str, content: u32) -> Resource {
    let target = wire::Target { address: "127.0.0.1:1".into(), weight: Some(content) };
    let spec = wire::UpstreamSpec { targets: vec![target], ..Default::default() };
    wire::Upstream { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// An upstream that discovers its targets.
pub fn discovering(name: &str, source: &str) -> Resource {
    let discovery = wire::UpstreamDiscovery { source: source.into(), ..Default::default() };
    let spec = wire::UpstreamSpec { discovery: Some(discovery), ..Default::default() };
    wire::Upstream { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// A discovery source.
pub fn discovery_source(name: &str) -> Resource {
    wire::DiscoverySource { metadata: metadata(name), ..Default::default() }.into()
}

/// A policy.
pub fn policy(name: &str, global: bool) -> Resource {
    let spec = wire::PolicySpec { global, policies: Vec::new() };
    wire::Policy { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// A policy that asks for tokens of these issuers.
pub fn guard(name: &str, issuers: &[&str]) -> Resource {
    let issuers = issuers.iter().map(ToString::to_string).collect();
    let method = wire::AuthMethod { method: Some(wire::auth_method::Method::Jwt(wire::JwtAuth { issuers })) };
    let auth = wire::Auth { any: vec![method], ..Default::default() };
    let entry = wire::PolicyEntry { policy: Some(wire::policy_entry::Policy::Auth(auth)) };
    let spec = wire::PolicySpec { global: false, policies: vec![entry] };
    wire::Policy { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// A token issuer; different texts are different contents.
pub fn token_issuer(name: &str, issuer: &str) -> Resource {
    let spec = wire::TokenIssuerSpec { issuer: issuer.into(), ..Default::default() };
    wire::TokenIssuer { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// A consumer.
pub fn consumer(name: &str, policies: &[&str]) -> Resource {
    let policy_refs = policies.iter().map(ToString::to_string).collect();
    let spec = wire::ConsumerSpec { policy_refs, ..Default::default() };
    wire::Consumer { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
}

/// The key of a name.
pub fn key(kind: Kind, name: &str) -> Key {
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    Key::new(kind, namespace, name)
}

fn stored(resource: &Resource, revision: u64) -> Arc<Stored> {
    let content = Content::new(resource.clone());
    Arc::new(Stored {
        key: resource.key(),
        generation: 1,
        revision,
        hash: content.hash(),
        body: content.body().clone(),
        created: Timestamp::UNIX_EPOCH,
        updated: Timestamp::UNIX_EPOCH,
    })
}

/// A store that grows by revisions, and one view of it.
pub struct Story {
    /// Every state there was, by revision.
    pub past: Vec<Arc<State>>,
    /// The present state.
    pub state: Arc<State>,
    /// The view.
    pub view: Arc<View>,
}

impl Story {
    /// The empty store at revision 0.
    pub fn begin(group: Option<&str>) -> Self {
        let head = Head { epoch: EPOCH, revision: 0, root: RootHash::default() };
        let state = Arc::new(State { head, objects: Objects::default(), engine: Engine::default() });
        let view = Arc::new(View::first(group.map(str::to_owned), Arc::clone(&state)));
        Story { past: vec![Arc::clone(&state)], state, view }
    }

    /// The next revision.
    pub fn commit(&mut self, puts: &[Resource], deletes: &[Key]) {
        let mut edits: BTreeMap<Key, Edit> = BTreeMap::new();
        let mut state = State::clone(&self.state);
        state.head.revision += 1;
        for resource in puts {
            let next = stored(resource, state.head.revision);
            let before = state.objects.insert(next.key.clone(), Arc::clone(&next));
            edits.insert(next.key.clone(), (next.key.clone(), before, Some(next)));
        }
        for key in deletes {
            if let Some(before) = state.objects.remove(key) {
                edits.insert(key.clone(), (key.clone(), Some(before), None));
            }
        }
        let edits: Vec<Edit> = edits.into_values().collect();
        self.state = Arc::new(state);
        self.past.push(Arc::clone(&self.state));
        self.view = Arc::new(self.view.next(Arc::clone(&self.state), &edits));
    }

    /// A view as after a restart: it has seen nothing of the past.
    pub fn restarted(&self, group: Option<&str>) -> Arc<View> {
        Arc::new(View::first(group.map(str::to_owned), Arc::clone(&self.state)))
    }

    /// What the store's history says about the way from a revision to the present.
    pub fn differences(&self, from: u64) -> Vec<Difference> {
        let before = &self.past[usize::try_from(from).expect("small")].objects;
        let mut differences = Vec::new();
        let body = |stored: Option<&Arc<Stored>>| stored.map(|stored| stored.body.clone());
        SortedMap::diff(before, &self.state.objects, |key, before, after| {
            let (before, after) = (body(before), body(after));
            if before != after {
                differences.push(Difference { key: key.clone(), before, after });
            }
        });
        differences
    }

    /// Names in the scope, as `Kind namespace/name`.
    pub fn names(&self) -> Vec<String> {
        self.view.items().iter().map(|(key, _)| key.to_string()).collect()
    }
}
