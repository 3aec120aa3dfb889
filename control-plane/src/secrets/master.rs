//! The master key: where it comes from, and whether it is the one that this store is sealed with. Without it nothing
//! that is sealed can be read; it is never written anywhere but into the file it is read from.
//!
//! A file may hold several, one a line: while a key is being replaced, the new one stands first and the old one after
//! it. See [`super::rewrap`].

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
use crate::store::{self, MasterId, Store, StoreError};

/// Name of the file that is made when none is given, in the state directory.
const FILE: &str = "master-key";
/// A file with more than this holds no keys, whatever it is.
const MAX_FILE_BYTES: u64 = 4096;

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
        "{path} holds no master key: expected 64 hex digits a line, as `openssl rand -hex 32` makes them, the key in use first",
        path = .0.display()
    )]
    Malformed(PathBuf),
    /// The store is sealed with another.
    #[error(
        "the master key in {path} (id {given}) is not the one that the store's secrets are sealed with (id {store}): name the right file with --master-key-file; to replace a key, put the old one in a line below the new one",
        path = path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Which keys it holds.
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

/// A key that secrets of a store are sealed with, in the end.
pub struct MasterKey(Zeroizing<[u8; 32]>);

/// The master keys of a file: one, or while it is being replaced the new one and those before it. Never empty.
pub struct MasterKeys(Vec<MasterKey>);

impl MasterKeys {
    /// 64 hex digits a line, the key in use first; empty lines and `#` comments do not count.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = lines.filter(|line| !line.is_empty() && line[0] != b'#');
        let keys: Vec<_> = lines.map(|line| from_hex(line).map(MasterKey)).collect::<Option<_>>()?;
        (!keys.is_empty()).then_some(MasterKeys(keys))
    }

    /// The key in use, or to be used from now on.
    pub(super) fn first(&self) -> &MasterKey {
        &self.0[0]
    }

    /// The key in use first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &MasterKey> {
        self.0.iter()
    }

    fn ids(&self) -> String {
        self.iter().map(|key| hex(&key.id())).collect::<Vec<_>>().join(", ")
    }
}

impl From<MasterKey> for MasterKeys {
    fn from(key: MasterKey) -> Self {
        MasterKeys(vec![key])
    }
}

impl MasterKey {
    /// A new random one.
    pub fn generate() -> Self {
        MasterKey(Zeroizing::new(rand::rng().random()))
    }

    /// Tells keys apart, and says nothing about this one.
    pub(super) fn id(&self) -> MasterId {
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

/// The vault of a store, with the keys of a file, or with one in the state directory that is made with the store.
///
/// # Errors
/// [`MasterKeyError`]
pub async fn open(
    given: Option<&Path>,
    state: &StateDir,
    store: &dyn Store,
) -> Result<Vault, MasterKeyError> {
    let path = given.map_or_else(|| state.path().join(FILE), Path::to_owned);
    let parse =
        |content: &[u8]| MasterKeys::parse(content).ok_or_else(|| MasterKeyError::Malformed(path.clone()));
    let keys = match given {
        Some(path) => Some(parse(&read(path)?)?),
        None => state.read_secret(FILE)?.map(|text| parse(text.as_bytes())).transpose()?,
    };
    let known = store.master().await?;
    let keys = match (keys, &known) {
        (Some(keys), _) => keys,
        (None, Some(record)) => return Err(MasterKeyError::Missing { path, store: hex(&record.id) }),
        (None, None) => {
            let key = MasterKey::generate();
            let path = state.write_secret(FILE, &Zeroizing::new(hex(&*key.0)))?;
            tracing::info!(path = %path.display(), "made the master key: secrets are lost without it, keep a copy apart from the store's");
            key.into()
        }
    };
    let record = match known {
        Some(record) => record,
        // Of several replicas that start at once on a new store, one record is kept.
        None => store.create_master(Vault::create(&keys).1).await?,
    };
    let wrong = || MasterKeyError::Wrong { path, given: keys.ids(), store: hex(&record.id) };
    let vault = Vault::unlock(&keys, &record).ok_or_else(wrong)?;
    if record.id != keys.first().id() {
        tracing::warn!(
            sealed_with = hex(&record.id),
            first = hex(&keys.first().id()),
            "the store's secrets are still sealed with an older master key: run `gatewayctl secrets rewrap` once every replica has the new one"
        );
    }
    Ok(vault)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, MasterKeyError> {
    let unreadable = |source| MasterKeyError::Unreadable { path: path.to_owned(), source };
    let mut content = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > MAX_FILE_BYTES {
        return Err(MasterKeyError::Malformed(path.to_owned()));
    }
    Ok(content)
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
