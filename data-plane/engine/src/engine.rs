//! Engine: a whole configuration, checked and ready to decide. It is a value: cheap to clone, never changed, shared
//! between threads. [`compile`](crate::compile::compile) makes the next one from it and a batch of changes.
//!
//! Invariant: every reference resolves, every number ([`RouteSlot`] and its like) that an object holds leads to the
//! object it was made from, and the tables hold exactly the candidates of the routes.

use std::sync::Arc;

use bytes::Bytes;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::Secrets;

use crate::compile::object::{Checked, Name, Object, PolicyObject};
use crate::identity::{Consumer, Directory, Keys, RemoteKeys, TokenIssuer};
use crate::listener::Listener;
use crate::policy::PolicySet;
use crate::policy::chain::{Levels, Said};
use crate::policy::joins::{JoinSlot, Joined, Joins};
use crate::route::table::{Seed, Table};
use crate::route::{Candidate, Entry, HostPattern, Reach, Route, RouteSlot};
use crate::sharing::{Keyed, Map, Shared, Slab, hash};
use crate::upstream::{Upstream, UpstreamSlot};

/// A checked configuration.
#[derive(Clone, Default)]
pub struct Engine {
    pub(crate) state: Arc<State>,
}

/// Everything, in containers that share what does not change.
#[derive(Clone, Default)]
pub(crate) struct State {
    pub(crate) seed: Seed,
    pub(crate) objects: Map<Shared<Object>>,
    /// By the object that is referred to: who refers to it.
    pub(crate) referrers: Map<Shared<Referrers>>,
    pub(crate) listeners: Slab<Listener>,
    pub(crate) upstreams: Slab<Upstream>,
    pub(crate) routes: Slab<Route>,
    pub(crate) issuers: Slab<TokenIssuer>,
    /// What the lists of policies say that objects refer to.
    pub(crate) joins: Joins,
    /// By `namespace/name`.
    pub(crate) consumers: Map<Shared<Consumer>>,
    /// Beside the configuration: every engine that is made from this one has the same.
    pub(crate) keys: Arc<Keys>,
    /// Objects with a policy that asks for keys.
    pub(crate) asking: usize,
    /// Candidates of routes that name listeners, by listener slot.
    pub(crate) named: Vec<Arc<Table>>,
    /// Candidates of routes that name no listener, by namespace: what listeners outside `default` see.
    pub(crate) by_namespace: Map<Shared<NamespaceTable>>,
    /// The same of all namespaces: what listeners in `default` see.
    pub(crate) everywhere: Arc<Table>,
    /// Namespaces that have global policies, sorted.
    pub(crate) globals: Arc<Vec<Globals>>,
}

/// Who refers to an object.
#[derive(Clone)]
pub(crate) struct Referrers {
    pub(crate) target: Arc<Name>,
    pub(crate) by: Map<Shared<Name>>,
}

impl Keyed for Referrers {
    type Key = Key;

    fn hash(&self) -> u64 {
        self.target.hash
    }
    fn key(&self) -> &Key {
        &self.target.key
    }
}

/// Candidates of the routes of a namespace that name no listener.
#[derive(Clone)]
pub(crate) struct NamespaceTable {
    pub(crate) hash: u64,
    pub(crate) namespace: Box<str>,
    pub(crate) table: Table,
}

impl Keyed for NamespaceTable {
    type Key = str;

    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &str {
        &self.namespace
    }
}

/// The global policies of a namespace.
#[derive(Clone)]
pub(crate) struct Globals {
    pub(crate) namespace: Box<str>,
    /// Sorted by name.
    pub(crate) policies: Vec<Arc<PolicyObject>>,
    /// All of them joined.
    pub(crate) joined: PolicySet,
}

/// Whether `namespace/name` is in the namespace `default`: compares where taking it apart would search.
#[inline]
fn is_in_default(qualified: &str) -> bool {
    qualified.strip_prefix(DEFAULT_NAMESPACE).is_some_and(|rest| rest.as_bytes().first() == Some(&b'/'))
}

/// An object as it is stored and streamed.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'e> {
    /// Its key.
    pub key: &'e Key,
    /// Its canonical encoding: [`ItemHash::of`](gateway_proto::digest::ItemHash::of) of both is its content hash.
    pub body: &'e Bytes,
    /// What references in the body stand for.
    pub secrets: &'e Secrets,
}

