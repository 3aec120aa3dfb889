//! What the gateway's processes agree on, and nothing else: the authored kinds (one definition for manifest,
//! REST body, stored form and streamed form), the stream between the planes, the admin API's bodies, and how
//! content is named and hashed. No behaviour lives here; checked types are the engine's.

pub mod admin;
pub mod buckets;
pub mod credential;
pub mod digest;
pub mod endpoints;
pub mod field;
pub mod identity;
pub mod kind;
pub mod secret;

/// The wire types, generated from `proto/gateway/v1`. Convention: name them `wire::Route`, never import them bare.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/gateway.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/gateway.v1.serde.rs"));
}

/// The encoded `FileDescriptorSet` of all protos, with comments: the source of OpenAPI and `gatewayctl explain`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// `apiVersion` of every object.
pub const API_VERSION: &str = "gateway/v1";

/// Version of the stream's protocol that this build speaks (`Hello.protocol`).
pub const SYNC_PROTOCOL: u32 = 1;

/// In `Hello.features`: answers `Compare`, takes `Chunk.buckets`.
pub const FEATURE_BUCKETS: &str = "buckets";

/// Namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
