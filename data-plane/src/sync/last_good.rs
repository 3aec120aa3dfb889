//! The last good configuration on disk, so that a restart does not depend on the control plane. Two generations are
//! kept; each is encrypted (AES-256-GCM, a fresh nonce each time), carries a checksum that tells damage from a wrong
//! key, and is written whole or not at all, after the change was applied, by a task of its own that skips what it has
//! no time for.
//!
//! Layout: magic (8) · SHA-256 of the rest (32) · nonce (12) · sealed: two length-delimited `Chunk`s, what is held
//! and what is parked, and the discovered endpoints (`EndpointsChunk`). The group is authenticated too: another group's
//! configuration is not ours.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use gateway_engine::Engine;
use gateway_engine::compile::Change;
use gateway_proto::kind::Resource;
use gateway_proto::secret::Secrets;
use gateway_proto::wire;
use prost::Message as _;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use super::decode::{Decoded, decode};
use crate::apply::{Applier, Cursor, OnViolation, Scope, Update};
use crate::credentials::Journal;
use crate::endpoints::Held;
use crate::state_dir::{StateDir, StateDirError};
use crate::task::{Task, behind};

/// The newest generation and the one before it.
const FILES: [&str; 2] = ["last-good", "last-good.previous"];
/// The key that is made when none is given.
const KEY_FILE: &str = "snapshot-key";
/// After a write, so many times as long as it took nothing is written.
const REST: u32 = 4;
/// ... and for so long nothing that is only about endpoints, which come and go.
const CALM: Duration = Duration::from_secs(10);
const MAGIC: &[u8; 8] = b"GWSNAP02";
const CHECKSUM: usize = 32;
const NONCE: usize = 12;

/// Why the key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the snapshot key {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// It is no key.
    #[error("the snapshot key {0} is not a key: expected 32 bytes, or 64 hex digits")]
    Malformed(String),
    /// The state directory fails.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
}

/// Where the newest copy is, once there is one.
pub(crate) fn newest(state_dir: &StateDir) -> PathBuf {
    state_dir.path().join(FILES[0])
}

/// Where copies are kept, and what seals them.
#[derive(Clone)]
pub(crate) struct LastGood {
    state_dir: Arc<StateDir>,
    cipher: Aes256Gcm,
    group: String,
}

impl std::fmt::Debug for LastGood {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LastGood({})", self.group)
    }
}

