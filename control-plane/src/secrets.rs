//! Secrets at rest. In the place of a secret an object's body holds a [`Reference`]; the value lies beside it in a
//! record that only the master key opens: encrypted (AES-256-GCM) with a data key of its own, which is encrypted with a
//! key derived from the master key. Both are bound to object, field and revision, so that a record that was moved
//! does not open.
//!
//! A reference also carries an HMAC, which tells without opening anything whether a value is the stored one. Its key
//! is random, made with the store and sealed like a data key: another master key does not change a single body, and
//! replacing it ([`rewrap`]) encrypts data keys anew and nothing else.
//! Invariant: what leaves this module is sealed, or in a buffer that is wiped when it is dropped.

mod dumped;
mod master;
mod own;
mod rewrap;

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Nonce};
use gateway_proto::kind::{Key, Resource};
use gateway_proto::secret::{SEALED, Secrets};
use hmac::{Hmac, Mac as _};
use rand::RngExt as _;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::store::{MasterId, MasterRecord, SecretId, SecretRecord, Store, StoreError};
pub use dumped::dump;
pub use master::{MasterKey, MasterKeyError, MasterKeys, check, open};
pub use rewrap::{Rewrapped, rewrap};

const NONCE: usize = 12;
/// What AES-GCM adds to what it encrypts.
const OVERHEAD: usize = 16;

/// Tells whether two values of one secret are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; 32]);

/// What stands in a body in the place of a secret: `sealed:REVISION:TAG`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The revision that brought the value.
    pub revision: u64,
    /// Of the value.
    pub tag: Tag,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEALED}{}:", self.revision)?;
        self.tag.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Reference {
    type Err = NoReference;

    fn from_str(text: &str) -> Result<Self, NoReference> {
        let (revision, digits) =
            text.strip_prefix(SEALED).and_then(|rest| rest.split_once(':')).ok_or(NoReference)?;
        let tag = master::from_hex(digits.as_bytes()).ok_or(NoReference)?;
        Ok(Reference { revision: revision.parse().map_err(|_| NoReference)?, tag: Tag(*tag) })
    }
}

/// A text that is no [`Reference`]; it may be a secret, and is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no reference to a sealed value")]
pub struct NoReference;

/// Why a stored secret cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The body, the record or its seal is not as it was made: the store was changed by hand.
    #[error("{key}: {field}: the stored secret cannot be opened: {why}")]
    Damaged {
        /// The object.
        key: Key,
        /// The secret's path.
        field: String,
        /// What is wrong.
        why: &'static str,
    },
    /// The store's secrets are now sealed with a master key that this process was not given.
    #[error(
        "the store's secrets are now sealed with another master key (id {}), which this replica was not given: add it to its --master-key-file",
        master::hex(.0)
    )]
    UnknownMaster(MasterId),
    /// The key of the control plane's own CA is not as it was made.
    #[error("the key of the control plane's CA {} cannot be opened: its seal is broken", master::hex(.0))]
    Authority(gateway_proto::identity::RootId),
    /// Another rewrap, to another master key, began meanwhile.
    #[error(
        "another rewrap began meanwhile: give every replica the same --master-key-file, then run it again"
    )]
    Overtaken,
}

/// Seals and opens.
pub struct Vault {
    /// What encrypts data keys, by the master key it comes from, in the order of the file.
    wraps: Vec<(MasterId, Aes256Gcm)>,
    /// Which of them seals: the one that the store names.
    sealing: AtomicUsize,
    tags: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", master::hex(&self.sealing().0))
    }
}

impl Vault {
    /// For a store that has none: with what it has to keep.
    pub fn create(keys: &MasterKeys) -> (Self, MasterRecord) {
        let vault = Vault::with(keys, Zeroizing::new(rand::rng().random()));
        let record = vault.record(vault.first());
        (vault, record)
    }

    /// For a store that has one; `None`: it is sealed with a master key that is not among these.
    pub fn unlock(keys: &MasterKeys, record: &MasterRecord) -> Option<Self> {
        let mut vault = Vault::with(keys, Zeroizing::default());
        vault.follow(record).ok()?;
        let tags = unseal(&vault.sealing().1, &tag_key_place(record.id), &record.tag_key)?;
        vault.tags = Zeroizing::new(tags.as_slice().try_into().ok()?);
        Some(vault)
    }

    fn with(keys: &MasterKeys, tags: Zeroizing<[u8; 32]>) -> Self {
        let wraps = keys.iter().map(|key| (key.id(), key.wrap())).collect();
        Vault { wraps, sealing: AtomicUsize::new(0), tags }
    }

    fn first(&self) -> &(MasterId, Aes256Gcm) {
        &self.wraps[0]
    }

    fn sealing(&self) -> &(MasterId, Aes256Gcm) {
        &self.wraps[self.sealing.load(Ordering::Relaxed)]
    }

    /// What the store keeps of a master key.
    fn record(&self, (id, wrap): &(MasterId, Aes256Gcm)) -> MasterRecord {
        MasterRecord { id: *id, tag_key: seal(wrap, &tag_key_place(*id), &*self.tags) }
    }

    /// Seals with the master key that the store names from now on.
    ///
    /// # Errors
    /// [`SecretError::UnknownMaster`]
    pub fn follow(&self, record: &MasterRecord) -> Result<(), SecretError> {
        let at = self.wraps.iter().position(|(id, _)| *id == record.id);
        let at = at.ok_or(SecretError::UnknownMaster(record.id))?;
        self.sealing.store(at, Ordering::Relaxed);
        Ok(())
    }

