//! One document of a request: JSON text into a wire type, strictly. An unknown field, a wrong type or an unknown
//! value names its field path, its line and column in the document, and what is allowed there.
//!
//! Invariant: a [`Resource`] from here is in canonical form and names a kind, a version and an object that this
//! program knows; whether its content makes sense is for `compile`.

use std::borrow::Cow;

use gateway_proto::API_VERSION;
use gateway_proto::admin::FieldError;
use gateway_proto::field::ViolationCode;
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::secret::without_keys;
use serde::Deserialize;

/// What is read first, because it decides how the rest is read.
#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow, default, rename = "apiVersion", alias = "api_version")]
    api_version: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    kind: Option<Cow<'a, str>>,
}

/// Reads a document that says itself what it is.
///
/// # Errors
/// What is wrong, without `index`: the caller knows which document it is.
pub fn read(text: &str) -> Result<Resource, FieldError> {
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| shape("", &error))?;
    match head.api_version.as_deref() {
        Some(API_VERSION) => {}
        Some(other) => {
            let message = format!("unknown apiVersion {other:?}, expected {API_VERSION:?}");
            return Err(fault("apiVersion", ViolationCode::Unknown, message));
        }
        None => {
            return Err(fault(
                "apiVersion",
                ViolationCode::Required,
                format!("is missing, expected {API_VERSION:?}"),
            ));
        }
    }
    let Some(kind) = head.kind else {
        let kinds = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
        return Err(fault("kind", ViolationCode::Required, format!("is missing, expected one of {kinds}")));
    };
    let kind: Kind =
        kind.parse().map_err(|error| fault("kind", ViolationCode::Unknown, format!("{error}")))?;
    typed(kind, text).map(Resource::canonical)
}

/// Reads a document that was sent to a place: what it leaves out is taken from there, what it says must agree.
///
/// # Errors
/// As [`read`].
pub fn read_at(place: &Key, text: &str) -> Result<Resource, FieldError> {
    let mut resource = typed(place.kind, text)?;
    let head: Head<'_> = serde_json::from_str(text).map_err(|error| shape("", &error))?;
    let metadata = resource.metadata_mut();
    if metadata.name.is_empty() {
        metadata.name.clone_from(&place.name);
    }
    if metadata.namespace.is_empty() {
        metadata.namespace.clone_from(&place.namespace);
    }
    let disagrees = |field, said: &str, asked: &str| {
        Err(fault(field, ViolationCode::Conflict, format!("is {said:?}, but the request is about {asked:?}")))
    };
    match (head.api_version.as_deref(), head.kind.as_deref()) {
        (Some(said), _) if said != API_VERSION => disagrees("apiVersion", said, API_VERSION),
        (_, Some(said)) if said != place.kind.as_str() => disagrees("kind", said, place.kind.as_str()),
        _ if metadata.name != place.name => disagrees("metadata.name", &metadata.name, &place.name),
        _ if metadata.namespace != place.namespace => {
            disagrees("metadata.namespace", &metadata.namespace, &place.namespace)
        }
        _ => Ok(resource.canonical()),
    }
}

fn typed(kind: Kind, text: &str) -> Result<Resource, FieldError> {
    let mut track = serde_path_to_error::Track::new();
    let mut json = serde_json::Deserializer::from_str(text);
    let read = Resource::deserialize(kind, serde_path_to_error::Deserializer::new(&mut json, &mut track));
    let resource = read.map_err(|error| {
        let path = track.path().to_string();
        shape(if path == "." { "" } else { &path }, &error)
    })?;
    json.end().map_err(|error| shape("", &error))?;
    Ok(resource)
}

/// A fault of form, as the JSON reader tells it (with line and column).
fn shape(field: &str, error: &serde_json::Error) -> FieldError {
    let message = error.to_string();
    let code = if message.starts_with("unknown ") {
        ViolationCode::Unknown
    } else if message.starts_with("missing field") {
        ViolationCode::Required
    } else if message.starts_with("duplicate field") {
        ViolationCode::Duplicate
    } else {
        ViolationCode::Invalid
    };
    // The reader quotes what it did not expect.
    fault(field, code, without_keys(&message).into_owned())
}

