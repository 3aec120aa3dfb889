//! `secrets`: how the control plane keeps what must not be seen.

use gateway_proto::admin::RewrapResponse;
use http::Method;

use crate::cli::SecretsCommand;
use crate::client::Client;
use crate::output::Output;
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(command: &SecretsCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        SecretsCommand::Rewrap => {
            let done: RewrapResponse = client.call(Method::POST, "/v1/secrets/rewrap", &[], None).await?;
            if done.other_keys == 0 {
                output.note(
                    "the control plane that answered was given one master key only: nothing to replace",
                );
            }
            output
                .say(format!("sealed with master key {}: {} were with another", done.master, done.data_keys))
        }
    }
}
