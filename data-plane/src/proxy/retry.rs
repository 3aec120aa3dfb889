//! When a request may be sent again: on a fresh connection after one from the pool died under it, if that cannot do twice
//! what should be done once; and on another one when an HTTP/2 target said that it did not look at it. Retries that an
//! author asks for come with the `retry` option.

/// How often a request is sent again because a target refused to look at it.
const MAX_REFUSALS: u32 = 2;

/// What is known of an attempt that failed before a response.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    /// The connection came from the pool, and died: the target may have closed it before the request arrived.
    pub(crate) reused: bool,
    /// A byte of a response came.
    pub(crate) heard: bool,
    /// No byte of the request left.
    pub(crate) untouched: bool,
    /// Everything that left is still here.
    pub(crate) replayable: bool,
    /// The target said that it did not look at it (RFC 9113 §8.7).
    pub(crate) refused: bool,
    /// How often it was sent before.
    pub(crate) repeats: u32,
    /// Twice is as good as once (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
}

impl Attempt {
    /// Whether to try once more on a fresh connection.
    pub(crate) const fn may_repeat(self) -> bool {
        let again = self.untouched || self.replayable;
        let unseen = self.refused && again && self.repeats < MAX_REFUSALS;
        let died = self.reused && (self.untouched || (self.idempotent && self.replayable));
        !self.heard && (unseen || died)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIED: Attempt = Attempt {
        reused: true,
        heard: false,
        untouched: false,
        replayable: true,
        refused: false,
        repeats: 0,
        idempotent: true,
    };

    #[test]
    fn a_pooled_connection_that_died_is_replaced() {
        assert!(DIED.may_repeat());
        assert!(Attempt { idempotent: false, untouched: true, ..DIED }.may_repeat(), "nothing was written");
    }

    #[test]
    fn what_was_refused_unseen_is_sent_again_whatever_it_is_but_not_for_ever() {
        let refused = Attempt { refused: true, reused: false, idempotent: false, ..DIED };
        assert!(refused.may_repeat());
        assert!(!Attempt { repeats: MAX_REFUSALS, ..refused }.may_repeat());
        assert!(!Attempt { replayable: false, ..refused }.may_repeat(), "what was sent is gone");
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
