//! What one data plane holds and what it gets next, as pure state: no I/O, no clock, so that every turn of the
//! protocol is a line in a test.
//!
//! Invariants: at most one unacknowledged transaction; a refused (object, content) is not sent again before the
//! content changes, unless everything has to be sent anew; a data plane is never sent to a lower revision of the
//! same epoch; the cursor is the data plane's own word, and what it should hold is reckoned from the view.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::kind::Key;
use gateway_proto::wire;
use wire::ack_outcome::Value as Outcome;
use wire::sync_mode::Value as Mode;

use crate::publish::encode;
use crate::publish::{Changed, Cursor, Delta, View};

/// How often both sides send a Heartbeat, in milliseconds.
pub const HEARTBEAT_MS: u32 = 10_000;

/// One data plane's side of the protocol.
#[derive(Debug, Default)]
pub struct Session {
    /// What it says it holds; `None`: nothing that this store knows.
    held: Option<Cursor>,
    parked: BTreeMap<Key, Parked>,
    sent: u64,
    outstanding: Option<Outstanding>,
    /// What it holds is not what it should hold: send everything.
    distrusted: bool,
    /// It refused a whole transaction without naming a reason to leave anything out: wait for another revision.
    stalled_at: Option<u64>,
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
#[derive(Debug)]
struct Outstanding {
    number: u64,
    target: Cursor,
    sent: Sent,
}

/// What a transaction changes, for what its refusals mean.
#[derive(Debug)]
enum Sent {
    Everything,
    Difference(Arc<Delta>),
    /// Only the number of the revision.
    Nothing,
}

impl Sent {
    fn changes(&self) -> &[Changed] {
        match self {
            Sent::Difference(delta) => &delta.changes,
            Sent::Everything | Sent::Nothing => &[],
        }
    }
}

/// What is to be sent.
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
}

/// The objects of a transaction.
#[derive(Clone, Debug)]
pub enum Content {
    /// Everything in the view.
    Full(Arc<View>),
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
}

impl Session {
    /// What the data plane says on arrival, and how it will come to the head.
    pub fn hello(hello: &wire::Hello, view: &View) -> (Self, wire::Welcome) {
        let held = hello.cursor.as_ref().and_then(Cursor::read);
        let mut session = Session { held, parked: read_parked(&hello.parked), ..Session::default() };
        let mode = match (session.route(view), session.is_behind(view)) {
            (_, true) => Mode::Behind,
            (None, false) => Mode::InSync,
            (Some(Way::Full), _) => Mode::Full,
            (Some(Way::Delta), _) => Mode::Delta,
        };
        session.distrusted = mode == Mode::Full;
        let head = Some(session.target(view).into());
        (session, wire::Welcome { mode: mode.into(), head, heartbeat_ms: HEARTBEAT_MS })
    }

    /// The next transaction, when there is one to send and none is open.
    pub fn next(&mut self, view: &Arc<View>) -> Option<Transaction> {
        if self.outstanding.is_some() || self.is_behind(view) || self.stalled_at == Some(view.head().revision)
        {
            return None;
        }
        let (base, target, sent, content) = match self.route(view)? {
            Way::Full => {
                // What was refused goes along: without the old copies only the data plane can say what serves then.
                self.parked.clear();
                self.distrusted = false;
                (None, view.head(), Sent::Everything, Content::Full(Arc::clone(view)))
            }
            Way::Delta => {
                let delta = self.held.and_then(|held| view.delta(held.revision));
                let content =
                    delta.as_ref().map_or(Content::Own(Vec::new()), |delta| self.without_parked(view, delta));
                (self.held, self.target(view), delta.map_or(Sent::Nothing, Sent::Difference), content)
            }
        };
        self.sent += 1;
        self.outstanding = Some(Outstanding { number: self.sent, target, sent });
        Some(Transaction { number: self.sent, base, target, content })
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
        let rejected = self.rejected(&ack.rejects, open.sent.changes());
        if ack.outcome() == Outcome::Rejected {
            // What it held stays; the same transaction without what it refused is next.
            self.held = cursor;
            self.distrusted |= cursor.is_none();
            let before = self.parked.len();
            self.parked.extend(rejected);
            if self.parked.len() == before {
                self.stalled_at = Some(open.target.revision);
            }
            return Ok(Acknowledged::Refused);
        }
        let cursor =
            cursor.filter(|cursor| cursor.epoch == open.target.epoch).ok_or(ProtocolError::BadCursor)?;
        let refused = !rejected.is_empty();
        // Everything it does without, also from before: with each change it tries again what it had refused.
        self.parked = rejected;
        self.held = Some(cursor);
        self.stalled_at = None;
        Ok(match (refused, cursor == open.target) {
            (true, _) => Acknowledged::Refused,
            (false, true) => Acknowledged::InSync,
            (false, false) => Acknowledged::Diverged,
        })
    }

