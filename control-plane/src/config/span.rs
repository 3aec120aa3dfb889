//! A duration as settings write it.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

/// A Go-style duration: `250ms`, `30s`, `1h30m`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Span(pub(super) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        gateway_engine::value::duration(text).map(Span)
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}
