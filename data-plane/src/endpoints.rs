//! The lane of endpoints in the data plane: takes in the sets that the stream brings, puts each into the place where the
//! workers look, and says what is held. Sets are exchanged one by one, beside the configuration: no table is touched, and
//! no other upstream.
//!
//! Invariants: a set that the control plane takes back goes on serving for as long as the configuration has its upstream,
//! because the change that ends it may still be on its way; a configuration that drops the upstream drops the set.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use gateway_engine::engine::Engine;
use gateway_engine::upstream::Target;
use gateway_proto::buckets::Buckets;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::endpoints::{MAX_ENDPOINTS, Subject, hash_of_set, hash_of_source, sums};
use gateway_proto::kind::{Key, Kind};
use gateway_proto::wire;
use serde::Serialize;

use crate::upstream::discovered::{Discovered, Targets};

/// Longest name of an upstream or source that is taken.
const MAX_NAME: usize = 256;

/// A message that makes no sense: close the stream.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("a set of endpoints has no name, or one that is too long")]
    Name,
    #[error("the set of {0} has {1} endpoints, at most {MAX_ENDPOINTS} are taken")]
    TooLarge(String, usize),
}

/// What is held.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    discovered: Arc<Discovered>,
    held: Arc<Mutex<Held>>,
    /// Until this is held, or a transaction is complete, sets are missing that there are.
    awaited: Option<RootHash>,
}

/// What is held, for the admin port too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    root: RootHash,
    sets: BTreeMap<String, (ItemHash, Arc<wire::EndpointSet>)>,
    sources: BTreeMap<String, (ItemHash, wire::SourceSaid)>,
}

/// Shows what a [`Lane`] holds.
#[derive(Clone, Debug)]
pub(crate) struct Window(Arc<Mutex<Held>>);

impl Lane {
    /// Nothing held; sets go where the workers look.
    pub(crate) fn new(discovered: Arc<Discovered>) -> Self {
        Lane { discovered, ..Lane::default() }
    }

    /// For the admin port.
    pub(crate) fn window(&self) -> Window {
        Window(Arc::clone(&self.held))
    }

    /// Sum of what is held, as it goes over the wire.
    pub(crate) fn root(&self) -> Vec<u8> {
        self.with(|held| held.root).to_bytes().to_vec()
    }

    /// What the control plane's Welcome says there is.
    pub(crate) fn welcomed(&mut self, root: &[u8]) {
        let (held, is_empty) = self.with(|held| (held.root, held.sets.is_empty()));
        self.awaited = RootHash::from_slice(root).filter(|root| *root != held && is_empty);
    }

    /// Nothing is missing that the control plane has said it has.
    pub(crate) const fn is_complete(&self) -> bool {
        self.awaited.is_none()
    }

    /// Takes a piece in; what to answer when it was the last of a transaction.
    ///
    /// # Errors
    /// When it makes no sense; nothing was taken in then.
    pub(crate) fn receive(
        &mut self,
        chunk: wire::EndpointsChunk,
        engine: &Engine,
    ) -> Result<Option<wire::EndpointsHeld>, Malformed> {
        check(&chunk)?;
        let last = chunk.last;
        let mut gone = chunk.gone;
        let mut gone_sources = chunk.gone_sources;
        if !chunk.buckets.is_empty() {
            let of = |subject: Subject, name: &str| {
                u32::try_from(subject.bucket(name)).is_ok_and(|bucket| chunk.buckets.contains(&bucket))
            };
            self.with(|held| {
                gone.extend(held.sets.keys().filter(|name| of(Subject::Set, name)).cloned());
                gone_sources.extend(held.sources.keys().filter(|name| of(Subject::Source, name)).cloned());
            });
        }
        let has_gone = !gone.is_empty();
        self.with(|held| {
            gone.iter().for_each(|name| held.forget(name));
            gone_sources.iter().for_each(|name| held.forget_source(name));
            chunk.sources.into_iter().for_each(|said| held.say(said));
        });
        chunk.sets.into_iter().for_each(|set| self.put(set));
        if has_gone {
            self.follow(engine);
        }
        if last {
            self.awaited = None;
        }
        Ok(last.then(|| wire::EndpointsHeld { root_hash: self.root(), sums: Vec::new() }))
    }

    /// Takes back what was kept, before the configuration that needs it is in force.
    pub(crate) fn restore(&self, kept: wire::EndpointsChunk) {
        self.with(|held| kept.sources.into_iter().for_each(|said| held.say(said)));
        kept.sets.into_iter().for_each(|set| self.put(set));
    }

    /// What is to be kept on disk.
    pub(crate) fn held(&self) -> Held {
        self.with(|held| held.clone())
    }

    /// Serves what an upstream had before it began to discover, until a set of it is known.
    pub(crate) fn keep(&self, upstream: &Arc<str>, targets: &Arc<[Target]>) {
        let place = self.discovered.place(upstream);
        if !self.with(|held| held.sets.contains_key(&**upstream)) {
            place.set(Targets(Arc::clone(targets)));
        }
    }

