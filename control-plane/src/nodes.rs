//! Who runs what: the data planes of this replica as their streams tell it, those of other replicas through the
//! store. Own entries are written down in one statement at most four times a second, so that every replica answers
//! `data-planes` and `status` alike.
//!
//! Invariants: an entry belongs to the youngest stream of its node; what was not heard of for half a minute counts
//! as not connected, whoever wrote it; nothing here decides what is sent.

pub mod report;
mod rivals;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gateway_proto::admin::{DataPlane, NodeCertificate};
use gateway_proto::wire;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::{Fleet, Peer};
use crate::store::{Node, NodeSeen, Store, StoreError};
use report::Report;
use rivals::Rivals;

/// Shortest time between two writes to the store.
const WRITE: Duration = Duration::from_millis(250);
/// How often an entry is written even if nothing changed, so that others see that it lives.
const TOUCH: Duration = Duration::from_secs(10);
/// Not heard of for so long: not connected.
const GONE: Duration = Duration::from_secs(30);
/// A twin that has not tried for so long is gone: a data plane waits for no more than half of it.
const TWIN: Duration = Duration::from_secs(60);
/// How often the entries of other replicas are looked at while somebody watches.
const LOOK: Duration = Duration::from_secs(1);
/// Events that a slow watcher may be behind before it misses some.
const EVENTS: usize = 1_024;

/// The registry.
#[derive(Debug)]
pub struct Nodes {
    store: Arc<dyn Store>,
    replica: Uuid,
    own: Mutex<HashMap<String, Own>>,
    rivals: Rivals,
    changed: Notify,
    events: broadcast::Sender<Arc<Entry>>,
}

/// A data plane of this replica.
#[derive(Debug)]
struct Own {
    stream: u64,
    opened: Instant,
    heard: Instant,
    connected: bool,
    revision: u64,
    report: Report,
    /// Not written since it changed.
    dirty: bool,
}

/// A stream's right to write about its node.
#[derive(Clone, Debug)]
pub struct Ticket {
    node: String,
    instance: String,
    stream: u64,
}

impl Ticket {
    /// The process.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The node.
    pub fn node(&self) -> &str {
        &self.node
    }
}

/// A data plane as it is known now.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its `--node`.
    pub node: String,
    /// A stream is open to some replica.
    pub connected: bool,
    /// When it was last heard of.
    pub seen: Timestamp,
    /// Revision it serves.
    pub revision: u64,
    /// Where another process of its name was refused lately.
    pub twin: Option<String>,
    /// The rest.
    pub report: Report,
}

