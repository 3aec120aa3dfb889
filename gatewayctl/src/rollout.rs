//! `rollout`: the numbered history, differences between revisions, and the way back.

use gateway_proto::admin::{ApplyResponse, DataPlaneList, Revision, RevisionDiff, RevisionList};
use http::Method;

use crate::cli::{Plain, RolloutCommand};
use crate::client::Client;
use crate::output::{Output, table};
use crate::report::{Exit, Failure};
use crate::{changes, wait};

/// Runs it.
pub(crate) async fn run(command: &RolloutCommand, client: &Client, output: &Output) -> Result<(), Failure> {
    match command {
        RolloutCommand::History { limit, output: form } => history(*limit, *form, client, output).await,
        RolloutCommand::Diff { from, to } => difference(*from, *to, client, output).await,
        RolloutCommand::Undo { to_revision, wait } => {
            let target = match to_revision {
                Some(revision) => *revision,
                None => before(head(client).await?)?,
            };
            let path = format!("/v1/revisions/{target}/rollback");
            let done: ApplyResponse = client.call(Method::POST, &path, &[], None).await?;
            output.say(format!(
                "back to revision {target}: {}; revision {}",
                changes::counts(&done.changes),
                done.revision
            ))?;
            match wait::time(*wait, output) {
                Some(within) => wait::until_applied(client, done.revision, &[], within, output).await,
                None => Ok(()),
            }
        }
        RolloutCommand::Status { timeout } => {
            wait::until_applied(client, head(client).await?, &[], *timeout, output).await
        }
    }
}

async fn history(limit: u32, form: Plain, client: &Client, output: &Output) -> Result<(), Failure> {
    let mut revisions: Vec<Revision> = Vec::new();
    let mut cursor: Option<String> = None;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    while revisions.len() < limit {
        let page = (limit - revisions.len()).min(100).to_string();
        let mut query = vec![("limit", page.as_str())];
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let list: RevisionList = client.get("/v1/revisions", &query).await?;
        revisions.extend(list.items);
        match list.next_cursor {
            Some(next) => cursor = Some(next),
            None => break,
        }
    }
    if form == Plain::Json {
        let text =
            serde_json::to_string_pretty(&revisions).map_err(|error| Failure::runtime(error.to_string()))?;
        return output.line(text);
    }
    if revisions.is_empty() {
        output.note("no revision yet: nothing was ever applied");
    }
    output.raw(&listed(&revisions))
}

fn listed(revisions: &[Revision]) -> String {
    let row = |it: &Revision| {
        let counts = format!("+{} ~{} -{}", it.created, it.updated, it.deleted);
        let message = it.message.lines().next().unwrap_or_default().to_owned();
        vec![it.revision.to_string(), it.at.clone(), it.author.clone(), counts, message]
    };
    let rows: Vec<Vec<String>> = revisions.iter().map(row).collect();
    table(&["REVISION", "AT", "AUTHOR", "CHANGES", "MESSAGE"], &rows)
}

async fn difference(
    from: Option<u64>,
    to: Option<u64>,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let to = match to {
        Some(to) => to,
        None => head(client).await?,
    };
    let from = match from {
        Some(from) => from,
        None => before(to)?,
    };
    let path = format!("/v1/revisions/{from}...{to}");
    let difference: RevisionDiff = client.get(&path, &[]).await?;
    changes::show_differences(&difference.changes, output)?;
    output.note(format!("revision {from} to {to}: {}", changes::counts(&difference.changes)));
    Ok(())
}

async fn head(client: &Client) -> Result<u64, Failure> {
    let list: DataPlaneList = client.get("/v1/data-planes", &[]).await?;
    Ok(list.revision)
}

fn before(revision: u64) -> Result<u64, Failure> {
    match revision {
        0 | 1 => Err(Failure::new(Exit::Runtime, format!("there is no revision before {revision}"))
            .help("see `gatewayctl rollout history`")),
        revision => Ok(revision - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_one_line_a_revision() {
        let revision = Revision {
            revision: 12,
            at: "2026-11-21T13:00:00Z".into(),
            author: "ci".into(),
            message: "canary\n\nlonger".into(),
            created: 1,
            updated: 2,
            deleted: 0,
            root_hash: String::new(),
            changes: None,
        };
        insta::assert_snapshot!(listed(&[revision]), @r"
        REVISION   AT                     AUTHOR   CHANGES    MESSAGE
        12         2026-11-21T13:00:00Z   ci       +1 ~2 -0   canary
        ");
    }

    #[test]
    fn there_is_nothing_before_the_first_revision() {
        assert_eq!(before(2).expect("one"), 1);
        assert_eq!(before(1).expect_err("none").exit, Exit::Runtime);
    }
}
