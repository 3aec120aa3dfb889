//! The lane of endpoints on one stream: what the data plane is known to hold, and what it is sent next. It never waits for
//! a revision, and no revision for it.
//!
//! Invariants: one transaction at a time, answered before the next, so that a data plane that is slow gets what there is
//! by then and not what there was; what is kept for a stream is shared with all others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::buckets::Buckets;
use gateway_proto::digest::RootHash;
use gateway_proto::endpoints::Subject;
use gateway_proto::wire;
use tokio::time::Instant;

use crate::discovery::board::{Item, Name};
use crate::publish::encode::Frame;
use crate::publish::endpoints::Scoped;
use crate::sorted::SortedMap;

/// Bytes of a piece, about; unless a single set is larger.
const PIECE: usize = 60 << 10;

/// One stream's lane.
#[derive(Debug)]
pub(super) struct Lane {
    /// What it is to hold.
    head: Arc<Scoped>,
    /// What it holds; `None`: something else than it should.
    held: Option<Arc<Scoped>>,
    state: State,
    /// When something was last sent, asked or answered.
    progress: Instant,
}

#[derive(Debug)]
enum State {
    /// Nothing is under way.
    Idle,
    /// It is asked for its sums.
    Comparing,
    /// Pieces are left to be sent; what it holds after them.
    Sending(Left, Arc<Scoped>),
    /// All was sent, and it has not answered.
    Waiting(Arc<Scoped>),
}

/// What is left to be sent.
#[derive(Debug, Default)]
struct Left {
    header: wire::EndpointsChunk,
    items: VecDeque<Arc<Item>>,
}

/// It said something that it was not asked for.
#[derive(Debug, thiserror::Error)]
#[error("the sums of endpoints are malformed or were not asked for")]
pub(super) struct OutOfPlace;

impl Lane {
    /// From what Hello says.
    pub(super) fn new(head: Arc<Scoped>, said: &[u8]) -> Self {
        let nothing = Arc::new(Scoped::default());
        let said = RootHash::from_slice(said).unwrap_or_default();
        let held = [&head, &nothing].into_iter().find(|it| it.root == said).cloned();
        Lane { head, held, state: State::Idle, progress: Instant::now() }
    }

    /// Where it should stand, for the Welcome.
    pub(super) fn root(&self) -> Vec<u8> {
        self.head.root.to_bytes().to_vec()
    }

    /// What it is to hold from now on.
    pub(super) fn aim(&mut self, head: Arc<Scoped>) {
        self.head = head;
    }

    /// It answers; whether it holds something else than it should.
    pub(super) fn hear(&mut self, said: &wire::EndpointsHeld) -> Result<bool, OutOfPlace> {
        self.progress = Instant::now();
        let root = RootHash::from_slice(&said.root_hash).ok_or(OutOfPlace)?;
        match std::mem::replace(&mut self.state, State::Idle) {
            State::Comparing => {
                let sums = Buckets::from_slice(&said.sums).ok_or(OutOfPlace)?;
                self.send_differing(&sums);
                Ok(false)
            }
            State::Waiting(target) if said.sums.is_empty() => {
                let is_as_sent = root == target.root;
                self.held = is_as_sent.then_some(target);
                Ok(!is_as_sent)
            }
            State::Idle | State::Sending(..) | State::Waiting(_) => Err(OutOfPlace),
        }
    }

    /// Its heartbeat; whether it holds something else than it should, which is mended then.
    pub(super) fn heartbeat(&mut self, said: &[u8]) -> bool {
        let (State::Idle, Some(held)) = (&self.state, &self.held) else { return false };
        let diverges = RootHash::from_slice(said).is_some_and(|root| root != held.root);
        if diverges {
            self.held = None;
        }
        diverges
    }

    /// Looks at what there is to do; whether the data plane has to be asked for its sums first.
    pub(super) fn wake(&mut self) -> bool {
        if !matches!(self.state, State::Idle) {
            return false;
        }
        let Some(held) = &self.held else {
            (self.state, self.progress) = (State::Comparing, Instant::now());
            return true;
        };
        if !Arc::ptr_eq(held, &self.head) {
            let left = Left::between(&held.items, &self.head.items);
            self.begin(left);
        }
        false
    }

    /// The next piece, if there is one.
    pub(super) fn next(&mut self) -> Option<Frame> {
        let State::Sending(left, target) = &mut self.state else { return None };
        let frame = left.piece();
        if left.items.is_empty() {
            self.state = State::Waiting(Arc::clone(target));
        }
        self.progress = Instant::now();
        Some(frame)
    }

    /// Whether something is left to be said.
    pub(super) const fn has_output(&self) -> bool {
        matches!(self.state, State::Sending(..))
    }

    /// More than a piece is left: configuration passes it.
    pub(super) fn is_large(&self) -> bool {
        match &self.state {
            State::Sending(left, _) => {
                left.items.iter().map(|item| item.encoded.len()).sum::<usize>() > PIECE
            }
            State::Idle | State::Comparing | State::Waiting(_) => false,
        }
    }

    /// How long an answer is owed.
    pub(super) fn unanswered(&self) -> Duration {
        match self.state {
            State::Waiting(_) | State::Comparing => self.progress.elapsed(),
            State::Idle | State::Sending(..) => Duration::ZERO,
        }
    }

    fn begin(&mut self, left: Left) {
        let target = Arc::clone(&self.head);
        match left.is_empty() {
            true => self.held = Some(target),
            false => self.state = State::Sending(left, target),
        }
    }

    fn send_differing(&mut self, sums: &Buckets) {
        let differing = self.head.sums().differing(sums);
        let of = |(subject, name): &Name| differing.contains(subject.bucket(name));
        let items = self.head.items.iter().filter(|(name, _)| of(name)).map(|(_, item)| Arc::clone(item));
        let buckets = differing.iter().filter_map(|bucket| u32::try_from(bucket).ok()).collect();
        let header = wire::EndpointsChunk { buckets, ..Default::default() };
        let left = Left { items: items.collect(), header };
        self.begin(left);
    }
}

impl Left {
    fn between(before: &SortedMap<Name, Arc<Item>>, after: &SortedMap<Name, Arc<Item>>) -> Self {
        let mut left = Left::default();
        SortedMap::diff(before, after, |(subject, name), _, item| match (item, subject) {
            (Some(item), _) => left.items.push_back(Arc::clone(item)),
            (None, Subject::Set) => left.header.gone.push(name.to_string()),
            (None, Subject::Source) => left.header.gone_sources.push(name.to_string()),
        });
        left
    }

    fn is_empty(&self) -> bool {
        self.items.is_empty() && self.header == wire::EndpointsChunk::default()
    }

    /// The next piece; the first says what goes.
    fn piece(&mut self) -> Frame {
        let (mut items, mut size) = (Vec::new(), 0);
        while size < PIECE
            && let Some(item) = self.items.pop_front()
        {
            size += item.encoded.len();
            items.push(item);
        }
        let last = self.items.is_empty();
        let header = wire::EndpointsChunk { last, ..std::mem::take(&mut self.header) };
        Frame::Endpoints { header, items }
    }
}

#[cfg(test)]
mod tests;
