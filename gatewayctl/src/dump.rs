//! `dump`: every object of every namespace as YAML, by kind, namespace and name. All of it is of one revision: when the
//! store changes while it is read page by page, it is read again. What the store adds to objects (revision, times) is
//! left out, so that stores with the same content have the same dump. Secrets are masked, and it says so, or sealed:
//! then only `restore` takes it, where the master key is.

use gateway_proto::kind::{Kind, Resource};
use gateway_proto::secret::MASK;
use serde_json::Value;

use crate::cli::{DumpArgs, DumpSecrets};
use crate::client::Client;
use crate::objects::{self, Filter, Listed};
use crate::output::{Output, counted};
use crate::report::{Exit, Failure};

/// How often it is read before the store counts as too busy.
const TRIES: usize = 5;

/// Runs it.
pub(crate) async fn run(args: &DumpArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let progress = output.progress("reading objects");
    let sealed = args.secrets == DumpSecrets::Sealed;
    let all = of_one_revision(async || {
        let mut all = Listed::default();
        for kind in Kind::ALL {
            objects::read(client, *kind, &Filter { namespace: "*", labels: None, sealed }, &mut all).await?;
        }
        Ok(all)
    });
    let mut objects = all.await?;
    drop(progress);
    for object in &mut objects {
        strip(object);
        output.raw(&format!("---\n{}", objects::yaml(object)))?;
    }
    output.note(counted(objects.len(), "object"));
    let masked = objects.iter().filter(|object| is_masked(object)).count();
    if masked > 0 {
        output.note(format!(
            "{} without secrets ({MASK}): a store that does not hold them needs their values, or a dump with --secrets sealed",
            counted(masked, "object")
        ));
    }
    Ok(())
}

/// Leaves what its author wrote.
fn strip(object: &mut Value) {
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for added in ["generation", "revision", "createdAt", "updatedAt"] {
            metadata.remove(added);
        }
    }
}

/// A secret of it is not shown.
fn is_masked(object: &Value) -> bool {
    let Some(key) = objects::key(object) else { return false };
    Resource::deserialize(key.kind, object)
        .is_ok_and(|mut it| it.secrets_mut().iter().any(|(_, text)| *text == MASK))
}

/// Reads until all of it is of one revision.
async fn of_one_revision(
    mut read: impl AsyncFnMut() -> Result<Listed, Failure>,
) -> Result<Vec<Value>, Failure> {
    for _ in 0..TRIES {
        let all = read().await?;
        if all.revisions.len() <= 1 {
            return Ok(all.objects);
        }
    }
    Err(Failure::new(Exit::Conflict, format!("objects changed while they were read, {TRIES} times"))
        .help("try again when fewer changes are made"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_masked_secrets_count_as_missing() {
        let object = |kind: &str, spec: Value| json!({ "kind": kind, "metadata": { "name": "a", "namespace": "b", "labels": { "c": MASK } }, "spec": spec });
        assert!(is_masked(&object("Certificate", json!({ "cert": "c", "key": MASK }))));
        assert!(!is_masked(&object("Certificate", json!({ "cert": MASK }))));
        assert!(!is_masked(&object("Route", json!({ "respond": { "body": MASK } }))));
    }

    #[tokio::test]
    async fn pages_of_different_revisions_are_read_again_but_not_for_ever() {
        for (torn, expected) in [(0, Some(1)), (4, Some(5)), (5, None)] {
            let mut reads = 0;
            let all = of_one_revision(async || {
                reads += 1;
                let revisions = if reads <= torn { [7, 8].into() } else { [8].into() };
                Ok(Listed { objects: vec![json!(reads)], revisions })
            });
            let all = all.await;
            match expected {
                Some(last) => assert_eq!(all.expect("it calms down"), [json!(last)]),
                None => assert_eq!(all.expect_err("too busy").exit, Exit::Conflict),
            }
            assert_eq!(reads, expected.unwrap_or(TRIES));
        }
    }
}