    /// What it holds and refuses after a retry or a fault of its own: a complete list of refusals.
    pub fn status(&mut self, status: &wire::Status) {
        let rejected = self.rejected(&status.rejects, &[]);
        let known = std::mem::take(&mut self.parked);
        self.parked = rejected
            .into_iter()
            .map(|(key, now)| match known.get(&key) {
                Some(before) if before.refused == now.refused => (key, *before),
                _ => (key, now),
            })
            .collect();
        if self.outstanding.is_none()
            && let Some(cursor) = status.cursor.as_ref().and_then(Cursor::read)
        {
            self.held = Some(cursor);
        }
    }

    /// What it says it holds, now and then. Returns true when that is not what it should hold: everything is then
    /// sent anew.
    pub fn heartbeat(&mut self, heartbeat: &wire::Heartbeat, view: &View) -> bool {
        if self.outstanding.is_some() {
            return false;
        }
        self.parked = read_parked(&heartbeat.parked);
        self.held = heartbeat.cursor.as_ref().and_then(Cursor::read);
        self.stalled_at = None;
        let Some(held) = self.held.filter(|held| held.epoch == view.head().epoch) else { return false };
        let diverged = self.expected(view, held.revision).is_some_and(|root| root != held.root);
        self.distrusted |= diverged;
        diverged
    }

    /// What it says it holds.
    pub const fn held(&self) -> Option<Cursor> {
        self.held
    }

    /// A transaction waits for its acknowledgement.
    pub const fn is_waiting(&self) -> bool {
        self.outstanding.is_some()
    }

    /// It holds exactly what its scope has at the head, and refuses nothing.
    pub fn is_in_sync(&self, view: &View) -> bool {
        self.parked.is_empty() && self.held == Some(view.head())
    }

    /// This replica is older than what the data plane holds.
    fn is_behind(&self, view: &View) -> bool {
        self.held.is_some_and(|held| held.epoch == view.head().epoch && held.revision > view.head().revision)
    }

    /// How it comes to the head; `None`: it is there.
    fn route(&self, view: &View) -> Option<Way> {
        let head = view.head();
        let Some(held) = self.held.filter(|held| held.epoch == head.epoch && !self.distrusted) else {
            return Some(Way::Full);
        };
        if held.revision == head.revision {
            // A mismatch right after an acknowledgement waits for the heartbeat, which names what is held: resending
            // at once what was just taken could go on for ever.
            let fresh = self.sent == 0 && self.expected(view, held.revision) != Some(held.root);
            return fresh.then_some(Way::Full);
        }
        let sound = match self.expected(view, held.revision) {
            Some(root) => root == held.root,
            // Beyond the window: only equal content can be told.
            None => self.target(view).root == held.root,
        };
        Some(if sound { Way::Delta } else { Way::Full })
    }

    /// Root hash that the data plane should have at a revision: that of the scope with each parked object replaced by
    /// what serves in its place. `None` beyond the window.
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
        let still =
            |key: &Key, parked: &Parked| view.items().get(key).map(|stored| stored.hash) == parked.refused;
        let parked = self.parked.iter().filter(|(key, parked)| still(key, parked));
        let root = parked.fold(view.head().root, |root, (_, parked)| parked.replace(root, parked.refused));
        Cursor { root, ..view.head() }
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

    /// Refusals as parked objects: what serves in their place is what was there before the transaction.
    fn rejected(&self, rejects: &[wire::Reject], changes: &[Changed]) -> BTreeMap<Key, Parked> {
        let read = |reject: &wire::Reject| {
            let key = Key::try_from(reject.object.as_ref()?).ok()?;
            let refused = ItemHash::from_slice(&reject.hash);
            let held = match self.parked.get(&key) {
                Some(parked) => parked.held,
                None => {
                    let at = changes.binary_search_by(|changed| changed.key.cmp(&key)).ok();
                    at.and_then(|at| changes[at].before)
                }
            };
            Some((key, Parked { refused, held }))
        };
        rejects.iter().filter_map(read).collect()
    }
}

/// How a data plane comes to the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Delta,
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
    let read = |parked: &wire::Parked| {
        let key = Key::try_from(parked.object.as_ref()?).ok()?;
        let refused = ItemHash::from_slice(&parked.refused);
        Some((key, Parked { refused, held: ItemHash::from_slice(&parked.held) }))
    };
    list.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests;
