//! Finds a field path, as violations carry it, in the text it was written in: `spec.matches[0].path.regex`,
//! `spec.policies[2].requestHeaders.set["x-a b"]`. A path that leads nowhere ends at the nearest parent there is.

use std::ops::Range;

use super::tree::{Node, Value};

/// One step of a rendered path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// A field or a map key.
    Name(String),
    Index(usize),
}

/// The bytes that a path points at, in the text the tree was read from. A scalar is pointed at itself, a list or
/// object by its key; the object as a whole by its name.
pub(super) fn find(root: &Node<'_>, path: &str) -> Range<usize> {
    let steps = steps(path);
    let mut at = whole(root);
    let mut node = root;
    for step in steps {
        let next = match (&node.value, &step) {
            (Value::Object(entries), Step::Name(name)) => entries
                .iter()
                .find(|(key, _)| same(&key.text, name))
                .map(|(key, node)| (node, key.span.clone())),
            (Value::List(items), Step::Index(index)) => {
                items.get(*index).map(|node| (node, whole_item(node)))
            }
            _ => None,
        };
        let Some((found, key)) = next else { break };
        at = match &found.value {
            Value::Scalar(..) if !found.span.is_empty() => found.span.clone(),
            _ => key,
        };
        node = found;
    }
    at
}

/// A key is written as in JSON or as in proto.
fn same(key: &str, name: &str) -> bool {
    key == name || (key.contains('_') && camel(key) == name)
}

fn camel(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let mut rest = part.chars();
        out.extend(rest.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(rest.as_str());
    }
    out
}

fn whole(root: &Node<'_>) -> Range<usize> {
    let name = root.get("metadata").and_then(|metadata| metadata.get("name"));
    name.map_or_else(|| whole_item(root), |name| name.span.clone())
}

fn whole_item(node: &Node<'_>) -> Range<usize> {
    match &node.value {
        Value::Object(entries) => {
            entries.first().map_or_else(|| node.span.clone(), |(key, _)| key.span.clone())
        }
        _ => node.span.clone(),
    }
}

/// Parses what `FieldPath` renders; stops at what it does not render.
fn steps(path: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some(inner) = rest.strip_prefix("[\"") {
            let Some(close) = closing_quote(inner) else { break };
            steps.push(Step::Name(unescape(&inner[..close])));
            rest = inner[close + 1..].trim_start_matches(']');
        } else if let Some(inner) = rest.strip_prefix('[') {
            let Some((index, after)) = inner.split_once(']') else { break };
            let Ok(index) = index.parse() else { break };
            steps.push(Step::Index(index));
            rest = after;
        } else {
            let field = rest.strip_prefix('.').unwrap_or(rest);
            let end = field.find(['.', '[']).unwrap_or(field.len());
            if end == 0 {
                break;
            }
            steps.push(Step::Name(field[..end].to_owned()));
            rest = &field[end..];
        }
    }
    steps
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, c)| match c {
        _ if escaped => {
            escaped = false;
            None
        }
        '\\' => {
            escaped = true;
            None
        }
        '"' => Some(index),
        _ => None,
    })
}

/// Undoes the escapes of a debug-rendered key; others stay as they are and simply match nothing.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, c == '\\') {
            (_, true) => match rest.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some(other) => out.push(other),
                None => {}
            },
            (c, false) => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rendered_paths_come_apart_again() {
        let name = |text: &str| Step::Name(text.to_owned());
        assert_eq!(
            steps(r#"spec.policies[2].requestHeaders.set["x-\"a.b]"].x"#),
            [
                name("spec"),
                name("policies"),
                Step::Index(2),
                name("requestHeaders"),
                name("set"),
                name("x-\"a.b]"),
                name("x")
            ]
        );
        for broken in ["", ".", "[", "[x]", "[\"a", "a..b", "[99999999999999999999]"] {
            assert!(steps(broken).len() <= 1, "{broken}");
        }
    }

    #[test]
    fn proto_spellings_are_found_by_their_json_name() {
        assert!(same("policy_refs", "policyRefs") && same("x_y", "x_y") && !same("policyrefs", "policyRefs"));
    }
}
