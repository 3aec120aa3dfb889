//! Finds services: reads the sources that the configuration names, and keeps a board of what data planes are to be told
//! of endpoints. Each source has a task of its own; one task keeps the desk, where everything that does not depend on
//! how a source is read lives once.
//!
//! Invariants: nothing here makes a revision; a source that fails, hangs or lies harms no other and takes no endpoints
//! away; replicas read for themselves and come to the same hashes from the same content.

pub mod board;
mod desk;
mod file;
mod keeper;
pub mod line;
pub mod source;
mod status;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire;
use gateway_proto::wire::discovery_source_spec::Source as Spec;
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::sorted::SortedMap;
use crate::state::{Live, Objects, State};
use crate::store::{Store, StoreError};
use board::Board;
use desk::Desk;
use file::FileSource;
use line::Query;
use source::{Fault, Reading, Source};

/// The first streams wait so long for sources that were not read yet.
const SETTLE: Duration = Duration::from_secs(3);
/// A second look is given up after this time.
const LOOK: Duration = Duration::from_millis(900);
/// Between two attempts at a source that fails without waiting itself.
const AGAIN: Duration = Duration::from_millis(100);
/// What sources have to say, waiting for the desk.
const MAX_EVENTS: usize = 64;

/// Discovery at work.
#[derive(Debug)]
pub struct Discovery {
    /// Where files are; `None`: there are no file sources.
    folder: Option<PathBuf>,
    desk: Mutex<Desk>,
    board: watch::Sender<Arc<Board>>,
    settled: watch::Sender<bool>,
}

/// What the task of a source tells.
struct Event {
    source: Arc<str>,
    /// Of the task: what an earlier one said late does not count.
    number: u64,
    what: What,
}

enum What {
    Read(Result<Reading, Fault>),
    Looked(Arc<str>, Result<Reading, Fault>),
}

/// The task of a source.
struct Driver {
    spec: Option<Spec>,
    number: u64,
    looks: mpsc::Sender<Arc<str>>,
    task: AbortHandle,
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Discovery {
    /// With what was served last. Files are read in `folder`; `None`: none are.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn load(store: &dyn Store, folder: Option<PathBuf>) -> Result<Arc<Self>, StoreError> {
        Ok(Arc::new(Discovery {
            folder,
            desk: Mutex::new(Desk::new(keeper::load(store).await?)),
            board: watch::Sender::new(Arc::default()),
            settled: watch::Sender::new(false),
        }))
    }

    /// Follows the configuration until cancelled. The second task writes down what is served, and ends after the first.
    pub fn start(
        self: &Arc<Self>,
        live: &Arc<Live>,
        store: &Arc<dyn Store>,
        stop: CancellationToken,
    ) -> (JoinHandle<()>, JoinHandle<()>) {
        let discovery = self;
        let keeper = tokio::spawn(keeper::run(Arc::clone(discovery), Arc::clone(store), stop.clone()));
        let (tell, events) = mpsc::channel(MAX_EVENTS);
        let mut follower = Follower {
            discovery: Arc::clone(discovery),
            state: None,
            queries: BTreeMap::new(),
            drivers: BTreeMap::new(),
            numbers: 0,
            tell,
        };
        // The board is whole before anybody looks at it.
        follower.configure(live.get());
        let task = tokio::spawn(follower.run(Arc::clone(live), events, stop));
        (task, keeper)
    }

    /// The board, and every newer one.
    pub fn watch(&self) -> watch::Receiver<Arc<Board>> {
        self.board.subscribe()
    }

    /// Waits until every source was read or could not be, but not for long.
    pub async fn settled(&self) {
        let mut settled = self.settled.subscribe();
        if timeout(SETTLE, settled.wait_for(|settled| *settled)).await.is_err() {
            tracing::warn!(
                "not every discovery source has answered: data planes are told what was known last"
            );
        }
    }

