//! The text of a token: how it is made, recognised and hashed. Nothing here ever prints one.

use std::fmt;

use gateway_proto::digest::checksum;
use rand::distr::{Alphanumeric, SampleString as _};
use sha2::{Digest as _, Sha256};

/// Marks a token as ours, for people and for secret scanners.
const PREFIX: &str = "gwa_";
/// Random base62 digits: 43 × 5.95 bits = 256 bits.
const RANDOM_LEN: usize = 43;
/// Base62 digits of a 32-bit checksum.
const CHECKSUM_LEN: usize = 6;
/// A secret that somebody else made (`--admin-token-file`) has to be at least so long: a hash without salt and
/// stretching protects only what cannot be guessed.
pub(super) const MIN_FOREIGN_LEN: usize = 32;
/// Longer strings are not even hashed.
pub(super) const MAX_LEN: usize = 512;

/// A token's secret. `Debug` hides it; [`Secret::reveal`] is for the one place that shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A new random one.
    pub fn generate() -> Self {
        let mut text = String::with_capacity(PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN);
        text.push_str(PREFIX);
        Alphanumeric.append_string(&mut rand::rng(), &mut text, RANDOM_LEN);
        let checksum = checksum(&text);
        text.push_str(&checksum);
        Secret(text)
    }

    /// Takes a secret as somebody wrote it, if it can be a token.
    ///
    /// # Errors
    /// When it has our prefix and a wrong checksum, is too short to be safe, or holds anything but visible ASCII.
    pub fn parse(text: &str) -> Result<Self, SecretFault> {
        check(text)?;
        Ok(Secret(text.to_owned()))
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256: what is stored and compared.
    pub fn digest(&self) -> [u8; 32] {
        digest(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// Why a string cannot be a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SecretFault {
    /// It starts like one of ours, but is not as it was made.
    #[error("its checksum is wrong")]
    Checksum,
    /// Too short to be safe.
    #[error("it has fewer than {MIN_FOREIGN_LEN} characters")]
    Short,
    /// Too long.
    #[error("it has more than {MAX_LEN} characters")]
    Long,
    /// Spaces, control characters or non-ASCII.
    #[error("it holds a character that is not visible ASCII")]
    Characters,
}

/// True: it was made by [`Secret::generate`]; false: it may be a secret that somebody else made.
pub(super) fn check(text: &str) -> Result<bool, SecretFault> {
    if text.len() > MAX_LEN {
        return Err(SecretFault::Long);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(SecretFault::Characters);
    }
    if !text.starts_with(PREFIX) {
        return if text.len() < MIN_FOREIGN_LEN { Err(SecretFault::Short) } else { Ok(false) };
    }
    if text.len() != PREFIX.len() + RANDOM_LEN + CHECKSUM_LEN {
        return Err(SecretFault::Checksum);
    }
    let (random, given) = text.split_at(PREFIX.len() + RANDOM_LEN);
    if checksum(random) == given { Ok(true) } else { Err(SecretFault::Checksum) }
}

pub(super) fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_secret_is_recognised_and_no_two_are_equal() {
        let (one, two) = (Secret::generate(), Secret::generate());
        assert_eq!(check(one.reveal()), Ok(true));
        assert_eq!(one.reveal().len(), 53);
        assert_ne!(one, two);
        assert_ne!(one.digest(), two.digest());
        assert_eq!(Secret::parse(one.reveal()), Ok(one));
    }

    #[test]
    fn what_cannot_be_a_token_is_told_apart() {
        let good = Secret::generate();
        let mut typo = good.reveal().to_owned().into_bytes();
        typo[20] = if typo[20] == b'a' { b'b' } else { b'a' };
        let typo = String::from_utf8(typo).expect("ascii");
        let cases = [
            (typo.as_str(), Err(SecretFault::Checksum)),
            (&good.reveal()[..52], Err(SecretFault::Checksum)),
            ("gwa_", Err(SecretFault::Checksum)),
            ("", Err(SecretFault::Short)),
            ("0123456789abcdef0123456789abcde", Err(SecretFault::Short)),
            ("0123456789abcdef0123456789abcdef", Ok(false)),
            ("0123456789abcdef 0123456789abcdef", Err(SecretFault::Characters)),
            ("0123456789abcdéf0123456789abcdef", Err(SecretFault::Characters)),
            (&"x".repeat(513), Err(SecretFault::Long)),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected, "{text:?}");
        }
    }

    #[test]
    fn debug_output_never_shows_the_secret() {
        let secret = Secret::generate();
        assert_eq!(format!("{secret:?}"), "Secret(***)");
    }
}
