//! `nodes`: the data planes, what they serve and how far behind they are.

use gateway_proto::admin::{DataPlane, DataPlaneList};
use http::Method;

use crate::cli::{NodesArgs, NodesCommand, NodesFormat};
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(args: &NodesArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    if let Some(NodesCommand::Revoke { name, force }) = &args.command {
        let path = format!("/v1/data-planes/{name}/revoke");
        let query: &[_] = if *force { &[("force", "true")] } else { &[] };
        let _: Option<serde_json::Value> = client.call(Method::POST, &path, query, None).await?;
        return output.say(format!("the certificates of {name} are refused from now on"));
    }
    let list: DataPlaneList = client.get("/v1/data-planes", &[]).await?;
    if args.output == NodesFormat::Json {
        let text =
            serde_json::to_string_pretty(&list).map_err(|error| Failure::runtime(error.to_string()))?;
        return output.line(text);
    }
    if list.items.is_empty() {
        output
            .note("no data plane has connected yet; start one with `gateway-data-plane --control-plane URL`");
    }
    let mut names = vec![
        "ID",
        "GROUP",
        "ZONE",
        "STATE",
        "REVISION",
        "LAG",
        "REFUSED",
        "LISTENERS",
        "VERSION",
        "LAST SEEN",
    ];
    let mut rows: Vec<Vec<String>> = list.items.iter().map(row).collect();
    if args.output == NodesFormat::Wide {
        names.extend(["ADDRESS", "CERTIFICATE"]);
        for (row, plane) in rows.iter_mut().zip(&list.items) {
            row.extend([known(plane, &plane.address), certificate(plane)]);
        }
    }
    output.raw(&table(&names, &rows))?;
    for plane in list.items.iter().filter(|plane| !plane.blocked.is_empty()) {
        output.note(format!("{} takes nothing: {}", plane.id, plane.blocked));
    }
    for plane in list.items.iter().filter(|plane| !plane.twin.is_empty()) {
        let DataPlane { id, address, twin, .. } = plane;
        output.note(format!(
            "two data planes are called {id}: the one at {address} is served, the one at {twin} was started before it and is \
             refused; give each its own --node"
        ));
    }
    Ok(())
}

/// Seconds until it ends.
fn certificate(plane: &DataPlane) -> String {
    match &plane.certificate {
        Some(certificate) => format!("{}s", certificate.expires_in_seconds),
        None => "none".to_owned(),
    }
}

/// Where something is, or was when the data plane was last heard of.
fn known(plane: &DataPlane, address: &str) -> String {
    let is_old = !plane.connected && !address.is_empty();
    if is_old { format!("{address} (last known)") } else { address.to_owned() }
}

fn row(plane: &DataPlane) -> Vec<String> {
    let state = match (plane.connected, plane.in_sync) {
        (false, _) => "away",
        (true, _) if !plane.blocked.is_empty() => "blocked",
        (true, true) => "in sync",
        (true, false) => "behind",
    };
    let listeners: Vec<&str> = plane.listeners.values().map(String::as_str).collect();
    let listeners = known(plane, &listeners.join(","));
    vec![
        plane.id.clone(),
        plane.group.clone(),
        plane.zone.clone(),
        state.to_owned(),
        plane.applied_revision.to_string(),
        plane.lag.to_string(),
        plane.rejects.len().to_string(),
        listeners,
        plane.version.clone(),
        plane.last_seen.clone(),
    ]
}
