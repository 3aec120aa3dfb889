//! What a data plane says of itself, as it is kept with its entry in the store. Its shape belongs to this file; a
//! replica of another version reads what it knows of it.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use gateway_proto::admin::Reject;
use gateway_proto::digest::ItemHash;
use gateway_proto::kind::Key;
use gateway_proto::wire;
use serde::{Deserialize, Serialize};

use crate::identity::{Peer, hex};

/// Refusals that are kept of one data plane.
const MAX_REJECTS: usize = 1_000;
/// Listeners that are kept of one data plane.
pub const MAX_LISTENERS: usize = 1_024;
/// Roots that are kept of one data plane.
const MAX_ROOTS: usize = 8;
/// Longest message of a refusal that is kept, in characters.
const MAX_MESSAGE: usize = 512;

/// The facts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Its `--group`.
    pub group: String,
    /// Its `--label`s.
    pub labels: BTreeMap<String, String>,
    /// Its `--zone`.
    pub zone: String,
    /// Program version.
    pub version: String,
    /// Where it connected from.
    pub address: String,
    /// Listeners and the addresses they are bound to.
    pub listeners: BTreeMap<String, String>,
    /// It holds exactly what its scope had at its revision.
    pub in_sync: bool,
    /// Time its last apply took, in microseconds.
    pub apply_us: u64,
    /// What it refuses.
    pub rejects: Vec<Reject>,
    /// Why it takes nothing at all; empty: it does.
    pub blocked: String,
    /// Of the process; see `Hello.instance`.
    pub instance: String,
    /// The certificate that its stream was opened with.
    pub certificate: Option<Shown>,
    /// SHA-256 of the roots that it checks a control plane against, hexadecimal; empty: it has a way of its own.
    pub trusts: Vec<String>,
}

/// A certificate that was shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// When it ends, in seconds since 1970.
    pub expires: i64,
    /// SHA-256 of the root of ours that signed it, hexadecimal; empty: one of `--tls-client-ca`.
    #[serde(default)]
    pub root: String,
}

impl Report {
    /// What Hello says.
    pub fn of(hello: &wire::Hello, from: SocketAddr, peer: Option<&Peer>) -> Self {
        let mut report = Report {
            group: hello.group.clone(),
            labels: hello.labels.clone(),
            zone: hello.zone.clone(),
            version: hello.build.clone(),
            address: from.to_string(),
            instance: hello.instance.clone(),
            certificate: peer.map(|peer| Shown {
                expires: peer.expires.as_second(),
                root: peer.root.map(|root| hex(&root)).unwrap_or_default(),
            }),
            trusts: hello.trusts.iter().take(MAX_ROOTS).map(|id| hex(&id[..id.len().min(32)])).collect(),
            rejects: hello.parked.iter().filter_map(parked).take(MAX_REJECTS).collect(),
            ..Report::default()
        };
        report.set_listeners(&hello.listeners);
        report
    }

    /// What an acknowledgement says: of what serves, or why none of a transaction does.
    pub fn acknowledged(&mut self, ack: &wire::Ack) {
        self.set_rejects(&ack.rejects);
        self.set_listeners(&ack.listeners);
        self.apply_us = ack.apply_us;
        let whole = ack.rejects.iter().find(|reject| reject.object.is_none());
        let whole = whole.filter(|_| ack.outcome() == wire::ack_outcome::Value::Rejected);
        self.blocked = whole.map_or_else(String::new, |reject| {
            format!("{}: {}", reject.code, reject.message).chars().take(MAX_MESSAGE).collect()
        });
    }

    /// Replaces what it refuses.
    pub fn set_rejects(&mut self, rejects: &[wire::Reject]) {
        self.rejects = rejects.iter().filter_map(reject).take(MAX_REJECTS).collect();
    }

    /// Drops refusals that are not parked any more, and adds those that were not told of otherwise.
    pub fn keep_rejects(&mut self, list: &[wire::Parked]) {
        let now: Vec<Reject> = list.iter().filter_map(parked).collect();
        let still: HashSet<(&Key, &str)> = now.iter().map(|it| (&it.object, it.hash.as_str())).collect();
        self.rejects.retain(|it| still.contains(&(&it.object, it.hash.as_str())));
        for parked in now {
            if self.rejects.len() >= MAX_REJECTS {
                break;
            }
            if !self.rejects.iter().any(|it| it.object == parked.object) {
                self.rejects.push(parked);
            }
        }
    }

    /// Replaces where its listeners are bound.
    pub fn set_listeners(&mut self, listeners: &[wire::BoundListener]) {
        let cut = |text: &str| text.chars().take(MAX_MESSAGE).collect::<String>();
        let listeners = listeners.iter().take(MAX_LISTENERS);
        self.listeners = listeners.map(|bound| (cut(&bound.name), cut(&bound.address))).collect();
    }
}

fn reject(reject: &wire::Reject) -> Option<Reject> {
    Some(Reject {
        object: Key::try_from(reject.object.as_ref()?).ok()?,
        hash: ItemHash::from_slice(&reject.hash)?.to_string(),
        field: reject.field.chars().take(MAX_MESSAGE).collect(),
        code: reject.code.chars().take(MAX_MESSAGE).collect(),
        message: reject.message.chars().take(MAX_MESSAGE).collect(),
        retryable: reject.retryable,
    })
}

fn parked(parked: &wire::Parked) -> Option<Reject> {
    Some(Reject {
        object: Key::try_from(parked.object.as_ref()?).ok()?,
        hash: ItemHash::from_slice(&parked.refused)?.to_string(),
        field: String::new(),
        code: "parked".to_owned(),
        message: "was refused before this control plane came to know of it".to_owned(),
        retryable: false,
    })
}
