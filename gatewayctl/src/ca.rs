//! `ca`: the control plane's own certificate authority.

use gateway_proto::admin::{CaRoot, CaStatus};
use http::Method;

use crate::cli::CaCommand;
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(command: &CaCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    let status: CaStatus = match command {
        CaCommand::Status => client.get("/v1/ca", &[]).await?,
        CaCommand::Rotate => client.call(Method::POST, "/v1/ca/rotate", &[], None).await?,
    };
    let rows: Vec<Vec<String>> = status.roots.iter().map(row).collect();
    output.raw(&table(&["SHA256", "STATE", "SINCE", "EXPIRES", "SECONDS LEFT"], &rows))?;
    if !status.waits_for.is_empty() {
        output.note(status.waits_for);
    }
    Ok(())
}

fn row(root: &CaRoot) -> Vec<String> {
    vec![
        root.sha256.clone(),
        root.state.clone(),
        root.since.clone(),
        root.expires.clone(),
        root.expires_in_seconds.to_string(),
    ]
}