impl Nodes {
    /// Keeps the registry until cancelled; the last state of every entry is then written.
    pub fn start(store: Arc<dyn Store>, stop: CancellationToken) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let nodes = Arc::new(Nodes {
            store,
            replica: Uuid::now_v7(),
            own: Mutex::default(),
            rivals: Rivals::default(),
            changed: Notify::new(),
            events: broadcast::Sender::new(EVENTS),
        });
        tokio::spawn(Arc::clone(&nodes).look(stop.clone()));
        tokio::spawn(Arc::clone(&nodes).watch_for_rivals(stop.clone()));
        let writer = tokio::spawn(Arc::clone(&nodes).write(stop));
        (nodes, writer)
    }

    /// A data plane opened a stream. Nothing comes of it when a later stream of the same node was faster.
    pub fn arrive(&self, hello: &wire::Hello, stream: u64, from: SocketAddr, peer: Option<&Peer>) -> Ticket {
        let now = Instant::now();
        let own = Own {
            stream,
            opened: now,
            heard: now,
            connected: true,
            revision: hello.cursor.as_ref().map_or(0, |cursor| cursor.revision),
            report: Report::of(hello, from, peer),
            dirty: true,
        };
        let entry = own.entry(&hello.node);
        let ticket = Ticket { node: hello.node.clone(), instance: hello.instance.clone(), stream };
        {
            let mut own_nodes = self.lock();
            if own_nodes.get(&hello.node).is_some_and(|present| present.stream > stream) {
                return ticket;
            }
            own_nodes.insert(hello.node.clone(), own);
        }
        self.tell(Some(entry));
        ticket
    }

    /// The stream ended.
    pub fn leave(&self, ticket: &Ticket) {
        self.update(ticket, |own| own.connected = false);
    }

    /// What it holds.
    pub fn holds(&self, ticket: &Ticket, revision: u64, in_sync: bool) {
        self.update(ticket, |own| {
            own.revision = revision;
            own.report.in_sync = in_sync;
        });
    }

    /// What became of a transaction.
    pub fn acknowledged(&self, ticket: &Ticket, ack: &wire::Ack) {
        self.update(ticket, |own| own.report.acknowledged(ack));
    }

    /// Everything that it refuses now.
    pub fn refused(&self, ticket: &Ticket, rejects: &[wire::Reject]) {
        self.update(ticket, |own| own.report.set_rejects(rejects));
    }

    /// What it still does without: refusals that are not among these are over.
    pub fn parked(&self, ticket: &Ticket, parked: &[wire::Parked]) {
        self.update(ticket, |own| own.report.keep_rejects(parked));
    }

    /// The roots that it has, in hexadecimal.
    pub fn trusts(&self, ticket: &Ticket, trusts: Vec<String>) {
        self.update(ticket, |own| own.report.trusts = trusts);
    }

    /// Where its listeners are bound.
    pub fn bound(&self, ticket: &Ticket, listeners: &[wire::BoundListener]) {
        self.update(ticket, |own| own.report.set_listeners(listeners));
    }

    /// Every data plane, by name.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn list(&self) -> Result<Vec<Entry>, StoreError> {
        let stored = self.store.nodes().await?;
        let own = self.lock();
        let mut entries: HashMap<String, Entry> = stored
            .into_iter()
            .map(|node| read(node, self.replica))
            .map(|entry| (entry.node.clone(), entry))
            .collect();
        for (node, own) in own.iter() {
            // What this replica heard last is newer than what it wrote, unless the node has gone to another one.
            let elsewhere = !own.connected && entries.get(node).is_some_and(|entry| entry.connected);
            if !elsewhere {
                let twin = entries.get(node).and_then(|entry| entry.twin.clone());
                entries.insert(node.clone(), Entry { twin, ..own.entry(node) });
            }
        }
        let mut entries: Vec<Entry> = entries.into_values().collect();
        entries.sort_by(|left, right| left.node.cmp(&right.node));
        Ok(entries)
    }

    /// When the first of the certificates of data planes that are connected to this replica ends.
    pub fn first_certificate_to_end(&self) -> Option<i64> {
        let own = self.lock();
        let connected = own.values().filter(|own| own.connected);
        connected.filter_map(|own| Some(own.report.certificate.as_ref()?.expires)).min()
    }

    /// Every change of an entry, of this and, within a second or so, of other replicas.
    pub fn events(&self) -> broadcast::Receiver<Arc<Entry>> {
        self.events.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Own>> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, entry: Option<Entry>) {
        if let Some(entry) = entry {
            // Nobody watching is no error.
            let _ = self.events.send(Arc::new(entry));
        }
        self.changed.notify_one();
    }

    fn update(&self, ticket: &Ticket, change: impl FnOnce(&mut Own)) {
        let entry = {
            let mut own = self.lock();
            let Some(own) = own.get_mut(&ticket.node).filter(|own| own.stream == ticket.stream) else {
                return;
            };
            let before = (own.connected, own.revision, own.report.clone());
            own.heard = Instant::now();
            change(own);
            if (before.0, before.1, &before.2) == (own.connected, own.revision, &own.report) {
                return;
            }
            own.dirty = true;
            // A thousand data planes tell of themselves several times with every change: copied for watchers only.
            (self.events.receiver_count() > 0).then(|| own.entry(&ticket.node))
        };
        self.tell(entry);
    }

    async fn write(self: Arc<Self>, stop: CancellationToken) {
        let mut touched = Instant::now();
        let mut failing = false;
        loop {
            let ending = tokio::select! {
                () = stop.cancelled() => true,
                () = self.changed.notified() => false,
                () = tokio::time::sleep(TOUCH) => false,
            };
            let all = touched.elapsed() >= TOUCH;
            if all {
                touched = Instant::now();
            }
            match self.write_once(all || ending).await {
                Ok(()) => failing = false,
                Err(error) if failing => tracing::debug!(%error, "still cannot write down the data planes"),
                Err(error) => {
                    failing = true;
                    tracing::warn!(%error, "cannot write down the data planes: other replicas show them as they were");
                }
            }
            if ending {
                return;
            }
            tokio::time::sleep(WRITE).await;
        }
    }

    /// Writes what is new, or everything; what could not be written is tried again with the next.
    async fn write_once(&self, all: bool) -> Result<(), StoreError> {
        let seen: Vec<NodeSeen> = {
            let mut own = self.lock();
            // Written as gone once, then only kept by the store.
            own.retain(|_, own| own.connected || own.dirty);
            own.iter_mut()
                .filter(|(_, own)| all || own.dirty)
                .map(|(node, own)| {
                    own.dirty = false;
                    own.seen(node, self.replica)
                })
                .collect()
        };
        self.write_twins().await?;
        if seen.is_empty() {
            return Ok(());
        }
        let nodes: Vec<String> = seen.iter().map(|seen| seen.node.clone()).collect();
        let written = self.store.put_nodes(seen).await;
        if written.is_err() {
            let mut own = self.lock();
            for node in nodes {
                if let Some(own) = own.get_mut(&node) {
                    own.dirty = true;
                }
            }
            self.changed.notify_one();
        }
        written
    }

    /// Tells watchers of this replica what others wrote.
    async fn look(self: Arc<Self>, stop: CancellationToken) {
        let mut known: HashMap<String, Entry> = HashMap::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            if self.events.receiver_count() == 0 {
                known.clear();
                continue;
            }
            let Ok(nodes) = self.store.nodes().await else { continue };
            let first = known.is_empty();
            let others = nodes.into_iter().filter(|node| node.replica != self.replica);
            for entry in others.map(|node| read(node, self.replica)) {
                let same = known.get(&entry.node).is_some_and(|before| {
                    (before.connected, before.revision, &before.report)
                        == (entry.connected, entry.revision, &entry.report)
                });
                if !same && !first {
                    let _ = self.events.send(Arc::new(entry.clone()));
                }
                known.insert(entry.node.clone(), entry);
            }
        }
    }
}

