//! Content hashes: how two processes know that they hold the same thing without comparing it.
//! An item hash covers kind, name and canonical body; a root hash is the wrapping 128-bit sum of the item hashes
//! in a scope, so that a change updates it in constant time and order does not matter.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::kind::Key;

/// First 16 bytes of SHA-256 over `kind NUL namespace NUL name NUL body`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemHash(pub [u8; 16]);

impl ItemHash {
    /// Hash of an object's canonical encoding.
    pub fn of(key: &Key, body: &[u8]) -> Self {
        ItemHash::of_named([key.kind.as_str(), &key.namespace, &key.name], body)
    }

    /// The same for an object whose kind this version need not know: kind, namespace and name.
    pub fn of_named(name: [&str; 3], body: &[u8]) -> Self {
        let mut sha = Sha256::new();
        for part in name {
            sha.update(part.as_bytes());
            sha.update([0]);
        }
        sha.update(body);
        let full = sha.finalize();
        let mut hash = [0; 16];
        hash.copy_from_slice(&full[..16]);
        ItemHash(hash)
    }

    /// From 16 bytes on the wire or in the store; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(ItemHash)
    }
}

impl fmt::Debug for ItemHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ItemHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Sum of the item hashes of everything in a scope. The empty scope is zero.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RootHash(u128);

impl RootHash {
    /// With one more item.
    #[must_use]
    pub const fn plus(self, item: ItemHash) -> Self {
        RootHash(self.0.wrapping_add(u128::from_le_bytes(item.0)))
    }

    /// With one item less.
    #[must_use]
    pub const fn minus(self, item: ItemHash) -> Self {
        RootHash(self.0.wrapping_sub(u128::from_le_bytes(item.0)))
    }

    /// Its lower 64 bits: enough to tell that two ends that already trust each other speak of the same content.
    pub const fn low(self) -> u64 {
        self.0 as u64
    }

    /// Of two scopes that have nothing in common.
    #[must_use]
    pub const fn joined(self, other: RootHash) -> Self {
        RootHash(self.0.wrapping_add(other.0))
    }

    /// As it goes over the wire and into the store: little endian.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_le_bytes()
    }

    /// From 16 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(|bytes| RootHash(u128::from_le_bytes(bytes)))
    }
}

impl FromIterator<ItemHash> for RootHash {
    fn from_iter<I: IntoIterator<Item = ItemHash>>(items: I) -> Self {
        items.into_iter().fold(RootHash::default(), RootHash::plus)
    }
}

impl fmt::Debug for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for RootHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Six base62 digits of the first 32 bits of a text's SHA-256: guards a token against typing and truncation, not
/// against people.
pub fn checksum(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let full = Sha256::digest(text.as_bytes());
    let mut rest = u32::from_be_bytes([full[0], full[1], full[2], full[3]]);
    let mut out = [b'0'; 6];
    for digit in out.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    out.iter().map(|digit| char::from(*digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;

    #[test]
    fn a_root_hash_does_not_depend_on_order_and_forgets_what_is_taken_away() {
        let item = |name: &str| ItemHash::of(&Key::new(Kind::Route, "default", name), b"body");
        let (a, b, c) = (item("a"), item("b"), item("c"));
        let abc: RootHash = [a, b, c].into_iter().collect();
        assert_eq!(abc, [c, a, b].into_iter().collect());
        assert_eq!(abc.minus(b), [a, c].into_iter().collect());
        assert_eq!(RootHash::from_slice(&abc.to_bytes()), Some(abc));
    }

    #[test]
    fn names_and_body_cannot_be_confused() {
        let one = ItemHash::of(&Key::new(Kind::Route, "a", "bc"), b"");
        let two = ItemHash::of(&Key::new(Kind::Route, "ab", "c"), b"");
        assert_ne!(one, two);
    }
}
