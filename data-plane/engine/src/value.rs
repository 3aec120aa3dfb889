//! Checked scalars: authored text becomes a `Duration`, a CIDR block, a regular expression or a name exactly once,
//! here. Each function returns the value or a message fit for the author.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use regex::{Regex, RegexBuilder};

/// Longest duration taken: a year. Everything above is a slip of the keyboard.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);
/// Memory a compiled pattern may take.
const MAX_REGEX_BYTES: usize = 1 << 20;
/// Longest object name.
const MAX_NAME: usize = 63;

/// A Go-style duration: decimal numbers with a unit `ms`, `s`, `m` or `h`, largest first (`1h30m`, `1.5s`, `0s`).
///
/// # Errors
/// A message naming the text and the form.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || {
        format!("invalid duration {text:?}, expected a number with a unit such as 250ms, 30s, 5m or 1h30m")
    };
    let mut rest = text;
    let mut total = 0.0_f64;
    let mut last_unit = f64::INFINITY;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number = &rest[..digits];
        if !number.starts_with(|c: char| c.is_ascii_digit()) || number.ends_with('.') {
            return Err(invalid());
        }
        let number: f64 = number.parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(invalid()),
        };
        if unit >= last_unit {
            return Err(invalid());
        }
        last_unit = unit;
        total += number * unit;
        rest = &rest[letters..];
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if duration <= MAX_DURATION => Ok(duration),
        _ => Err(format!("duration {text:?} is over the longest allowed, 8760h")),
    }
}

/// An address (`10.0.0.1`: that one) or a CIDR block (`10.0.0.0/8`), IPv4 or IPv6.
///
/// # Errors
/// A message naming the text and the form, or the block that was probably meant when host bits are set.
pub fn cidr(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let net: IpNet = text.parse().map_err(|_| {
        format!("invalid address or CIDR block {text:?}, expected for example 10.0.0.0/8 or 2001:db8::1")
    })?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!("{text:?} has bits set beyond its prefix length, did you mean {}?", net.trunc()))
    }
}

/// A pattern that matches a whole value.
///
/// # Errors
/// The regex crate's own explanation.
pub fn whole_regex(pattern: &str) -> Result<Regex, String> {
    // Compiled alone first: `a)(b` must not become valid inside the group.
    regex(pattern)?;
    regex(&format!("^(?:{pattern})$"))
}

/// A pattern that matches anywhere in a value.
///
/// # Errors
/// The regex crate's own explanation.
pub fn regex(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_REGEX_BYTES)
        .build()
        .map_err(|error| format!("invalid regular expression: {}", error.to_string().trim()))
}

/// An object's name: `[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?`.
///
/// # Errors
/// A message naming the text and the form.
pub fn name(text: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let sound = !bytes.is_empty()
        && bytes.len() <= MAX_NAME
        && inner(bytes[0])
        && inner(bytes[bytes.len() - 1])
        && bytes.iter().all(|&b| inner(b) || b == b'-' || b == b'.');
    if sound {
        Ok(())
    } else {
        Err(format!(
            "invalid name {text:?}, expected 1 to {MAX_NAME} of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_go_style() {
        for (text, millis) in [
            ("250ms", 250),
            ("30s", 30_000),
            ("1.5s", 1_500),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("5m", 300_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1d", "1s1m", "1s1s", "1 s", ".5s", "1.s", "1..5s", "9999999h", "1e9s", "∞"]
        {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_with_host_bits_names_the_block_that_was_meant() {
        assert_eq!(cidr("10.1.2.3").expect("address").to_string(), "10.1.2.3/32");
        assert!(cidr("10.0.0.1/8").expect_err("host bits").contains("did you mean 10.0.0.0/8"));
        assert!(cidr("10.0.0.0/33").is_err());
        assert!(cidr("example.com").is_err());
    }

    #[test]
    fn a_whole_pattern_cannot_escape_its_group() {
        assert!(whole_regex("a)(b").is_err());
        let either = whole_regex("a|b").expect("valid");
        assert!(either.is_match("b") && !either.is_match("ab"));
    }

    #[test]
    fn names_are_dns_like() {
        for good in ["a", "users", "a.b-c", "0"] {
            assert!(name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "A", "-a", "a-", "a_b", "a/b", "ä", long.as_str()] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
