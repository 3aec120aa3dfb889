//! `apply`: manifests -> one batch -> one call; then what changed, what looks wrong, and whether it serves.

use gateway_engine::manifest::{Class, Document};
use gateway_proto::admin::{Action, ApplyResponse, Prune};
use gateway_proto::kind::Key;
use http::Method;
use serde::Serialize;

use crate::cli::{ApplyArgs, DryRun, PruneArgs};
use crate::client::{CallError, Client};
use crate::output::{Output, counted};
use crate::report::Failure;
use crate::{changes, manifests, spans, validate, wait};

/// Runs it; `connect` is not called for `--dry-run=client`.
pub(crate) async fn run(
    args: &ApplyArgs,
    connect: impl FnOnce() -> Result<Client, Failure>,
    output: &Output,
) -> Result<(), Failure> {
    let documents = manifests::read(&args.manifests, output)?;
    if args.dry_run == Some(DryRun::Client) {
        return validate::documents(&documents, output);
    }
    let client = connect()?;
    let terms = Terms {
        prune: prune(&args.prune),
        base_revision: args.base_revision,
        dry_run: args.dry_run.is_some(),
        message: args.message.as_deref(),
        allow_shrink: args.allow_shrink,
        revive_keys: args.revive_keys,
        ..Terms::default()
    };
    let response = send(&client, &documents, &terms, output).await?;
    show(&response, &documents, terms.dry_run, output)?;
    match wait::time(args.wait, output) {
        Some(within) if !terms.dry_run => {
            let objects: Vec<Key> = documents.iter().map(Document::key).collect();
            wait::until_applied(&client, response.revision, &objects, within, output).await
        }
        _ => Ok(()),
    }
}

/// How a batch is to be taken.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Terms<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) deletes: Vec<Key>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) prune: Option<Prune>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) base_revision: Option<u64>,
    pub(crate) dry_run: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) allow_shrink: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) revive_keys: bool,
}

/// What the flags say about pruning.
pub(crate) fn prune(args: &PruneArgs) -> Option<Prune> {
    let labels = args.selector.clone().filter(|_| args.prune)?;
    Some(Prune { labels, max_delete: args.max_delete })
}

/// Sends a batch; what the server finds wrong is shown in the documents.
pub(crate) async fn send(
    client: &Client,
    documents: &[Document],
    terms: &Terms<'_>,
    output: &Output,
) -> Result<ApplyResponse, Failure> {
    let _progress = output.progress(format!("applying {}", counted(documents.len(), "object")));
    let answer = client.call(Method::POST, "/v1/apply", &[], Some(body(documents, terms)?)).await;
    let answer: Result<_, CallError> = answer;
    answer.map_err(|error| {
        // Without a base nobody else's change is in the way.
        let stale = terms.base_revision.is_some() && error.is_conflict();
        let failure = error.about(documents);
        if stale { failure.help("look at what changed with `gatewayctl rollout history`") } else { failure }
    })
}

/// `{"resources":[...], ...}`: each object is written once, straight into the body.
pub(crate) fn body(documents: &[Document], terms: &impl Serialize) -> Result<Vec<u8>, Failure> {
    let bad = |error: serde_json::Error| Failure::runtime(format!("cannot write the request: {error}"));
    let mut body = serde_json::to_vec(terms).map_err(bad)?;
    body.pop(); // the closing brace; terms always say `dryRun`, so a comma follows
    body.extend_from_slice(b",\"resources\":[");
    for (index, document) in documents.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        serde_json::to_writer(&mut body, &document.resource).map_err(bad)?;
    }
    body.extend_from_slice(b"]}");
    Ok(body)
}

/// Says what an apply did.
pub(crate) fn show(
    response: &ApplyResponse,
    documents: &[Document],
    dry_run: bool,
    output: &Output,
) -> Result<(), Failure> {
    output.warnings(&spans::findings(&response.warnings, documents, Class::Warning));
    for change in response.changes.iter().filter(|change| change.action != Action::Unchanged) {
        output.say(format!("{} {}", change.object, changes::done(change.action)))?;
    }
    let counts = changes::counts(&response.changes);
    let end = if dry_run {
        "nothing was stored (dry run)".to_owned()
    } else {
        format!("revision {}", response.revision)
    };
    output.say(format!("{counts}; {end}"))
}

#[cfg(test)]
mod tests {
    use gateway_engine::manifest::{Resolver, parse};
    use gateway_proto::admin::ApplyRequest;

    use super::*;

    #[test]
    fn the_body_is_what_the_api_reads() {
        let text = b"apiVersion: gateway/v1\nkind: Upstream\nmetadata: { name: a }\n---\napiVersion: gateway/v1\nkind: Route\nmetadata: { name: b }\n";
        let documents = parse("x", text, &Resolver::literal()).expect("sound");
        let labels = [("team".to_owned(), "x".to_owned())].into();
        let terms = Terms {
            deletes: vec![Key::new(gateway_proto::kind::Kind::Policy, "shop", "old")],
            prune: Some(Prune { labels, max_delete: Some(3) }),
            base_revision: Some(7),
            dry_run: true,
            message: Some("why \"not\""),
            allow_shrink: true,
            revive_keys: true,
        };
        let body = body(&documents, &terms).expect("written");
        let read: ApplyRequest = serde_json::from_slice(&body).expect("the API's own shape");
        assert_eq!((read.resources.len(), read.base_revision, read.dry_run), (2, Some(7), true));
        assert!(read.allow_shrink && read.revive_keys);
        assert_eq!(read.deletes, terms.deletes);
        assert_eq!(read.message.as_deref(), Some("why \"not\""));
        assert_eq!(read.prune.and_then(|prune| prune.max_delete), Some(3));
        let least = super::body(&documents[..1], &Terms::default()).expect("written");
        assert_eq!(
            String::from_utf8_lossy(&least),
            r#"{"dryRun":false,"resources":[{"apiVersion":"gateway/v1","kind":"Upstream","metadata":{"name":"a"}}]}"#
        );
    }
}