static NOTHING: PolicySet = PolicySet::EMPTY;
static NO_SECRETS: Secrets = Secrets::none();

impl Engine {
    /// An object, decoded from its canonical encoding.
    pub fn resource(&self, key: &Key) -> Option<Resource> {
        let body = self.body(key)?;
        Some(Resource::decode(key.kind, body).expect("compile encoded it"))
    }

    /// An object's canonical encoding.
    pub fn body(&self, key: &Key) -> Option<&Bytes> {
        self.state.object(key).map(|object| &object.body)
    }

    /// What references in an object's encoding stand for.
    pub fn secrets(&self, key: &Key) -> &Secrets {
        self.state.object(key).map_or(&NO_SECRETS, |object| &object.secrets)
    }

    /// There is such an object.
    pub fn contains(&self, key: &Key) -> bool {
        self.state.object(key).is_some()
    }

    /// Every object, sorted by kind, namespace and name. Sorts: for full syncs and dumps, not for every change.
    pub fn objects(&self) -> Vec<Stored<'_>> {
        let mut all: Vec<Stored<'_>> = self
            .state
            .objects
            .iter()
            .map(|object| Stored { key: &object.name.key, body: &object.body, secrets: &object.secrets })
            .collect();
        all.sort_unstable_by(|one, two| one.key.cmp(two.key));
        all
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.objects.len()
    }

    /// There is no object.
    pub fn is_empty(&self) -> bool {
        self.state.objects.is_empty()
    }

    /// Names of the objects that refer to one, sorted.
    pub fn referrers(&self, key: &Key) -> Vec<Key> {
        let mut by: Vec<Key> = self.state.referrers(key).map(|name| name.key.clone()).collect();
        by.sort_unstable();
        by
    }

    /// Every listener.
    pub fn listeners(&self) -> impl Iterator<Item = &Arc<Listener>> {
        self.state.listeners.iter()
    }

    /// A listener by `namespace/name`.
    pub fn listener(&self, qualified: &str) -> Option<&Arc<Listener>> {
        let (namespace, name) = qualified.split_once('/')?;
        match &self.state.object(&Key::new(Kind::Listener, namespace, name))?.checked {
            Checked::Listener(listener) => Some(listener),
            _ => None,
        }
    }

    /// Every upstream.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.state.upstreams.iter()
    }

    /// An upstream by number.
    #[inline]
    pub fn upstream(&self, slot: UpstreamSlot) -> Option<&Arc<Upstream>> {
        self.state.upstreams.get(slot.0)
    }

    /// An upstream by key.
    pub fn named_upstream(&self, key: &Key) -> Option<&Arc<Upstream>> {
        match &self.state.object(key)?.checked {
            Checked::Upstream(upstream) => Some(upstream),
            _ => None,
        }
    }

    /// Every route.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.state.routes.iter()
    }

    /// A route by number.
    #[inline]
    pub fn route(&self, slot: RouteSlot) -> Option<&Arc<Route>> {
        self.state.routes.get(slot.0)
    }

    /// The key sets that token issuers have elsewhere.
    pub fn remote_keys(&self) -> impl Iterator<Item = &Arc<RemoteKeys>> {
        self.state.issuers.iter().filter_map(|issuer| issuer.remote_keys())
    }

    /// The keys that are good: a place beside the configuration that its owner fills, the same in every engine that
    /// is compiled from this one.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.state.keys
    }

    /// Whether a policy asks for keys.
    pub fn asks_for_keys(&self) -> bool {
        self.state.asking > 0
    }

    /// One more than the highest upstream number ever given: the length of an array indexed by [`UpstreamSlot`].
    pub fn upstream_bound(&self) -> usize {
        self.state.upstreams.bound()
    }

    /// One more than the highest route number ever given: the length of an array indexed by [`RouteSlot`].
    pub fn route_bound(&self) -> usize {
        self.state.routes.bound()
    }

    /// What each level says about requests of a route that come through a listener. Allocates nothing.
    #[inline]
    pub fn levels<'e>(&'e self, listener: &'e Listener, route: &'e Route) -> Levels<'e> {
        let global = self.globals(DEFAULT_NAMESPACE);
        let same = self.state.globals.is_empty() || is_in_default(&route.name);
        Levels {
            global,
            namespace: if same { global } else { self.globals(route.namespace()) },
            listener: self.said_by(listener),
            route: Said::of(route.policies(), self.joined(route.referred)),
            directory: Directory::of(self),
        }
    }

    /// What the levels say about requests through a listener that no route takes (404, 405).
    pub fn levels_without_route<'e>(&'e self, listener: &'e Listener) -> Levels<'e> {
        let global = self.globals(DEFAULT_NAMESPACE);
        let directory = Directory::of(self);
        let (listener, route) = (self.said_by(listener), Said::from(&NOTHING));
        Levels { global, namespace: global, listener, route, directory }
    }

    #[inline]
    fn said_by<'e>(&'e self, listener: &'e Listener) -> Said<'e> {
        Said::of(&listener.policies, self.joined(listener.referred))
    }

    #[inline]
    fn joined(&self, slot: Option<JoinSlot>) -> Option<&Joined> {
        self.state.joins.get(slot?).map(|joined| &**joined)
    }

    #[inline]
    fn globals(&self, namespace: &str) -> &PolicySet {
        let globals = &*self.state.globals;
        if globals.is_empty() {
            return &NOTHING;
        }
        match globals.binary_search_by(|globals| (*globals.namespace).cmp(namespace)) {
            Ok(at) => &globals[at].joined,
            Err(_) => &NOTHING,
        }
    }

    /// The tables that a listener asks.
    #[inline]
    pub(crate) fn tables(&self, listener: &Listener) -> [Option<&Table>; 2] {
        self.state.tables(listener)
    }

    #[inline]
    pub(crate) fn seed(&self) -> &Seed {
        &self.state.seed
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("objects", &self.len()).finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn object(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.look(&self.seed, key).map(|object| &**object)
    }

    pub(crate) fn referrers(&self, key: &Key) -> impl Iterator<Item = &Arc<Name>> {
        self.referrers
            .look(&self.seed, key)
            .into_iter()
            .flat_map(|referrers| referrers.by.iter())
            .map(|name| &**name)
    }

    #[inline]
    pub(crate) fn tables(&self, listener: &Listener) -> [Option<&Table>; 2] {
        let named = self.named.get(listener.slot.0 as usize).map(|table| &**table);
        [named, self.implicit(listener)]
    }

    /// The table of the routes that name no listener, as the listeners of a namespace see it.
    #[inline]
    fn implicit(&self, listener: &Listener) -> Option<&Table> {
        if is_in_default(&listener.name) {
            return Some(&self.everywhere);
        }
        self.by_namespace.look(&self.seed, listener.namespace()).map(|there| &there.table)
    }

    /// Puts a route's candidates into the tables of its reach.
    pub(crate) fn route(&mut self, route: &Arc<Route>) {
        let add = |table: &mut Table, seed: &Seed, host: &HostPattern, candidate: &Arc<Candidate>| {
            table.add(seed, host, &Entry::new(candidate, route));
        };
        self.each_table(route, add);
    }

    /// Takes them out again.
    pub(crate) fn unroute(&mut self, route: &Route) {
        self.each_table(route, |table, seed, host, candidate| table.remove(seed, host, candidate));
        let namespace = route.namespace();
        let hash = hash(&self.seed, namespace);
        if self.by_namespace.get(hash, namespace).is_some_and(|there| there.table.is_empty()) {
            self.by_namespace.remove(hash, namespace);
        }
    }

    fn each_table(&mut self, route: &Route, act: impl Fn(&mut Table, &Seed, &HostPattern, &Arc<Candidate>)) {
        let seed = self.seed.clone();
        let each = |table: &mut Table| {
            for host in &*route.hosts {
                for candidate in &*route.candidates {
                    act(table, &seed, host, candidate);
                }
            }
        };
        match &route.reach {
            Reach::Named(listeners) => {
                for listener in listeners {
                    if let Some(table) = self.named.get_mut(listener.0 as usize) {
                        each(Arc::make_mut(table));
                    }
                }
            }
            Reach::Implicit => {
                each(Arc::make_mut(&mut self.everywhere));
                let namespace = route.namespace();
                // Listeners of `default` see all namespaces: its own table would be asked by nobody.
                if namespace != DEFAULT_NAMESPACE {
                    let hash = hash(&seed, namespace);
                    let make =
                        || NamespaceTable { hash, namespace: namespace.into(), table: Table::default() };
                    let make = || Arc::new(make()).into();
                    let there = self.by_namespace.get_mut_or_insert(hash, namespace, make);
                    each(&mut there.make_mut().table);
                }
            }
        }
    }
}
