//! Numbers and addresses as text on the hot path, where the formatting machinery would cost ten times as much.

use std::net::IpAddr;

/// Appends a number in decimal digits.
pub(crate) fn push_number(number: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
}

/// Appends an address as it is usually written.
pub(crate) fn push_ip(ip: IpAddr, out: &mut Vec<u8>) {
    match ip {
        IpAddr::V4(ip) => {
            let mut text = [b'.'; "255.255.255.255".len()];
            let mut len = 0;
            for octet in ip.octets() {
                for (unit, from) in [(100, 100), (10, 10), (1, 0)] {
                    if octet >= from {
                        text[len] = b'0' + octet / unit % 10;
                        len += 1;
                    }
                }
                // Over the last one's nothing is kept.
                len += 1;
            }
            out.extend_from_slice(&text[..len - 1]);
        }
        // On the stack, unlike `to_string`.
        IpAddr::V6(_) => {
            use std::io::Write as _;
            write!(out, "{ip}").expect("memory takes everything");
        }
    }
}

/// Sixteen hexadecimal digits.
pub(crate) fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    digits[..8].copy_from_slice(&eight((number >> 32) as u32).to_be_bytes());
    digits[8..].copy_from_slice(&eight(number as u32).to_be_bytes());
    digits
}

/// Eight hexadecimal digits, one per byte, the first in the highest: all of them at once.
const fn eight(word: u32) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // Spread the nibbles over the bytes.
    let mut spread = word as u64;
    spread = (spread | spread << 16) & 0x0000_ffff_0000_ffff;
    spread = (spread | spread << 8) & 0x00ff_00ff_00ff_00ff;
    spread = (spread | spread << 4) & (ONES * 0x0f);
    // Above 9 the digits go on at 'a', 39 places after '9'.
    let letters = ((spread + ONES * 6) >> 4) & ONES;
    spread + ONES * 0x30 + letters * 39
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(push: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        push(&mut out);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn hexadecimal_digits_are_all_sixteen() {
        for number in [0, 1, 0x0123_4567_89ab_cdef, 0xa09f_10f9_ffff_0000, u64::MAX] {
            assert_eq!(String::from_utf8_lossy(&hex(number)), format!("{number:016x}"));
        }
    }

    #[test]
    fn addresses_and_numbers_are_written_as_by_the_library() {
        for address in
            ["0.0.0.0", "127.0.0.1", "192.0.2.70", "255.255.255.255", "10.100.9.99", "::1", "2001:db8::1"]
        {
            assert_eq!(text(|out| push_ip(address.parse().expect("an address"), out)), address);
        }
        for number in [0, 7, 1_000, u64::MAX] {
            assert_eq!(text(|out| push_number(number, out)), number.to_string());
        }
    }
}
