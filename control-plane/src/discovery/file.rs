//! The source `file`: services and instances in a YAML or JSON file below `--discovery-file-dir`. The file is read again
//! when its folder says that something moved, and looked at every two seconds besides.
//!
//! Invariants: nothing outside of the folder is opened, whatever links there are (the system resolves the path beneath it,
//! `openat2`); no more than [`MAX_BYTES`] are read; an entry that is wrong loses itself only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_engine::discovery::{MAX_SERVICE_NAME, MAX_TAG, MAX_TAGS, address, name};
use gateway_engine::upstream::MAX_WEIGHT;
use gateway_proto::endpoints::MAX_ENDPOINTS;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use serde::Deserialize;
use serde_saphyr::Spanned;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::source::{Fault, Instance, Reading, Source};
use crate::state::blocking;

/// Largest file.
const MAX_BYTES: u64 = 4 << 20;
/// Most services of a file.
const MAX_SERVICES: usize = 10_000;
/// Entries that are passed over are named up to here.
const MAX_FAULTS: usize = 20;
/// A file system that does not answer for so long hangs.
const ANSWER: Duration = Duration::from_secs(5);
/// How often the file is looked at without a hint.
const POLL: Duration = Duration::from_secs(2);
/// A file that is being written is read when it was quiet for this long.
const QUIET: Duration = Duration::from_millis(20);

/// A file.
#[derive(Debug)]
pub(super) struct FileSource {
    place: Place,
    watch: Option<Watch>,
    /// What was read last; `None`: it could not be, or not yet.
    seen: Option<Stamp>,
    is_first: bool,
    turn: Arc<Semaphore>,
}

/// Where it is.
#[derive(Clone, Debug)]
struct Place {
    folder: PathBuf,
    path: PathBuf,
}

/// Tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
}

/// Hints from the system.
#[derive(Debug)]
struct Watch {
    hints: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl FileSource {
    /// `path` is relative to `folder`.
    pub(super) fn new(folder: &Path, path: &str) -> Self {
        let place = Place { folder: folder.to_owned(), path: path.into() };
        FileSource { place, watch: None, seen: None, is_first: true, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Waits until there is cause to read the file.
    async fn cause(&mut self) {
        loop {
            if self.watch.is_none() {
                self.watch = Watch::begin(&self.place);
            }
            if std::mem::take(&mut self.is_first) {
                return;
            }
            let is_hinted = match &mut self.watch {
                Some(watch) => watch.hint().await,
                None => {
                    sleep(POLL).await;
                    false
                }
            };
            // Two writes within a tick of the clock leave the same time behind: a hint counts whatever that says.
            if is_hinted {
                return;
            }
            let stamp = self.read(|place| place.open().map(|(_, stamp)| stamp)).await.ok();
            if stamp.is_none() || stamp != self.seen {
                return;
            }
        }
    }

    /// Asks the file system; one question at a time, so that one that hangs costs one thread.
    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Place) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (place, turn) = (self.place.clone(), Arc::clone(&self.turn));
        let asked = async {
            // Never closed.
            let turn = turn.acquire_owned().await;
            blocking(move || {
                let answer = ask(&place);
                drop(turn);
                answer
            })
            .await
        };
        let hangs = || Fault(format!("the file system does not answer within {ANSWER:?}"));
        timeout(ANSWER, asked).await.unwrap_or_else(|_| Err(hangs()))
    }
}

#[async_trait]
impl Source for FileSource {
    async fn next(&mut self) -> Result<Reading, Fault> {
        self.cause().await;
        let read = self.read(Place::read).await;
        self.seen = read.as_ref().ok().map(|(_, stamp)| *stamp);
        read.map(|(reading, _)| reading)
    }

    async fn look(&mut self, _service: &str) -> Result<Reading, Fault> {
        // `seen` stays: what else has changed meanwhile is for `next` to tell.
        self.read(Place::read).await.map(|(reading, _)| reading)
    }
}

impl Watch {
    fn begin(place: &Place) -> Option<Self> {
        let (tell, hints) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event too.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                // Full: one is waiting already.
                let _waiting = tell.try_send(());
            }
        })
        .ok()?;
        // A file is often replaced by another one under its name, which only its folder notices.
        let folder = place.folder.join(place.path.parent().unwrap_or(Path::new("")));
        watcher.watch(&folder, RecursiveMode::NonRecursive).ok()?;
        Some(Watch { hints, _watcher: watcher })
    }

    /// Waits until something has moved and come to rest, or for a while; whether something has.
    async fn hint(&mut self) -> bool {
        if timeout(POLL, self.hints.recv()).await.is_err() {
            return false;
        }
        let settled =
            async { while timeout(QUIET, self.hints.recv()).await.is_ok_and(|hint| hint.is_some()) {} };
        let _busy = timeout(POLL, settled).await;
        true
    }
}

