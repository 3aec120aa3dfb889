//! `describe`: one object as YAML, and where it serves.

use gateway_proto::admin::ObjectStatus;
use gateway_proto::kind::{Key, Kind};

use crate::cli::ObjectArgs;
use crate::client::Client;
use crate::output::Output;
use crate::report::Failure;
use crate::{discovery, objects, status};

/// Runs it.
pub(crate) async fn run(args: &ObjectArgs, client: &Client, output: &Output) -> Result<(), Failure> {
    let key = Key::new(args.kind, &args.namespace, &args.name);
    let object = objects::get(client, &key).await?;
    if key.kind == Kind::Credential {
        // No revision brings one to a data plane.
        return output.raw(&objects::yaml(&object));
    }
    let status: ObjectStatus = status::of(client, &key).await?;
    output.raw(&objects::yaml(&object))?;
    output.text(&format!("\n{}", status::object(&status)))?;
    match discovery::of(client, &key).await? {
        Some(status) => output.text(&format!("\n{}", discovery::described(&status))),
        None => Ok(()),
    }
}
