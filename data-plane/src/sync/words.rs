//! What a data plane says on the stream, made from what it holds.

use std::time::Duration;

use gateway_proto::{FEATURE_BUCKETS, wire};
use wire::ack_outcome::Value as Outcome;

use crate::apply::{ApplyError, Held, Reject};

/// Refusals that are told with their reasons: a control plane keeps no more of one data plane.
const MAX_REASONS: usize = 1_000;

/// What this version is able to do beyond the first.
pub(crate) fn features() -> Vec<String> {
    vec![FEATURE_BUCKETS.to_owned()]
}

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
pub(crate) fn heartbeat(held: &Held, credentials: Option<wire::Cursor>) -> wire::Heartbeat {
    wire::Heartbeat { cursor: cursor(held), parked: parked(held), credentials, ..Default::default() }
}

/// Everything that is done without, and why. Beyond the first the control plane only reckons with it: of those each
/// object is named once, without the reasons.
pub(crate) fn rejects(held: &Held) -> Vec<wire::Reject> {
    let mut told: Vec<wire::Reject> = Vec::new();
    for reject in held.rejects() {
        if told.len() < MAX_REASONS {
            told.push((&reject).into());
        } else if told.last().is_none_or(|before| before.object.as_ref() != Some(&reject.object)) {
            told.push((&Reject { field: String::new(), message: String::new(), ..reject }).into());
        }
    }
    told
}

/// A transaction that was applied, but for what is refused.
pub(crate) fn applied(number: u64, held: &Held, took: Duration) -> wire::Ack {
    let rejects = rejects(held);
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

#[cfg(test)]
mod tests {
    use gateway_proto::digest::ItemHash;
    use gateway_proto::field::ViolationCode;

    use super::*;

    #[test]
    fn of_a_great_many_refusals_only_the_first_are_told_with_their_reasons() {
        let reject = |n: usize| Reject {
            object: wire::ObjectRef {
                kind: "Gizmo".into(),
                namespace: "default".into(),
                name: n.to_string(),
            },
            hash: Some(ItemHash([7; 16])),
            held: None,
            field: "spec".into(),
            code: ViolationCode::Unknown,
            message: "no".into(),
        };
        // The last two are of the same object.
        let unreadable = (0..=MAX_REASONS).chain([MAX_REASONS]).map(reject).collect();
        let held = Held::refusing(unreadable);
        let told = rejects(&held);
        assert_eq!(told.len(), MAX_REASONS + 1, "each object");
        let (last, first) = told.split_last().expect("some");
        assert!(first.iter().all(|it| it.message == "no" && it.field == "spec"));
        assert_eq!((&*last.message, &*last.field, &*last.hash), ("", "", &[7; 16][..]));
        assert_eq!(parked(&held).len(), told.len());
        assert_eq!(applied(1, &held, Duration::ZERO).rejects, told);
    }
}
