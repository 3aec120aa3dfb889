//! A data plane played by the test: speaks the stream, keeps what it is sent, and refuses what it is told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use gateway_proto::buckets::{BucketSet, Buckets};
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::{Key, Resource};
use gateway_proto::wire;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::ack_outcome::Value as Outcome;
use wire::control_plane_message::Message as Hear;
use wire::data_plane_message::Message as Say;
use wire::sync_mode::Value as Mode;

/// What is held; outlives a stream.
#[derive(Clone, Default)]
pub(crate) struct Held {
    pub(crate) items: BTreeMap<Key, Resource>,
    pub(crate) cursor: Option<wire::Cursor>,
    pub(crate) parked: BTreeMap<Key, ItemHash>,
}

/// A stream.
pub(crate) struct DataPlane {
    out: mpsc::Sender<wire::DataPlaneMessage>,
    inbound: Streaming<wire::ControlPlaneMessage>,
    pub(crate) held: Held,
    pub(crate) welcome: wire::Welcome,
}

/// A transaction, whole.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) chunks: usize,
    pub(crate) full: bool,
    pub(crate) upserts: Vec<wire::Upsert>,
    pub(crate) tombstones: Vec<wire::ObjectRef>,
    pub(crate) allow_shrink: bool,
    buckets: Vec<usize>,
    number: u64,
    pub(crate) target: wire::Cursor,
}

fn low(cursor: &wire::Cursor) -> u64 {
    RootHash::from_slice(&cursor.root_hash).expect("a root").low()
}

pub(crate) fn hello(node: &str, group: &str, held: &Held) -> wire::Hello {
    let parked = held.parked.iter().map(|(key, hash)| wire::Parked {
        object: Some(key.into()),
        refused: hash.0.to_vec(),
        held: held.items.get(key).map(|it| it.hash().0.to_vec()).unwrap_or_default(),
    });
    wire::Hello {
        node: node.into(),
        group: group.into(),
        build: "test".into(),
        protocol: 1,
        cursor: held.cursor.clone(),
        parked: parked.collect(),
        ..Default::default()
    }
}

impl DataPlane {
    pub(crate) async fn connect(to: SocketAddr, node: &str, group: &str, held: Held) -> DataPlane {
        DataPlane::say_hello(to, hello(node, group, &held), held).await.expect("welcome")
    }

    pub(crate) async fn say_hello(
        to: SocketAddr,
        hello: wire::Hello,
        held: Held,
    ) -> Result<DataPlane, tonic::Status> {
        let mut client =
            wire::sync_client::SyncClient::connect(format!("http://{to}")).await.expect("connects");
        let (out, messages) = mpsc::channel(8);
        let hello = wire::DataPlaneMessage { message: Some(Say::Hello(hello)) };
        out.send(hello).await.expect("room");
        let mut inbound = client.stream(ReceiverStream::new(messages)).await?.into_inner();
        match inbound.message().await? {
            Some(wire::ControlPlaneMessage { message: Some(Hear::Welcome(welcome)) }) => {
                Ok(DataPlane { out, inbound, held, welcome })
            }
            other => panic!("no welcome: {other:?}"),
        }
    }

    pub(crate) fn mode(&self) -> Mode {
        self.welcome.mode()
    }

    pub(crate) async fn say(&self, say: Say) {
        self.out.send(wire::DataPlaneMessage { message: Some(say) }).await.expect("room");
    }

    /// The next message, or how the stream ended.
    pub(crate) async fn hear(&mut self) -> Result<Option<Hear>, tonic::Status> {
        let message = tokio::time::timeout(Duration::from_secs(20), self.inbound.message()).await;
        Ok(message.expect("something within 20 s")?.and_then(|message| message.message))
    }

    /// The next transaction, not acknowledged yet.
    pub(crate) async fn receive(&mut self) -> Transaction {
        let mut whole = Transaction::default();
        loop {
            let Some(Hear::Chunk(chunk)) = self.hear().await.expect("goes on") else { continue };
            whole.chunks += 1;
            whole.number = chunk.transaction;
            whole.buckets.extend(chunk.buckets.into_iter().filter_map(|it| usize::try_from(it).ok()));
            if let Some(target) = chunk.target {
                whole.full = chunk.base_sum.is_none();
                assert!(whole.full || chunk.base_sum == self.held.cursor.as_ref().map(low));
                let is_said = target.epoch.is_empty();
                let said = self.welcome.head.as_ref().map(|head| head.epoch.clone());
                whole.target =
                    wire::Cursor { epoch: said.filter(|_| is_said).unwrap_or(target.epoch), ..target };
                whole.allow_shrink = chunk.allow_shrink;
            }
            whole.upserts.extend(chunk.upserts);
            whole.tombstones.extend(chunk.tombstones);
            if chunk.last {
                return whole;
            }
        }
    }

