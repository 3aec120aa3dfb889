//! Objects as the engine holds them, and the checks that every kind shares: metadata, apiVersion, kind.

use std::sync::Arc;

use bytes::Bytes;
use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::{Key, Resource};
use gateway_proto::secret::Secrets;
use gateway_proto::{API_VERSION, wire};

use crate::certificate::Certificate;
use crate::identity::{Consumer, IssuerSlot, TokenIssuer};
use crate::listener::Listener;
use crate::policy::PolicySet;
use crate::policy::joins::JoinSlot;
use crate::route::Route;
use crate::route::table::Seed;
use crate::sharing::{Keyed, hash};
use crate::upstream::Upstream;
use crate::value;
use crate::violations::Violations;

/// Most labels of an object.
pub const MAX_LABELS: usize = 64;
/// Longest name of a label or annotation, without its prefix.
pub const MAX_LABEL_NAME: usize = 63;
/// Longest value of a label.
pub const MAX_LABEL_VALUE: usize = 63;
/// Most bytes of all annotations of an object, names and values.
pub const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// A key with its hash, shared by everything that names the object.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) hash: u64,
    pub(crate) key: Key,
}

impl Name {
    pub(crate) fn new(seed: &Seed, key: Key) -> Self {
        Name { hash: hash(seed, &key), key }
    }
}

impl Keyed for Name {
    type Key = Key;

    fn hash(&self) -> u64 {
        self.hash
    }
    fn key(&self) -> &Key {
        &self.key
    }
}

/// An object: as it is stored, whom it refers to, and what became of it.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) name: Arc<Name>,
    pub(crate) body: Bytes,
    /// What the references in the body stand for.
    pub(crate) secrets: Secrets,
    /// Each once.
    pub(crate) references: Box<[Arc<Name>]>,
    /// A policy in it asks for keys.
    pub(crate) asks_for_keys: bool,
    pub(crate) checked: Checked,
}

impl Keyed for Object {
    type Key = Key;

    fn hash(&self) -> u64 {
        self.name.hash
    }
    fn key(&self) -> &Key {
        &self.name.key
    }
}

/// The checked form of an object.
#[derive(Clone, Debug)]
pub(crate) enum Checked {
    Listener(Arc<Listener>),
    Upstream(Arc<Upstream>),
    Route(Arc<Route>),
    Policy(Arc<PolicyObject>),
    /// `None`: it is faulty, and the draft that holds it will not become an engine.
    Certificate(Option<Arc<Certificate>>),
    Consumer(Arc<Consumer>),
    /// As with certificates; the number is there in any case, for what refers to it.
    TokenIssuer(IssuerSlot, Option<Arc<TokenIssuer>>),
    /// Of no use in a configuration but to be there: the control plane reads it.
    DiscoverySource,
}

impl Checked {
    /// The number of the object among its kind; policies, certificates, consumers and sources have none.
    pub(super) fn slot(&self) -> u32 {
        match self {
            Checked::Listener(listener) => listener.slot.0,
            Checked::Upstream(upstream) => upstream.slot.0,
            Checked::Route(route) => route.slot.0,
            Checked::TokenIssuer(slot, _) => slot.0,
            Checked::Policy(_)
            | Checked::Certificate(_)
            | Checked::Consumer(_)
            | Checked::DiscoverySource => 0,
        }
    }

    /// Notes the policies that the object refers to.
    pub(super) fn refer(&mut self, policies: Option<JoinSlot>) {
        const NEW: &str = "nobody else has what was just checked";
        match self {
            Checked::Listener(it) => Arc::get_mut(it).expect(NEW).referred = policies,
            Checked::Route(it) => Arc::get_mut(it).expect(NEW).referred = policies,
            Checked::Consumer(it) => Arc::get_mut(it).expect(NEW).referred = policies,
            Checked::Upstream(_)
            | Checked::Policy(_)
            | Checked::Certificate(_)
            | Checked::TokenIssuer(..)
            | Checked::DiscoverySource => {}
        }
    }

    /// The policies that the object refers to.
    pub(super) fn referred(&self) -> Option<JoinSlot> {
        match self {
            Checked::Listener(listener) => listener.referred,
            Checked::Route(route) => route.referred,
            Checked::Consumer(consumer) => consumer.referred,
            Checked::Upstream(_)
            | Checked::Policy(_)
            | Checked::Certificate(_)
            | Checked::TokenIssuer(..)
            | Checked::DiscoverySource => None,
        }
    }
}

/// A checked `Policy`.
#[derive(Debug)]
pub(crate) struct PolicyObject {
    /// `namespace/name`.
    pub(crate) name: Arc<str>,
    pub(crate) global: bool,
    pub(crate) set: PolicySet,
}

