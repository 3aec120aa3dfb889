//! What a data plane says on the stream, made from what it holds.

use std::time::Duration;

use gateway_proto::wire;
use wire::ack_outcome::Value as Outcome;

use crate::apply::{ApplyError, Held};

/// Where what is held stands; none: nothing is held.
pub(crate) fn cursor(held: &Held) -> Option<wire::Cursor> {
    let cursor = held.cursor();
    (!cursor.epoch.is_empty()).then(|| cursor.into())
}

/// Each object that is done without, once.
pub(crate) fn parked(held: &Held) -> Vec<wire::Parked> {
    let mut parked: Vec<wire::Parked> = held.rejects().iter().map(Into::into).collect();
    parked.dedup_by(|one, before| one.object == before.object);
    parked
}

/// What is held and done without.
pub(crate) fn heartbeat(held: &Held) -> wire::Heartbeat {
    wire::Heartbeat { cursor: cursor(held), parked: parked(held) }
}

/// A transaction that was applied, but for what is refused.
pub(crate) fn applied(number: u64, held: &Held, took: Duration) -> wire::Ack {
    let rejects: Vec<wire::Reject> = held.rejects().iter().map(Into::into).collect();
    let outcome = if rejects.is_empty() { Outcome::Applied } else { Outcome::Partial };
    wire::Ack {
        transaction: number,
        cursor: cursor(held),
        outcome: outcome.into(),
        rejects,
        apply_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
        listeners: Vec::new(),
    }
}

/// A transaction that was refused as a whole.
pub(crate) fn refused(number: u64, held: &Held, error: &ApplyError) -> wire::Ack {
    let (code, message) = (error.code().to_owned(), error.to_string());
    wire::Ack {
        transaction: number,
        cursor: cursor(held),
        outcome: Outcome::Rejected.into(),
        rejects: vec![wire::Reject { code, message, ..Default::default() }],
        ..Default::default()
    }
}
