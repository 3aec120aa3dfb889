//! What one data plane holds and what it gets next, as pure state: no I/O, no clock, so that every turn of the
//! protocol is a line in a test.
//!
//! Invariants: at most one unacknowledged transaction; a refused (object, content) is not sent again before the
//! content changes, unless what the two ends hold has come apart; a data plane is never sent to a lower revision of
//! the same epoch; the cursor is the data plane's own word, and what it should hold is reckoned from the view.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gateway_proto::buckets::{BUCKETS, BucketSet, Buckets};
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use gateway_proto::{FEATURE_BUCKETS, wire};
use wire::ack_outcome::Value as Outcome;
use wire::sync_mode::Value as Mode;

use crate::publish::encode;
use crate::publish::{Changed, Cursor, Delta, View};

/// How often both sides send a Heartbeat, in milliseconds.
pub const HEARTBEAT_MS: u32 = 10_000;
/// A view of fewer objects is no larger than the sums that a comparison needs: it is sent whole.
const WORTH_COMPARING: usize = 64;

/// One data plane's side of the protocol.
#[derive(Debug, Default)]
pub struct Session {
    /// What it says it holds; `None`: nothing that makes sense.
    held: Option<Cursor>,
    parked: BTreeMap<Key, Parked>,
    sent: u64,
    outstanding: Option<Outstanding>,
    trust: Trust,
    /// It is able to compare.
    compares: bool,
    comparison: Comparison,
    /// It refused a whole transaction without naming a reason to leave anything out: wait for another revision.
    stalled_at: Option<u64>,
    /// It may drop most of what it holds of another history: an operator said so.
    allow_shrink: bool,
}

/// Whether it holds what its cursor stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Trust {
    /// As far as is known.
    #[default]
    Sound,
    /// It does not: what differs is to be sent.
    Doubted,
    /// What differed was sent; whether that helped is not known yet.
    Mended,
    /// That did not help: everything is to be sent.
    Lost,
}

/// How far the two ends are with finding out where they differ.
#[derive(Debug, Default)]
enum Comparison {
    /// Not begun.
    #[default]
    None,
    /// It was asked for its sums.
    Asked,
    /// It told them.
    Told(Box<Buckets>),
}

/// An object that the data plane refused and does without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parked {
    /// Content that it refused; `None`: it refused to let go of it.
    refused: Option<ItemHash>,
    /// Older content that still serves there.
    held: Option<ItemHash>,
}

/// A transaction that waits for its acknowledgement.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    number: u64,
    /// What it holds then if it refuses nothing. What it refused before may serve by now.
    head: Cursor,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub enum Next {
    /// The question for the sums of what it holds.
    Compare,
    /// Objects.
    Transaction(Transaction),
}

/// A change of what the data plane holds.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Its number on this stream, from 1.
    pub number: u64,
    /// What it starts from; `None`: from nothing.
    pub base: Option<Cursor>,
    /// What holds after it.
    pub target: Cursor,
    /// The objects.
    pub content: Content,
    /// It may leave the data plane with less than half of what it holds of another history.
    pub allow_shrink: bool,
}

/// The objects of a transaction.
#[derive(Clone, Debug)]
pub enum Content {
    /// Everything in the view.
    Full(Arc<View>),
    /// Everything in some buckets of the view.
    Buckets(Arc<View>, Box<BucketSet>),
    /// What differs, encoded once for all streams.
    Shared(Arc<Delta>),
    /// What differs without what this data plane refuses, encoded for it alone.
    Own(Vec<Bytes>),
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledged {
    /// The data plane holds what it should.
    InSync,
    /// It refused some of it.
    Refused,
    /// It took everything and still does not hold what it should.
    Diverged,
}

/// A message that has no place at this point of the protocol: the stream is closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Acknowledges what was not sent.
    #[error("acknowledged transaction {got}, {}", expected.map_or_else(|| "but none is open".to_owned(), |number| format!("but {number} is open")))]
    UnexpectedAck {
        /// What it acknowledges.
        got: u64,
        /// What is open.
        expected: Option<u64>,
    },
    /// An acknowledgement without a cursor, or of another history.
    #[error("acknowledged with a cursor that is not of this history")]
    BadCursor,
    /// Sums that were not asked for, or that are none.
    #[error("sums of buckets that were not asked for, or are not {BUCKETS} sums")]
    BadSums,
}

