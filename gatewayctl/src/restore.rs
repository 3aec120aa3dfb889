//! `restore`: a dump, or any manifests, becomes what the store holds: one revision, the first of a new epoch, which data
//! planes of any history follow. What is there is not touched without `--replace`.

use gateway_engine::manifest::Document;
use gateway_proto::admin::ApplyResponse;
use gateway_proto::kind::Key;
use http::Method;
use serde::Serialize;

use crate::cli::RestoreArgs;
use crate::client::{CallError, Client};
use crate::output::{Output, counted};
use crate::report::Failure;
use crate::{apply, changes, manifests, spans, wait};

/// How a backup is to be taken.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Terms<'a> {
    replace: bool,
    dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
}

/// Runs it.
pub(crate) async fn run(args: &RestoreArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let documents = manifests::read(&args.manifests, output)?;
    let terms = Terms { replace: args.replace, dry_run: args.dry_run, message: args.message.as_deref() };
    let progress = output.progress(format!("restoring {}", counted(documents.len(), "object")));
    let body = apply::body(&documents, &terms)?;
    let answer: Result<ApplyResponse, CallError> =
        client.call(Method::POST, "/v1/restore", &[], Some(body)).await;
    drop(progress);
    let response = answer.map_err(|error| {
        let is_taken = error.is_conflict() && !args.replace;
        let failure = error.about(&documents);
        if is_taken { failure.help("--replace deletes what the dump does not name") } else { failure }
    })?;
    output.warnings(&spans::findings(
        &response.warnings,
        &documents,
        gateway_engine::manifest::Class::Warning,
    ));
    let counts = changes::counts(&response.changes);
    if args.dry_run {
        return output.say(format!("{counts}; nothing was stored (dry run)"));
    }
    output.say(format!("restored: {counts}; revision {}", response.revision))?;
    match wait::time(args.wait, output) {
        Some(within) => {
            let objects: Vec<Key> = documents.iter().map(Document::key).collect();
            wait::until_applied(client, response.revision, &objects, within, output).await
        }
        None => Ok(()),
    }
}