impl Place {
    fn open(&self) -> Result<(File, Stamp), Fault> {
        let fault = |error: rustix::io::Errno| {
            let why = match error {
                rustix::io::Errno::XDEV | rustix::io::Errno::LOOP => {
                    "it leads out of --discovery-file-dir".to_owned()
                }
                error => error.to_string(),
            };
            Fault(format!("cannot open {}: {why}", self.path.display()))
        };
        let folder =
            openat(CWD, &self.folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|error| Fault(format!("cannot open {}: {error}", self.folder.display())))?;
        // Not to wait for the other end, where it is a pipe.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(folder, &self.path, flags, Mode::empty(), within).map_err(fault)?;
        let stat = fstat(&file).map_err(fault)?;
        if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
            return Err(Fault(format!("{} is not a file", self.path.display())));
        }
        let stamp = Stamp {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or_default()),
        };
        Ok((file.into(), stamp))
    }

    fn read(&self) -> Result<(Reading, Stamp), Fault> {
        let (file, stamp) = self.open()?;
        let mut text = String::new();
        let cannot = |why: String| Fault(format!("cannot read {}: {why}", self.path.display()));
        file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| cannot(error.to_string()))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(cannot(format!("it is over {} MiB", MAX_BYTES >> 20)));
        }
        let mut reading = parse(&text).map_err(cannot)?;
        let (seconds, nanos) = stamp.modified;
        reading.index = u64::try_from(seconds * 1_000 + nanos / 1_000_000).unwrap_or_default();
        Ok((reading, stamp))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: BTreeMap<String, Spanned<serde_json::Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    address: String,
    weight: Option<u32>,
    #[serde(default)]
    zone: String,
    #[serde(default)]
    tags: Vec<String>,
}

/// Entries that are passed over.
#[derive(Default)]
struct Faults {
    named: Vec<String>,
    more: usize,
}

/// Reads a file's text.
fn parse(text: &str) -> Result<Reading, String> {
    if text.trim().is_empty() {
        // As it is for a moment while it is written.
        return Err("it is empty".to_owned());
    }
    // Bounded by its bytes.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: MAX_BYTES as usize, max_events: 2 * MAX_BYTES as usize },
    };
    let document: Document =
        serde_saphyr::from_str_with_options(text, options).map_err(|error| shortened(&error.to_string()))?;
    if document.services.len() > MAX_SERVICES {
        return Err(format!("it has {} services, at most {MAX_SERVICES} are taken", document.services.len()));
    }
    let mut faults = Faults::default();
    let (mut services, mut doubtful) = (BTreeMap::new(), BTreeSet::new());
    for (service, entries) in document.services {
        let line = entries.defined.line();
        let before = faults.count();
        if let Err(why) = name("the name of a service", &service, MAX_SERVICE_NAME) {
            faults.push(format!("line {line}: {why}"));
            continue;
        }
        let serde_json::Value::Array(entries) = entries.value else {
            faults.push(format!("line {line}: services.{service} is no list of instances"));
            doubtful.insert(Arc::from(&*service));
            continue;
        };
        let service: Arc<str> = service.into();
        services.insert(Arc::clone(&service), instances(&service, line, entries, &mut faults));
        if faults.count() > before {
            doubtful.insert(service);
        }
    }
    if faults.more > 0 {
        faults.named.push(format!("and {} more", faults.more));
    }
    Ok(Reading { index: 0, services, doubtful, faults: faults.named })
}

fn instances(
    service: &str,
    line: u64,
    entries: Vec<serde_json::Value>,
    faults: &mut Faults,
) -> Arc<[Instance]> {
    let mut instances = BTreeMap::new();
    for (index, entry) in entries.into_iter().enumerate() {
        let at = || format!("services.{service}[{index}] (the list at line {line})");
        if instances.len() == MAX_ENDPOINTS {
            faults.push(format!("{}: at most {MAX_ENDPOINTS} instances are taken", at()));
            continue;
        }
        match instance(entry) {
            Err(why) => faults.push(format!("{}: {}", at(), shortened(&why))),
            Ok(instance) if instances.contains_key(&instance.address) => {
                faults.push(format!("{}: {} is in the list already", at(), instance.address));
            }
            Ok(instance) => drop(instances.insert(instance.address.clone(), instance)),
        }
    }
    instances.into_values().collect()
}

fn instance(entry: serde_json::Value) -> Result<Instance, String> {
    let Entry { address: at, weight, zone, tags } =
        serde_json::from_value(entry).map_err(|error| error.to_string())?;
    let host = address(&at)?;
    let weight = weight.unwrap_or(1);
    let weight = u16::try_from(weight)
        .map_err(|_| format!("weight {weight} is out of range, expected 0 to {MAX_WEIGHT}"))?;
    if !zone.is_empty() {
        name("zone", &zone, MAX_TAG)?;
    }
    if tags.len() > MAX_TAGS {
        return Err(format!("{} tags are too many, at most {MAX_TAGS} are taken", tags.len()));
    }
    tags.iter().try_for_each(|tag| name("a tag", tag, MAX_TAG))?;
    Ok(Instance { address: host.to_string(), weight, zone, tags })
}

impl Faults {
    fn count(&self) -> usize {
        self.named.len() + self.more
    }

    fn push(&mut self, fault: String) {
        if self.named.len() < MAX_FAULTS {
            self.named.push(fault);
        } else {
            self.more += 1;
        }
    }
}

/// One line of a text that may quote much of the file.
fn shortened(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

#[cfg(test)]
mod tests;
