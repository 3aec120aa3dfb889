//! `status`: whether everything serves everywhere, or where one object does.

use std::fmt::Write as _;

use gateway_proto::admin::{DataPlaneList, ObjectState, ObjectStatus};
use gateway_proto::kind::Key;

use crate::cli::StatusArgs;
use crate::client::{CallError, Client};
use crate::output::{Output, table};
use crate::report::Failure;
use crate::wait::refusal;

/// Runs it.
pub(crate) async fn run(args: &StatusArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    match (args.kind, &args.name) {
        (Some(kind), Some(name)) => {
            let status = of(client, &Key::new(kind, &args.namespace, name)).await?;
            output.text(&object(&status))
        }
        _ => {
            let list = client.get("/v1/data-planes", &[]).await?;
            output.text(&format!("server    {}\n{}", client.server(), overview(&list)))
        }
    }
}

/// Where an object serves.
pub(crate) async fn of(client: &Client, key: &Key) -> Result<ObjectStatus, CallError> {
    let path = format!("/v1/status{}", crate::client::object_path(key).trim_start_matches("/v1"));
    client.get(&path, &[("namespace", &key.namespace)]).await
}

/// An object's status, in lines.
pub(crate) fn object(status: &ObjectStatus) -> String {
    let mut text = format!("{}: changed in revision {}\n", status.object, status.revision);
    if status.data_planes.is_empty() {
        text.push_str("no connected data plane takes it\n");
        return text;
    }
    let rows: Vec<Vec<String>> = status
        .data_planes
        .iter()
        .map(|plane| {
            let state = match plane.state {
                ObjectState::Applied => "applied",
                ObjectState::Pending => "pending",
                ObjectState::Refused => "refused",
            };
            let why = plane.reject.as_ref().map(refusal).unwrap_or_default();
            vec![plane.id.clone(), state.to_owned(), plane.applied_revision.to_string(), why]
        })
        .collect();
    text.push_str(&table(&["DATA PLANE", "STATE", "REVISION", "WHY"], &rows));
    text
}

fn overview(list: &DataPlaneList) -> String {
    let connected: Vec<_> = list.items.iter().filter(|plane| plane.connected).collect();
    let in_sync = connected.iter().filter(|plane| plane.in_sync).count();
    let mut text = format!(
        "revision  {}\nplanes    {} connected, {in_sync} in sync, {} away\n",
        list.revision,
        connected.len(),
        list.items.len() - connected.len()
    );
    for plane in connected {
        if !plane.in_sync && plane.rejects.is_empty() {
            let _ =
                writeln!(text, "{}: at revision {}, {} behind", plane.id, plane.applied_revision, plane.lag);
        }
        for reject in &plane.rejects {
            let _ = writeln!(text, "{}: refuses {}", plane.id, refusal(reject));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn status_names_who_is_behind_and_who_refuses_and_why() {
        let plane = |id: &str, connected: bool, in_sync: bool, rejects: serde_json::Value| {
            json!({"id": id, "group": "default", "labels": {}, "zone": "", "version": "", "address": "", "listeners": {},
                "connected": connected, "lastSeen": "", "appliedRevision": 6, "lag": 1, "inSync": in_sync, "applyUs": 3, "rejects": rejects})
        };
        let reject = json!({"kind": "Listener", "namespace": "default", "name": "a", "hash": "", "field": "spec.port",
            "code": "port_in_use", "message": "port 80 is taken", "retryable": true});
        let list = json!({"revision": 7, "items": [plane("a", true, true, json!([])), plane("b", true, false, json!([])),
            plane("c", false, false, json!([])), plane("d", true, false, json!([reject]))]});
        let list = serde_json::from_value(list).expect("the API's shape");
        let of_one = json!({"kind": "Listener", "namespace": "default", "name": "a", "revision": 7, "hash": "",
            "dataPlanes": [{"id": "a", "state": "applied", "appliedRevision": 7},
                {"id": "d", "state": "refused", "appliedRevision": 7, "reject": reject}]});
        let of_one = serde_json::from_value(of_one).expect("the API's shape");
        insta::assert_snapshot!(format!("{}\n{}", overview(&list), object(&of_one)), @r"
        revision  7
        planes    3 connected, 1 in sync, 1 away
        b: at revision 6, 1 behind
        d: refuses Listener default/a: spec.port: port 80 is taken (it tries again)

        Listener default/a: changed in revision 7
        DATA PLANE   STATE     REVISION   WHY
        a            applied   7
        d            refused   7          Listener default/a: spec.port: port 80 is taken (it tries again)
        ");
    }
}
