//! Puts what the compiler or the server found wrong back onto the line that the user wrote.

use gateway_engine::manifest::{Class, Document, ManifestError};
use gateway_proto::admin::FieldError;
use gateway_proto::field::Violation;
use gateway_proto::kind::Key;

/// A fault in an object, whoever found it.
#[derive(Debug)]
pub(crate) struct Fault {
    object: Option<Key>,
    index: Option<usize>,
    field: String,
    message: String,
}

impl From<&Violation> for Fault {
    fn from(violation: &Violation) -> Self {
        Fault {
            object: Some(violation.object.clone()),
            index: None,
            field: violation.field.clone(),
            message: violation.message.clone(),
        }
    }
}

impl From<&FieldError> for Fault {
    fn from(error: &FieldError) -> Self {
        Fault {
            object: error.object.clone(),
            index: error.index.and_then(|index| usize::try_from(index).ok()),
            field: error.field.clone(),
            message: error.message.clone(),
        }
    }
}

/// Most findings that are shown of one answer: finding a line costs a look through the documents.
const MAX_SHOWN: usize = 100;

/// What was found wrong, and how many findings more there are.
pub(crate) type Findings = (Vec<ManifestError>, usize);

/// The first faults, each on its line; one that is about no document of these is about what is stored.
pub(crate) fn findings<F: Into<Fault>>(
    faults: impl IntoIterator<Item = F>,
    documents: &[Document],
    class: Class,
) -> Findings {
    let mut faults = faults.into_iter();
    let shown =
        faults.by_ref().take(MAX_SHOWN).map(|fault| finding(fault.into(), documents, class)).collect();
    (shown, faults.count())
}

fn finding(fault: Fault, documents: &[Document], class: Class) -> ManifestError {
    let by_key =
        || documents.iter().find(|document| fault.object.as_ref().is_some_and(|key| is(document, key)));
    let document = fault.index.and_then(|index| documents.get(index)).or_else(by_key);
    let text = one_line(&fault.message);
    let message = match (&fault.object, fault.field.as_str()) {
        (Some(object), "") if text.starts_with(&object.to_string()) => text,
        (Some(object), "") => format!("{object}: {text}"),
        (Some(object), field) => format!("{object}: {field}: {text}"),
        (None, "") => text,
        (None, field) => format!("{field}: {text}"),
    };
    let (file, at) = match document {
        Some(document) => {
            let written = &document.written;
            (written.source().name().to_owned(), Some(written.excerpt(&fault.field)))
        }
        None => ("on the server".to_owned(), None),
    };
    ManifestError { class, file, at, message, help: None, note: None }
}

/// Compares without making a key: a batch may have 250,000 documents.
fn is(document: &Document, key: &Key) -> bool {
    document.resource.kind() == key.kind
        && document.resource.metadata().is_some_and(|metadata| metadata.name == key.name)
        && document.key() == *key
}

/// Regular expressions are explained with a drawing; the line below it is drawn here, so first and last line do.
fn one_line(message: &str) -> String {
    match (message.lines().next(), message.lines().next_back()) {
        (Some(first), Some(last)) if message.lines().nth(1).is_some() => {
            format!("{} {}", first.trim(), last.trim().trim_start_matches("error: "))
        }
        _ => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use gateway_engine::manifest::{Resolver, parse};
    use gateway_proto::field::ViolationCode;
    use gateway_proto::kind::Kind;

    use super::*;

    fn error(index: Option<u32>, name: &str, field: &str) -> FieldError {
        FieldError {
            object: Some(Key::new(Kind::Route, "default", name)),
            index,
            field: field.to_owned(),
            code: ViolationCode::Invalid,
            message: "no such upstream \"nowhere\"".to_owned(),
        }
    }

    #[test]
    fn a_server_side_fault_is_underlined_in_the_users_file() {
        let text = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\n---\napiVersion: gateway/v1\nkind: Route\n\
                    metadata: { name: b }\nspec:\n  forward:\n    backends:\n      - { upstream: nowhere }\n";
        let documents = parse("shop.yaml", text.as_bytes(), &Resolver::literal()).expect("sound");
        let errors = [
            error(Some(1), "b", "spec.forward.backends[0].upstream"),
            error(None, "b", "spec.forward.backends[0].weight"),
            error(None, "stored", "spec"),
        ];
        let (shown, more) = findings(&errors, &documents, Class::Invalid);
        assert_eq!(more, 0);
        let shown: Vec<String> = shown.iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(shown.join("\n\n"), @r#"
        error: Route default/b: spec.forward.backends[0].upstream: no such upstream "nowhere"
          --> shop.yaml:11:21
           |
        11 |       - { upstream: nowhere }
           |                     ^^^^^^^

        error: Route default/b: spec.forward.backends[0].weight: no such upstream "nowhere"
          --> shop.yaml:11:11
           |
        11 |       - { upstream: nowhere }
           |           ^^^^^^^^

        error: Route default/stored: spec: no such upstream "nowhere"
          --> on the server
        "#);
    }
    #[test]
    fn findings_are_bounded_and_fit_one_line() {
        let mut fault = error(None, "a", "spec.matches[0].path.regex");
        fault.message =
            "invalid regular expression: regex parse error:\n    /a(\n      ^\nerror: unclosed group".into();
        let (shown, more) = findings(vec![&fault; MAX_SHOWN + 3], &[], Class::Warning);
        assert_eq!((shown.len(), more), (MAX_SHOWN, 3));
        assert_eq!(
            shown[0].message,
            "Route default/a: spec.matches[0].path.regex: invalid regular expression: regex parse error: unclosed group"
        );
    }
}
