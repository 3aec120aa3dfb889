//! `join-token`: what data planes get their first certificate with. A secret is shown once, when it is made.

use std::time::Duration;

use gateway_proto::admin::{CreateJoinToken, JoinToken, JoinTokenList};
use http::Method;

use crate::cli::JoinTokenCommand;
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(command: &JoinTokenCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        JoinTokenCommand::Create { name, group, uses, ttl } => {
            let wish = CreateJoinToken {
                name: name.clone(),
                group: group.clone(),
                uses: Some(*uses),
                ttl: Some(spelled(*ttl)),
            };
            let body = serde_json::to_vec(&wish).map_err(|error| Failure::runtime(error.to_string()))?;
            let token: JoinToken = client.call(Method::POST, "/v1/join-tokens", &[], Some(body)).await?;
            output.note(format!(
                "join token {} (group {}, {} of it, until {}), shown this once; \
                 for `gateway-data-plane --join-token-file`:",
                token.name, token.group, token.uses, token.expires
            ));
            output.line(token.token.unwrap_or_default())
        }
        JoinTokenCommand::List => {
            let list: JoinTokenList = client.get("/v1/join-tokens", &[]).await?;
            let rows: Vec<Vec<String>> = list.items.iter().map(row).collect();
            output.raw(&table(&["NAME", "GROUP", "USED", "CREATED", "EXPIRES", "CA"], &rows))
        }
        JoinTokenCommand::Revoke { name } => {
            let path = format!("/v1/join-tokens/{name}");
            let _: Option<serde_json::Value> = client.call(Method::DELETE, &path, &[], None).await?;
            output.say(format!("join token {name} is revoked"))
        }
    }
}

/// As the API reads it.
fn spelled(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

fn row(token: &JoinToken) -> Vec<String> {
    vec![
        token.name.clone(),
        token.group.clone(),
        format!("{}/{}", token.used, token.uses),
        token.created_at.clone(),
        token.expires.clone(),
        token.ca.chars().take(16).collect(),
    ]
}
