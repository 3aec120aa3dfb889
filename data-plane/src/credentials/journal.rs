//! Credentials on disk: the pieces as they came, one behind the other, so that a revocation is written by its few bytes
//! and not by the million that stay. Each record is sealed as the last good configuration is (AES-256-GCM, a fresh nonce)
//! and numbered within its file, so that none can be left out, moved, or taken from an older file; a tail that was cut off by a crash is passed over, and the sums
//! of the shards bring back what it said. When the file has grown to twice of what is needed it is written anew.
//!
//! It holds digests only. It protects copies, not a stolen disk, as the key that seals it lies beside it unless
//! `--snapshot-key-file` says otherwise.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aes_gcm::aead::AeadInOut as _;
use aes_gcm::{Aes256Gcm, Nonce};
use gateway_engine::identity::Keys;
use gateway_proto::credential::{Grant, Malformed, PieceBuilder, SHARDS};
use gateway_proto::wire;
use prost::Message as _;
use rand::RngExt as _;
use tokio::sync::mpsc;

use crate::state_dir::StateDir;
use crate::task::Task;

const FILE: &str = "credentials";
const DRAFT: &str = "credentials.new";
const MAGIC: &[u8; 8] = b"GWKEYS02";
/// Tells a file from those before it.
type FileId = [u8; 16];
/// Wait before what could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);
const NONCE: usize = 12;
/// Largest record that is read: a message of the stream.
const MAX_RECORD: usize = 8 << 20;
/// Pieces that wait to be written; who brings more waits for the disk.
const MAX_WAITING: usize = 64;
/// A file that is smaller is not worth writing anew.
const SMALL: u64 = 4 << 20;
/// Bytes of a record when everything is written.
const PIECE: usize = 256 << 10;

/// Where it is, and what seals it.
#[derive(Clone)]
pub(crate) struct Journal {
    state_dir: Arc<StateDir>,
    cipher: Aes256Gcm,
    group: String,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

impl Journal {
    pub(crate) fn new(state_dir: Arc<StateDir>, cipher: Aes256Gcm, group: String) -> Self {
        Journal { state_dir, cipher, group }
    }

    /// Hands every record to the caller; where they lead, if they lead anywhere.
    pub(super) fn replay(
        &self,
        mut take: impl FnMut(&wire::CredentialsChunk) -> Result<(), Malformed>,
    ) -> Option<wire::Cursor> {
        let bytes = self.state_dir.read(FILE).unwrap_or_else(|error| {
            tracing::warn!(%error, "the API keys on disk cannot be read");
            None
        })?;
        let after = bytes.strip_prefix(MAGIC).and_then(<[u8]>::split_first_chunk::<{ size_of::<FileId>() }>);
        let Some((file, mut rest)) = after else {
            tracing::warn!("the API keys on disk are not of this version");
            return None;
        };
        let mut target = None;
        let mut number = 0;
        while !rest.is_empty() {
            let read = self.next(&mut rest, (file, number)).and_then(|chunk| {
                take(&chunk).map_err(|error| error.to_string())?;
                Ok(chunk)
            });
            match read {
                Ok(chunk) if chunk.last => target = chunk.target,
                Ok(_) => {}
                Err(why) => {
                    tracing::warn!(record = number, why, "the API keys on disk end before they should");
                    break;
                }
            }
            number += 1;
        }
        target
    }

    fn next(&self, rest: &mut &[u8], place: (&FileId, u64)) -> Result<wire::CredentialsChunk, String> {
        let (len, after) = rest.split_first_chunk::<4>().ok_or("a record is cut off")?;
        let len = u32::from_le_bytes(*len) as usize;
        if !(NONCE..=MAX_RECORD).contains(&len) || after.len() < len {
            return Err("a record is cut off".to_owned());
        }
        let (record, after) = after.split_at(len);
        let (nonce, sealed) = record.split_at(NONCE);
        let nonce: [u8; NONCE] = nonce.try_into().expect("cut to that length");
        let mut body = sealed.to_vec();
        self.cipher
            .decrypt_in_place(&Nonce::from(nonce), &self.associated(place), &mut body)
            .map_err(|_| "a record is damaged, or sealed with another key or for another group".to_owned())?;
        *rest = after;
        wire::CredentialsChunk::decode(&*body).map_err(|error| error.to_string())
    }

    fn seal(&self, chunk: &wire::CredentialsChunk, place: (&FileId, u64)) -> Vec<u8> {
        let mut body = chunk.encode_to_vec();
        let nonce: [u8; NONCE] = rand::rng().random();
        self.cipher
            .encrypt_in_place(&Nonce::from(nonce), &self.associated(place), &mut body)
            .expect("far below the 64 GiB that AES-GCM takes");
        let len = (NONCE + body.len()) as u32;
        [&len.to_le_bytes()[..], &nonce, &body].concat()
    }

    fn associated(&self, (file, number): (&FileId, u64)) -> Vec<u8> {
        [MAGIC, &file[..], &number.to_le_bytes(), self.group.as_bytes()].concat()
    }

    fn path(&self, file: &str) -> std::path::PathBuf {
        self.state_dir.path().join(file)
    }

