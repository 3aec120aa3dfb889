//! Credentials as the planes exchange them: keys by their digests, dealt into shards, hashed so that two processes know
//! that they hold the same without comparing it. And how the text of a key is made, so that what is none is told apart
//! without asking anybody.
//!
//! A key is `gwk_`, 43 random base62 digits (256 bits) and a CRC-32 of both as six more: leaks can be scanned for, typing
//! errors found. Only the SHA-256 of a key is ever kept; a hash without salt and stretching is enough for what cannot be
//! guessed, and for nothing else, so that no other text is taken for a key.

use std::fmt;

use sha2::{Digest as _, Sha256};

use crate::buckets::BUCKETS;
use crate::digest::ItemHash;
use crate::wire;

/// How a key begins.
pub const PREFIX: &str = "gwk_";
/// Random base62 digits of a key.
pub const RANDOM_LEN: usize = 43;
/// Base62 digits of the checksum.
const CHECKSUM_LEN: usize = 6;
/// Length of a key.
pub const KEY_LEN: usize = PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN;
/// How many shards there are: as many as buckets.
pub const SHARDS: usize = BUCKETS;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The text of a key with that random part, which has [`RANDOM_LEN`] base62 digits.
pub fn key(random: &str) -> String {
    let mut text = format!("{PREFIX}{random}");
    text.extend(checksum(text.as_bytes()).map(char::from));
    text
}

/// Whether a text has the form of a key: its length, its beginning, its checksum.
pub fn is_key(text: &[u8]) -> bool {
    text.len() == KEY_LEN && text.starts_with(PREFIX.as_bytes()) && {
        let (signed, sum) = text.split_at(KEY_LEN - CHECKSUM_LEN);
        checksum(signed) == *sum
    }
}

fn checksum(text: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut rest = crc32(text);
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    digits
}

/// CRC-32 of IEEE 802.3 (as in zlib), eight bytes at a step.
fn crc32(text: &[u8]) -> u32 {
    let mut words = text.chunks_exact(8);
    let mut crc = !0;
    for word in &mut words {
        let low = crc ^ u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        let bytes = low.to_le_bytes().into_iter().chain(word[4..].iter().copied());
        crc = bytes.zip(TABLES.iter().rev()).fold(0, |sum, (byte, table)| sum ^ table[usize::from(byte)]);
    }
    let rest = words.remainder().iter();
    !rest.fold(crc, |crc, byte| (crc >> 8) ^ TABLES[0][usize::from(crc as u8 ^ byte)])
}

static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut table = 1;
        while table < 8 {
            let before = tables[table - 1][byte];
            tables[table][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            table += 1;
        }
        byte += 1;
    }
    tables
}

/// SHA-256 of a key: what it is known by everywhere.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// Of the text of a key.
    pub fn of(key: &[u8]) -> Self {
        KeyDigest(Sha256::digest(key).into())
    }

    /// From 32 bytes; `None` for any other length.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(KeyDigest)
    }

    /// From 64 hex digits; `None` for anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let digits = text.as_bytes();
        if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(digits.chunks(2)) {
            *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(KeyDigest(digest))
    }

    /// Its first eight bytes as a number.
    #[inline]
    pub const fn head(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The shard that it falls into: its first ten bits.
    #[inline]
    pub const fn shard(&self) -> usize {
        (self.head() >> (u64::BITS - SHARDS.trailing_zeros())) as usize
    }

    /// The first 16 of its hex digits: what people and upstreams know a key by. Nothing leads from it to the key.
    pub fn id(&self) -> KeyId {
        KeyId::of(self.head())
    }
}

impl fmt::Display for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 16 hex digits that name a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyId([u8; 16]);

impl KeyId {
    fn of(head: u64) -> Self {
        let mut digits = [0; 16];
        for (at, digit) in digits.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(head >> (60 - 4 * at) & 15) as usize];
        }
        KeyId(digits)
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hex digits")
    }
}

/// A key that is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The key.
    pub digest: KeyDigest,
    /// `namespace/name` of the consumer that it stands for.
    pub consumer: Box<str>,
    /// The end of its time in seconds since 1970; 0: none.
    pub expires: u32,
}

impl Grant {
    /// Its content hash: items of a shard are summed as those of a scope are (see `digest.rs`).
    pub fn hash(&self) -> ItemHash {
        hash(&self.digest, &self.consumer, self.expires)
    }
}

/// Content hash of a key that is good.
pub fn hash(digest: &KeyDigest, consumer: &str, expires: u32) -> ItemHash {
    let mut body = [0; 36];
    body[..32].copy_from_slice(&digest.0);
    body[32..].copy_from_slice(&expires.to_le_bytes());
    ItemHash::of_named(["ApiKey", "", consumer], &body)
}

/// Why a piece cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed piece of credentials")]
pub struct Malformed;

/// Grants that a piece brings, and keys that it takes away.
pub type Contents = (Vec<Grant>, Vec<KeyDigest>);

/// The contents of a piece.
///
/// # Errors
/// When its lists do not belong together.
pub fn read(chunk: &wire::CredentialsChunk) -> Result<Contents, Malformed> {
    let digests = split(&chunk.digests)?;
    let has_ends = !chunk.expires.is_empty();
    if chunk.consumer.len() != digests.len() || (has_ends && chunk.expires.len() != digests.len()) {
        return Err(Malformed);
    }
    let grant = |(at, digest): (usize, KeyDigest)| {
        let consumer = chunk.consumers.get(chunk.consumer[at] as usize).ok_or(Malformed)?;
        let expires = if has_ends { chunk.expires[at] } else { 0 };
        Ok(Grant { digest, consumer: consumer.as_str().into(), expires })
    };
    Ok((digests.into_iter().enumerate().map(grant).collect::<Result<_, _>>()?, split(&chunk.revoked)?))
}

