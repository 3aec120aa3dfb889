//! States and views for the tests of this crate, without a store.

use std::collections::BTreeMap;
use std::sync::Arc;

use gateway_engine::Engine;
use gateway_proto::digest::RootHash;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use jiff::Timestamp;
use uuid::Uuid;

use super::{Edit, Scope, View};
use crate::sorted::SortedMap;
use crate::state::State;
use crate::store::{Content, Head, Stored};

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

/// A policy.
pub fn policy(name: &str, global: bool) -> Resource {
    let spec = wire::PolicySpec { global, policies: Vec::new() };
    wire::Policy { metadata: metadata(name), spec: Some(spec), ..Default::default() }.into()
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

/// A store that grows by revisions, and one scope and view of it.
pub struct Story {
    /// The present state.
    pub state: State,
    /// The scope.
    pub scope: Scope,
    /// The view.
    pub view: Arc<View>,
}

impl Story {
    /// The empty store at revision 0.
    pub fn begin(group: Option<&str>) -> Self {
        let head = Head { epoch: EPOCH, revision: 0, root: RootHash::default() };
        let state = State { head, objects: SortedMap::default(), engine: Engine::default() };
        let scope = Scope::build(group.map(str::to_owned), &state);
        let view = Arc::new(View::first(&state, &scope));
        Story { state, scope, view }
    }

    /// The next revision.
    pub fn commit(&mut self, puts: &[Resource], deletes: &[Key]) {
        let mut edits: BTreeMap<Key, Edit> = BTreeMap::new();
        self.state.head.revision += 1;
        for resource in puts {
            let next = stored(resource, self.state.head.revision);
            let before = self.state.objects.insert(next.key.clone(), Arc::clone(&next));
            edits.insert(next.key.clone(), (next.key.clone(), before, Some(next)));
        }
        for key in deletes {
            if let Some(before) = self.state.objects.remove(key) {
                edits.insert(key.clone(), (key.clone(), Some(before), None));
            }
        }
        let edits: Vec<Edit> = edits.into_values().collect();
        let touched = self.scope.advance(&self.state, &edits);
        self.view = Arc::new(self.view.next(&self.state, &self.scope, touched));
    }

    /// Names in the scope, as `Kind namespace/name`.
    pub fn names(&self) -> Vec<String> {
        self.scope.items().iter().map(|(key, _)| key.to_string()).collect()
    }
}
