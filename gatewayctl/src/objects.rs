//! Objects as the API answers them, and how they are written out. Works on plain JSON, so that objects of a newer
//! server are shown whole. Text that an apply would take for a variable is escaped: what `get` writes, `apply` reads
//! back unchanged.

use std::collections::BTreeSet;

use gateway_engine::manifest::escape;
use gateway_proto::admin::{List, collection_path};
use gateway_proto::kind::{Key, Kind};
use serde_json::Value;

use crate::cli::Labels;
use crate::client::{CallError, Client};
use crate::report::Failure;

/// Most objects that are asked for at once.
const PAGE: &str = "1000";

/// Which objects of a kind.
#[derive(Clone, Debug)]
pub(crate) struct Filter<'a> {
    /// `*`: all.
    pub(crate) namespace: &'a str,
    pub(crate) labels: Option<&'a Labels>,
    /// With sealed secrets instead of masked ones.
    pub(crate) sealed: bool,
}

/// What was read, and the revisions that its pages were read at.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub(crate) objects: Vec<Value>,
    pub(crate) revisions: BTreeSet<u64>,
}

/// Every object of a kind that passes.
pub(crate) async fn list(client: &Client, kind: Kind, filter: &Filter<'_>) -> Result<Vec<Value>, Failure> {
    let mut listed = Listed::default();
    read(client, kind, filter, &mut listed).await?;
    Ok(listed.objects)
}

/// Reads every object of a kind that passes, page by page.
pub(crate) async fn read(
    client: &Client,
    kind: Kind,
    filter: &Filter<'_>,
    into: &mut Listed,
) -> Result<(), Failure> {
    let labels = filter.labels.map(|labels| {
        labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
    });
    let mut cursor: Option<String> = None;
    loop {
        let mut query = vec![("namespace", filter.namespace), ("limit", PAGE)];
        query.extend(labels.as_deref().map(|labels| ("labels", labels)));
        query.extend(filter.sealed.then_some(("secrets", "sealed")));
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: List = client.get(&collection_path(kind, None), &query).await?;
        into.revisions.insert(page.revision);
        for item in &page.items {
            let object = serde_json::from_str(item.get());
            into.objects.push(
                object.map_err(|error| {
                    Failure::runtime(format!("the server's list makes no sense: {error}"))
                })?,
            );
        }
        match page.next_cursor {
            Some(next) => cursor = Some(next),
            None => return Ok(()),
        }
    }
}

/// One object.
pub(crate) async fn get(client: &Client, key: &Key) -> Result<Value, CallError> {
    client.get(&crate::client::object_path(key), &[("namespace", &key.namespace)]).await
}

/// The key of an object as the API answers it; `None` for a kind that is not known here.
pub(crate) fn key(object: &Value) -> Option<Key> {
    let kind = Kind::ALL.iter().find(|kind| kind.as_str() == text(object, "/kind"))?;
    Some(Key::new(*kind, text(object, "/metadata/namespace"), text(object, "/metadata/name")))
}

/// Text at a JSON pointer; empty when there is none.
pub(crate) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// As YAML.
pub(crate) fn yaml(object: &Value) -> String {
    // JSON values always have a YAML form; were it otherwise, JSON is one too.
    serde_saphyr::to_string(&escaped(object)).unwrap_or_else(|_| format!("{object}\n"))
}

/// As indented JSON.
pub(crate) fn json(object: &Value) -> String {
    format!("{:#}\n", escaped(object))
}

fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(escape(text).into_owned()),
        Value::Array(items) => items.iter().map(escaped).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), escaped(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use gateway_engine::manifest::{Resolver, parse};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_written_reads_back_unchanged() {
        let object = json!({
            "apiVersion": "gateway/v1", "kind": "Route",
            "metadata": {"name": "a", "namespace": "default", "labels": {"a": "1.10", "b": "yes", "c": "null", "d": "0x1"}, "generation": "3"},
            "spec": {
                "hosts": ["*.example", "~", "", " x ", "a: b", "#", "- a", "&a", "!t", "%", "@", "`", "{", "'", "\"", "é\u{7}"],
                "matches": [{"path": {"regex": "^/[0-9]+$"}, "headers": [{"name": "x", "exact": "true"}]}],
                "respond": {"body": "${PORT} $${X} ${request.id}\n  two\n\nthree \n", "headers": {"x-y z": "1e3"}},
            },
        });
        let expected = parse("json", object.to_string().as_bytes(), &Resolver::literal()).expect("sound");
        for text in [yaml(&object), json(&object)] {
            let read = parse("written", text.as_bytes(), &Resolver::environment())
                .unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!(read[0].resource, expected[0].resource, "{text}");
        }
    }
}