fn split(digests: &[u8]) -> Result<Vec<KeyDigest>, Malformed> {
    digests.chunks(32).map(|bytes| KeyDigest::from_slice(bytes).ok_or(Malformed)).collect()
}

/// Fills a piece.
#[derive(Debug, Default)]
pub struct PieceBuilder {
    chunk: wire::CredentialsChunk,
    places: std::collections::HashMap<Box<str>, u32>,
    bytes: usize,
}

impl PieceBuilder {
    /// Adds a key that is good.
    pub fn grant(&mut self, digest: &KeyDigest, consumer: &str, expires: u32) {
        let chunk = &mut self.chunk;
        let place = match self.places.get(consumer) {
            Some(place) => *place,
            None => {
                let place = chunk.consumers.len() as u32;
                chunk.consumers.push(consumer.to_owned());
                self.places.insert(consumer.into(), place);
                self.bytes += consumer.len() + 2;
                place
            }
        };
        chunk.digests.extend_from_slice(&digest.0);
        chunk.consumer.push(place);
        chunk.expires.push(expires);
        self.bytes += 36;
    }

    /// Adds a key that is good no more.
    pub fn revoke(&mut self, digest: &KeyDigest) {
        self.chunk.revoked.extend_from_slice(&digest.0);
        self.bytes += 32;
    }

    /// Says that the piece holds everything of a shard.
    pub fn shard(&mut self, shard: usize) {
        self.chunk.shards.push(shard as u32);
        self.bytes += 2;
    }

    /// About how long it will be.
    pub const fn size(&self) -> usize {
        self.bytes
    }

    /// The piece.
    pub fn finish(mut self, target: wire::Cursor, last: bool) -> wire::CredentialsChunk {
        if self.chunk.expires.iter().all(|end| *end == 0) {
            self.chunk.expires.clear();
        }
        wire::CredentialsChunk { target: Some(target), last, ..self.chunk }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: &str = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

    #[test]
    fn the_checksum_is_that_of_zlib_and_finds_every_changed_digit() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc32(b""), 0);
        let text = key(RANDOM);
        assert_eq!(text.len(), KEY_LEN);
        assert!(is_key(text.as_bytes()));
        for at in 0..KEY_LEN {
            let mut typo = text.clone().into_bytes();
            typo[at] = if typo[at] == b'x' { b'y' } else { b'x' };
            assert!(!is_key(&typo), "{at}");
        }
        for other in ["", "gwk_", &text[1..], &format!("{text}0"), &text.to_lowercase()] {
            assert!(!is_key(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_digest_is_known_by_its_hex_digits_and_its_first_ten_bits() {
        let digest = KeyDigest::of(b"abc");
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((digest.to_string(), digest.id().as_str()), (hex.to_owned(), &hex[..16]));
        assert_eq!(KeyDigest::from_hex(hex), Some(digest));
        assert_eq!(digest.shard(), 0xba78 >> 6);
        for other in ["", &hex[1..], &hex.replace('b', "g"), &format!("+{}", &hex[1..])] {
            assert_eq!(KeyDigest::from_hex(other), None, "{other}");
        }
    }

    #[test]
    fn a_piece_reads_back_and_one_whose_lists_disagree_is_refused() {
        let digest = |n: u8| KeyDigest::of(&[n]);
        let mut piece = PieceBuilder::default();
        piece.grant(&digest(1), "default/alice", 0);
        piece.grant(&digest(2), "default/bob", 7);
        piece.grant(&digest(3), "default/alice", 0);
        piece.revoke(&digest(4));
        piece.shard(5);
        let chunk = piece.finish(wire::Cursor::default(), true);
        assert_eq!((chunk.consumers.len(), &*chunk.shards), (2, &[5][..]));
        let (grants, revoked) = read(&chunk).expect("sound");
        let told: Vec<_> = grants.iter().map(|it| (it.digest, &*it.consumer, it.expires)).collect();
        assert_eq!(
            told,
            [(digest(1), "default/alice", 0), (digest(2), "default/bob", 7), (digest(3), "default/alice", 0)]
        );
        assert_eq!(revoked, [digest(4)]);
        let changes: [fn(&mut wire::CredentialsChunk); 5] = [
            |it| it.digests.truncate(95),
            |it| it.consumer.truncate(2),
            |it| it.expires.truncate(2),
            |it| it.consumers.truncate(1),
            |it| it.revoked.truncate(31),
        ];
        for (at, change) in changes.into_iter().enumerate() {
            let mut broken = chunk.clone();
            change(&mut broken);
            assert_eq!(read(&broken), Err(Malformed), "{at}");
        }
    }

    #[test]
    fn a_hash_covers_everything_that_is_said_of_a_key() {
        let grant = |consumer: &str, expires| Grant {
            digest: KeyDigest::of(b"a"),
            consumer: consumer.into(),
            expires,
        };
        let hash = grant("default/a", 1).hash();
        assert_ne!(hash, grant("default/b", 1).hash());
        assert_ne!(hash, grant("default/a", 2).hash());
        assert_ne!(hash, Grant { digest: KeyDigest::of(b"b"), ..grant("default/a", 1) }.hash());
    }
}
