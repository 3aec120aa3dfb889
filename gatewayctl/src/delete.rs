//! `delete`: objects by name or by manifest. Referring kinds go first, so that a folder deletes as a whole; what
//! others still need stays, and the server says who they are.

use std::path::PathBuf;

use gateway_engine::manifest::Document;
use gateway_proto::DEFAULT_NAMESPACE;
use gateway_proto::admin::ApplyResponse;
use gateway_proto::kind::{Key, Kind};
use http::Method;

use crate::cli::{DeleteArgs, Manifests};
use crate::client::{Client, object_path};
use crate::manifests;
use crate::output::Output;
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(args: &DeleteArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let (keys, documents) = named(args, output)?;
    for key in keys {
        let mut query = vec![("namespace", key.namespace.as_str())];
        if args.dry_run {
            query.push(("dryRun", "true"));
        }
        let answer: Result<Option<ApplyResponse>, _> =
            client.call(Method::DELETE, &object_path(&key), &query, None).await;
        match answer {
            Ok(_) if args.dry_run => output.say(format!("{key} would be deleted"))?,
            Ok(_) => output.say(format!("{key} deleted"))?,
            Err(error) if args.ignore_not_found && error.is_not_found() => {
                output.note(format!("{key} is not there"));
            }
            Err(error) => return Err(error.about(&documents)),
        }
    }
    Ok(())
}

fn named(args: &DeleteArgs, output: &Output) -> Result<(Vec<Key>, Vec<Document>), Failure> {
    if let Some(kind) = args.kind {
        let namespace = args.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        return Ok((args.names.iter().map(|name| Key::new(kind, namespace, name)).collect(), Vec::new()));
    }
    let files: Vec<PathBuf> = args.files.clone();
    let source = Manifests { files, recursive: args.recursive, namespace: args.namespace.clone() };
    let documents = manifests::read(&source, output)?;
    let mut keys: Vec<Key> = documents.iter().map(Document::key).collect();
    keys.sort_by_key(|key| order(key.kind));
    Ok((keys, documents))
}

/// Who refers goes before who is referred to.
const fn order(kind: Kind) -> u8 {
    match kind {
        Kind::Route => 0,
        Kind::Listener => 1,
        Kind::Upstream => 2,
        Kind::Policy => 3,
    }
}