    /// What can be read here.
    pub const fn abilities(&self) -> Abilities {
        Abilities { files: self.folder.is_some() }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source of a spec: a new one is a line here.
    fn open(&self, spec: &Option<Spec>) -> Result<Box<dyn Source>, Fault> {
        match (spec, &self.folder) {
            (Some(Spec::File(file)), Some(folder)) => Ok(Box::new(FileSource::new(folder, &file.path))),
            (Some(Spec::File(_)), None) => Err(Fault(NO_FOLDER.to_owned())),
            (None, _) => Err(Fault("this version does not have what the source is".to_owned())),
        }
    }
}

/// What sources a control plane can read.
#[derive(Clone, Copy, Debug)]
pub struct Abilities {
    files: bool,
}

impl Abilities {
    /// Field and reason where a source cannot be read; `None`: it may be.
    pub fn refuses(self, source: &wire::DiscoverySource) -> Option<(&'static str, &'static str)> {
        match source.spec.as_ref()?.source.as_ref()? {
            Spec::File(_) if !self.files => Some(("spec.file", NO_FOLDER)),
            Spec::File(_) => None,
        }
    }
}

/// Why files are not read.
const NO_FOLDER: &str =
    "this control plane reads no files: start it with --discovery-file-dir, the folder that they are in";

/// Keeps the desk.
struct Follower {
    discovery: Arc<Discovery>,
    state: Option<Arc<State>>,
    queries: BTreeMap<Arc<str>, Query>,
    drivers: BTreeMap<Arc<str>, Driver>,
    numbers: u64,
    tell: mpsc::Sender<Event>,
}

impl Follower {
    async fn run(mut self, live: Arc<Live>, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
        let mut heads = live.watch();
        self.publish();
        loop {
            let wakes = self.discovery.desk().wakes();
            let wakes = wakes.map_or_else(far, tokio::time::Instant::from_std);
            tokio::select! {
                () = stop.cancelled() => return,
                changed = heads.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.configure(live.get());
                }
                Some(event) = events.recv() => self.take(event),
                () = sleep_until(wakes) => {}
            }
            self.discovery.desk().due(now());
            self.look();
            self.publish();
        }
    }

    /// Follows a state: by what differs from the one before.
    fn configure(&mut self, state: Arc<State>) {
        let nothing = Objects::default();
        let before = self.state.take();
        let mut sources: Vec<(Arc<str>, Option<Spec>)> = Vec::new();
        let mut gone: Vec<Arc<str>> = Vec::new();
        let queries = &mut self.queries;
        let mut changed = false;
        let objects = before.as_ref().map_or(&nothing, |state| &state.objects);
        SortedMap::diff(objects, &state.objects, |key, _, after| {
            if !matches!(key.kind, Kind::DiscoverySource | Kind::Upstream) {
                return;
            }
            let name: Arc<str> = key.qualified().into();
            match (key.kind, after.and_then(|stored| Resource::decode(key.kind, &stored.body).ok())) {
                (Kind::DiscoverySource, Some(Resource::DiscoverySource(it))) => {
                    sources.push((name, it.spec.unwrap_or_default().source));
                }
                (Kind::DiscoverySource, _) => gone.push(name),
                (Kind::Upstream, Some(Resource::Upstream(it))) => {
                    let discovery = it.spec.and_then(|spec| spec.discovery);
                    changed |= match discovery.map(|discovery| query(key, discovery)) {
                        Some(query) => queries.insert(name, query.clone()) != Some(query),
                        None => queries.remove(&name).is_some(),
                    };
                }
                (Kind::Upstream, _) => changed |= queries.remove(&name).is_some(),
                _ => {}
            }
        });
        self.state = Some(state);
        if !changed && sources.is_empty() && gone.is_empty() && before.is_some() {
            return;
        }
        gone.iter().for_each(|name| drop(self.drivers.remove(name)));
        for (name, spec) in sources {
            if self.drivers.get(&name).is_none_or(|driver| driver.spec != spec) {
                self.discovery.desk().replaced(&name);
                let driver = self.drive(&name, spec);
                self.drivers.insert(name, driver);
            }
        }
        let names: BTreeSet<Arc<str>> = self.drivers.keys().cloned().collect();
        self.discovery.desk().configure(&names, &self.queries, Instant::now());
        self.publish();
    }

