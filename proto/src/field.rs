//! Field paths and violations: how every part of the system names a place in an object and what is wrong there.
//! A path is built while walking down and rendered only when something is wrong, so that a clean object costs nothing.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::kind::Key;

/// A place inside an object: a linked list on the stack, from the leaf up.
///
/// ```
/// use gateway_proto::field::FieldPath;
/// let root = FieldPath::root();
/// let spec = root.field("spec");
/// let matches = spec.field("matches");
/// let first = matches.index(0);
/// assert_eq!(first.field("path").to_string(), "spec.matches[0].path");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct FieldPath<'a> {
    parent: Option<&'a FieldPath<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Index(usize),
    /// A key of an authored map: may hold any character, so it is quoted.
    Key(&'a str),
}

impl<'a> FieldPath<'a> {
    /// The object itself; renders as an empty string.
    pub const fn root() -> FieldPath<'static> {
        FieldPath { parent: None, step: Step::Root }
    }

    /// A field, by its JSON name (`maxBodyBytes`).
    pub const fn field(&'a self, name: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Field(name) }
    }

    /// An item of a list, from 0.
    pub const fn index(&'a self, index: usize) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Index(index) }
    }

    /// An entry of a map.
    pub const fn key(&'a self, key: &'a str) -> FieldPath<'a> {
        FieldPath { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            fmt::Display::fmt(parent, f)?;
        }
        let first = self.parent.is_none_or(|parent| matches!(parent.step, Step::Root));
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) if first => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key:?}]"),
        }
    }
}

/// What is wrong, as a closed vocabulary: programs branch on it, people read the message beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ViolationCode {
    /// A required field is missing or empty.
    Required,
    /// A value that the field does not take.
    Invalid,
    /// A number, size or count outside its bounds.
    OutOfRange,
    /// A field or value that this version does not know.
    Unknown,
    /// The same thing said twice: a policy, an entry, an object.
    Duplicate,
    /// Fields that exclude each other.
    Conflict,
    /// A reference to an object that does not exist.
    DanglingReference,
    /// Deleting an object that others refer to.
    InUse,
    /// Two listeners on one address and port.
    PortConflict,
    /// Warning: a route that can never be reached.
    Shadowed,
    /// Warning: something that has no effect as things stand.
    NoEffect,
    /// Data plane only: the address and port are taken by another process.
    PortInUse,
    /// Data plane only: binding failed for another reason (no permission, no such address).
    BindFailed,
}

impl ViolationCode {
    /// The code as it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Required => "required",
            Self::Invalid => "invalid",
            Self::OutOfRange => "out_of_range",
            Self::Unknown => "unknown",
            Self::Duplicate => "duplicate",
            Self::Conflict => "conflict",
            Self::DanglingReference => "dangling_reference",
            Self::InUse => "in_use",
            Self::PortConflict => "port_conflict",
            Self::Shadowed => "shadowed",
            Self::NoEffect => "no_effect",
            Self::PortInUse => "port_in_use",
            Self::BindFailed => "bind_failed",
        }
    }
}

/// One thing that is wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    /// The object.
    pub object: Key,
    /// Rendered [`FieldPath`], e.g. `spec.matches[0].path.regex`; empty: the object as a whole.
    pub field: String,
    /// What kind of fault.
    pub code: ViolationCode,
    /// Lower case, names the offending value, says what to do.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_renders_fields_indices_and_quoted_keys() {
        let root = FieldPath::root();
        assert_eq!(root.to_string(), "");
        let spec = root.field("spec");
        let policies = spec.field("policies");
        let entry = policies.index(2);
        let edits = entry.field("requestHeaders");
        let set = edits.field("set");
        assert_eq!(set.key("x-a b").to_string(), "spec.policies[2].requestHeaders.set[\"x-a b\"]");
    }
}