impl LastGood {
    /// With the key of a file, or with one in the state directory that is made when missing.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(crate) fn open(
        state_dir: Arc<StateDir>,
        key_file: Option<&Path>,
        group: &str,
    ) -> Result<Self, KeyError> {
        let (name, text) = match key_file {
            Some(path) => {
                let name = path.display().to_string();
                let read = std::fs::read(path);
                (name.clone(), read.map_err(|source| KeyError::Unreadable { path: name, source })?)
            }
            None => match state_dir.read(KEY_FILE)? {
                Some(text) => (KEY_FILE.to_owned(), text),
                None => {
                    let key: [u8; 32] = rand::rng().random();
                    state_dir.write(KEY_FILE, &key)?;
                    (KEY_FILE.to_owned(), key.to_vec())
                }
            },
        };
        let text = Zeroizing::new(text);
        let key = key(&text).ok_or(KeyError::Malformed(name))?;
        let cipher = Aes256Gcm::new_from_slice(&*key).expect("32 bytes");
        Ok(LastGood { state_dir, cipher, group: group.to_owned() })
    }

    /// The same place and key for credentials.
    pub(crate) fn journal(&self) -> Journal {
        Journal::new(Arc::clone(&self.state_dir), self.cipher.clone(), self.group.clone())
    }

    /// Puts the newest sound copy into service. A copy that is damaged or not ours is reported and passed over.
    /// Returns whether there was one.
    pub(crate) async fn restore(&self, applier: &mut Applier) -> bool {
        for file in FILES {
            let served = match self.state_dir.read(file) {
                Ok(None) => continue,
                Ok(Some(sealed)) => self.serve(sealed, applier).await,
                Err(error) => Err(error.to_string()),
            };
            match served {
                Ok(revision) => {
                    tracing::info!(file, revision, "serving the last good configuration from disk");
                    return true;
                }
                Err(why) => tracing::warn!(file, why, "a kept configuration cannot be used"),
            }
        }
        false
    }

    /// Puts a sealed copy into service, where nothing is yet; the revision that it is of.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(crate) async fn serve(&self, sealed: Vec<u8>, applier: &mut Applier) -> Result<u64, String> {
        let mut kept = self.unseal(sealed)?;
        applier.endpoints().restore(std::mem::take(&mut kept.endpoints));
        let (held, parked) = kept.into_updates();
        let revision = held.revision;
        // Into an empty applier: nothing goes back, nothing shrinks.
        applier.apply(held).await.map_err(|error| error.to_string())?;
        if let Some(parked) = parked {
            let _still_parked = applier.apply(parked).await;
        }
        Ok(revision)
    }

    fn save(&self, copy: &Copy) -> Result<(), StateDirError> {
        let sealed = self.seal(copy);
        let path = |file: &str| self.state_dir.path().join(file);
        match std::fs::rename(path(FILES[0]), path(FILES[1])) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "cannot keep the previous configuration");
            }
            _ => {}
        }
        self.state_dir.write(FILES[0], &sealed)
    }

    fn seal(&self, copy: &Copy) -> Vec<u8> {
        let mut body = copy.held().encode_length_delimited_to_vec();
        body.extend(copy.parked().encode_length_delimited_to_vec());
        body.extend(wire::EndpointsChunk::from(&copy.endpoints).encode_length_delimited_to_vec());
        let nonce: [u8; NONCE] = rand::rng().random();
        self.cipher
            .encrypt_in_place(&Nonce::from(nonce), &self.associated(), &mut body)
            .expect("far below the 64 GiB that AES-GCM takes");
        let checksum = Sha256::new().chain_update(nonce).chain_update(&body).finalize();
        [&MAGIC[..], &checksum[..], &nonce[..], &body].concat()
    }

    fn unseal(&self, mut sealed: Vec<u8>) -> Result<Kept, String> {
        const START: usize = MAGIC.len() + CHECKSUM + NONCE;
        if sealed.len() < START || !sealed.starts_with(MAGIC) {
            return Err("it is not a configuration copy of this version".to_owned());
        }
        let mut body = sealed.split_off(START);
        let (head, nonce) = sealed.split_at(MAGIC.len() + CHECKSUM);
        let checksum = Sha256::new().chain_update(nonce).chain_update(&body).finalize();
        if head[MAGIC.len()..] != checksum[..] {
            return Err("it is damaged: the checksum does not fit".to_owned());
        }
        let nonce: [u8; NONCE] = nonce.try_into().expect("cut to that length");
        self.cipher
            .decrypt_in_place(&Nonce::from(nonce), &self.associated(), &mut body)
            .map_err(|_| "it was sealed with another key or for another group".to_owned())?;
        let mut rest = bytes::Bytes::from(body);
        let mut next = || wire::Chunk::decode_length_delimited(&mut rest).map_err(|error| error.to_string());
        let (held, parked) = (next()?, next()?);
        let endpoints = wire::EndpointsChunk::decode_length_delimited(&mut rest);
        Ok(Kept { held, parked, endpoints: endpoints.map_err(|error| error.to_string())? })
    }

    fn associated(&self) -> Vec<u8> {
        [MAGIC, self.group.as_bytes()].concat()
    }
}

