//! Manifests as the command line names them: files, folders and standard input, as one batch.

use std::io::Read as _;
use std::path::Path;

use gateway_engine::manifest::{Batch, Document, Resolver};
use gateway_proto::admin::MAX_APPLY_BYTES;

use crate::cli::Manifests;
use crate::output::Output;
use crate::report::{Exit, Failure};

/// Reads everything that `-f` names; that is at least one object.
pub(crate) fn read(manifests: &Manifests, output: &Output) -> Result<Vec<Document>, Failure> {
    let documents = read_into(Batch::new(Resolver::environment()), manifests, output)?;
    if documents.is_empty() {
        return Err(Failure::new(Exit::Invalid, "there is no object in these manifests")
            .help("each begins with apiVersion, kind and metadata"));
    }
    Ok(documents)
}

/// Reads everything that `-f` names, which may be nothing: empty files, folders without manifests.
pub(crate) fn read_any(manifests: &Manifests, output: &Output) -> Result<Vec<Document>, Failure> {
    read_into(Batch::new(Resolver::environment()).empty_folders(), manifests, output)
}

fn read_into(batch: Batch, manifests: &Manifests, output: &Output) -> Result<Vec<Document>, Failure> {
    let _progress = output.progress("reading manifests");
    let mut batch = batch.namespace(manifests.namespace.clone());
    let mut stdin_taken = false;
    for file in &manifests.files {
        if file.as_os_str() != "-" {
            let there = std::fs::metadata(file);
            there.map_err(|error| Failure::runtime(format!("cannot read {}: {error}", file.display())))?;
            batch.add_path(file, manifests.recursive);
        } else if !std::mem::replace(&mut stdin_taken, true) {
            batch.add_text("stdin", &standard_input()?, Some(Path::new(".")));
        }
    }
    batch.finish().map_err(Failure::manifests)
}

fn standard_input() -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    // One byte over the bound lets the batch say that there is too much.
    let read = std::io::stdin().lock().take(MAX_APPLY_BYTES as u64 + 1).read_to_end(&mut text);
    read.map_err(|error| Failure::runtime(format!("cannot read standard input: {error}")))?;
    Ok(text)
}