fn fault(field: &str, code: ViolationCode, message: String) -> FieldError {
    FieldError { object: None, index: None, field: field.to_owned(), code, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = r#"{"apiVersion":"gateway/v1","kind":"Route","metadata":{"name":"users","revision":"7"},
        "spec":{"respond":{"status":200}}}"#;

    fn place(name: &str) -> Key {
        Key::new(Kind::Route, "shop", name)
    }

    #[test]
    fn a_document_is_read_into_its_canonical_form() {
        let resource = read(ROUTE).expect("valid");
        assert_eq!(resource.key().to_string(), "Route default/users");
        assert_eq!(resource.metadata().expect("canonical has it").revision, 0);
    }

    #[test]
    fn faults_of_form_name_their_place_and_what_is_allowed() {
        let spec = |spec: &str| {
            format!(r#"{{"apiVersion":"gateway/v1","kind":"Route","metadata":{{"name":"a"}},"spec":{spec}}}"#)
        };
        for (text, field, code, words) in [
            (spec(r#"{"prioritt":1}"#), "spec.prioritt", ViolationCode::Unknown, "expected one of"),
            (
                spec(r#"{"matches":[{"path":{"exakt":"/"}}]}"#),
                "spec.matches[0].path.exakt",
                ViolationCode::Unknown,
                "column",
            ),
            (spec(r#"{"priority":"high"}"#), "spec.priority", ViolationCode::Invalid, "column"),
            (spec(r#"{"priority":1,"priority":2}"#), "spec", ViolationCode::Duplicate, "`priority`"),
            (spec(r#"{"forward":{},"respond":{}}"#), "spec", ViolationCode::Duplicate, "duplicate"),
            (r#"{"kind":"Route"}"#.to_owned(), "apiVersion", ViolationCode::Required, "gateway/v1"),
            (
                r#"{"apiVersion":"gateway/v9","kind":"Route"}"#.to_owned(),
                "apiVersion",
                ViolationCode::Unknown,
                "v9",
            ),
            (r#"{"apiVersion":"gateway/v1"}"#.to_owned(), "kind", ViolationCode::Required, "Listener, Route"),
            (
                r#"{"apiVersion":"gateway/v1","kind":"Rout"}"#.to_owned(),
                "kind",
                ViolationCode::Unknown,
                "Route",
            ),
            ("[]".to_owned(), "apiVersion", ViolationCode::Required, "missing"),
            ("{} {}".to_owned(), "", ViolationCode::Invalid, "trailing"),
            ("{".to_owned(), "", ViolationCode::Invalid, "line 1"),
        ] {
            let fault = read(&text).expect_err(&text);
            assert_eq!((fault.field.as_str(), fault.code), (field, code), "{text}: {}", fault.message);
            assert!(fault.message.contains(words), "{text}: {}", fault.message);
        }
    }

    #[test]
    fn deep_nesting_is_refused_and_does_not_overflow_the_stack() {
        let text = format!(r#"{{"apiVersion":"gateway/v1","kind":"Route","spec":{}"#, "[".repeat(1_000_000));
        assert!(read(&text).is_err());
    }

    #[test]
    fn a_document_may_leave_to_the_request_what_it_is_but_not_contradict_it() {
        let resource = read_at(&place("users"), r#"{"spec":{"respond":{}}}"#).expect("valid");
        assert_eq!(resource.key(), place("users"));
        for (text, field) in [
            (r#"{"apiVersion":"v0"}"#, "apiVersion"),
            (r#"{"kind":"Listener"}"#, "kind"),
            (r#"{"metadata":{"name":"other"}}"#, "metadata.name"),
            (r#"{"metadata":{"namespace":"other"}}"#, "metadata.namespace"),
        ] {
            let fault = read_at(&place("users"), text).expect_err(text);
            assert_eq!((fault.field.as_str(), fault.code), (field, ViolationCode::Conflict));
        }
    }
}