    fn drive(&mut self, name: &Arc<str>, spec: Option<Spec>) -> Driver {
        self.numbers += 1;
        let (looks, wanted) = mpsc::channel(MAX_EVENTS);
        let teller = Teller { source: Arc::clone(name), number: self.numbers, tell: self.tell.clone() };
        let task = tokio::spawn(drive(self.discovery.open(&spec), teller, wanted));
        Driver { spec, number: self.numbers, looks, task: task.abort_handle() }
    }

    fn take(&mut self, event: Event) {
        let Event { source, number, what } = event;
        if self.drivers.get(&source).is_none_or(|driver| driver.number != number) {
            return;
        }
        let mut desk = self.discovery.desk();
        match what {
            What::Read(read) => {
                let was_well = desk.sources().get(&source).is_some_and(|known| known.fault.is_none());
                match &read {
                    Err(fault) if was_well => {
                        tracing::warn!(%source, error = %fault, "a discovery source cannot be read: its endpoints stay as they are");
                    }
                    Ok(_) if !was_well => tracing::info!(%source, "a discovery source can be read again"),
                    _ => {}
                }
                desk.read(&source, read, now());
            }
            What::Looked(service, read) => desk.looked((&source, &service), read, now()),
        }
    }

    /// Has sources looked at a second time.
    fn look(&self) {
        let looks = self.discovery.desk().take_looks();
        for (source, service) in looks {
            let asked = self.drivers.get(&source).map(|driver| driver.looks.try_send(Arc::clone(&service)));
            if !matches!(asked, Some(Ok(()))) {
                let fault = Err(Fault("too much is asked of it".to_owned()));
                self.discovery.desk().looked((&source, &service), fault, now());
            }
        }
    }

    fn publish(&self) {
        let mut desk = self.discovery.desk();
        if let Some(board) = desk.take_board() {
            self.discovery.board.send_replace(Arc::new(board));
        }
        let is_settled = desk.is_settled();
        self.discovery
            .settled
            .send_if_modified(|settled| !std::mem::replace(settled, is_settled) && is_settled);
    }
}

/// Of which task of which source.
struct Teller {
    source: Arc<str>,
    number: u64,
    tell: mpsc::Sender<Event>,
}

impl Teller {
    async fn say(&self, what: What) {
        let event = Event { source: Arc::clone(&self.source), number: self.number, what };
        // The desk ends last.
        let _ended = self.tell.send(event).await;
    }
}

/// Reads a source for ever.
async fn drive(source: Result<Box<dyn Source>, Fault>, teller: Teller, mut looks: mpsc::Receiver<Arc<str>>) {
    let mut source = match source {
        Ok(source) => source,
        Err(fault) => return teller.say(What::Read(Err(fault))).await,
    };
    loop {
        tokio::select! {
            read = source.next() => {
                let failed = read.is_err();
                teller.say(What::Read(read)).await;
                if failed {
                    sleep(AGAIN).await;
                }
            }
            wanted = looks.recv() => {
                let Some(service) = wanted else { return };
                let looked = timeout(LOOK, source.look(&service)).await;
                let looked = looked.unwrap_or_else(|_| Err(Fault(format!("no answer within {LOOK:?}"))));
                teller.say(What::Looked(service, looked)).await;
            }
        }
    }
}

fn query(upstream: &Key, discovery: wire::UpstreamDiscovery) -> Query {
    let source = match discovery.source.split_once('/') {
        Some(_) => discovery.source,
        None => format!("{}/{}", upstream.namespace, discovery.source),
    };
    Query {
        source: source.into(),
        service: discovery.service.into(),
        tags: discovery.tags.into_iter().map(Box::from).collect(),
    }
}

fn now() -> (Instant, Timestamp) {
    (Instant::now(), Timestamp::now())
}

fn far() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(3600)
}
