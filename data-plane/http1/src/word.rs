//! Eight bytes at a time: the searches that every head goes through, on plain integers and without unsafe code.
//!
//! A search marks a byte by setting the top bit of its place. Marks above the lowest one may be false (a borrow runs
//! into them), so only the lowest counts, and "no mark" is exact.

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = ONES * 0x80;

/// Marks the bytes below SP, HTAB among them, and DEL.
pub(crate) const fn controls(word: u64) -> u64 {
    // A bound that is taken away borrows from a byte's top bit, unless it was set: then the byte is 0x80 or above.
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    (below_space | zeros(word ^ (ONES * 0x7f))) & TOPS
}

/// Marks the bytes that are `byte`.
pub(crate) const fn equals(word: u64, byte: u8) -> u64 {
    zeros(word ^ (ONES * byte as u64)) & TOPS
}

const fn zeros(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word
}

/// Where `byte` comes first.
#[inline]
pub(crate) fn find(text: &[u8], byte: u8) -> Option<usize> {
    let (words, rest) = text.as_chunks();
    for (place, word) in words.iter().enumerate() {
        let marks = equals(u64::from_le_bytes(*word), byte);
        if marks != 0 {
            return Some(place * 8 + lowest(marks));
        }
    }
    rest.iter().position(|&b| b == byte).map(|place| words.len() * 8 + place)
}

/// Where the first control byte other than HTAB is: the end of a field value.
#[inline]
pub(crate) fn find_control(text: &[u8]) -> Option<usize> {
    let (words, rest) = text.as_chunks();
    for (place, word) in words.iter().enumerate() {
        let marks = controls(u64::from_le_bytes(*word));
        if marks != 0 {
            let at = place * 8 + lowest(marks);
            return if word[lowest(marks)] == b'\t' { find_after_tab(text, at) } else { Some(at) };
        }
    }
    rest.iter().position(|&b| is_control(b)).map(|place| words.len() * 8 + place)
}

/// The same from a HTAB on, which is rare enough to go byte by byte.
#[cold]
fn find_after_tab(text: &[u8], tab: usize) -> Option<usize> {
    text[tab..].iter().position(|&b| is_control(b)).map(|place| tab + place)
}

/// A control byte other than HTAB (RFC 9110 §5.5).
pub(crate) const fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

const fn lowest(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn searches_find_what_a_look_at_each_byte_finds() {
        // Every byte at every place of a word and behind it, between neighbours that could disturb the marks.
        for byte in 0..=u8::MAX {
            for around in [b'a', 0x00, 0x1f, 0x20, 0x7e, 0x7f, 0x80, 0xff, b'\t', b':'] {
                for place in 0..20 {
                    let mut text = [around; 20];
                    text[place] = byte;
                    for from in 0..=20 {
                        let text = &text[from..];
                        let slow = |is: &dyn Fn(u8) -> bool| text.iter().position(|&b| is(b));
                        assert_eq!(find(text, b':'), slow(&|b| b == b':'), "{text:?}");
                        assert_eq!(find_control(text), slow(&is_control), "{text:?}");
                    }
                }
            }
        }
    }
}
