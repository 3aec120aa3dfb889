//! Discovery: what is checked of a `DiscoverySource`, of an upstream that names one, and of the instances that a source
//! tells of. Reading sources is the control plane's business; data planes only get sets of endpoints.
//!
//! Invariant: what was taken here is a plain relative path, a bounded name, or an address that can be connected to.

use std::path::{Component, Path};
use std::sync::Arc;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::kind::Kind;
use gateway_proto::wire;
use gateway_proto::wire::discovery_source_spec::Source;

use crate::compile::reference::References;
use crate::upstream::{Host, target_host};
use crate::violations::Violations;

/// Longest path of a file.
const MAX_PATH: usize = 1024;
/// Longest name of a service, in bytes.
pub const MAX_SERVICE_NAME: usize = 253;
/// Most tags that are asked for, and most of an instance.
pub const MAX_TAGS: usize = 64;
/// Longest tag, and longest name of a zone, in bytes.
pub const MAX_TAG: usize = 128;

/// Where an upstream's targets are learnt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// `namespace/name` of the source.
    pub source: Arc<str>,
    /// The service.
    pub service: Arc<str>,
    /// Its instances must have all of these.
    pub tags: Arc<[Box<str>]>,
}

/// Reads the address of an instance: `host:port`, as that of a target.
///
/// # Errors
/// What is wrong with it.
pub fn address(text: &str) -> Result<Host, String> {
    target_host(text)
}

/// Whether a text can be the name of a service, a tag or a zone: not empty, not over `most` bytes, nothing but visible
/// characters and spaces.
///
/// # Errors
/// What is wrong with it.
pub fn name(what: &str, text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{what} is empty"));
    }
    if text.len() > most {
        return Err(format!("{what} of {} bytes is too long, at most {most} are allowed", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{what} {text:?} has control characters"));
    }
    Ok(())
}

/// Checks what a source is.
pub(crate) fn check(spec: &wire::DiscoverySourceSpec, at: &FieldPath<'_>, out: &mut Violations) {
    match &spec.source {
        None => out.push(at, ViolationCode::Required, "say what the source is; this version has: file"),
        Some(Source::File(file)) => {
            let file_at = at.field("file");
            let path_at = file_at.field("path");
            if file.path.is_empty() {
                out.push(&path_at, ViolationCode::Required, "name the file, below --discovery-file-dir");
            } else {
                out.ok(&path_at, path(&file.path));
            }
        }
    }
}

/// A path that stays below where it begins, whatever that is.
fn path(text: &str) -> Result<(), String> {
    if text.len() > MAX_PATH || text.chars().any(char::is_control) {
        return Err(format!("a path has at most {MAX_PATH} bytes and no control characters"));
    }
    let is_plain = |component: Component<'_>| matches!(component, Component::Normal(_));
    if !Path::new(text).components().all(is_plain) {
        return Err(format!(
            "invalid path {text:?}: it is taken below --discovery-file-dir, so that it neither begins with / nor has . or .. in it"
        ));
    }
    Ok(())
}

/// Checks where an upstream's targets are learnt; `None` after a violation.
pub(crate) fn of_upstream(
    spec: &wire::UpstreamDiscovery,
    at: &FieldPath<'_>,
    references: &References<'_>,
    out: &mut Violations,
) -> Option<Discovery> {
    let faults = out.len();
    let source_at = at.field("source");
    let source = if spec.source.is_empty() {
        out.push(&source_at, ViolationCode::Required, "name a DiscoverySource");
        None
    } else {
        references.resolve(Kind::DiscoverySource, &spec.source, &source_at, out)
    };
    let service_at = at.field("service");
    if spec.service.is_empty() {
        out.push(&service_at, ViolationCode::Required, "name the service, as the source calls it");
    } else {
        out.ok(&service_at, name("the name of a service", &spec.service, MAX_SERVICE_NAME));
    }
    let tags_at = at.field("tags");
    if spec.tags.len() > MAX_TAGS {
        let message = format!("{} tags are too many, at most {MAX_TAGS} are allowed", spec.tags.len());
        out.push(&tags_at, ViolationCode::OutOfRange, message);
    }
    for (index, tag) in spec.tags.iter().take(MAX_TAGS).enumerate() {
        let at = tags_at.index(index);
        if spec.tags[..index].contains(tag) {
            out.push(&at, ViolationCode::Duplicate, format!("{tag:?} is already in this list"));
        } else {
            out.ok(&at, name("a tag", tag, MAX_TAG));
        }
    }
    let source = source.filter(|_| out.len() == faults)?;
    Some(Discovery {
        source: source.name.key.qualified().into(),
        service: spec.service.as_str().into(),
        tags: spec.tags.iter().map(|tag| tag.as_str().into()).collect(),
    })
}

#[cfg(test)]
mod tests;