/// 32 bytes as they are, or in hex with white space around.
fn key(text: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    if let Ok(raw) = <[u8; 32]>::try_from(text) {
        return Some(Zeroizing::new(raw));
    }
    let digits = text.trim_ascii();
    let mut key = Zeroizing::new([0; 32]);
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// What is to be kept: shares everything with what serves.
#[derive(Clone, Debug)]
struct Copy {
    cursor: Cursor,
    engine: Engine,
    parked: Vec<Change>,
    endpoints: Held,
}

impl Copy {
    fn held(&self) -> wire::Chunk {
        let upserts = self.engine.objects().into_iter().map(|stored| wire::Upsert {
            kind: stored.key.kind.as_str().to_owned(),
            body: stored.body.clone(),
            secrets: stored.secrets.into(),
        });
        wire::Chunk {
            target: Some((&self.cursor).into()),
            upserts: upserts.collect(),
            last: true,
            ..Default::default()
        }
    }

    fn parked(&self) -> wire::Chunk {
        let mut chunk = wire::Chunk { target: Some((&self.cursor).into()), last: true, ..Default::default() };
        for change in &self.parked {
            match change {
                Change::Upsert(resource) => chunk.upserts.push(upsert(resource, &Secrets::none())),
                Change::Sealed(resource, secrets) => chunk.upserts.push(upsert(resource, secrets)),
                Change::Delete(key) => chunk.tombstones.push(key.into()),
            }
        }
        chunk
    }
}

fn upsert(resource: &Resource, secrets: &Secrets) -> wire::Upsert {
    let kind = resource.kind().as_str().to_owned();
    wire::Upsert { kind, body: resource.encode(), secrets: secrets.into() }
}

/// What was kept.
#[derive(Debug)]
struct Kept {
    held: wire::Chunk,
    parked: wire::Chunk,
    endpoints: wire::EndpointsChunk,
}

impl Kept {
    fn into_updates(self) -> (Update, Option<Update>) {
        let target = self.held.target.unwrap_or_default();
        let update = |scope, decoded: Decoded| Update {
            scope,
            epoch: target.epoch.as_str().into(),
            revision: target.revision,
            changes: decoded.changes,
            unreadable: decoded.unreadable,
            gone: decoded.gone,
            allow_shrink: false,
            on_violation: OnViolation::Park,
        };
        let parked = decode(self.parked.upserts, self.parked.tombstones);
        let parked = (!parked.changes.is_empty()).then(|| update(Scope::Delta, parked));
        (update(Scope::Full, decode(self.held.upserts, self.held.tombstones)), parked)
    }
}

/// Hands copies to the task that writes them.
#[derive(Debug)]
pub(crate) struct Saver {
    copies: watch::Sender<Option<Arc<Copy>>>,
    /// What waits holds a configuration that is not on disk.
    is_urgent: Arc<AtomicBool>,
}

impl Saver {
    /// Starts the writer; it ends, with everything written, once the `Saver` is dropped.
    pub(crate) fn start(last_good: LastGood) -> (Self, Task) {
        let (copies, receiver) = watch::channel(None::<Arc<Copy>>);
        let is_urgent = Arc::new(AtomicBool::new(false));
        let task = Task::spawn(write(Arc::new(last_good), receiver, Arc::clone(&is_urgent)));
        (Saver { copies, is_urgent }, task)
    }

    /// Keeps what serves now; replaces a copy that still waits to be written.
    pub(crate) fn save(&self, applier: &Applier) {
        self.is_urgent.store(true, Ordering::Relaxed);
        self.save_soon(applier);
    }

    /// The same, when only endpoints have changed: that is written now and then.
    pub(crate) fn save_soon(&self, applier: &Applier) {
        self.copies.send_replace(Some(Arc::new(Copy {
            cursor: applier.cursor().clone(),
            engine: applier.engine().clone(),
            parked: applier.held().parked().map(|(_, change)| change.clone()).collect(),
            endpoints: applier.endpoints().held(),
        })));
    }
}

async fn write(
    last_good: Arc<LastGood>,
    mut copies: watch::Receiver<Option<Arc<Copy>>>,
    is_urgent: Arc<AtomicBool>,
) {
    let mut rest_until = Instant::now();
    let mut calm_until = rest_until;
    while copies.changed().await.is_ok() {
        let is_last = rest(&mut copies, rest_until, calm_until, &is_urgent).await;
        is_urgent.store(false, Ordering::Relaxed);
        let Some(copy) = copies.borrow_and_update().clone() else { continue };
        let last_good = Arc::clone(&last_good);
        let begun = Instant::now();
        let save = move || last_good.save(&copy);
        // The last one is waited for: the process is to end.
        let saved = if is_last { tokio::task::spawn_blocking(save).await.ok() } else { behind(save).await };
        let failed = match saved {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("its thread was not had, or panicked".to_owned()),
        };
        if let Some(error) = failed {
            tracing::error!(%error, "cannot keep the configuration on disk: a restart would start from an older one");
        }
        rest_until = Instant::now() + begun.elapsed() * REST;
        calm_until = rest_until.max(Instant::now() + CALM);
        if is_last {
            return;
        }
    }
}

/// Waits so that a large configuration that changes all the time does not keep a core and a disk busy. Returns true
/// when there will be no more copies: the one that waits is to be written at once.
async fn rest(
    copies: &mut watch::Receiver<Option<Arc<Copy>>>,
    rest_until: Instant,
    calm_until: Instant,
    is_urgent: &AtomicBool,
) -> bool {
    loop {
        let until = if is_urgent.load(Ordering::Relaxed) { rest_until } else { calm_until };
        tokio::select! {
            () = sleep_until(until) => return false,
            more = copies.changed() => if more.is_err() { return true },
        }
    }
}

#[cfg(test)]
mod tests;