impl Session {
    /// What the data plane says on arrival, and how it will come to the head.
    pub fn hello(hello: &wire::Hello, view: &View) -> (Self, wire::Welcome) {
        let session = Session {
            held: hello.cursor.as_ref().and_then(Cursor::read),
            parked: read_parked(&hello.parked),
            compares: hello.features.iter().any(|feature| feature == FEATURE_BUCKETS),
            ..Session::default()
        };
        let mode = match session.way(view) {
            _ if session.is_behind(view) => Mode::Behind,
            None => Mode::InSync,
            Some(Way::Delta) => Mode::Delta,
            Some(Way::Compare) => Mode::Buckets,
            Some(Way::Full) => Mode::Full,
        };
        let head = Some(session.target(view).into());
        (session, wire::Welcome { mode: mode.into(), head, heartbeat_ms: HEARTBEAT_MS, ..Default::default() })
    }

    /// What to send, when there is something and no answer is awaited.
    pub fn next(&mut self, view: &Arc<View>) -> Option<Next> {
        let content = match self.step(view)? {
            Way::Full => {
                // What was refused goes along: only the data plane can say what serves in its place then.
                self.parked.clear();
                Content::Full(Arc::clone(view))
            }
            Way::Compare => {
                let Some(differing) = self.differing(view) else {
                    self.comparison = Comparison::Asked;
                    return Some(Next::Compare);
                };
                self.parked.retain(|key, _| !differing.holds(key));
                if differing.is_empty() {
                    Content::Own(Vec::new())
                } else {
                    Content::Buckets(Arc::clone(view), Box::new(differing))
                }
            }
            Way::Delta => match self.held.and_then(|held| view.delta(held.revision)) {
                Some(delta) => self.without_parked(view, &delta),
                None => Content::Own(Vec::new()),
            },
        };
        let base = self.held.filter(|_| !matches!(content, Content::Full(_)));
        if !matches!(content, Content::Shared(_) | Content::Own(_)) || self.trust != Trust::Sound {
            self.trust = Trust::Mended;
        }
        self.comparison = Comparison::None;
        self.sent += 1;
        let (number, target) = (self.sent, self.target(view));
        self.outstanding = Some(Outstanding { number, head: view.head() });
        let allow_shrink = self.allow_shrink;
        Some(Next::Transaction(Transaction { number, base, target, content, allow_shrink }))
    }

    /// Whether it matters if it may shrink: it holds something of another history, and nobody has said that it may.
    pub fn might_shrink(&self, view: &View) -> bool {
        !self.allow_shrink && self.held.is_some_and(|held| held.epoch != view.head().epoch)
    }

    /// It may; what it has refused for that goes out again.
    pub const fn allow_shrink(&mut self) {
        self.allow_shrink = true;
        self.stalled_at = None;
    }

    /// How many objects the next transaction would bring only because the difference is not known: what full
    /// transfers are admitted by.
    pub fn weight(&self, view: &View) -> usize {
        match self.step(view) {
            Some(Way::Full) => view.items().count(),
            Some(Way::Compare) => {
                let share = self.differing(view).map_or(0, |differing| differing.len());
                view.items().count() * share / BUCKETS
            }
            Some(Way::Delta) | None => 0,
        }
    }