    /// Keeps a transaction but for what it refuses, and acknowledges it.
    pub(crate) async fn take(&mut self, whole: &Transaction, refuse: &[Key]) {
        let covered: BucketSet = whole.buckets.iter().copied().collect();
        self.held.items.retain(|key, _| !whole.full && !covered.holds(key));
        for upsert in &whole.upserts {
            let resource =
                Resource::decode(upsert.kind.parse().expect("a kind"), &upsert.body).expect("a resource");
            let key = resource.key();
            if refuse.contains(&key) {
                self.held.parked.insert(key, resource.hash());
            } else {
                self.held.parked.remove(&key);
                self.held.items.insert(key, resource);
            }
        }
        for tombstone in &whole.tombstones {
            let key = Key::try_from(tombstone).expect("a key");
            self.held.parked.remove(&key);
            self.held.items.remove(&key);
        }
        let root: RootHash = self.hashes().into_iter().map(|(_, hash)| hash).collect();
        self.held.cursor = Some(wire::Cursor { root_hash: root.to_bytes().to_vec(), ..whole.target.clone() });
        let rejects: Vec<_> = self
            .held
            .parked
            .iter()
            .map(|(key, hash)| wire::Reject {
                object: Some(key.into()),
                hash: hash.0.to_vec(),
                held: self.held.items.get(key).map(|it| it.hash().0.to_vec()).unwrap_or_default(),
                field: "spec".into(),
                code: "port_in_use".into(),
                message: "told to".into(),
                retryable: true,
            })
            .collect();
        let outcome = if rejects.is_empty() { Outcome::Applied } else { Outcome::Partial };
        let ack = wire::Ack {
            transaction: whole.number,
            cursor: self.held.cursor.clone(),
            outcome: outcome.into(),
            rejects,
            apply_us: 42,
            listeners: vec![wire::BoundListener {
                name: "default/public".into(),
                address: "127.0.0.1:8080".into(),
            }],
        };
        self.say(Say::Ack(ack)).await;
    }

    /// Takes what is held for what it is now, whatever was sent; the cursor for it.
    pub(crate) fn spoilt(&mut self) -> Option<wire::Cursor> {
        let root: RootHash = self.hashes().into_iter().map(|(_, hash)| hash).collect();
        let cursor = self.held.cursor.clone();
        self.held.cursor =
            cursor.map(|cursor| wire::Cursor { root_hash: root.to_bytes().to_vec(), ..cursor });
        self.held.cursor.clone()
    }

    /// Waits to be asked for the sums of what is held, and tells them.
    pub(crate) async fn answer_comparison(&mut self) {
        while !matches!(self.hear().await.expect("goes on"), Some(Hear::Compare(_))) {}
        let hashes = self.hashes();
        let sums: Buckets = hashes.iter().map(|(key, hash)| (key, *hash)).collect();
        self.say(Say::Buckets(wire::Buckets { cursor: self.held.cursor.clone(), sums: sums.to_bytes() }))
            .await;
    }

    fn hashes(&self) -> Vec<(Key, ItemHash)> {
        self.held.items.iter().map(|(key, it)| (key.clone(), ItemHash::of(key, &it.encode()))).collect()
    }

    /// Refuses a transaction as a whole.
    pub(crate) async fn refuse(&mut self, whole: &Transaction, code: &str) {
        let reject = wire::Reject { code: code.into(), message: "told to".into(), ..Default::default() };
        let ack = wire::Ack {
            transaction: whole.number,
            cursor: self.held.cursor.clone(),
            outcome: Outcome::Rejected.into(),
            rejects: vec![reject],
            ..Default::default()
        };
        self.say(Say::Ack(ack)).await;
    }

    /// Takes transactions until it holds a revision.
    pub(crate) async fn reach(&mut self, revision: u64) {
        while self.revision() < revision {
            let whole = self.receive().await;
            self.take(&whole, &[]).await;
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.held.cursor.as_ref().map_or(0, |cursor| cursor.revision)
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.held.items.keys().map(ToString::to_string).collect()
    }
}
