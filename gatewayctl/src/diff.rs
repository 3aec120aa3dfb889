//! `diff`: what an apply would change, as the server sees it.

use gateway_engine::manifest::Class;
use gateway_proto::admin::DiffResponse;
use http::Method;

use crate::apply::{Terms, body, prune};
use crate::cli::DiffArgs;
use crate::client::Client;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::{changes, manifests, spans};

/// Runs it.
pub(crate) async fn run(args: &DiffArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let documents = manifests::read(&args.manifests, output)?;
    let terms = Terms { prune: prune(&args.prune), ..Terms::default() };
    let body = body(&documents, &terms)?;
    let answer: Result<DiffResponse, _> = client.call(Method::POST, "/v1/diff", &[], Some(body)).await;
    let answer = answer.map_err(|error| error.about(&documents))?;
    output.warnings(&spans::findings(&answer.warnings, &documents, Class::Warning));
    changes::show_differences(&answer.changes, output)?;
    if answer.changes.is_empty() {
        output.note(format!("no difference to revision {}", answer.revision));
        return Ok(());
    }
    output.note(format!("{}, compared with revision {}", changes::counts(&answer.changes), answer.revision));
    if args.exit_code { Err(Failure::silent(Exit::Difference)) } else { Ok(()) }
}
