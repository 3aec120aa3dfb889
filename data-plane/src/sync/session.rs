//! One stream's side of the protocol as pure state: messages in, what to do out. No I/O and no clock.
//!
//! Invariants: a transaction is handed out whole and once, only on the base that is held; what is assembled is
//! bounded; a message out of place ends the stream (the next one starts with a fresh Hello and, if need be, a
//! comparison of what both ends hold).

use std::sync::Arc;
use std::time::Duration;

use gateway_proto::digest::RootHash;
use gateway_proto::wire;
use wire::control_plane_message::Message;
use wire::sync_mode::Value as Mode;

use crate::apply::{Cursor, Scope};

/// Most bytes of objects in one transaction.
const MAX_BYTES: usize = 1 << 30;
/// Most objects in one transaction.
const MAX_OBJECTS: usize = 4_000_000;
/// Shortest and longest interval between heartbeats that we go along with.
const HEARTBEAT: (u32, u32) = (100, 60_000);

/// What to do next.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// Wait for more.
    Wait,
    /// The server says how it goes on.
    Welcome { mode: Mode, heartbeat: Duration, endpoints: Vec<u8> },
    /// A whole transaction: apply and acknowledge it.
    Apply(Transaction),
    /// Tell what is held: the server has something else at the same revision.
    Tell,
    /// Tell the sums of what is held.
    Compare,
    /// Take in a piece of the credentials.
    Credentials(wire::CredentialsChunk),
    /// Tell the sums of the credentials that are held.
    CompareCredentials,
    /// Take in a piece of the endpoints.
    Endpoints(wire::EndpointsChunk),
    /// Tell the sums of the endpoints that are held.
    CompareEndpoints,
    /// Leave within this time, the new stream first.
    Leave(Duration),
    /// Check control planes against these roots.
    Trust(wire::Trust),
    /// The next certificate.
    Issued(wire::IssuedCertificate),
}

/// A change, complete.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Transaction {
    /// Its number on the stream.
    pub(crate) number: u64,
    /// What becomes of what is not named.
    pub(crate) scope: Scope,
    /// What holds after it.
    pub(crate) target: Cursor,
    /// It may leave less than half of what is held of another history.
    pub(crate) allow_shrink: bool,
    pub(crate) upserts: Vec<wire::Upsert>,
    pub(crate) tombstones: Vec<wire::ObjectRef>,
}

/// A message that has no place there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("expected a welcome first")]
    NotWelcomed,
    #[error("welcomed twice")]
    WelcomedTwice,
    #[error("a cursor is missing or malformed")]
    BadCursor,
    #[error("transaction {got} does not follow {last}")]
    OutOfOrder { got: u64, last: u64 },
    #[error("the pieces of transaction {0} do not belong together")]
    Mixed(u64),
    #[error("transaction {0} does not start from what is held")]
    WrongBase(u64),
    #[error("transaction {0} is over {MAX_OBJECTS} objects or {MAX_BYTES} bytes")]
    TooLarge(u64),
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct Session {
    welcomed: bool,
    /// History that the server named in its Welcome; stands for an epoch that is left out.
    epoch: Arc<str>,
    last: u64,
    open: Option<Assembly>,
}

#[derive(Debug)]
struct Assembly {
    bytes: usize,
    transaction: Transaction,
}

