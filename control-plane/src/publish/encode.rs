//! Chunks on the wire. What all streams share, the objects, is encoded once per piece; what belongs to one stream
//! (transaction number, cursors) is a few bytes put before it, which protobuf allows: fields may come in any order.

use std::sync::Arc;

use bytes::{BufMut, Bytes};
use gateway_proto::buckets::BucketSet;
use gateway_proto::kind::Key;
use gateway_proto::secret::Secrets;
use gateway_proto::wire;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, key_len};

use super::view::{Changed, View};
use crate::discovery::board::Item;
use crate::store::Stored;

/// Bytes of objects in a chunk, unless a single object is larger.
const PIECE: usize = 64 << 10;
/// `ControlPlaneMessage.chunk`, length-delimited.
const CHUNK_TAG: u8 = (2 << 3) | 2;
/// `ControlPlaneMessage.endpoints`.
const ENDPOINTS: u32 = 60;

/// A message to a data plane.
#[derive(Clone, Debug)]
pub enum Frame {
    /// A small one, encoded as it is sent.
    Message(wire::ControlPlaneMessage),
    /// A piece of a transaction.
    Chunk {
        /// What belongs to the stream; holds no objects.
        header: wire::Chunk,
        /// What is shared.
        piece: Bytes,
    },
    /// A piece of a transaction of endpoints.
    Endpoints {
        /// What belongs to the stream; holds no sets.
        header: wire::EndpointsChunk,
        /// Fields that are encoded already, shared by all streams.
        items: Vec<Arc<Item>>,
    },
}

impl Frame {
    /// Bytes that [`Frame::encode`] writes.
    pub fn encoded_len(&self) -> usize {
        match self {
            Frame::Message(message) => message.encoded_len(),
            Frame::Chunk { header, piece } => {
                let chunk = header.encoded_len() + piece.len();
                1 + prost::length_delimiter_len(chunk) + chunk
            }
            Frame::Endpoints { header, items } => {
                let chunk = header.encoded_len() + length(items);
                key_len(ENDPOINTS) + prost::length_delimiter_len(chunk) + chunk
            }
        }
    }

    /// Writes the protobuf form of the `ControlPlaneMessage`.
    ///
    /// # Errors
    /// When the buffer cannot grow.
    pub fn encode(&self, into: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        match self {
            Frame::Message(message) => message.encode(into),
            Frame::Chunk { header, piece } => {
                into.put_u8(CHUNK_TAG);
                prost::encode_length_delimiter(header.encoded_len() + piece.len(), into)?;
                header.encode(into)?;
                into.put_slice(piece);
                Ok(())
            }
            Frame::Endpoints { header, items } => {
                encode_key(ENDPOINTS, WireType::LengthDelimited, into);
                prost::encode_length_delimiter(header.encoded_len() + length(items), into)?;
                header.encode(into)?;
                items.iter().for_each(|item| into.put_slice(&item.encoded));
                Ok(())
            }
        }
    }
}

/// Bytes of items.
fn length(items: &[Arc<Item>]) -> usize {
    items.iter().map(|item| item.encoded.len()).sum()
}

/// Objects of a view and tombstones in pieces of a chunk's size; none for no changes.
pub fn pieces<'a>(view: &View, changes: impl Iterator<Item = &'a Changed>) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut piece = Piece::default();
    for changed in changes {
        match &changed.after {
            Some(stored) => piece.put(stored, view.secrets(&changed.key)),
            None => piece.bury(&changed.key),
        }
        if piece.size >= PIECE {
            pieces.push(std::mem::take(&mut piece).encode());
        }
    }
    if piece.size > 0 {
        pieces.push(piece.encode());
    }
    pieces
}

/// The next piece of everything in a view, or of everything in some of its buckets, from a key on; with the key to go
/// on from, if there is more.
pub fn full_piece(view: &View, of: Option<&BucketSet>, from: &Key) -> (Bytes, Option<Key>) {
    let mut piece = Piece::default();
    let is_meant = |key: &Key| of.is_none_or(|buckets| buckets.holds(key));
    for (key, stored) in view.items().range_from(from).filter(|(key, _)| is_meant(key)) {
        if piece.size >= PIECE {
            return (piece.encode(), Some(key.clone()));
        }
        piece.put(stored, view.secrets(key));
    }
    (piece.encode(), None)
}

#[derive(Default)]
struct Piece {
    chunk: wire::Chunk,
    size: usize,
}

impl Piece {
    fn put(&mut self, stored: &Stored, secrets: &Secrets) {
        let secrets: Vec<wire::SecretValue> = secrets.into();
        self.size += secrets.iter().map(|it| it.field.len() + it.value.len()).sum::<usize>();
        self.size += stored.body.len() + 24;
        let kind = stored.key.kind.as_str().to_owned();
        self.chunk.upserts.push(wire::Upsert { kind, body: stored.body.clone(), secrets });
    }

    fn bury(&mut self, key: &Key) {
        self.size += key.namespace.len() + key.name.len() + 24;
        self.chunk.tombstones.push(key.into());
    }

    fn encode(self) -> Bytes {
        self.chunk.encode_to_vec().into()
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::wire::control_plane_message::Message;

    use super::*;

    #[test]
    fn sets_that_are_encoded_already_read_as_one_chunk() {
        let set = |upstream: &str| wire::EndpointSet { upstream: upstream.into(), ..Default::default() };
        let sets = vec![set("default/a"), set(&"b".repeat(300))];
        let items = sets.iter().map(Item::set).chain([Item::source("default/s", Default::default())]);
        let header = wire::EndpointsChunk { buckets: vec![7], last: true, ..Default::default() };
        let frame = Frame::Endpoints { header: header.clone(), items: items.collect() };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("memory");
        assert_eq!(bytes.len(), frame.encoded_len());
        let sources = vec![wire::SourceSaid { source: "default/s".into(), state: 0 }];
        let read = wire::ControlPlaneMessage::decode(&*bytes).expect("a message").message.expect("set");
        assert_eq!(read, Message::Endpoints(wire::EndpointsChunk { sets, sources, ..header }));
    }

    #[test]
    fn a_header_and_a_shared_piece_read_as_one_chunk() {
        let upsert =
            wire::Upsert { kind: "Route".into(), body: Bytes::from(vec![7; 300]), secrets: Vec::new() };
        let shared = wire::Chunk { upserts: vec![upsert], ..Default::default() };
        let header = wire::Chunk { transaction: 3, last: true, ..Default::default() };
        let frame = Frame::Chunk { header: header.clone(), piece: shared.encode_to_vec().into() };
        let mut bytes = Vec::new();
        frame.encode(&mut bytes).expect("memory");
        assert_eq!(bytes.len(), frame.encoded_len());
        let read = wire::ControlPlaneMessage::decode(&*bytes).expect("a message").message.expect("set");
        assert_eq!(read, Message::Chunk(wire::Chunk { upserts: shared.upserts, ..header }));
    }
}
