//! When a request may be sent again: only on a fresh connection after one from the pool died under it, and only if
//! that cannot do twice what should be done once. Retries that an author asks for come with the `retry` option.

/// What is known of an attempt that failed before a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The connection came from the pool: the target may have closed it before the request arrived.
    pub(crate) reused: bool,
    /// A byte of a response came.
    pub(crate) heard: bool,
    /// No byte of the request left.
    pub(crate) untouched: bool,
    /// Everything that left is still here.
    pub(crate) replayable: bool,
    /// Twice is as good as once (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
}

impl Attempt {
    /// Whether to try once more on a fresh connection.
    pub(crate) const fn may_repeat(self) -> bool {
        self.reused && !self.heard && (self.untouched || (self.idempotent && self.replayable))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIED: Attempt =
        Attempt { reused: true, heard: false, untouched: false, replayable: true, idempotent: true };

    #[test]
    fn a_pooled_connection_that_died_is_replaced() {
        assert!(DIED.may_repeat());
        assert!(Attempt { idempotent: false, untouched: true, ..DIED }.may_repeat(), "nothing was written");
    }

    #[test]
    fn what_could_happen_twice_or_cannot_be_sent_again_is_not_repeated() {
        for attempt in [
            Attempt { idempotent: false, ..DIED },
            Attempt { replayable: false, ..DIED },
            Attempt { heard: true, ..DIED },
            Attempt { reused: false, ..DIED },
            Attempt { reused: false, untouched: true, ..DIED },
        ] {
            assert!(!attempt.may_repeat(), "{attempt:?}");
        }
    }
}
