//! `token`: admin tokens. A secret is shown once, when it is made.

use gateway_proto::admin::{CreateToken, Token, TokenList};
use http::Method;

use crate::cli::TokenCommand;
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::Failure;

/// Runs it.
pub(crate) async fn run(command: &TokenCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        TokenCommand::Create { name, role, namespaces, expires } => {
            let wish = CreateToken {
                name: name.clone(),
                role: *role,
                namespaces: namespaces.clone(),
                expires: expires.map(|at| at.to_string()),
            };
            let body = serde_json::to_vec(&wish).map_err(|error| Failure::runtime(error.to_string()))?;
            let token: Token = client.call(Method::POST, "/v1/tokens", &[], Some(body)).await?;
            output.note(format!("token {} ({}), shown this once:", token.name, token.role.as_str()));
            output.line(token.token.unwrap_or_default())
        }
        TokenCommand::List => {
            let list: TokenList = client.get("/v1/tokens", &[]).await?;
            let rows: Vec<Vec<String>> = list.items.iter().map(row).collect();
            output.raw(&table(&["NAME", "ROLE", "NAMESPACES", "CREATED", "EXPIRES"], &rows))
        }
        TokenCommand::Revoke { name } => {
            let path = format!("/v1/tokens/{name}");
            let _: Option<serde_json::Value> = client.call(Method::DELETE, &path, &[], None).await?;
            output.say(format!("token {name} is revoked"))
        }
    }
}

fn row(token: &Token) -> Vec<String> {
    let namespaces = if token.namespaces.is_empty() { "*".to_owned() } else { token.namespaces.join(",") };
    let expires = token.expires.clone().unwrap_or_else(|| "never".to_owned());
    vec![token.name.clone(), token.role.as_str().to_owned(), namespaces, token.created_at.clone(), expires]
}
