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

/// The eight bytes at `at`, the first in the lowest place.
#[inline]
pub(crate) fn at(text: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*text.get(at..)?.first_chunk()?))
}

/// Where `byte` comes first from `from` on.
#[inline]
pub(crate) fn find(text: &[u8], mut from: usize, byte: u8) -> Option<usize> {
    while let Some(word) = at(text, from) {
        let marks = equals(word, byte);
        if marks != 0 {
            return Some(from + lowest(marks));
        }
        from += 8;
    }
    text.get(from..)?.iter().position(|&b| b == byte).map(|place| from + place)
}

/// Where the first control byte other than HTAB is from `from` on: the end of a field value.
#[inline]
pub(crate) fn find_control(text: &[u8], mut from: usize) -> Option<usize> {
    while let Some(word) = at(text, from) {
        let marks = controls(word);
        if marks == 0 {
            from += 8;
            continue;
        }
        from += lowest(marks);
        if text[from] != b'\t' {
            return Some(from);
        }
        from += 1;
    }
    text.get(from..)?.iter().position(|&b| is_control(b)).map(|place| from + place)
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
                        let slow = |is: &dyn Fn(u8) -> bool| {
                            text[from..].iter().position(|&b| is(b)).map(|place| from + place)
                        };
                        assert_eq!(find(&text, from, b':'), slow(&|b| b == b':'), "{text:?} from {from}");
                        assert_eq!(find_control(&text, from), slow(&is_control), "{text:?} from {from}");
                    }
                }
            }
        }
        assert_eq!((find(b"a", 2, b'a'), find_control(b"a", 2)), (None, None), "beyond the end");
    }
}
