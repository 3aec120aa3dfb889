//! `join-token`: what data planes get their first certificate with. A secret is shown once, when it is made.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gateway_proto::admin::{CreateJoinToken, JoinToken, JoinTokenList};
use gateway_proto::identity;
use http::Method;

use crate::cli::JoinTokenCommand;
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::{Exit, Failure};

/// Runs it.
pub(crate) async fn run(command: &JoinTokenCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        JoinTokenCommand::Create { name, group, uses, ttl, file } => {
            // Before there is a token: one that nobody can write down is lost.
            let file = match file {
                Some(path) => match Draft::open(path)? {
                    Some(draft) => Some(draft),
                    None => return output.say(format!("{} holds a join token already", path.display())),
                },
                None => None,
            };
            let wish = CreateJoinToken {
                name: name.clone(),
                group: group.clone(),
                uses: Some(*uses),
                ttl: Some(spelled(*ttl)),
            };
            let body = serde_json::to_vec(&wish).map_err(|error| Failure::runtime(error.to_string()))?;
            let token: JoinToken = client.call(Method::POST, "/v1/join-tokens", &[], Some(body)).await?;
            let what = format!(
                "join token {} (group {}, {} of it, until {})",
                token.name, token.group, token.uses, token.expires
            );
            let secret = token.token.unwrap_or_default();
            if let Some(draft) = file {
                draft.keep(&secret)?;
                return output.say(format!("{what} is in {}", draft.path.display()));
            }
            output.note(format!("{what}, shown this once; for `gateway-data-plane --join-token-file`:"));
            output.line(secret)
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

/// A file that will hold a token: written beside its place, and moved there whole.
struct Draft {
    path: PathBuf,
    draft: PathBuf,
}

impl Draft {
    /// `None`: there is a token in the file.
    fn open(path: &Path) -> Result<Option<Self>, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) if identity::JoinToken::parse(text.trim()).is_ok() => return Ok(None),
            Ok(text) if !text.trim().is_empty() => {
                return Err(Failure::new(Exit::Conflict, format!("{} holds something else", path.display()))
                    .help("it is not overwritten: name another file, or remove it"));
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(unwritable(path, &error)),
            _ => {}
        }
        let draft = path.with_added_extension("draft");
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(true).mode(0o600).open(&draft);
        file.map_err(|error| unwritable(path, &error))?;
        Ok(Some(Draft { path: path.to_owned(), draft }))
    }

    fn keep(&self, secret: &str) -> Result<(), Failure> {
        let write = || {
            let mut file = File::options().write(true).open(&self.draft)?;
            writeln!(file, "{secret}")?;
            file.sync_all()?;
            std::fs::rename(&self.draft, &self.path)
        };
        write().map_err(|error| unwritable(&self.path, &error))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is not there any more if it was kept.
        let _ = std::fs::remove_file(&self.draft);
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::runtime(format!("cannot write the join token to {}: {error}", path.display()))
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