    /// The data plane's word on the open transaction.
    ///
    /// # Errors
    /// [`ProtocolError`].
    pub fn ack(&mut self, ack: &wire::Ack) -> Result<Acknowledged, ProtocolError> {
        let open = match self.outstanding.take() {
            Some(open) if open.number == ack.transaction => open,
            other => {
                let expected = other.map(|open| open.number);
                return Err(ProtocolError::UnexpectedAck { got: ack.transaction, expected });
            }
        };
        let cursor = ack.cursor.as_ref().and_then(Cursor::read);
        let rejected = read_rejects(&ack.rejects);
        if ack.outcome() == Outcome::Rejected {
            // What it held stays; the same transaction without what it refused is next.
            self.held = cursor;
            let before = self.parked.len();
            self.parked.extend(rejected);
            if self.parked.len() == before {
                self.stalled_at = Some(open.head.revision);
            }
            return Ok(Acknowledged::Refused);
        }
        let cursor =
            cursor.filter(|cursor| cursor.epoch == open.head.epoch).ok_or(ProtocolError::BadCursor)?;
        let refused = !rejected.is_empty();
        // Everything it does without, also from before: with each change it tries again what it had refused.
        self.parked = rejected;
        self.held = Some(cursor);
        self.stalled_at = None;
        Ok(match (refused, cursor == open.head) {
            (true, _) => Acknowledged::Refused,
            (false, true) => {
                self.trust = Trust::Sound;
                Acknowledged::InSync
            }
            (false, false) => Acknowledged::Diverged,
        })
    }

    /// What it holds and refuses after a retry or a fault of its own: a complete list of refusals.
    pub fn status(&mut self, status: &wire::Status) {
        self.parked = read_rejects(&status.rejects);
        if self.outstanding.is_none()
            && let Some(cursor) = status.cursor.as_ref().and_then(Cursor::read)
        {
            self.held = Some(cursor);
        }
    }

    /// What it says it holds, now and then. Returns true when it comes out that this is not what it should hold: the
    /// two ends are then compared, and what differs is sent.
    pub fn heartbeat(&mut self, heartbeat: &wire::Heartbeat, view: &View) -> bool {
        if self.outstanding.is_some() {
            return false;
        }
        self.parked = read_parked(&heartbeat.parked);
        let held = heartbeat.cursor.as_ref().and_then(Cursor::read);
        // It refused that from what it holds now: only from something else the answer may be another.
        if held != self.held {
            self.stalled_at = None;
        }
        self.held = held;
        let Some(held) = self.held.filter(|held| held.epoch == view.head().epoch) else { return false };
        let Some(expected) = self.expected(view, held.revision) else { return false };
        let diverged = expected != held.root;
        let is_news = matches!(self.trust, Trust::Sound | Trust::Mended);
        self.trust = match (self.trust, diverged) {
            (Trust::Sound, true) => Trust::Doubted,
            (Trust::Mended, true) => Trust::Lost,
            (Trust::Mended, false) => Trust::Sound,
            (trust, _) => trust,
        };
        diverged && is_news
    }

    /// The sums of what it holds.
    ///
    /// # Errors
    /// [`ProtocolError::BadSums`].
    pub fn compared(&mut self, buckets: &wire::Buckets) -> Result<(), ProtocolError> {
        let sums = Buckets::from_slice(&buckets.sums).ok_or(ProtocolError::BadSums)?;
        if !matches!(self.comparison, Comparison::Asked) {
            return Err(ProtocolError::BadSums);
        }
        self.held = buckets.cursor.as_ref().and_then(Cursor::read);
        self.comparison = Comparison::Told(Box::new(sums));
        Ok(())
    }

    /// What it says it holds.
    pub const fn held(&self) -> Option<Cursor> {
        self.held
    }

    /// An answer is awaited.
    pub const fn is_waiting(&self) -> bool {
        self.outstanding.is_some() || matches!(self.comparison, Comparison::Asked)
    }

    /// It holds exactly what its scope has at the head, and refuses nothing.
    pub fn is_in_sync(&self, view: &View) -> bool {
        self.parked.is_empty() && self.held == Some(view.head())
    }

    /// This replica is older than what the data plane holds.
    fn is_behind(&self, view: &View) -> bool {
        self.held.is_some_and(|held| held.epoch == view.head().epoch && held.revision > view.head().revision)
    }

    /// How it comes closer to the head now; `None`: it is there, or has to wait.
    fn step(&self, view: &View) -> Option<Way> {
        let waits = self.is_waiting() || self.is_behind(view);
        if waits || self.stalled_at == Some(view.head().revision) { None } else { self.way(view) }
    }

