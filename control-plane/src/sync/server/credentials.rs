//! The lane of credentials on one stream: what the data plane said that it holds, and what it is sent next. It never
//! waits for a revision, and no revision for it.
//!
//! Invariants: one transaction at a time, answered before the next; a piece says what is good at the moment it is made;
//! a change overtakes whatever is under way, so that a revocation waits for no million of keys; what is left to be sent
//! is a place in what all streams share, never a list; a data plane that says it needs none is sent none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::buckets::Buckets;
use gateway_proto::credential::PieceBuilder;
use gateway_proto::wire;
use tokio::time::Instant;
use wire::control_plane_message::Message as Say;

use crate::credentials::{Credentials, Place, all_shards, finish, shards};
use crate::publish::Cursor;

/// One stream's lane.
#[derive(Debug)]
pub(super) struct Lane {
    credentials: Arc<Credentials>,
    /// What the data plane holds; `None`: it needs none.
    held: Option<Held>,
    state: State,
    /// What happened before this place was sent, or is part of what is under way.
    told: Place,
    /// When something was last taken, asked or answered.
    progress: Instant,
}

/// What a data plane says that it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    At(Cursor),
}

#[derive(Debug, PartialEq)]
enum State {
    /// Nothing is under way.
    Idle,
    /// It is asked for its sums.
    Comparing,
    /// Pieces are left to be sent.
    Sending(Cursor, Left),
    /// All was sent, and it has not answered.
    Waiting,
}

#[derive(Debug, PartialEq)]
enum Left {
    /// What happened between [`Lane::told`] and this place.
    Touched(Place),
    Shards(VecDeque<usize>),
}

/// It said something that it was not asked for.
#[derive(Debug, thiserror::Error)]
#[error("the sums of credentials are malformed or were not asked for")]
pub(super) struct OutOfPlace;

impl Lane {
    /// From what Hello says.
    pub(super) fn new(credentials: Arc<Credentials>, said: Option<&wire::Cursor>) -> Self {
        let told = credentials.now();
        Lane { credentials, held: said.map(read), state: State::Idle, told, progress: Instant::now() }
    }

    /// The data plane says what it holds: it begins or ceases to need them, took a transaction in, or was asked.
    pub(super) fn hear(&mut self, said: &wire::CredentialsHeld) -> Result<(), OutOfPlace> {
        self.progress = Instant::now();
        self.held = said.cursor.as_ref().map(read);
        let before = std::mem::replace(&mut self.state, State::Idle);
        if self.held.is_none() || said.sums.is_empty() {
            return Ok(());
        }
        let sums =
            Buckets::from_slice(&said.sums).filter(|_| before == State::Comparing).ok_or(OutOfPlace)?;
        self.told = self.credentials.now();
        let differing = self.credentials.sums().differing(&sums);
        self.state = State::Sending(self.credentials.head(), Left::Shards(shards(&differing)));
        Ok(())
    }

    /// Its heartbeat; whether what it holds is not what it should hold, which is mended then.
    pub(super) fn heartbeat(&mut self, said: Option<&wire::Cursor>) -> bool {
        let (head, Some(held)) = (self.credentials.head(), said.and_then(Cursor::read)) else { return false };
        let diverges = self.state == State::Idle
            && (held.epoch, held.revision) == (head.epoch, head.revision)
            && held.root != head.root;
        if diverges {
            self.held = Some(Held::At(held));
        }
        diverges
    }

    /// What to say next, if there is anything.
    pub(super) fn next(&mut self) -> Option<Say> {
        if self.has_news() {
            return Some(self.news());
        }
        let State::Sending(target, left) = &mut self.state else { return None };
        let target = *target;
        self.progress = Instant::now();
        let (piece, last) = match left {
            Left::Shards(left) => (self.credentials.piece_of_shards(left), left.is_empty()),
            Left::Touched(upto) => match self.credentials.piece_of_touched(self.told, *upto) {
                Some((piece, next)) => {
                    self.told = next;
                    (piece, next >= *upto)
                }
                None => {
                    self.compare();
                    return Some(Say::CompareCredentials(wire::CompareCredentials {}));
                }
            },
        };
        if last {
            self.state = State::Waiting;
        }
        Some(Say::Credentials(finish(piece, target, last)))
    }

    /// Whether something happened that what is under way does not cover.
    fn has_news(&self) -> bool {
        let covers = matches!(self.state, State::Idle | State::Sending(_, Left::Touched(_)));
        !covers && self.told < self.credentials.now()
    }

    /// What happened meanwhile, as a piece that ends nothing: the transaction after this one says it again.
    fn news(&mut self) -> Say {
        let now = self.credentials.now();
        let (piece, next) = match self.credentials.piece_of_touched(self.told, now) {
            Some(made) => made,
            // The next answer is of an old head, and leads to a comparison.
            None => (PieceBuilder::default(), now),
        };
        self.told = next;
        let target = match &self.state {
            State::Sending(target, _) => *target,
            State::Idle | State::Comparing | State::Waiting => self.credentials.head(),
        };
        Say::Credentials(finish(piece, target, false))
    }

    /// Its sums are what comes next.
    fn compare(&mut self) {
        self.told = self.credentials.now();
        self.progress = Instant::now();
        self.state = State::Comparing;
    }

    /// Decides how what is held comes to the head.
    fn begin(&mut self) {
        let head = self.credentials.head();
        let Some(held) = self.held else { return };
        let left = match held {
            Held::Nothing => {
                self.told = self.credentials.now();
                Left::Shards(all_shards())
            }
            Held::At(held) if held == head => return,
            // It knows more than this replica does by now.
            Held::At(held) if held.epoch == head.epoch && held.revision > head.revision => return,
            Held::At(held) => {
                let is_behind = held.epoch == head.epoch && held.revision < head.revision;
                let Some(place) = self.credentials.after(held.revision).filter(|_| is_behind) else {
                    return self.compare();
                };
                self.told = place;
                Left::Touched(self.credentials.now())
            }
        };
        self.state = State::Sending(head, left);
    }

    /// Whether something is left to be said.
    pub(super) fn has_output(&self) -> bool {
        matches!(self.state, State::Sending(..)) || self.has_news()
    }

    /// Large transfers let configuration pass; a change does not.
    pub(super) fn is_large(&self) -> bool {
        matches!(self.state, State::Sending(_, Left::Shards(_))) && !self.has_news()
    }

    /// Looks at the head; whether the data plane has to be asked for its sums first.
    pub(super) fn wake(&mut self) -> bool {
        if self.state == State::Idle {
            self.begin();
            return self.state == State::Comparing;
        }
        false
    }

    /// How long an answer is owed.
    pub(super) fn unanswered(&self) -> Duration {
        match self.state {
            State::Waiting | State::Comparing => self.progress.elapsed(),
            State::Idle | State::Sending(..) => Duration::ZERO,
        }
    }

    /// Where it should stand, for a heartbeat.
    pub(super) fn head(&self) -> Option<wire::Cursor> {
        self.held.map(|_| self.credentials.head().into())
    }
}

fn read(said: &wire::Cursor) -> Held {
    Cursor::read(said).map_or(Held::Nothing, Held::At)
}

#[cfg(test)]
mod tests;
