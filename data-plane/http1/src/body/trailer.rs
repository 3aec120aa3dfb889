//! Trailer sections (RFC 9112 §7.1.2): checked by the decoder, read for those who forward them.
//!
//! Framing and routing fields in a trailer section are an attempt to be read twice and are refused.
//! Other fields that RFC 9110 §6.5.1 forbids there are dropped.

use super::BodyError;
use crate::head::MAX_FIELDS;
use crate::tokens::{self, Malformed};
use crate::{Field, KnownField};

/// Reads a section that [`Frame::End`](super::Frame::End) announced: `section` is that range of the
/// buffer, and the spans count from its start. `fields` is cleared first. Fields that do not belong in
/// a trailer section ([`KnownField::is_forbidden_in_trailers`]) are left out.
pub fn parse(section: &[u8], fields: &mut Vec<Field>) -> Result<(), BodyError> {
    fields.clear();
    read(section, MAX_FIELDS, |field| {
        if !field.known.is_forbidden_in_trailers() {
            fields.push(field);
        }
    })
}

/// Whether the section, whose line ends were checked, is well formed.
pub(super) fn check(section: &[u8], max_fields: usize) -> Result<(), BodyError> {
    read(section, max_fields, |_| {})
}

fn read(section: &[u8], max_fields: usize, mut take: impl FnMut(Field)) -> Result<(), BodyError> {
    if section.is_empty() {
        return Ok(());
    }
    let mut count = 0;
    let end = tokens::read(section, 0, |field| {
        if count == max_fields.min(MAX_FIELDS) {
            return Err(BodyError::TrailersTooLarge);
        }
        count += 1;
        if field.known.is_framing() || field.known == KnownField::Host {
            return Err(BodyError::TrailerForbidden);
        }
        take(field);
        Ok(())
    })?;
    if end == section.len() { Ok(()) } else { Err(BodyError::Trailers) }
}

impl From<Malformed> for BodyError {
    fn from(_: Malformed) -> Self {
        BodyError::Trailers
    }
}
