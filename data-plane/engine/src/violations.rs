//! Where `compile` collects what is wrong with one object. Invariant: checking goes on after a violation, so that
//! an author sees every fault of a manifest at once.

use std::fmt::Display;

use gateway_proto::field::{FieldPath, Violation, ViolationCode};
use gateway_proto::kind::Key;
use gateway_proto::secret::without_keys;

/// The faults of one object, in the order they were found.
#[derive(Debug)]
pub struct Violations {
    object: Key,
    found: Vec<Violation>,
}

impl Violations {
    /// Nothing found yet.
    pub fn of(object: Key) -> Self {
        Violations { object, found: Vec::new() }
    }

    /// Notes a fault at a place.
    pub fn push(&mut self, at: &FieldPath<'_>, code: ViolationCode, message: impl Into<String>) {
        self.found.push(Violation {
            object: self.object.clone(),
            field: at.to_string(),
            code,
            // It may quote what somebody wrote into the wrong field.
            message: without_keys(&message.into()).into_owned(),
        });
    }

    /// Keeps a parsed value, or notes as `invalid` why there is none.
    pub fn ok<T, E: Display>(&mut self, at: &FieldPath<'_>, parsed: Result<T, E>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(error) => {
                self.push(at, ViolationCode::Invalid, error.to_string());
                None
            }
        }
    }

    /// The object they belong to.
    pub fn object(&self) -> &Key {
        &self.object
    }

    /// How many were found so far: to see whether a part was clean.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All that was found.
    pub fn into_vec(self) -> Vec<Violation> {
        self.found
    }
}