    /// How it comes to the head; `None`: it is there.
    fn way(&self, view: &View) -> Option<Way> {
        let head = view.head();
        let Some(held) = self.held.filter(|_| self.trust != Trust::Lost) else { return Some(Way::Full) };
        let apart = || {
            let is_worth_it = self.compares && view.items().count() >= WORTH_COMPARING;
            if is_worth_it { Way::Compare } else { Way::Full }
        };
        if held.epoch != head.epoch || self.trust == Trust::Doubted {
            return Some(apart());
        }
        if held.revision == head.revision {
            // A mismatch right after an acknowledgement waits for the heartbeat, which names what is held: resending
            // at once what was just taken could go on for ever.
            let fresh = self.sent == 0 && self.expected(view, held.revision) != Some(held.root);
            return fresh.then(apart);
        }
        let sound = match self.expected(view, held.revision) {
            Some(root) => root == held.root,
            // The past is not known: only equal content can be told.
            None => self.target(view).root == held.root,
        };
        Some(if sound { Way::Delta } else { apart() })
    }

    /// The buckets that differ from what the view has and the data plane does not refuse; `None`: it has not told
    /// its sums.
    fn differing(&self, view: &View) -> Option<BucketSet> {
        let Comparison::Told(held) = &self.comparison else { return None };
        let mut expected = view.buckets().clone();
        for (key, parked) in self.still_parked(view) {
            parked.refused.into_iter().for_each(|refused| expected.take(key, refused));
            parked.held.into_iter().for_each(|held| expected.add(key, held));
        }
        Some(expected.differing(held))
    }

    /// Root hash that the data plane should have at a revision: that of the scope with each parked object replaced by
    /// what serves in its place. `None`: the view does not know that revision.
    fn expected(&self, view: &View, revision: u64) -> Option<RootHash> {
        let root = view.root_at(revision)?;
        Some(
            self.parked
                .iter()
                .fold(root, |root, (key, parked)| parked.replace(root, view.hash_at(revision, key))),
        )
    }

    /// What it will hold at the head: what is parked stays parked as long as its content is the refused one.
    fn target(&self, view: &View) -> Cursor {
        let parked = self.still_parked(view);
        let root = parked.fold(view.head().root, |root, (_, parked)| parked.replace(root, parked.refused));
        Cursor { root, ..view.head() }
    }

    fn still_parked<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (&'a Key, &'a Parked)> {
        let content = |key| view.items().get(key).map(|stored| stored.hash);
        self.parked.iter().filter(move |(key, parked)| content(key) == parked.refused)
    }

    fn without_parked(&self, view: &View, delta: &Arc<Delta>) -> Content {
        let refused = |changed: &&Changed| {
            let content = changed.after.as_ref().map(|after| after.hash);
            self.parked.get(&changed.key).is_some_and(|parked| parked.refused == content)
        };
        if self.parked.is_empty() || !delta.changes.iter().any(|changed| refused(&changed)) {
            return Content::Shared(Arc::clone(delta));
        }
        Content::Own(encode::pieces(view, delta.changes.iter().filter(|changed| !refused(changed))))
    }

    /// How many objects it does without.
    pub fn parked(&self) -> usize {
        self.parked.len()
    }
}

/// How a data plane comes to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Delta,
    Compare,
    Full,
}

impl Parked {
    /// The root hash with what serves instead of what the scope has.
    fn replace(&self, root: RootHash, scope: Option<ItemHash>) -> RootHash {
        let root = scope.map_or(root, |scope| root.minus(scope));
        self.held.map_or(root, |held| root.plus(held))
    }
}

fn read_parked(list: &[wire::Parked]) -> BTreeMap<Key, Parked> {
    let read = |it: &wire::Parked| entry(it.object.as_ref()?, &it.refused, &it.held);
    list.iter().filter_map(read).collect()
}

fn read_rejects(list: &[wire::Reject]) -> BTreeMap<Key, Parked> {
    let read = |it: &wire::Reject| entry(it.object.as_ref()?, &it.hash, &it.held);
    list.iter().filter_map(read).collect()
}

fn entry(object: &wire::ObjectRef, refused: &[u8], held: &[u8]) -> Option<(Key, Parked)> {
    let (refused, held) = (ItemHash::from_slice(refused), ItemHash::from_slice(held));
    Some((Key::try_from(object).ok()?, Parked { refused, held }))
}

#[cfg(test)]
mod tests;
