//! `dump`: every object of every namespace as YAML, fit for `apply`.

use gateway_proto::kind::Kind;

use crate::client::Client;
use crate::objects::{self, Filter};
use crate::output::Output;
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let mut count = 0;
    for kind in Kind::ALL {
        for object in objects::list(client, *kind, &Filter { namespace: "*", labels: None }).await? {
            output.raw(&format!("---\n{}", objects::yaml(&object)))?;
            count += 1;
        }
    }
    output.note(format!("{count} objects"));
    Ok(())
}