    /// Drops the places of upstreams that neither the control plane sends sets of, nor a configuration discovers.
    pub(crate) fn follow(&self, engine: &Engine) {
        let held = self.held();
        self.discovered.retain(|name| held.sets.contains_key(name) || is_discovered(engine, name));
    }

    /// What is held and the sums of its buckets.
    pub(crate) fn compared(&self) -> wire::EndpointsHeld {
        let sums = self.with(|held| held.sums());
        wire::EndpointsHeld { root_hash: self.root(), sums: sums.to_bytes() }
    }

    /// Every target that was discovered.
    pub(crate) fn targets(&self) -> Vec<Target> {
        let sets: Vec<_> = self.with(|held| held.sets.values().map(|(_, set)| Arc::clone(set)).collect());
        sets.iter().flat_map(|set| Targets::from(&**set).0.to_vec()).collect()
    }

    fn put(&self, set: wire::EndpointSet) {
        self.discovered.place(&set.upstream.as_str().into()).set(Targets::from(&set));
        let hash = hash_of_set(&set);
        self.with(|held| {
            held.root = held.root.plus(hash);
            if let Some((before, _)) = held.sets.insert(set.upstream.clone(), (hash, Arc::new(set))) {
                held.root = held.root.minus(before);
            }
        });
    }

    fn with<T>(&self, look: impl FnOnce(&mut Held) -> T) -> T {
        // Nothing under this lock can leave it half changed.
        look(&mut self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl From<&Held> for wire::EndpointsChunk {
    fn from(held: &Held) -> Self {
        wire::EndpointsChunk {
            sets: held.sets.values().map(|(_, set)| wire::EndpointSet::clone(set)).collect(),
            sources: held.sources.values().map(|(_, said)| said.clone()).collect(),
            ..Default::default()
        }
    }
}

impl Held {
    fn forget(&mut self, upstream: &str) {
        if let Some((hash, _)) = self.sets.remove(upstream) {
            self.root = self.root.minus(hash);
        }
    }

    fn forget_source(&mut self, source: &str) {
        if let Some((hash, _)) = self.sources.remove(source) {
            self.root = self.root.minus(hash);
        }
    }

    fn say(&mut self, said: wire::SourceSaid) {
        let hash = hash_of_source(&said);
        self.root = self.root.plus(hash);
        if let Some((before, _)) = self.sources.insert(said.source.clone(), (hash, said)) {
            self.root = self.root.minus(before);
        }
    }

    fn sums(&self) -> Buckets {
        let sets = self.sets.iter().map(|(name, (hash, _))| (Subject::Set, name.as_str(), *hash));
        let sources = self.sources.iter().map(|(name, (hash, _))| (Subject::Source, name.as_str(), *hash));
        sums(sets.chain(sources))
    }
}

fn check(chunk: &wire::EndpointsChunk) -> Result<(), Malformed> {
    let sets = chunk.sets.iter().map(|set| &set.upstream);
    let sources = chunk.sources.iter().map(|said| &said.source);
    if sets.chain(sources).any(|name| name.is_empty() || name.len() > MAX_NAME) {
        return Err(Malformed::Name);
    }
    match chunk.sets.iter().find(|set| set.endpoints.len() > MAX_ENDPOINTS) {
        Some(set) => Err(Malformed::TooLarge(set.upstream.clone(), set.endpoints.len())),
        None => Ok(()),
    }
}

fn is_discovered(engine: &Engine, upstream: &str) -> bool {
    let (namespace, name) = upstream.split_once('/').unwrap_or_default();
    let upstream = engine.named_upstream(&Key::new(Kind::Upstream, namespace, name));
    upstream.is_some_and(|upstream| upstream.discovery.is_some())
}

/// A set as the admin port shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shown {
    upstream: String,
    source: String,
    /// How fresh what the source says is: `synced`, `stale`, `failed`.
    state: &'static str,
    source_index: u64,
    authoritative_empty: bool,
    endpoints: Vec<ShownEndpoint>,
}

#[derive(Debug, Serialize)]
struct ShownEndpoint {
    address: String,
    weight: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    zone: String,
}

impl Window {
    /// Everything that is held.
    pub(crate) fn show(&self) -> Vec<Shown> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let state = |source: &str| {
            let said = held.sources.get(source).map(|(_, said)| said.state());
            said.unwrap_or(wire::source_state::Value::Failed).as_str_name()
        };
        let shown = |set: &wire::EndpointSet| Shown {
            upstream: set.upstream.clone(),
            source: set.source.clone(),
            state: state(&set.source),
            source_index: set.source_index,
            authoritative_empty: set.authoritative_empty,
            endpoints: set.endpoints.iter().cloned().map(shown_endpoint).collect(),
        };
        held.sets.values().map(|(_, set)| shown(set)).collect()
    }
}

fn shown_endpoint(endpoint: wire::Endpoint) -> ShownEndpoint {
    let wire::Endpoint { address, weight, zone } = endpoint;
    ShownEndpoint { address, weight, zone }
}

#[cfg(test)]
mod tests;
