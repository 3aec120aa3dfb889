//! What a control plane knows of its discovery sources, beside the objects themselves: for `get` and `describe`.

use std::fmt::Write as _;

use gateway_proto::admin::{DiscoveredState, DiscoverySourceStatus, DiscoverySourceStatusList};
use gateway_proto::kind::{Key, Kind};
use serde_json::{Value, json};

use crate::client::Client;
use crate::objects;
use crate::output::table;
use crate::report::Failure;

/// Puts a `status` beside the spec of every discovery source among these objects, for a table.
pub(crate) async fn tell(client: &Client, objects: &mut [Value]) -> Result<(), Failure> {
    let is_source = |key: &Key| key.kind == Kind::DiscoverySource;
    if !objects.iter().filter_map(objects::key).any(|key| is_source(&key)) {
        return Ok(());
    }
    let list: DiscoverySourceStatusList = client.get("/v1/discovery", &[]).await?;
    for object in objects {
        let Some(key) = objects::key(object).filter(is_source) else { continue };
        if let Some(status) = list.items.iter().find(|status| status.object == key) {
            object["status"] = json!(status);
        }
    }
    Ok(())
}

/// What is known of a source; `None`: the object is none, or it was made this very moment.
pub(crate) async fn of(client: &Client, key: &Key) -> Result<Option<DiscoverySourceStatus>, Failure> {
    if key.kind != Kind::DiscoverySource {
        return Ok(None);
    }
    let path = format!("/v1/discovery/{}", key.name);
    match client.get(&path, &[("namespace", key.namespace.as_str())]).await {
        Ok(status) => Ok(Some(status)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// As `describe` shows it.
pub(crate) fn described(status: &DiscoverySourceStatus) -> String {
    let mut text = format!("{}: {}", status.object, status.state);
    if let Some(error) = &status.error {
        let _ = write!(text, ": {error}");
    }
    let or_never = |at: &Option<String>| at.clone().unwrap_or_else(|| "never".to_owned());
    let _ = writeln!(
        text,
        "\n{} services, {} endpoints, read {}, changed {}, {} errors",
        status.services,
        status.endpoints,
        or_never(&status.read_at),
        or_never(&status.changed_at),
        status.errors
    );
    for fault in &status.faults {
        let _ = writeln!(text, "passed over: {fault}");
    }
    let row = |it: &gateway_proto::admin::DiscoveredUpstream| {
        let state = match it.state {
            DiscoveredState::Served => "served",
            DiscoveredState::Held => "held until a second look",
            DiscoveredState::Unknown => "unknown",
        };
        let changed = it.changed_at.clone().unwrap_or_default();
        vec![it.upstream.clone(), it.service.clone(), it.endpoints.to_string(), state.to_owned(), changed]
    };
    if !status.upstreams.is_empty() {
        let rows: Vec<Vec<String>> = status.upstreams.iter().map(row).collect();
        text.push_str(&table(&["UPSTREAM", "SERVICE", "ENDPOINTS", "STATE", "CHANGED"], &rows));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_says_its_state_what_it_passed_over_and_who_asks_it() {
        let status = json!({
            "object": {"kind": "DiscoverySource", "namespace": "default", "name": "files"},
            "state": "stale", "error": "cannot read a.yaml: it is empty", "errors": 2, "readAt": "then", "index": 7,
            "services": 3, "endpoints": 9, "faults": ["services.a[1]: no"],
            "upstreams": [{"upstream": "default/u", "service": "a", "endpoints": 4, "state": "held"}],
        });
        let status = serde_json::from_value(status).expect("the API's shape");
        let text = described(&status);
        for line in [
            "DiscoverySource default/files: stale: cannot read a.yaml: it is empty\n",
            "3 services, 9 endpoints, read then, changed never, 2 errors\n",
            "passed over: services.a[1]: no\n",
            "held until a second look",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
