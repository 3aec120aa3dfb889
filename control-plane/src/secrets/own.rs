//! Secrets of the control plane itself, which belong to no object: the key of its CA. They are sealed as those of
//! objects are, bound to what they are for.

use aes_gcm::Aes256Gcm;
use aes_gcm::aead::KeyInit as _;
use gateway_proto::identity::RootId;
use rand::RngExt as _;
use zeroize::Zeroizing;

use super::{Vault, seal, unseal};
use crate::store::identity::SealedKey;

impl Vault {
    /// Seals the private key of a CA.
    pub fn seal_authority(&self, id: &RootId, key: &[u8]) -> SealedKey {
        let data_key: Zeroizing<[u8; 32]> = Zeroizing::new(rand::rng().random());
        let cipher = Aes256Gcm::new_from_slice(&*data_key).expect("32 bytes");
        let (master, wrap) = self.sealing();
        SealedKey {
            master: *master,
            data_key: seal(wrap, &place("data key", id), &*data_key),
            value: seal(&cipher, &place("value", id), key),
        }
    }

    /// Opens the private key of a CA; `None`: it is not as it was sealed, or with a master key that is not at hand.
    pub fn open_authority(&self, id: &RootId, sealed: &SealedKey) -> Option<Zeroizing<Vec<u8>>> {
        let data_key = self.authority_data_key(id, sealed)?;
        let cipher = Aes256Gcm::new_from_slice(&data_key).ok()?;
        unseal(&cipher, &place("value", id), &sealed.value)
    }

    /// The same key under the first master key.
    pub(super) fn rewrapped_authority(&self, id: &RootId, sealed: &SealedKey) -> Option<SealedKey> {
        let data_key = self.authority_data_key(id, sealed)?;
        let (master, wrap) = self.first();
        let data_key = seal(wrap, &place("data key", id), &data_key);
        Some(SealedKey { master: *master, data_key, value: sealed.value.clone() })
    }

    fn authority_data_key(&self, id: &RootId, sealed: &SealedKey) -> Option<Zeroizing<Vec<u8>>> {
        let (_, wrap) = self.wraps.iter().find(|(known, _)| *known == sealed.master)?;
        unseal(wrap, &place("data key", id), &sealed.data_key)
    }
}

/// What a seal is bound to. No object's place begins like this: kinds are words.
fn place(what: &str, id: &RootId) -> Vec<u8> {
    [b"\0authority\0", what.as_bytes(), b"\0", id].concat()
}

#[cfg(test)]
mod tests {
    use super::super::{MasterKey, MasterKeys};
    use super::*;

    #[test]
    fn the_key_of_a_ca_opens_as_that_only_and_after_a_rewrap_with_the_new_key_only() {
        let [old, new] = [(); 2].map(|()| super::super::master::hex(&rand::random::<[u8; 32]>()));
        let keys = |lines: &[&str]| MasterKeys::parse(lines.join("\n").as_bytes()).expect("keys");
        let (before, record) = Vault::create(&keys(&[&old]));
        let id = [1; 32];
        let sealed = before.seal_authority(&id, b"private");
        assert_eq!(**before.open_authority(&id, &sealed).expect("its own"), *b"private");
        assert!(before.open_authority(&[2; 32], &sealed).is_none(), "another CA's");
        assert!(Vault::create(&MasterKey::generate().into()).0.open_authority(&id, &sealed).is_none());

        let both = Vault::unlock(&keys(&[&new, &old]), &record).expect("the old key is among them");
        let rewrapped = both.rewrapped_authority(&id, &sealed).expect("opens");
        assert_eq!(**both.open_authority(&id, &rewrapped).expect("opens"), *b"private");
        assert!(before.open_authority(&id, &rewrapped).is_none(), "the old key opens nothing");
    }
}
