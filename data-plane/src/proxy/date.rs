//! The `Date` field (RFC 9110 §6.6.1), formatted once a second per worker.

use std::cell::{Cell, RefCell};
use std::time::{SystemTime, UNIX_EPOCH};

/// A worker's clock face.
#[derive(Debug, Default)]
pub(crate) struct Date {
    second: Cell<u64>,
    text: RefCell<String>,
}

impl Date {
    /// Lends the current date in the form that HTTP prescribes.
    pub(crate) fn with<T>(&self, lend: impl FnOnce(&[u8]) -> T) -> T {
        let second = now();
        if self.second.replace(second) != second || self.text.borrow().is_empty() {
            *self.text.borrow_mut() = format(second);
        }
        lend(self.text.borrow().as_bytes())
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110 §5.6.7).
fn format(second: u64) -> String {
    let at = i64::try_from(second).ok().and_then(|second| jiff::Timestamp::from_second(second).ok());
    at.unwrap_or(jiff::Timestamp::UNIX_EPOCH).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_form_of_the_rfc() {
        assert_eq!(format(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn the_date_is_now() {
        let date = Date::default();
        date.with(|text| assert!(text.len() == 29 && text.ends_with(b"GMT")));
        let first = date.with(<[u8]>::to_vec);
        date.second.set(0);
        *date.text.borrow_mut() = "old".to_owned();
        date.with(|text| assert!(text != b"old" && text.len() == first.len()));
    }
}
