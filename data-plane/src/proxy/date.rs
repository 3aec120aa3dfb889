//! The `Date` field (RFC 9110 §6.6.1), formatted once a second per worker. Which second it is, is asked of the wall clock
//! once a second too: in between, the clock that times the request says whether it is still the same.

use std::cell::{Cell, RefCell};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

/// A worker's clock face.
#[derive(Debug, Default)]
pub(crate) struct Date {
    /// End of the second that the text names.
    until: Cell<Option<Instant>>,
    text: RefCell<String>,
}

impl Date {
    /// Lends the date of a moment that has just been, in the form that HTTP prescribes.
    #[inline]
    pub(crate) fn with<T>(&self, at: Instant, lend: impl FnOnce(&[u8]) -> T) -> T {
        if self.until.get().is_none_or(|until| at >= until) {
            self.renew();
        }
        lend(self.text.borrow().as_bytes())
    }

    #[cold]
    fn renew(&self) {
        let since = since_1970();
        *self.text.borrow_mut() = format(since.as_secs());
        let rest = Duration::from_secs(1) - Duration::from_nanos(since.subsec_nanos().into());
        self.until.set(Some(Instant::now() + rest));
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    since_1970().as_secs()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
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
    fn the_date_is_that_of_the_second() {
        let date = Date::default();
        let began = Instant::now();
        let first = date.with(began, <[u8]>::to_vec);
        assert!(first.len() == 29 && first.ends_with(b"GMT"));
        let until = date.until.get().expect("known by now");
        assert!(until > began && until <= Instant::now() + Duration::from_secs(1));
        *date.text.borrow_mut() = "kept".to_owned();
        date.with(until - Duration::from_nanos(1), |text| assert_eq!(text, b"kept"));
        date.with(until, |text| assert_eq!(text.len(), first.len()));
    }
}
