//! How changes of objects read: in words, in numbers, and as a difference of their YAML.

use std::fmt::Write as _;

use gateway_proto::admin::{Action, Change};
use serde_json::Value;
use similar::TextDiff;

use crate::objects;
use crate::output::Output;
use crate::report::Failure;

/// What happened to an object.
pub(crate) const fn done(action: Action) -> &'static str {
    match action {
        Action::Created => "created",
        Action::Updated => "updated",
        Action::Deleted => "deleted",
        Action::Unchanged => "unchanged",
    }
}

/// `2 created, 1 updated`; only what happened at all.
pub(crate) fn counts(changes: &[Change]) -> String {
    let mut text = String::new();
    for action in [Action::Created, Action::Updated, Action::Deleted, Action::Unchanged] {
        let count = changes.iter().filter(|change| change.action == action).count();
        if count > 0 {
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{count} {}", done(action));
        }
    }
    if text.is_empty() { "nothing to do".to_owned() } else { text }
}

/// Writes the differences, one after the other.
pub(crate) fn show_differences(changes: &[Change], output: &Output) -> Result<(), Failure> {
    for change in changes {
        output.diff(&difference(change))?;
    }
    Ok(())
}

/// The difference of one object, as a unified diff of its YAML.
fn difference(change: &Change) -> String {
    let side = |value: &Option<Value>| {
        value.as_ref().map(|value| objects::yaml(&authored(value))).unwrap_or_default()
    };
    let (before, after) = (side(&change.before), side(&change.after));
    let (old, new) = match change.action {
        Action::Created => ("(none)".to_owned(), change.object.to_string()),
        Action::Deleted => (change.object.to_string(), "(none)".to_owned()),
        Action::Updated | Action::Unchanged => (change.object.to_string(), change.object.to_string()),
    };
    let mut text = format!("--- {old}\n+++ {new}\n");
    let _ = write!(text, "{}", TextDiff::from_lines(&before, &after).unified_diff().context_radius(3));
    for path in &change.secrets {
        let _ = writeln!(text, " ({path} differs; its values are not shown)");
    }
    text
}

/// The part of an object that people write.
fn authored(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for name in ["generation", "revision", "createdAt", "updatedAt"] {
            metadata.shift_remove(name);
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::{Key, Kind};
    use serde_json::json;

    use super::*;

    fn change(action: Action, before: Option<Value>, after: Option<Value>) -> Change {
        let object = Key::new(Kind::Route, "default", "users");
        Change { object, action, before, after, secrets: Vec::new() }
    }

    #[test]
    fn a_difference_shows_what_people_wrote() {
        let route = |priority: i32, revision: &str| json!({"kind": "Route", "metadata": {"name": "users", "revision": revision}, "spec": {"priority": priority}});
        let updated = change(Action::Updated, Some(route(1, "3")), Some(route(2, "4")));
        insta::assert_snapshot!(difference(&updated), @r"
        --- Route default/users
        +++ Route default/users
        @@ -2,4 +2,4 @@
         metadata:
           name: users
         spec:
        -  priority: 1
        +  priority: 2
        ");
        let same = Some(json!({"kind": "Certificate", "spec": {"key": "***"}}));
        let secrets = vec!["spec.key".to_owned()];
        let secret = difference(&Change { secrets, ..change(Action::Updated, same.clone(), same) });
        let expected = "--- Route default/users\n+++ Route default/users\n (spec.key differs; its values are not shown)\n";
        assert_eq!(secret, expected);
        let created = difference(&change(Action::Created, None, Some(json!({"kind": "Route"}))));
        assert!(created.starts_with("--- (none)\n+++ Route default/users\n"), "{created}");
    }

    #[test]
    fn counts_name_only_what_happened() {
        let changes =
            [Action::Updated, Action::Unchanged, Action::Updated].map(|action| change(action, None, None));
        assert_eq!(counts(&changes), "2 updated, 1 unchanged");
        assert_eq!(counts(&[]), "nothing to do");
    }
}
