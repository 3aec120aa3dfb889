//! Configuration from files: at the start, on change, on demand, and when it is wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use gateway_data_plane::RunError;
use gateway_data_plane::config::AccessLog;

use super::support::{get, listener, listener_at, respond, standalone, standalone_with, until};

async fn answers(address: SocketAddr, path: &str) -> Option<u16> {
    get(address, path).await.ok().map(|(code, _)| code)
}

#[tokio::test]
async fn a_changed_file_is_served_and_a_wrong_one_changes_nothing() {
    let plane = standalone(&(listener("public") + &respond("/one", "1"))).await;
    let public = plane.listener("default/public").await;
    assert_eq!((answers(public, "/one").await, answers(public, "/two").await), (Some(200), Some(404)));

    plane.write(&(listener("public") + &respond("/two", "2")));
    plane.revision(2).await;
    assert_eq!((answers(public, "/one").await, answers(public, "/two").await), (Some(404), Some(200)));
    assert_eq!(plane.listener("default/public").await, public, "the listener was not touched");

    // Wrong in form, then wrong in sense: the next good one is revision 3, so neither was taken.
    plane.write("kind: [");
    plane.running.reload();
    plane.write(&(listener("public") + &respond("/three", "${no.such.variable}")));
    plane.running.reload();
    assert_eq!(answers(public, "/two").await, Some(200));
    plane.write(&(listener("public") + &respond("/three", "3")));
    plane.revision(3).await;
    until("/three", async || answers(public, "/three").await == Some(200)).await;
}

#[tokio::test]
async fn manifests_that_are_not_taken_are_counted() {
    let plane = standalone(&(listener("public") + &respond("/one", "1"))).await;
    for (count, wrong) in [(1, "kind: ["), (2, "kind: {")] {
        plane.write(wrong);
        let line = format!("\ngateway_config_rejected_total {count}\n");
        until("counted", async || {
            get(plane.running.admin(), "/metrics").await.expect("an answer").1.contains(&line)
        })
        .await;
    }
}

#[tokio::test]
async fn a_data_plane_does_not_start_on_wrong_manifests_and_says_where() {
    let dangling = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: r }\nspec:\n  forward: { backends: [{ upstream: gone }] }\n";
    for (text, place, words) in [
        (
            "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: x }\nspec: { priorty: 1 }\n",
            "gateway.yaml:4:9",
            "priorty",
        ),
        (dangling, "gateway.yaml:5:37", "gone"),
    ] {
        let error = standalone_with(text, |_| {}).await.err().expect("refused");
        assert!(matches!(error, RunError::Manifests(_)) && error.exit_code() == 3, "{error}");
        let text = error.to_string();
        assert!(text.contains(place) && text.contains(words), "{text}");
    }
}

#[tokio::test]
async fn listeners_come_go_move_and_change_their_name_without_losing_the_port() {
    let plane = standalone(&(listener("one") + &listener("two") + &respond("/x", "x"))).await;
    let (one, two) = (plane.listener("default/one").await, plane.listener("default/two").await);

    // `two` goes, and `one` lives on under another name on the same port.
    plane.write(&(listener_at("renamed", "127.0.0.1", one.port()) + &respond("/x", "x")));
    plane.revision(2).await;
    assert_eq!(plane.listener("default/renamed").await, one);
    assert_eq!(answers(one, "/x").await, Some(200));
    until("the removed listener's end", async || answers(two, "/x").await.is_none()).await;

    // It moves to any free port: the old one is closed.
    plane.write(&(listener("renamed") + &respond("/x", "x")));
    plane.revision(3).await;
    let moved = plane.listener("default/renamed").await;
    assert_ne!(moved, one);
    assert_eq!(answers(moved, "/x").await, Some(200));
    until("the old port's end", async || answers(one, "/x").await.is_none()).await;
}