impl Fleet for Nodes {
    async fn lacking(&self, root: &str) -> Result<Vec<String>, StoreError> {
        let has_ours = |entry: &Entry| {
            entry.report.certificate.as_ref().is_some_and(|it| !it.root.is_empty())
                && !entry.report.trusts.is_empty()
        };
        let lacks = |entry: &&Entry| {
            entry.connected && has_ours(entry) && !entry.report.trusts.iter().any(|trusted| trusted == root)
        };
        Ok(self.list().await?.iter().filter(lacks).map(|entry| entry.node.clone()).collect())
    }
}

impl Own {
    fn entry(&self, node: &str) -> Entry {
        Entry {
            node: node.to_owned(),
            connected: self.connected,
            seen: ago(self.heard.elapsed()),
            revision: self.revision,
            twin: None,
            report: self.report.clone(),
        }
    }

    fn seen(&self, node: &str, replica: Uuid) -> NodeSeen {
        NodeSeen {
            node: node.to_owned(),
            replica,
            opened_ago: self.opened.elapsed(),
            seen_ago: self.heard.elapsed(),
            connected: self.connected,
            revision: self.revision,
            report: serde_json::to_value(&self.report).unwrap_or_default(),
        }
    }
}

impl Entry {
    /// As the API shows it, compared with a head.
    pub fn shown(&self, head: u64) -> DataPlane {
        let report = self.report.clone();
        DataPlane {
            id: self.node.clone(),
            group: report.group,
            labels: report.labels,
            zone: report.zone,
            version: report.version,
            address: report.address,
            listeners: report.listeners,
            connected: self.connected,
            last_seen: self.seen.to_string(),
            applied_revision: self.revision,
            lag: head.saturating_sub(self.revision),
            in_sync: report.in_sync && self.revision >= head,
            apply_us: report.apply_us,
            rejects: report.rejects,
            blocked: report.blocked,
            twin: self.twin.clone().unwrap_or_default(),
            certificate: report.certificate.map(|shown| NodeCertificate {
                expires: Timestamp::from_second(shown.expires).unwrap_or(Timestamp::MAX).to_string(),
                expires_in_seconds: shown.expires - Timestamp::now().as_second(),
                ca: shown.root,
            }),
        }
    }
}

fn read(node: Node, replica: Uuid) -> Entry {
    Entry {
        // What this replica wrote and does not hold any more is not connected, whatever was written last.
        connected: node.connected && node.replica != replica && node.seen_ago < GONE,
        seen: ago(node.seen_ago),
        revision: node.revision,
        twin: node.twin.filter(|(_, ago)| *ago < TWIN).map(|(address, _)| address),
        report: serde_json::from_value(node.report).unwrap_or_default(),
        node: node.node,
    }
}

fn ago(age: Duration) -> Timestamp {
    let age = SignedDuration::try_from(age).unwrap_or(SignedDuration::MAX);
    Timestamp::now().checked_sub(age).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use gateway_proto::admin::Role;

    use super::*;
    use crate::{auth, store};

    #[tokio::test]
    async fn an_entry_belongs_to_the_youngest_stream_in_whatever_order_they_arrive() {
        let directory = tempfile::tempdir().expect("temporary directory");
        let url = format!("sqlite://{}/gateway.db", directory.path().display());
        let (_, token) = auth::new_token("admin", Role::Admin, Vec::new(), None);
        let opened = store::open(&url, &token).await.expect("opens");
        let stop = CancellationToken::new();
        let (nodes, writer) = Nodes::start(opened.store, stop.clone());
        let hello = wire::Hello { node: "one".into(), group: "default".into(), ..Default::default() };
        let from = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let young = nodes.arrive(&hello, 2, from(2), None);
        let old = nodes.arrive(&hello, 1, from(1), None);
        nodes.leave(&old);
        nodes.holds(&young, 7, true);
        let entries = nodes.list().await.expect("answers");
        let entry = &entries[0];
        assert_eq!((entry.connected, entry.revision, &*entry.report.address), (true, 7, "127.0.0.1:2"));
        stop.cancel();
        writer.await.expect("it ends");
    }
}