    /// Writes everything that is held, and goes on from there.
    fn begin(&self, keys: &Keys, target: &wire::Cursor) -> io::Result<Open> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.path(DRAFT))?;
        let mut open = Open { file, id: rand::rng().random(), number: 0, len: 0, whole: 0 };
        open.write(&[&MAGIC[..], &open.id].concat())?;
        let mut piece = PieceBuilder::default();
        for shard in 0..SHARDS {
            piece.shard(shard);
            for Grant { digest, consumer, expires } in keys.shard(shard) {
                piece.grant(&digest, &consumer, expires);
            }
            if piece.size() > PIECE {
                open.append(self, &std::mem::take(&mut piece).finish(target.clone(), false))?;
            }
        }
        // What is not complete leads nowhere yet.
        let last = keys.is_complete() && !target.epoch.is_empty();
        open.append(self, &piece.finish(target.clone(), last))?;
        open.file.sync_all()?;
        std::fs::rename(self.path(DRAFT), self.path(FILE))?;
        File::open(self.state_dir.path())?.sync_all()?;
        open.whole = open.len;
        Ok(open)
    }
}

/// The file as it is being written.
#[derive(Debug)]
struct Open {
    file: File,
    id: FileId,
    /// Of the next record.
    number: u64,
    len: u64,
    /// How long it was when it held everything and nothing twice.
    whole: u64,
}

impl Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    fn append(&mut self, journal: &Journal, chunk: &wire::CredentialsChunk) -> io::Result<()> {
        let record = journal.seal(chunk, (&self.id, self.number));
        self.number += 1;
        self.write(&record)
    }

    fn has_outgrown(&self) -> bool {
        self.len > SMALL.max(2 * self.whole)
    }
}

/// Hands pieces to the task that writes them.
#[derive(Debug)]
pub(super) struct Writer {
    pieces: mpsc::UnboundedSender<Work>,
    waiting: Arc<Mutex<usize>>,
    target: Arc<Mutex<wire::Cursor>>,
}

#[derive(Debug)]
enum Work {
    Append(Box<wire::CredentialsChunk>),
    /// Everything is to be written: pieces were left out.
    Anew,
    Forget,
}

impl Writer {
    pub(super) fn start(journal: Journal, keys: Arc<Keys>) -> (Self, Task) {
        let (pieces, work) = mpsc::unbounded_channel();
        let writer = Writer { pieces, waiting: Arc::default(), target: Arc::default() };
        let (waiting, target) = (Arc::clone(&writer.waiting), Arc::clone(&writer.target));
        (writer, Task::spawn(write(journal, keys, work, waiting, target)))
    }

    /// Keeps a piece, which led to `target`. When the disk is too slow everything is written once instead.
    pub(super) fn append(&self, chunk: wire::CredentialsChunk, target: &wire::Cursor) {
        lock(&self.target).clone_from(target);
        let mut waiting = lock(&self.waiting);
        if *waiting > MAX_WAITING {
            return;
        }
        *waiting += 1;
        let work = if *waiting > MAX_WAITING { Work::Anew } else { Work::Append(Box::new(chunk)) };
        // The task lives as long as this.
        let _ended = self.pieces.send(work);
    }

    /// Takes it away.
    pub(super) fn forget(&self) {
        *lock(&self.target) = wire::Cursor::default();
        let _ended = self.pieces.send(Work::Forget);
    }
}

fn lock<T>(it: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    it.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn write(
    journal: Journal,
    keys: Arc<Keys>,
    mut work: mpsc::UnboundedReceiver<Work>,
    waiting: Arc<Mutex<usize>>,
    target: Arc<Mutex<wire::Cursor>>,
) {
    let mut open: Option<Open> = None;
    let mut is_failing = false;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            received = work.recv_many(&mut batch, MAX_WAITING) => if received == 0 { return },
            () = tokio::time::sleep(RETRY), if is_failing => {}
        }
        let taken = batch.iter().filter(|work| !matches!(work, Work::Forget)).count();
        let (journal, keys, target) = (journal.clone(), Arc::clone(&keys), lock(&target).clone());
        let mut pieces = std::mem::take(&mut batch);
        if is_failing {
            // What failed before is part of what is held.
            pieces.push(if target.epoch.is_empty() { Work::Forget } else { Work::Anew });
        }
        let file = open.take();
        let done = tokio::task::spawn_blocking(move || save(&journal, &keys, &target, file, pieces)).await;
        *lock(&waiting) -= taken;
        match done.expect("writing does not panic") {
            Ok(now) => {
                open = now;
                if std::mem::replace(&mut is_failing, false) {
                    tracing::info!("API keys are kept on disk again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "cannot keep API keys on disk: a restart would not know what changes now");
                }
            }
        }
    }
}

/// The file that is open after it; `None`: there is none.
fn save(
    journal: &Journal,
    keys: &Keys,
    target: &wire::Cursor,
    open: Option<Open>,
    batch: Vec<Work>,
) -> io::Result<Option<Open>> {
    if batch.iter().any(|work| matches!(work, Work::Forget)) && target.epoch.is_empty() {
        return match std::fs::remove_file(journal.path(FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(None),
        };
    }
    let is_whole = batch.iter().all(|work| matches!(work, Work::Append(_)));
    match open.filter(|open| is_whole && !open.has_outgrown()) {
        // What waits to be written is in the table already: written once more behind it, it changes nothing.
        None => journal.begin(keys, target).map(Some),
        Some(mut open) => {
            for work in &batch {
                if let Work::Append(chunk) = work {
                    open.append(journal, chunk)?;
                }
            }
            open.file.sync_data()?;
            Ok(Some(open))
        }
    }
}

#[cfg(test)]
mod tests;
