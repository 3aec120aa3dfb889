//! `validate` and `apply --dry-run=client`: the compiler that the control plane and the data planes use, without them.
//! Only the manifests are known: a reference to an object that is stored but not among them counts as missing.

use gateway_engine::compile::{Change, Compiled, compile};
use gateway_engine::engine::Engine;
use gateway_engine::identity::check_credentials;
use gateway_engine::manifest::{Class, Document};
use gateway_proto::field::{Violation, ViolationCode};
use gateway_proto::kind::Resource;

use crate::cli::Manifests;
use crate::output::{Output, counted};
use crate::report::{Exit, Failure};
use crate::{manifests, spans};

/// Runs it.
pub(crate) fn run(args: &Manifests, output: &Output) -> Result<(), Failure> {
    documents(&manifests::read(args, output)?, output)
}

/// The configuration, compiled, and the credentials against its consumers.
fn check(documents: &[Document]) -> Result<Compiled, Vec<Violation>> {
    let (mut changes, mut credentials) = (Vec::new(), Vec::new());
    for document in documents {
        match document.resource.clone().canonical() {
            Resource::Credential(credential) => credentials.push(credential),
            resource => changes.push(Change::Upsert(resource)),
        }
    }
    let compiled = compile(&Engine::default(), changes)?;
    check_credentials(&compiled.engine, credentials.iter())?;
    Ok(compiled)
}

/// Checks documents by themselves.
pub(crate) fn documents(documents: &[Document], output: &Output) -> Result<(), Failure> {
    let _progress = output.progress(format!("checking {}", counted(documents.len(), "object")));
    match check(documents) {
        Ok(compiled) => {
            output.warnings(&spans::findings(&compiled.warnings, documents, Class::Warning));
            match documents.len() {
                1 => output.say("1 object is valid"),
                many => output.say(format!("{many} objects are valid")),
            }
        }
        Err(violations) => {
            let dangling =
                violations.iter().any(|violation| violation.code == ViolationCode::DanglingReference);
            let mut failure = Failure::new(Exit::Invalid, "");
            (failure.findings, failure.more) = spans::findings(&violations, documents, Class::Invalid);
            if dangling {
                failure.message = "some references lead to nothing in these manifests".to_owned();
                failure =
                    failure.help("check against what is stored with `gatewayctl apply --dry-run=server`");
            }
            Err(failure)
        }
    }
}
