//! A data plane without sockets, workers and time, for simulations of the stream: it receives, decodes, compiles,
//! parks and acknowledges with the code of the real one, and what it cannot serve is what the simulation says.

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_engine::Engine;
use gateway_engine::compile::Change;
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::{Key, Kind};
use gateway_proto::{SYNC_PROTOCOL, wire};
use wire::data_plane_message::Message;

use crate::apply::{ApplyError, Held, OnViolation, Refused, Scope, Update};
use crate::sync::session::{Session, Step, Transaction};
use crate::sync::{decode, words};

/// One data plane.
#[derive(Debug, Default)]
pub struct Simulated {
    held: Held,
    session: Session,
}

impl Simulated {
    /// Begins a stream.
    pub fn hello(&mut self, node: &str) -> wire::Hello {
        self.session = Session::default();
        wire::Hello {
            node: node.to_owned(),
            group: "default".to_owned(),
            protocol: SYNC_PROTOCOL,
            features: words::features(),
            cursor: words::cursor(&self.held),
            parked: words::parked(&self.held),
            ..Default::default()
        }
    }

    /// Takes a message; what it answers.
    ///
    /// # Errors
    /// Why it closes the stream.
    pub fn receive(
        &mut self,
        message: wire::ControlPlaneMessage,
        refuses: &dyn Fn(&Key) -> bool,
    ) -> Result<Option<Message>, String> {
        let does_without = !self.held.rejects().is_empty();
        let step = self.session.receive(message, self.held.cursor(), does_without);
        Ok(match step.map_err(|error| error.to_string())? {
            // It asks for no keys, and is sent none.
            Step::Credentials(_) | Step::CompareCredentials => None,
            // Nor does it discover anything.
            Step::Endpoints(_) | Step::CompareEndpoints => None,
            Step::Wait | Step::Welcome { .. } | Step::Leave(_) | Step::Trust(_) | Step::Issued(_) => None,
            Step::Tell => Some(self.heartbeat()),
            Step::Compare => {
                let sums = self.held.buckets().to_bytes();
                Some(Message::Buckets(wire::Buckets { cursor: words::cursor(&self.held), sums }))
            }
            Step::Apply(transaction) => Some(self.transact(transaction, refuses)),
        })
    }

    /// What it says every ten seconds.
    pub fn heartbeat(&self) -> Message {
        Message::Heartbeat(words::heartbeat(&self.held, None))
    }

    /// Tries again what it has refused; what it says if that changed anything.
    pub fn retry(&mut self, refuses: &dyn Fn(&Key) -> bool) -> Option<Message> {
        let before = self.held.rejects();
        let cursor = self.held.cursor().clone();
        let update = update(Scope::Delta, (cursor.epoch, cursor.revision), decode::Decoded::default());
        self.apply(update, refuses).ok()?;
        let rejects = self.held.rejects();
        (rejects != before).then(|| {
            let rejects = rejects.iter().map(Into::into).collect();
            Message::Status(wire::Status { cursor: words::cursor(&self.held), rejects, ..Default::default() })
        })
    }

    /// Loses a route without having been told to, as no sound data plane does.
    pub fn spoil(&mut self) {
        let Some(key) = self.items().into_keys().find(|key| key.kind == Kind::Route) else { return };
        let (epoch, revision) = (self.held.cursor().epoch.clone(), self.held.cursor().revision);
        let built = self.held.build(&[(key.clone(), Change::Delete(key))].into(), BTreeMap::new());
        self.held.take(built, Vec::new(), epoch, revision);
    }

    /// What it holds.
    pub fn items(&self) -> BTreeMap<Key, ItemHash> {
        let objects = self.engine().objects().into_iter();
        objects.map(|it| (it.key.clone(), ItemHash::of(it.key, it.body))).collect()
    }

    /// What serves.
    pub const fn engine(&self) -> &Engine {
        self.held.engine()
    }

    /// What it refuses: object and content.
    pub fn parked(&self) -> Vec<wire::Parked> {
        words::parked(&self.held)
    }

    /// Epoch, revision and root hash, as it tells them.
    pub fn cursor(&self) -> (String, u64, RootHash) {
        let cursor = self.held.cursor();
        (cursor.epoch.to_string(), cursor.revision, cursor.root)
    }

    fn transact(&mut self, transaction: Transaction, refuses: &dyn Fn(&Key) -> bool) -> Message {
        let number = transaction.number;
        let decoded = decode::decode(transaction.upserts, transaction.tombstones);
        let to = (transaction.target.epoch, transaction.target.revision);
        let update =
            Update { allow_shrink: transaction.allow_shrink, ..update(transaction.scope, to, decoded) };
        Message::Ack(match self.apply(update, refuses) {
            Ok(()) => words::applied(number, &self.held, Duration::ZERO),
            Err(error) => words::refused(number, &self.held, &error),
        })
    }

    fn apply(&mut self, update: Update, refuses: &dyn Fn(&Key) -> bool) -> Result<(), ApplyError> {
        self.held.check_order(&update)?;
        let unreadable = self.held.unreadable_after(&update);
        let mut changes = self.held.candidates(&update.scope, update.changes, &unreadable);
        let refused = changes.extract_if(.., |key, _| refuses(key)).map(|(key, change)| {
            let (code, message) = (ViolationCode::PortInUse, "told to".to_owned());
            let violation = Violation { object: key.clone(), field: String::new(), code, message };
            (key, Refused { change, violations: vec![violation] })
        });
        let refused = refused.collect();
        let built = self.held.build(&changes, refused);
        if !update.allow_shrink {
            self.held.check_shrink(&update.epoch, &built.compiled.engine)?;
        }
        self.held.take(built, unreadable, update.epoch, update.revision);
        Ok(())
    }
}

fn update(scope: Scope, (epoch, revision): (std::sync::Arc<str>, u64), decoded: decode::Decoded) -> Update {
    Update {
        scope,
        epoch,
        revision,
        changes: decoded.changes,
        unreadable: decoded.unreadable,
        gone: decoded.gone,
        on_violation: OnViolation::Park,
        allow_shrink: false,
    }
}
