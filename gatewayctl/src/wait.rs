//! Waiting until the connected data planes serve a revision: one line each as they do. A data plane whose scope a
//! change does not touch counts as soon as it is in sync with the head.

use std::collections::BTreeSet;
use std::time::Duration;

use gateway_proto::admin::{DataPlane, DataPlaneList, Reject};
use gateway_proto::kind::Key;
use tokio::time::Instant;

use crate::cli::WaitArgs;
use crate::client::Client;
use crate::output::{Output, counted};
use crate::report::{Exit, Failure};

/// How long to wait on a terminal when nothing is said.
const ON_A_TERMINAL: Duration = Duration::from_secs(30);
/// First and longest pause between two looks.
const PAUSE: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// How long to wait; `None`: not at all.
pub(crate) fn time(args: WaitArgs, output: &Output) -> Option<Duration> {
    match args.wait {
        Some(time) => (!time.is_zero()).then_some(time),
        None => output.is_watched().then_some(ON_A_TERMINAL),
    }
}

/// Waits until every connected data plane has come to the revision and refuses none of the objects (of an empty list:
/// none at all).
pub(crate) async fn until_applied(
    client: &Client,
    revision: u64,
    objects: &[Key],
    within: Duration,
    output: &Output,
) -> Result<(), Failure> {
    let objects: BTreeSet<&Key> = objects.iter().collect();
    let progress = output.progress(format!("waiting for data planes to apply revision {revision}"));
    let deadline = Instant::now() + within;
    let mut pause = PAUSE.0;
    let list = loop {
        let list: DataPlaneList = client.get("/v1/data-planes", &[]).await?;
        let settled = connected(&list).all(|plane| has(plane, &list, revision));
        if settled || Instant::now() >= deadline {
            break list;
        }
        tokio::time::sleep_until((Instant::now() + pause).min(deadline)).await;
        pause = (pause * 2).min(PAUSE.1);
    };
    drop(progress);
    conclude(&list, revision, &objects, within, output)
}

fn connected(list: &DataPlaneList) -> impl Iterator<Item = &DataPlane> {
    list.items.iter().filter(|plane| plane.connected)
}

fn has(plane: &DataPlane, list: &DataPlaneList, revision: u64) -> bool {
    plane.applied_revision >= revision || (list.revision >= revision && plane.in_sync)
}

fn conclude(
    list: &DataPlaneList,
    revision: u64,
    objects: &BTreeSet<&Key>,
    within: Duration,
    output: &Output,
) -> Result<(), Failure> {
    if connected(list).next().is_none() {
        return output.say(format!(
            "no data plane is connected: revision {revision} is stored and serves as soon as one is"
        ));
    }
    let (mut late, mut refusing) = (0, 0);
    for plane in connected(list) {
        let rejects: Vec<&Reject> = plane
            .rejects
            .iter()
            .filter(|reject| objects.is_empty() || objects.contains(&reject.object))
            .collect();
        if !rejects.is_empty() {
            refusing += 1;
            for reject in rejects {
                output.say(format!("{}: refused {}", plane.id, refusal(reject)))?;
            }
        } else if has(plane, list, revision) {
            output.say(format!("{}: applied revision {revision}", plane.id))?;
        } else {
            late += 1;
            let why = if plane.blocked.is_empty() { String::new() } else { format!(" ({})", plane.blocked) };
            output.say(format!("{}: still at revision {}{why}", plane.id, plane.applied_revision))?;
        }
    }
    let failure = |message: String| Failure::new(Exit::NotApplied, message);
    match (refusing, late) {
        (0, 0) => Ok(()),
        (0, late) => Err(failure(format!(
            "{} not applied revision {revision} within {}s",
            if late == 1 { "1 data plane has".to_owned() } else { format!("{late} data planes have") },
            within.as_secs_f32()
        ))
        .help("it is stored, and they go on trying; look again with `gatewayctl rollout status`")),
        (refusing, _) => {
            Err(failure(format!("a part of it is refused by {}", counted(refusing, "data plane")))
                .help("it is stored; mend the objects, or go back with `gatewayctl rollout undo`"))
        }
    }
}

/// Object, field and reason of a reject.
pub(crate) fn refusal(reject: &Reject) -> String {
    let field = if reject.field.is_empty() { String::new() } else { format!("{}: ", reject.field) };
    let again = if reject.retryable { " (it tries again)" } else { "" };
    format!("{}: {field}{}{again}", reject.object, reject.message)
}

#[cfg(test)]
mod tests {
    use gateway_proto::kind::Kind;

    use super::*;

    fn plane(id: &str, applied_revision: u64, in_sync: bool) -> DataPlane {
        DataPlane {
            id: id.to_owned(),
            group: "default".to_owned(),
            labels: Default::default(),
            zone: String::new(),
            version: String::new(),
            address: String::new(),
            listeners: Default::default(),
            connected: true,
            last_seen: String::new(),
            applied_revision,
            lag: 0,
            in_sync,
            apply_us: 0,
            rejects: Vec::new(),
            blocked: String::new(),
            twin: String::new(),
            certificate: None,
        }
    }

    fn ended(revision: u64, items: Vec<DataPlane>, objects: &[Key]) -> Option<Exit> {
        let objects = objects.iter().collect();
        let list = DataPlaneList { revision, items };
        conclude(&list, 7, &objects, Duration::from_secs(1), &Output::new(true))
            .err()
            .map(|failure| failure.exit)
    }

    #[test]
    fn the_end_says_whether_every_connected_data_plane_serves_it() {
        let away = DataPlane { connected: false, ..plane("away", 1, false) };
        let key = |name: &str| Key::new(Kind::Listener, "default", name);
        let reject = Reject {
            object: key("a"),
            hash: String::new(),
            field: "spec.port".into(),
            code: "port_in_use".into(),
            message: "port 80 is taken".into(),
            retryable: true,
        };
        let refusing = DataPlane { rejects: vec![reject.clone()], ..plane("dp", 7, true) };
        assert_eq!(ended(7, vec![], &[]), None, "none connected is no failure");
        assert_eq!(ended(7, vec![away], &[]), None);
        assert_eq!(ended(7, vec![plane("a", 7, true), plane("b", 8, false)], &[]), None);
        assert_eq!(ended(7, vec![plane("untouched", 3, true)], &[]), None);
        assert_eq!(ended(6, vec![plane("old news", 3, true)], &[]), Some(Exit::NotApplied));
        assert_eq!(ended(7, vec![plane("late", 6, false)], &[]), Some(Exit::NotApplied));
        assert_eq!(ended(7, vec![refusing.clone()], &[key("a")]), Some(Exit::NotApplied));
        assert_eq!(ended(7, vec![refusing.clone()], &[]), Some(Exit::NotApplied));
        assert_eq!(ended(7, vec![refusing], &[key("b")]), None, "an older reject of another object");
        assert_eq!(refusal(&reject), "Listener default/a: spec.port: port 80 is taken (it tries again)");
    }
}
