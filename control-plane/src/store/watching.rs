//! What a store tells its watchers: the newest head, token version and credentials that this process has seen.
//! Fed by own commits and by polling; moves forward only, so that a slow poll never takes a commit back.

use tokio::sync::watch;

use super::{CredentialHead, Head, StoreError};

/// A head and the versions of tokens and credentials beside it, read in one statement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) head: Head,
    pub(super) tokens_version: u64,
    pub(super) credentials: CredentialHead,
}

/// Senders of the watches.
#[derive(Debug)]
pub(super) struct Watching {
    head: watch::Sender<Head>,
    tokens_version: watch::Sender<u64>,
    credentials: watch::Sender<CredentialHead>,
}

impl Watching {
    pub(super) fn new(position: Position) -> Self {
        Watching {
            head: watch::Sender::new(position.head),
            tokens_version: watch::Sender::new(position.tokens_version),
            credentials: watch::Sender::new(position.credentials),
        }
    }

    pub(super) fn head(&self) -> watch::Receiver<Head> {
        self.head.subscribe()
    }

    pub(super) fn tokens_version(&self) -> watch::Receiver<u64> {
        self.tokens_version.subscribe()
    }

    /// Another epoch always counts as newer: the store was replaced under us. Whether it is another.
    pub(super) fn saw_head(&self, head: Head) -> bool {
        let mut is_another = false;
        self.head.send_if_modified(|seen| {
            is_another = head.epoch != seen.epoch;
            let newer = is_another || head.revision > seen.revision;
            if newer {
                *seen = head;
            }
            newer
        });
        is_another
    }

    pub(super) fn saw_tokens_version(&self, version: u64) {
        self.tokens_version.send_if_modified(|seen| {
            let newer = version > *seen;
            if newer {
                *seen = version;
            }
            newer
        });
    }

    pub(super) fn credentials(&self) -> watch::Receiver<CredentialHead> {
        self.credentials.subscribe()
    }

    pub(super) fn saw_credentials(&self, head: CredentialHead) {
        self.credentials.send_if_modified(|seen| {
            let newer = head.epoch != seen.epoch || head.version > seen.version;
            if newer {
                *seen = head;
            }
            newer
        });
    }

    pub(super) fn saw(&self, position: Position) {
        if self.saw_head(position.head) {
            // Another store's tokens, whatever their version: it may be the same as before.
            self.tokens_version.send_replace(position.tokens_version);
        }
        self.saw_tokens_version(position.tokens_version);
        self.saw_credentials(position.credentials);
    }

    /// Takes the outcome of a poll; whether the store is down, said once when it goes and once when it comes back.
    pub(super) fn saw_poll(&self, outcome: Result<Position, StoreError>, was_down: bool) -> bool {
        match outcome {
            Ok(position) => {
                if was_down {
                    tracing::info!(revision = position.head.revision, "the store answers again");
                }
                self.saw(position);
                false
            }
            Err(error) => {
                if !was_down {
                    tracing::warn!(%error, "the store does not answer: writes fail until it does, traffic is not concerned");
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use gateway_proto::digest::RootHash;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_watch_never_goes_back_within_an_epoch() {
        let head = |epoch: u128, revision| Head {
            epoch: Uuid::from_u128(epoch),
            revision,
            root: RootHash::default(),
        };
        let credentials = CredentialHead { epoch: Uuid::from_u128(1), version: 0 };
        let at = |head, tokens_version| Position { head, tokens_version, credentials };
        let watching = Watching::new(at(head(1, 5), 2));
        let (seen, mut tokens) = (watching.head(), watching.tokens_version());
        for (position, expected) in
            [((1, 4, 1), (1, 5, 2)), ((1, 6, 3), (1, 6, 3)), ((2, 1, 2), (2, 1, 2)), ((2, 0, 0), (2, 1, 2))]
        {
            watching.saw(at(head(position.0, position.1), position.2));
            assert_eq!((*seen.borrow(), *tokens.borrow()), (head(expected.0, expected.1), expected.2));
        }
        tokens.mark_unchanged();
        watching.saw(at(head(3, 1), 2));
        assert!(tokens.has_changed().expect("open"), "the same version of another store");
    }
}
