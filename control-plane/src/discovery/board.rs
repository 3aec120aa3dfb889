//! What data planes are to be told of endpoints, at one moment: a set per upstream and a word on each source, each encoded
//! once for all streams. A newer board shares what stayed with the one before.

use std::sync::Arc;

use bytes::Bytes;
use gateway_proto::digest::ItemHash;
use gateway_proto::endpoints::{Subject, hash_of_set, hash_of_source};
use gateway_proto::wire;
use prost::encoding::message;

use super::line::{Found, Query};
use crate::sorted::SortedMap;

/// What something is said about: kind and `namespace/name`.
pub type Name = (Subject, Arc<str>);

/// Fields of `EndpointsChunk`.
const SETS: u32 = 1;
const SOURCES: u32 = 2;

/// Everything that is said.
#[derive(Clone, Debug, Default)]
pub struct Board {
    /// By what it is about.
    pub items: SortedMap<Name, Arc<Item>>,
}

/// What is said about one thing.
#[derive(Debug)]
pub struct Item {
    /// Of its content.
    pub hash: ItemHash,
    /// A field of `EndpointsChunk`, encoded.
    pub encoded: Bytes,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

/// The endpoints of an upstream as they are sent and stored.
pub fn set(upstream: &str, query: &Query, found: &Found) -> wire::EndpointSet {
    let endpoint = |it: &super::source::Instance| wire::Endpoint {
        address: it.address.clone(),
        weight: it.weight.into(),
        zone: it.zone.clone(),
    };
    wire::EndpointSet {
        upstream: upstream.to_owned(),
        endpoints: found.instances.iter().map(endpoint).collect(),
        source: query.source.to_string(),
        source_index: found.index,
        authoritative_empty: found.instances.is_empty(),
    }
}

impl Item {
    /// Of an upstream.
    pub fn set(set: &wire::EndpointSet) -> Arc<Self> {
        let mut encoded = Vec::new();
        message::encode(SETS, set, &mut encoded);
        Arc::new(Item { hash: hash_of_set(set), encoded: encoded.into() })
    }

    /// Of a source.
    pub fn source(source: &str, state: wire::source_state::Value) -> Arc<Self> {
        let said = wire::SourceSaid { source: source.to_owned(), state: state.into() };
        let mut encoded = Vec::new();
        message::encode(SOURCES, &said, &mut encoded);
        Arc::new(Item { hash: hash_of_source(&said), encoded: encoded.into() })
    }
}
