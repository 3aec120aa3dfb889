//! Text: a key of a [`Map`](super::Map) as bytes. Short ones lie inline, so that comparing them touches no other
//! memory; long ones are shared, so that copying a shard copies no text.

use std::sync::Arc;

/// Longest text that lies inline: most hosts and path patterns are shorter.
const INLINE: usize = 30;

/// A short text inline, a long one shared.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// So many of the bytes.
    Inline(u8, [u8; INLINE]),
    /// All of them.
    Long(Arc<[u8]>),
}

impl Text {
    /// The bytes.
    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Text::Inline(length, bytes) => &bytes[..usize::from(*length)],
            Text::Long(bytes) => bytes,
        }
    }
}

impl Default for Text {
    fn default() -> Self {
        Text::Inline(0, [0; INLINE])
    }
}

impl From<&[u8]> for Text {
    fn from(text: &[u8]) -> Self {
        if text.len() > INLINE {
            return Text::Long(text.into());
        }
        let mut bytes = [0; INLINE];
        bytes[..text.len()].copy_from_slice(text);
        Text::Inline(text.len() as u8, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_of_any_length_is_kept() {
        for length in [0, 1, INLINE - 1, INLINE, INLINE + 1, 255] {
            let text: Vec<u8> = (0..length).map(|at| at as u8).collect();
            assert_eq!(Text::from(&*text).bytes(), text);
        }
        assert_eq!(size_of::<Text>(), 32);
    }
}