impl Session {
    /// Takes a message. `held` is what is held now, `refuses` whether something is done without.
    ///
    /// # Errors
    /// [`ProtocolError`]: close the stream.
    pub(crate) fn receive(
        &mut self,
        message: wire::ControlPlaneMessage,
        held: &Cursor,
        refuses: bool,
    ) -> Result<Step, ProtocolError> {
        // Nothing in it: a message of a later version of the protocol.
        let Some(message) = message.message else { return Ok(Step::Wait) };
        match message {
            Message::Welcome(_) if self.welcomed => Err(ProtocolError::WelcomedTwice),
            Message::Welcome(welcome) => {
                self.welcomed = true;
                self.epoch =
                    welcome.head.as_ref().map_or_else(Arc::default, |head| head.epoch.as_str().into());
                let heartbeat = welcome.heartbeat_ms.clamp(HEARTBEAT.0, HEARTBEAT.1);
                let (mode, heartbeat) = (welcome.mode(), Duration::from_millis(heartbeat.into()));
                Ok(Step::Welcome { mode, heartbeat, endpoints: welcome.endpoints })
            }
            _ if !self.welcomed => Err(ProtocolError::NotWelcomed),
            Message::Chunk(chunk) => self.chunk(chunk, held),
            Message::Heartbeat(heartbeat) => {
                let head = heartbeat.cursor.as_ref().map(|head| self.cursor(head)).transpose()?;
                let differs = head.is_some_and(|head| !refuses && diverges(&head, held));
                Ok(if differs && self.open.is_none() { Step::Tell } else { Step::Wait })
            }
            Message::Compare(_) => Ok(Step::Compare),
            Message::Trust(trust) => Ok(Step::Trust(trust)),
            Message::Issued(issued) => Ok(Step::Issued(issued)),
            Message::Drain(drain) => Ok(Step::Leave(Duration::from_millis(drain.within_ms.into()))),
            Message::Endpoints(chunk) => Ok(Step::Endpoints(chunk)),
            Message::CompareEndpoints(_) => Ok(Step::CompareEndpoints),
            Message::Credentials(chunk) => Ok(Step::Credentials(chunk)),
            Message::CompareCredentials(_) => Ok(Step::CompareCredentials),
        }
    }

    fn chunk(&mut self, chunk: wire::Chunk, held: &Cursor) -> Result<Step, ProtocolError> {
        let number = chunk.transaction;
        let mut open = match self.open.take() {
            Some(open) if open.transaction.number == number => {
                // What the first piece said is not said again.
                if chunk.target.is_some() || chunk.base_sum.is_some() {
                    return Err(ProtocolError::Mixed(number));
                }
                open
            }
            None if number > self.last => self.begin(&chunk, held)?,
            _ => return Err(ProtocolError::OutOfOrder { got: number, last: self.last }),
        };
        self.last = number;
        open.bytes += chunk.upserts.iter().map(size).sum::<usize>();
        open.transaction.upserts.extend(chunk.upserts);
        open.transaction.tombstones.extend(chunk.tombstones);
        let objects = open.transaction.upserts.len() + open.transaction.tombstones.len();
        if open.bytes > MAX_BYTES || objects > MAX_OBJECTS {
            return Err(ProtocolError::TooLarge(number));
        }
        if chunk.last {
            return Ok(Step::Apply(open.transaction));
        }
        self.open = Some(open);
        Ok(Step::Wait)
    }

    fn begin(&self, chunk: &wire::Chunk, held: &Cursor) -> Result<Assembly, ProtocolError> {
        let number = chunk.transaction;
        let target = self.cursor(chunk.target.as_ref().ok_or(ProtocolError::BadCursor)?)?;
        if chunk.base_sum.is_some_and(|sum| held.epoch.is_empty() || held.root.low() != sum) {
            return Err(ProtocolError::WrongBase(number));
        }
        let buckets = chunk.buckets.iter().filter_map(|bucket| usize::try_from(*bucket).ok());
        let scope = match chunk.base_sum {
            None => Scope::Full,
            Some(_) if chunk.buckets.is_empty() => Scope::Delta,
            Some(_) => Scope::Buckets(Box::new(buckets.collect())),
        };
        let allow_shrink = chunk.allow_shrink;
        let transaction = Transaction { number, scope, target, allow_shrink, ..Transaction::default() };
        Ok(Assembly { bytes: 0, transaction })
    }

    /// A point in a history that is named, or was by the Welcome.
    fn cursor(&self, cursor: &wire::Cursor) -> Result<Cursor, ProtocolError> {
        let root = RootHash::from_slice(&cursor.root_hash).ok_or(ProtocolError::BadCursor)?;
        let is_left_out = cursor.epoch.is_empty();
        let epoch = if is_left_out { Arc::clone(&self.epoch) } else { cursor.epoch.as_str().into() };
        if epoch.is_empty() {
            return Err(ProtocolError::BadCursor);
        }
        Ok(Cursor { epoch, revision: cursor.revision, root })
    }
}

fn size(upsert: &wire::Upsert) -> usize {
    upsert.body.len() + upsert.secrets.iter().map(|secret| secret.value.len()).sum::<usize>()
}

fn diverges(head: &Cursor, held: &Cursor) -> bool {
    head.epoch == held.epoch && head.revision == held.revision && head.root != held.root
}

#[cfg(test)]
mod tests;
