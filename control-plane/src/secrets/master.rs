//! The master key: where it comes from, and whether it is the one that this store was made with. Without it nothing
//! that is sealed can be read; it is never written anywhere but into the file it is read from.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::KeyInit as _;
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Vault;
use crate::state_dir::{StateDir, StateDirError};
use crate::store::{self, Store, StoreError};

/// Name of the file that is made when none is given, in the state directory.
const FILE: &str = "master-key";
/// A file with more than this is no key, whatever it is.
const MAX_FILE_BYTES: u64 = 256;

/// Why there is no master key to work with.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// Several replicas need the same one: it cannot be made on the spot.
    #[error(
        "on PostgreSQL a master key has to be given, the same for every replica: --master-key-file FILE, made with `openssl rand -hex 32`"
    )]
    Required,
    /// The file cannot be read.
    #[error("cannot read the master key {path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file holds no key.
    #[error(
        "{path} holds no master key: expected 32 bytes or 64 hex digits, as `openssl rand -hex 32` makes them",
        path = .0.display()
    )]
    Malformed(PathBuf),
    /// The store was made with another.
    #[error(
        "the master key in {path} (id {given}) is not the one that the store's secrets are sealed with (id {store}): name the right file with --master-key-file",
        path = path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which key it holds.
        given: String,
        /// Which key is needed.
        store: String,
    },
    /// The store has secrets, the state directory has no key.
    #[error(
        "the store's secrets are sealed with a master key (id {store}) that is not in {path}: put it back, or name its file with --master-key-file",
        path = path.display()
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
        /// Which key is needed.
        store: String,
    },
    /// The state directory fails.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The key that all secrets of a store are sealed with, in the end.
pub struct MasterKey(Zeroizing<[u8; 32]>);

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        MasterKey(Zeroizing::new(rand::rng().random()))
    }

    /// 32 bytes as they are, or in hex with white space around.
    pub fn parse(content: &[u8]) -> Option<Self> {
        match <[u8; 32]>::try_from(content) {
            Ok(raw) => Some(MasterKey(Zeroizing::new(raw))),
            Err(_) => from_hex(content.trim_ascii()).map(MasterKey),
        }
    }

    /// Tells keys apart, and says nothing about this one.
    pub(super) fn id(&self) -> [u8; 8] {
        *self.derived(b"gateway/v1 master key id").first_chunk().expect("32 bytes are more than 8")
    }

    /// What encrypts data keys.
    pub(super) fn wrap(&self) -> Aes256Gcm {
        Aes256Gcm::new_from_slice(&*self.derived(b"gateway/v1 data keys")).expect("32 bytes")
    }

    fn derived(&self, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
        let mac = Hmac::<Sha256>::new_from_slice(&*self.0).expect("HMAC takes keys of any length");
        Zeroizing::new(mac.chain_update(purpose).finalize().into_bytes().into())
    }
}

/// Refuses early what can be known before the store is touched.
///
/// # Errors
/// [`MasterKeyError::Required`]
pub fn check(given: Option<&Path>, database_url: &str) -> Result<(), MasterKeyError> {
    if given.is_none() && store::is_shared(database_url) { Err(MasterKeyError::Required) } else { Ok(()) }
}

/// The vault of a store, with the key of a file, or with one in the state directory that is made with the store.
///
/// # Errors
/// [`MasterKeyError`]
pub async fn open(
    given: Option<&Path>,
    state: &StateDir,
    store: &dyn Store,
) -> Result<Vault, MasterKeyError> {
    let path = given.map_or_else(|| state.path().join(FILE), Path::to_owned);
    let key = match given {
        Some(path) => Some(read(path)?),
        None => state
            .read_secret(FILE)?
            .map(|text| {
                MasterKey::parse(text.as_bytes()).ok_or_else(|| MasterKeyError::Malformed(path.clone()))
            })
            .transpose()?,
    };
    let known = store.master().await?;
    let key = match (key, &known) {
        (Some(key), _) => key,
        (None, Some(record)) => return Err(MasterKeyError::Missing { path, store: hex(&record.id) }),
        (None, None) => {
            let key = MasterKey::generate();
            let path = state.write_secret(FILE, &Zeroizing::new(hex(&*key.0)))?;
            tracing::info!(path = %path.display(), "made the master key: secrets are lost without it, keep a copy apart from the store's");
            key
        }
    };
    let record = match known {
        Some(record) => record,
        // Of several replicas that start at once on a new store, one record is kept.
        None => store.create_master(Vault::create(&key).1).await?,
    };
    let wrong = || MasterKeyError::Wrong { path, given: hex(&key.id()), store: hex(&record.id) };
    Vault::unlock(&key, &record).ok_or_else(wrong)
}

fn read(path: &Path) -> Result<MasterKey, MasterKeyError> {
    let unreadable = |source| MasterKeyError::Unreadable { path: path.to_owned(), source };
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    MasterKey::parse(&content).ok_or_else(|| MasterKeyError::Malformed(path.to_owned()))
}

/// Lower-case hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from 64 hex digits.
pub(super) fn from_hex(digits: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0; 32]);
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
