//! Claims: single values out of a token's verified payload, read where they are asked for. Nothing is kept parsed: most
//! requests ask for none or one.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Longest name of a claim that configuration can ask for.
pub const MAX_CLAIM_NAME: usize = 256;

/// A text that is borrowed unless it holds an escape.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The JSON text of a claim at the top level of a payload.
pub(crate) fn find<'p>(payload: &'p [u8], name: &str) -> Option<&'p str> {
    let mut reader = serde_json::Deserializer::from_slice(payload);
    let found = reader.deserialize_map(Find { name }).ok()?;
    found.map(RawValue::get)
}

/// Appends a claim: a string without its quotes, anything else as compact as the issuer wrote it; nothing if there is
/// none, or it is null.
pub(crate) fn write(payload: &[u8], name: &str, out: &mut Vec<u8>) {
    match find(payload, name) {
        None | Some("null") => {}
        Some(json) => match serde_json::from_str::<Text<'_>>(json) {
            Ok(Text(text)) => out.extend_from_slice(text.as_bytes()),
            Err(_) => out.extend_from_slice(json.as_bytes()),
        },
    }
}

/// Finds one member of an object. The last of several counts, as most JSON parsers have it.
struct Find<'n> {
    name: &'n str,
}

impl<'de> Visitor<'de> for Find<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(Text(name)) = members.next_key()? {
            if name == self.name {
                found = Some(members.next_value()?);
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_is_written_as_people_expect_it_in_a_header() {
        let payload = br#"{"sub":"alice","n":7,"ok":true,"none":null,"roles":["a","b"],"esc":"\u00e4\"","a":{"sub":"x"},"twice":1,"twice":2}"#;
        for (name, expected) in [
            ("sub", "alice"),
            ("n", "7"),
            ("ok", "true"),
            ("none", ""),
            ("absent", ""),
            ("roles", r#"["a","b"]"#),
            ("esc", "\u{e4}\""),
            ("a", r#"{"sub":"x"}"#),
            ("twice", "2"),
        ] {
            let mut out = Vec::new();
            write(payload, name, &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{name}");
        }
        assert_eq!(find(b"[1]", "a"), None);
        assert_eq!(find(b"{\"a\":", "a"), None);
    }
}