    /// Tells a value of a secret from any other.
    pub fn tag(&self, key: &Key, field: &str, value: &str) -> Tag {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.tags).expect("HMAC takes keys of any length");
        for part in [key.kind.as_str(), &key.namespace, &key.name, field, value] {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Tag(mac.finalize().into_bytes().into())
    }

    /// Seals a value.
    pub fn seal(&self, id: SecretId, value: &str) -> SecretRecord {
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
        let cipher = Aes256Gcm::new_from_slice(&*data_key).expect("32 bytes");
        let (master, wrap) = self.sealing();
        SecretRecord {
            master: *master,
            data_key: seal(wrap, &place("data key", &id), &*data_key),
            value: seal(&cipher, &place("value", &id), value.as_bytes()),
            id,
        }
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// [`SecretError::Damaged`].
    pub fn open(&self, record: &SecretRecord) -> Result<Zeroizing<String>, SecretError> {
        let data_key = self.data_key(record)?;
        let open = || {
            let cipher = Aes256Gcm::new_from_slice(&data_key).ok()?;
            let mut value = unseal(&cipher, &place("value", &record.id), &record.value)?;
            String::from_utf8(std::mem::take(&mut *value)).ok().map(Zeroizing::new)
        };
        open().ok_or_else(|| broken_seal(&record.id))
    }

    fn data_key(&self, record: &SecretRecord) -> Result<Zeroizing<Vec<u8>>, SecretError> {
        let known = self.wraps.iter().find(|(id, _)| *id == record.master);
        let (_, wrap) = known
            .ok_or_else(|| damaged(&record.id, "it was sealed with a master key that is not at hand"))?;
        unseal(wrap, &place("data key", &record.id), &record.data_key).ok_or_else(|| broken_seal(&record.id))
    }

    /// The same value under the first master key.
    fn rewrapped(&self, record: SecretRecord) -> Result<SecretRecord, SecretError> {
        let data_key = self.data_key(&record)?;
        let (master, wrap) = self.first();
        let data_key = seal(wrap, &place("data key", &record.id), &data_key);
        Ok(SecretRecord { master: *master, data_key, ..record })
    }

    /// The values behind the references of objects as they are stored; objects without secrets are not in it.
    ///
    /// # Errors
    /// [`SecretError`]: one of them cannot be had.
    pub async fn values(
        &self,
        store: &dyn Store,
        wanted: Vec<SecretId>,
    ) -> Result<HashMap<Key, Secrets>, SecretError> {
        if wanted.is_empty() {
            return Ok(HashMap::new());
        }
        let mut values: HashMap<Key, Vec<(String, Zeroizing<String>)>> = HashMap::new();
        let mut missing: std::collections::HashSet<SecretId> = wanted.iter().cloned().collect();
        for record in store.secrets(wanted).await? {
            let value = self.open(&record)?;
            missing.remove(&record.id);
            values.entry(record.id.key).or_default().push((record.id.field, value));
        }
        match missing.into_iter().next() {
            Some(id) => Err(damaged(&id, "it is not there")),
            None => Ok(values.into_iter().map(|(key, values)| (key, Secrets::new(values))).collect()),
        }
    }
}

/// The sealed values that an object as it is stored refers to.
///
/// # Errors
/// When something else stands in their place.
pub fn references(resource: &mut Resource) -> Result<Vec<SecretId>, SecretError> {
    let key = resource.key();
    let set = resource.secrets_mut().into_iter().filter(|(_, text)| !text.is_empty());
    set.map(|(field, text)| {
        let id = |revision| SecretId { key: key.clone(), field, revision };
        match text.parse::<Reference>() {
            Ok(reference) => Ok(id(reference.revision)),
            Err(NoReference) => Err(damaged(&id(0), "the object holds no reference to it")),
        }
    })
    .collect()
}

/// A master key's id as people see it.
pub fn shown(id: MasterId) -> String {
    master::hex(&id)
}

fn damaged(id: &SecretId, why: &'static str) -> SecretError {
    SecretError::Damaged { key: id.key.clone(), field: id.field.clone(), why }
}

fn broken_seal(id: &SecretId) -> SecretError {
    damaged(id, "its seal is broken")
}

fn tag_key_place(id: MasterId) -> Vec<u8> {
    [b"tag key\0", &id[..]].concat()
}

/// What a seal is bound to.
fn place(what: &str, id: &SecretId) -> Vec<u8> {
    let SecretId { key, field, revision } = id;
    let texts = [what, key.kind.as_str(), &key.namespace, &key.name, field];
    let mut place = Vec::new();
    for text in texts {
        place.extend_from_slice(text.as_bytes());
        place.push(0);
    }
    place.extend_from_slice(&revision.to_be_bytes());
    place
}

/// A fresh nonce, then the encrypted text.
fn seal(cipher: &Aes256Gcm, place: &[u8], text: &[u8]) -> Vec<u8> {
    let nonce: [u8; NONCE] = rand::rng().random();
    // With room for the rest, so that no copy in the clear is left behind by growing.
    let mut buffer = Vec::with_capacity(text.len() + OVERHEAD);
    buffer.extend_from_slice(text);
    cipher
        .encrypt_in_place(&Nonce::from(nonce), place, &mut buffer)
        .expect("far below the 64 GiB that AES-GCM takes");
    [&nonce[..], &buffer[..]].concat()
}

fn unseal(cipher: &Aes256Gcm, place: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, text) = sealed.split_at_checked(NONCE)?;
    let nonce: [u8; NONCE] = nonce.try_into().ok()?;
    let mut buffer = Zeroizing::new(text.to_vec());
    cipher.decrypt_in_place(&Nonce::from(nonce), place, &mut *buffer).ok()?;
    Some(buffer)
}

#[cfg(test)]
mod tests;
