//! Which objects a command is about: a kind and names, or references such as `route/users` and `route/shop/users`,
//! the form that `get -o name` writes, so that its output can be given back to `get` and `delete`. A reference's own
//! namespace goes before `-n`.

use gateway_engine::value;
use gateway_proto::kind::{Key, Kind};

use super::kind;

/// The first word after `get` or `delete`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One kind or every kind; names may follow.
    Kinds(Vec<Kind>),
    /// One object; more references may follow.
    Object(Reference),
}

/// `KIND/NAME` or `KIND/NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    kind: Kind,
    /// `None`: that of `-n`.
    namespace: Option<String>,
    name: String,
}

impl Subject {
    /// The objects that it names together with the words that follow; empty when it names kinds only.
    pub(crate) fn keys(&self, names: &[String], namespace: &str) -> Result<Vec<Key>, String> {
        match self {
            Subject::Kinds(kinds) => match kinds.as_slice() {
                [kind] => {
                    if let Some(reference) = names.iter().find(|name| name.contains('/')) {
                        return Err(format!(
                            "{reference:?} is no name: write KIND NAME..., or KIND/NAME for each"
                        ));
                    }
                    Ok(names.iter().map(|name| Key::new(*kind, namespace, name)).collect())
                }
                _ if names.is_empty() => Ok(Vec::new()),
                _ => Err("names go with one kind, not with all".to_owned()),
            },
            Subject::Object(first) => {
                let more = names.iter().map(|name| reference(name));
                let all = std::iter::once(Ok(first.clone())).chain(more);
                all.map(|reference| reference.map(|it| it.key(namespace))).collect()
            }
        }
    }
}

impl Reference {
    fn key(self, namespace: &str) -> Key {
        Key::new(self.kind, self.namespace.as_deref().unwrap_or(namespace), &self.name)
    }
}

fn reference(text: &str) -> Result<Reference, String> {
    let parts: Vec<&str> = text.split('/').collect();
    let (of_kind, namespace, name) = match parts.as_slice() {
        [kind, name] => (kind, None, name),
        [kind, namespace, name] => (kind, Some((*namespace).to_owned()), name),
        _ => return Err(format!("{text:?} is no KIND/NAME and no KIND/NAMESPACE/NAME")),
    };
    namespace.iter().try_for_each(|namespace| value::name(namespace))?;
    value::name(name)?;
    Ok(Reference { kind: kind(of_kind)?, namespace, name: (*name).to_owned() })
}

/// A kind, `all` or a reference.
pub(super) fn of_get(text: &str) -> Result<Subject, String> {
    if text == "all" { Ok(Subject::Kinds(Kind::ALL.to_vec())) } else { of_delete(text) }
}

/// A kind or a reference.
pub(super) fn of_delete(text: &str) -> Result<Subject, String> {
    if text.contains('/') {
        reference(text).map(Subject::Object)
    } else {
        kind(text).map(|kind| Subject::Kinds(vec![kind]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(words: &[&str]) -> Result<Vec<String>, String> {
        let names: Vec<String> = words[1..].iter().map(|&word| word.to_owned()).collect();
        let keys = of_get(words[0])?.keys(&names, "here")?;
        Ok(keys.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn kinds_with_names_and_references_name_objects() {
        for (words, expected) in [
            (&["routes"][..], &[][..]),
            (&["all"], &[]),
            (&["route", "a", "b"], &["Route here/a", "Route here/b"]),
            (&["route/a", "upstream/shop/b"], &["Route here/a", "Upstream shop/b"]),
        ] {
            assert_eq!(keys(words).expect("they read"), expected, "{words:?}");
        }
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for (words, text) in [
            (&["rout/a"][..], "unknown kind"),
            (&["route/a/b/c"], "is no KIND/NAME"),
            (&["route/"], ""),
            (&["route/Shop/a"], ""),
            (&["route/a", "b"], "\"b\" is no KIND/NAME"),
            (&["route", "upstream/b"], "write KIND NAME"),
            (&["all", "a"], "one kind"),
        ] {
            assert!(keys(words).expect_err("refused").contains(text), "{words:?}");
        }
    }
}
