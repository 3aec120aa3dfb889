//! What requestHeaders and responseHeaders share: edits checked once, applied in the order rename, remove, set, add.
//! Names that frame or address a message, or that concern one connection only, are refused: the proxy alone writes
//! those (RFC 9110 §7.6.1, RFC 9112 §6).

use std::collections::BTreeMap;

use gateway_proto::field::{FieldPath, ViolationCode};
use gateway_proto::wire;

use super::header_name;
use crate::head::Head;
use crate::template::Template;
use crate::violations::Violations;

/// Compiled edits; every name is in lower case.
#[derive(Debug)]
pub(super) struct HeaderEdits {
    rename: Box<[(Box<str>, Box<str>)]>,
    remove: Box<[Box<str>]>,
    set: Box<[(Box<str>, Template)]>,
    add: Box<[(Box<str>, Template)]>,
}

/// Fields that concern one connection or frame the message.
const OFF_LIMITS: [&str; 10] = [
    "connection",
    "content-length",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
];

impl HeaderEdits {
    /// Checks a spec; `template` parses a value, `refused` gives the reason why a further name is off limits.
    pub(super) fn compile(
        spec: &wire::HeaderEdits,
        at: &FieldPath<'_>,
        out: &mut Violations,
        refused: fn(&str) -> Option<&'static str>,
        mut template: impl FnMut(&str) -> Result<Template, String>,
    ) -> Option<Self> {
        if *spec == wire::HeaderEdits::default() {
            out.push(at, ViolationCode::Required, "name headers to rename, remove, set or add");
            return None;
        }
        let name = |text: &str, at: &FieldPath<'_>, out: &mut Violations| {
            let name = out.ok(at, editable_name(text, refused))?;
            Some(name.into_boxed_str())
        };
        let (rename_at, remove_at) = (at.field("rename"), at.field("remove"));
        let mut rename = Vec::new();
        for (from, to) in &spec.rename {
            let at = rename_at.key(from);
            if let (Some(from), Some(to)) = (name(from, &at, out), name(to, &at, out)) {
                rename.push((from, to));
            }
        }
        let mut remove = Vec::new();
        for (index, text) in spec.remove.iter().enumerate() {
            remove.extend(name(text, &remove_at.index(index), out));
        }
        reject_repeats(rename.iter().map(|(from, _)| from), &rename_at, out);
        reject_repeats(remove.iter(), &remove_at, out);
        let mut values = |map: &BTreeMap<String, String>, at: &FieldPath<'_>, out: &mut Violations| {
            let mut fields = Vec::new();
            for (text, value) in map {
                let at = at.key(text);
                let name = name(text, &at, out);
                let value = out.ok(&at, template(value).and_then(field_value));
                fields.extend(name.zip(value));
            }
            reject_repeats(fields.iter().map(|(name, _)| name), at, out);
            fields.into_boxed_slice()
        };
        let set = values(&spec.set, &at.field("set"), out);
        let add = values(&spec.add, &at.field("add"), out);
        Some(HeaderEdits { rename: rename.into(), remove: remove.into(), set, add })
    }

    /// Applies the edits; `render` appends a value, given the head as it is at that moment. White space around a
    /// value goes (RFC 9110 §5.5).
    pub(super) fn apply(
        &self,
        head: &mut Head<'_>,
        mut render: impl FnMut(&Template, &Head<'_>, &mut Vec<u8>),
    ) {
        for (from, to) in &self.rename {
            head.rename(from, to);
        }
        for name in &self.remove {
            head.remove(name);
        }
        for (name, template) in &self.set {
            with_value(head, template, &mut render, |head, value| head.set(name, value));
        }
        for (name, template) in &self.add {
            with_value(head, template, &mut render, |head, value| head.add(name, value));
        }
    }
}

fn with_value(
    head: &mut Head<'_>,
    template: &Template,
    render: &mut impl FnMut(&Template, &Head<'_>, &mut Vec<u8>),
    put: impl FnOnce(&mut Head<'_>, &[u8]),
) {
    if let Some(text) = template.literal() {
        return put(head, text.as_bytes().trim_ascii());
    }
    let mut value = head.take_scratch();
    render(template, head, &mut value);
    put(head, value.trim_ascii());
    head.return_scratch(value);
}

/// A name that configuration may edit.
pub(crate) fn editable_name(text: &str, refused: fn(&str) -> Option<&'static str>) -> Result<String, String> {
    let name = header_name(text)?;
    if OFF_LIMITS.contains(&name.as_str()) {
        return Err(format!(
            "{name:?} frames the message or concerns one connection, the proxy alone writes it"
        ));
    }
    match refused(&name) {
        Some(reason) => Err(format!("{name:?} cannot be edited here: {reason}")),
        None => Ok(name),
    }
}

/// A value whose authored parts can stand in a header field.
pub(crate) fn field_value(template: Template) -> Result<Template, String> {
    let sound =
        template.literals().all(|text| text.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control()));
    if sound {
        Ok(template)
    } else {
        Err("a header value cannot hold control characters or line breaks".to_owned())
    }
}

/// Names that differ only in case are the same name.
fn reject_repeats<'n>(names: impl Iterator<Item = &'n Box<str>>, at: &FieldPath<'_>, out: &mut Violations) {
    let mut seen: Vec<&str> = Vec::new();
    for name in names {
        if seen.contains(&&**name) {
            out.push(at, ViolationCode::Duplicate, format!("{name:?} is named twice (case does not count)"));
        }
        seen.push(name);
    }
}
