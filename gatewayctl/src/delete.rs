//! `delete`: objects by name or by manifest, as one batch: all of them go or none. What others still need stays, and
//! the server says who they are.

use std::collections::BTreeSet;

use gateway_engine::manifest::Document;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::ApplyResponse;
use gateway_proto::kind::Key;
use http::Method;

use crate::apply::{Terms, body};
use crate::cli::{DeleteArgs, DryRun, Manifests};
use crate::client::{CallError, Client};
use crate::output::{Output, counted};
use crate::report::{Exit, Failure};
use crate::{manifests, objects};

/// How often it is looked again which objects are there when one went in between.
const TRIES: usize = 3;

/// Runs it; `connect` is not called for `--dry-run=client`.
pub(crate) async fn run(
    args: &DeleteArgs,
    connect: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
) -> Result<(), Failure> {
    let (keys, documents) = named(args, output)?;
    let said = if args.dry_run.is_some() { "would be deleted" } else { "deleted" };
    let keys = if args.dry_run == Some(DryRun::Client) {
        keys.into_iter().collect()
    } else {
        send(args, keys, &documents, &connect()?, output).await?
    };
    keys.iter().try_for_each(|key| output.say(format!("{key} {said}")))
}

/// Deletes, and tells what went.
async fn send(
    args: &DeleteArgs,
    mut keys: BTreeSet<Key>,
    documents: &[Document],
    client: &Client,
    output: &Output,
) -> Result<Vec<Key>, Failure> {
    let _progress = output.progress(format!("deleting {}", counted(keys.len(), "object")));
    let mut tries = TRIES;
    loop {
        if args.ignore_not_found {
            keys = there(keys, client, output).await?;
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let deletes: Vec<Key> = keys.iter().cloned().collect();
        let terms = Terms { deletes, dry_run: args.dry_run.is_some(), ..Terms::default() };
        let answer: Result<ApplyResponse, _> =
            client.call(Method::POST, "/v1/apply", &[], Some(body(&[], &terms)?)).await;
        tries -= 1;
        match answer {
            Ok(response) => return Ok(response.changes.into_iter().map(|change| change.object).collect()),
            Err(error) if args.ignore_not_found && error.is_not_found() && tries > 0 => {}
            Err(error) => return Err(error.about(documents)),
        }
    }
}

/// Those of the objects that are there.
async fn there(keys: BTreeSet<Key>, client: &Client, output: &Output) -> Result<BTreeSet<Key>, CallError> {
    let mut found = BTreeSet::new();
    for key in keys {
        match objects::get(client, &key).await {
            Ok(_) => {
                found.insert(key);
            }
            Err(error) if error.is_not_found() => output.note(format!("{key} is not there")),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn named(args: &DeleteArgs, output: &Output) -> Result<(BTreeSet<Key>, Vec<Document>), Failure> {
    if let Some(subject) = &args.kind {
        let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let keys = subject.keys(&args.names, namespace);
        return Ok((keys.map_err(|why| Failure::new(Exit::Usage, why))?.into_iter().collect(), Vec::new()));
    }
    let source =
        Manifests { files: args.files.clone(), recursive: args.recursive, namespace: args.namespace.clone() };
    let documents = manifests::read(&source, output)?;
    Ok((documents.iter().map(Document::key).collect(), documents))
}