#[tokio::test]
async fn no_request_is_lost_while_the_configuration_changes() {
    let plane = standalone(&(listener("public") + &respond("/x", "x"))).await;
    let public = plane.listener("default/public").await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = (0..4).map(|_| {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut served = 0;
            while !stop.load(Ordering::Relaxed) {
                assert_eq!(answers(public, "/x").await, Some(200));
                served += 1;
            }
            served
        })
    });
    let load: Vec<_> = load.collect();
    for revision in 2..12 {
        plane.write(&(listener("public") + &respond("/x", "x") + &respond("/y", &revision.to_string())));
        plane.revision(revision).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        assert!(task.await.expect("none failed") > 0);
    }
}

#[tokio::test]
async fn only_listeners_of_the_own_group_and_of_none_are_taken() {
    let of_group = |name: &str, group: &str| {
        listener(name).replace("port: 0", &format!("port: 0, dataPlanes: {{ group: {group} }}"))
    };
    let manifests = listener("all") + &of_group("edge", "edge") + &of_group("core", "core");
    for (group, expected) in
        [("edge", ["default/all", "default/edge"]), ("core", ["default/all", "default/core"])]
    {
        let plane =
            standalone_with(&manifests, |config| config.group = group.to_owned()).await.expect("it starts");
        let listeners = plane.running.state().borrow().listeners.clone();
        assert_eq!(listeners.keys().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn every_worker_has_its_own_socket() {
    for workers in [1, 3] {
        let manifests = listener("public");
        let plane = standalone_with(&manifests, |config| config.workers = workers.try_into().ok())
            .await
            .expect("it starts");
        let port = format!(":{:04X} 00000000:0000 0A", plane.listener("default/public").await.port());
        let sockets = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
        assert_eq!(sockets.lines().filter(|line| line.contains(&port)).count(), workers);
    }
}

#[tokio::test]
async fn two_data_planes_do_not_share_a_state_directory() {
    let first = standalone(&listener("public")).await;
    let state = first.dir.path().join("state");
    let second = standalone_with(&listener("public"), |config| config.state_dir = state).await;
    assert!(matches!(second, Err(RunError::StateDir(error)) if error.to_string().contains("in use")));
}

#[tokio::test]
async fn the_request_log_has_a_line_per_request_and_follows_a_rotation() {
    let log_dir = tempfile::tempdir().expect("a folder");
    let path = log_dir.path().join("requests.log");
    let manifests = listener("public") + &respond("/hello", "hi");
    let plane = standalone_with(&manifests, |config| config.access_log = AccessLog::File(path.clone()))
        .await
        .expect("it starts");
    let public = plane.listener("default/public").await;
    let lines = |path: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    };
    get(public, "/hello?secret=1").await.expect("an answer");
    until("a line", async || lines(&path).len() == 1).await;
    let line = &lines(&path)[0];
    for (field, value) in
        [("route", "default/hello"), ("listener", "default/public"), ("method", "GET"), ("path", "/hello")]
    {
        assert_eq!(line[field], value, "{line}");
    }
    assert_eq!(
        (&line["status"], &line["revision"], &line["client"]),
        (&200.into(), &1.into(), &"127.0.0.1".into())
    );

    let rotated = log_dir.path().join("requests.log.1");
    std::fs::rename(&path, &rotated).expect("rotated");
    plane.running.reload();
    until("the new file", async || path.exists()).await;
    get(public, "/nowhere").await.expect("an answer");
    until("a line in the new file", async || lines(&path).len() == 1).await;
    assert_eq!(lines(&path)[0]["reason"], "no_route");
    assert_eq!(lines(&rotated).len(), 1);
    let nowhere =
        standalone_with(&manifests, |config| config.access_log = AccessLog::File("/nowhere/x".into())).await;
    assert!(matches!(nowhere, Err(RunError::RequestLog(_))));
}

#[tokio::test]
async fn no_connection_is_lost_when_a_listener_changes_its_name() {
    let plane = standalone(&(listener("one") + &respond("/x", "x"))).await;
    let address = plane.listener("default/one").await;
    for revision in 2..22 {
        let name = format!("l{revision}");
        plane.write(&(listener_at(&name, "127.0.0.1", address.port()) + &respond("/x", "x")));
        let mut state = plane.running.state();
        while state.borrow_and_update().cursor.revision < revision {
            assert_eq!(answers(address, "/x").await, Some(200), "while it becomes {name}");
        }
    }
}