/// Checks what every kind has: apiVersion, kind, metadata. Left out, the first two and the namespace are filled in.
pub(crate) fn check_metadata(resource: &Resource, out: &mut Violations) {
    let root = FieldPath::root();
    let (api_version, kind) = match resource {
        Resource::Listener(it) => (&it.api_version, &it.kind),
        Resource::Route(it) => (&it.api_version, &it.kind),
        Resource::Upstream(it) => (&it.api_version, &it.kind),
        Resource::Policy(it) => (&it.api_version, &it.kind),
        Resource::Certificate(it) => (&it.api_version, &it.kind),
        Resource::Consumer(it) => (&it.api_version, &it.kind),
        Resource::TokenIssuer(it) => (&it.api_version, &it.kind),
        Resource::Credential(it) => (&it.api_version, &it.kind),
        Resource::DiscoverySource(it) => (&it.api_version, &it.kind),
    };
    if !api_version.is_empty() && api_version != API_VERSION {
        let message = format!("unknown apiVersion {api_version:?}, expected {API_VERSION:?}");
        out.push(&root.field("apiVersion"), ViolationCode::Unknown, message);
    }
    if !kind.is_empty() && kind != resource.kind().as_str() {
        let message = format!("kind is {kind:?}, expected {:?} here", resource.kind().as_str());
        out.push(&root.field("kind"), ViolationCode::Conflict, message);
    }
    let at = root.field("metadata");
    let Some(metadata) = resource.metadata().filter(|metadata| !metadata.name.is_empty()) else {
        out.push(&at.field("name"), ViolationCode::Required, "every object has a name");
        return;
    };
    out.ok(&at.field("name"), value::name(&metadata.name));
    if !metadata.namespace.is_empty() {
        out.ok(&at.field("namespace"), value::name(&metadata.namespace));
    }
    check_labels(metadata, &at, out);
}

fn check_labels(metadata: &wire::Metadata, at: &FieldPath<'_>, out: &mut Violations) {
    let labels = at.field("labels");
    if metadata.labels.len() > MAX_LABELS {
        let message =
            format!("{} labels are too many, at most {MAX_LABELS} are allowed", metadata.labels.len());
        out.push(&labels, ViolationCode::OutOfRange, message);
    }
    for (name, text) in &metadata.labels {
        out.ok(&labels.key(name), label_name(name));
        out.ok(&labels.key(name), label_value(text));
    }
    let annotations = at.field("annotations");
    let bytes: usize = metadata.annotations.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes > MAX_ANNOTATION_BYTES {
        let message =
            format!("annotations of {bytes} bytes are too long, at most {MAX_ANNOTATION_BYTES} in all");
        out.push(&annotations, ViolationCode::OutOfRange, message);
    }
    for name in metadata.annotations.keys() {
        out.ok(&annotations.key(name), label_name(name));
    }
}

/// `[prefix/]name` as Kubernetes has it: the prefix a DNS name, the name of letters, digits, `-`, `_` and `.`.
fn label_name(text: &str) -> Result<(), String> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let dns = |prefix: &str| {
        !prefix.is_empty() && prefix.len() <= 253 && prefix.split('.').all(|label| value::name(label).is_ok())
    };
    if prefix.is_none_or(dns) && !name.is_empty() && name.len() <= MAX_LABEL_NAME && is_label(name) {
        return Ok(());
    }
    Err(format!(
        "invalid name {text:?}, expected 1 to {MAX_LABEL_NAME} letters, digits, '-', '_' and '.', beginning and ending \
         with a letter or digit, after an optional DNS prefix and '/'"
    ))
}

fn label_value(text: &str) -> Result<(), String> {
    if text.is_empty() || text.len() <= MAX_LABEL_VALUE && is_label(text) {
        return Ok(());
    }
    Err(format!(
        "invalid label value {text:?}, expected at most {MAX_LABEL_VALUE} letters, digits, '-', '_' and '.', beginning \
         and ending with a letter or digit"
    ))
}

fn is_label(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    ends(text.as_bytes().first())
        && ends(text.as_bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_and_values_are_those_of_kubernetes() {
        for good in ["team", "app.kubernetes.io/name", "a_b-c.d", "A"] {
            assert!(label_name(good).is_ok(), "{good}");
        }
        let long = "a".repeat(64);
        for bad in ["", "/a", "a/", "a/b/c", "-a", "a b", "A.io/x", long.as_str()] {
            assert!(label_name(bad).is_err(), "{bad}");
        }
        for good in ["", "x", "v1.2_3-x"] {
            assert!(label_value(good).is_ok(), "{good}");
        }
        for bad in ["-", "a b", "\u{e4}", long.as_str()] {
            assert!(label_value(bad).is_err(), "{bad}");
        }
    }
}
