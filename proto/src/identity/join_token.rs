//! A join token as it is written: `gwj_`, 43 random base62 digits (256 bits), the SHA-256 of the CA's certificate in
//! hexadecimal, and a 6-digit checksum. The checksum tells a mistyped one from a used-up one without asking anybody;
//! the hash tells a data plane, before it has said a word, that it talks to the control plane that made the token.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::RootId;
use crate::digest::checksum;

const PREFIX: &str = "gwj_";
/// Random base62 digits: 43 × 5.95 bits = 256 bits.
const SECRET: usize = 43;
const HASH: usize = 64;
const CHECKSUM: usize = 6;

/// A join token. `Debug` hides it; [`JoinToken::reveal`] is for where it is shown or sent.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    text: String,
    root: RootId,
}

/// Why a text is no join token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JoinTokenFault {
    /// Something else altogether.
    #[error("it is no join token: expected gwj_..., as `gatewayctl join-token create` prints it")]
    Foreign,
    /// It starts like one, but is not as it was made.
    #[error("its checksum is wrong: copy it whole, without quotes or line breaks")]
    Checksum,
}

impl JoinToken {
    /// Random digits that a token is made with.
    pub const SECRET_DIGITS: usize = SECRET;

    /// Of [`JoinToken::SECRET_DIGITS`] random base62 digits and a CA.
    pub fn compose(secret: &str, root: &RootId) -> Self {
        let mut text = format!("{PREFIX}{secret}");
        root.iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        let checksum = checksum(&text);
        text.push_str(&checksum);
        JoinToken { text, root: *root }
    }

    /// Reads one.
    ///
    /// # Errors
    /// [`JoinTokenFault`], which says nothing of what stands there.
    pub fn parse(text: &str) -> Result<Self, JoinTokenFault> {
        let body = text.strip_prefix(PREFIX).ok_or(JoinTokenFault::Foreign)?;
        if body.len() != SECRET + HASH + CHECKSUM || !body.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(JoinTokenFault::Checksum);
        }
        let (signed, given) = text.split_at(text.len() - CHECKSUM);
        if checksum(signed) != given {
            return Err(JoinTokenFault::Checksum);
        }
        let mut root = [0; 32];
        for (byte, digits) in root.iter_mut().zip(body.as_bytes()[SECRET..SECRET + HASH].chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| JoinTokenFault::Checksum)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| JoinTokenFault::Checksum)?;
        }
        Ok(JoinToken { text: text.to_owned(), root })
    }

    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// The CA of the control plane that made it.
    pub const fn root(&self) -> &RootId {
        &self.root
    }

    /// SHA-256: what is stored and looked for.
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_its_ca_and_is_told_from_anything_else() {
        let root = crate::identity::root_id(b"a certificate");
        let token = JoinToken::compose(&"x".repeat(SECRET), &root);
        assert_eq!(token.reveal().len(), 117);
        let read = JoinToken::parse(token.reveal()).expect("as it was made");
        assert_eq!((read.root(), read.digest()), (&root, token.digest()));
        assert!(!format!("{read:?}").contains("xxx"));
        let text = token.reveal();
        let other = JoinToken::compose(&"y".repeat(SECRET), &root);
        assert_ne!(other.digest(), token.digest());
        let typo = text.replacen('x', "z", 1);
        let spaced = text.replacen('x', " ", 1);
        for (none, fault) in [
            ("", JoinTokenFault::Foreign),
            ("gwa_0123", JoinTokenFault::Foreign),
            ("gwj_", JoinTokenFault::Checksum),
            (&text[..116], JoinTokenFault::Checksum),
            (&typo, JoinTokenFault::Checksum),
            (&spaced, JoinTokenFault::Checksum),
            (&format!("{text}0"), JoinTokenFault::Checksum),
        ] {
            assert_eq!(JoinToken::parse(none), Err(fault), "{none}");
        }
    }
}
