//! The copy on disk: a restart without a control plane, and copies that are no good.

use std::path::Path;

use gateway_data_plane::{Config, RunError, Running, run};
use gateway_proto::wire::sync_mode::Value as Mode;
use tempfile::TempDir;

use super::support::{Content, ControlPlane, cursor, get, listener, respond, within};

/// Runs once, takes revisions 1 to `revisions` (each with a route of its number), and shuts down.
async fn first_life(dir: &TempDir, revisions: u64) {
    first_life_with(dir, revisions, |_| {}).await;
}

/// The same with other settings.
async fn first_life_with(dir: &TempDir, revisions: u64, change: impl FnOnce(&mut Config)) {
    let mut control = ControlPlane::start().await;
    let mut config = control.config(dir);
    change(&mut config);
    let running = run(config).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, 60_000).await;
    for revision in 1..=revisions {
        let content = Content::of(&(listener("public") + &respond(&format!("/r{revision}"), "x")));
        stream.transaction(revision, None, &cursor("e", revision, content.root()), &content).await;
        stream.ack().await;
        // Copies are conflated: both generations are wanted here.
        let newest = dir.path().join("state/last-good");
        let previous = dir.path().join("state/last-good.previous");
        super::support::until("the copy on disk", async || {
            newest.exists()
                && (revision == 1 || previous.exists())
                && !dir.path().join("state/last-good.new").exists()
        })
        .await;
    }
    within("the end", running.shutdown()).await;
}

/// Starts again with nobody to connect to.
async fn alone(dir: &TempDir) -> Running {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    run(super::support::follow(&[nobody], dir)).await.expect("it starts")
}

fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("there");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(path, bytes).expect("written");
}

async fn serves(running: &Running, path: &str) -> u16 {
    let public = within("the listener", running.listener("default/public")).await;
    get(public, path).await.expect("an answer").0
}

#[tokio::test]
async fn after_a_restart_without_a_control_plane_the_last_configuration_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    first_life(&dir, 1).await;
    let running = alone(&dir).await;
    assert_eq!(serves(&running, "/r1").await, 200);
    assert_eq!(get(running.admin(), "/readyz").await.expect("an answer").0, 200);
    assert_eq!(running.state().borrow().cursor.revision, 1);
}

#[tokio::test]
async fn it_resumes_from_what_is_on_disk() {
    let dir = tempfile::tempdir().expect("a folder");
    first_life(&dir, 1).await;
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let content = Content::of(&(listener("public") + &respond("/r1", "x")));
    assert_eq!(control.accept().await.hello.cursor, Some(cursor("e", 1, content.root())));
}

#[tokio::test]
async fn a_damaged_copy_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().expect("a folder");
    first_life(&dir, 2).await;
    damage(&dir.path().join("state/last-good"));
    let running = alone(&dir).await;
    assert_eq!((serves(&running, "/r1").await, serves(&running, "/r2").await), (200, 404));
    within("the end", running.shutdown()).await;
    damage(&dir.path().join("state/last-good.previous"));
    let running = alone(&dir).await;
    assert_eq!(get(running.admin(), "/readyz").await.expect("an answer").0, 503);
}

#[tokio::test]
async fn a_copy_needs_the_key_it_was_sealed_with() {
    let dir = tempfile::tempdir().expect("a folder");
    first_life(&dir, 1).await;
    std::fs::write(dir.path().join("state/snapshot-key"), [1; 32]).expect("another key");
    let running = alone(&dir).await;
    assert_eq!(get(running.admin(), "/readyz").await.expect("an answer").0, 503);
    within("the end", running.shutdown()).await;
}

#[tokio::test]
async fn the_key_may_come_from_a_file_of_its_own() {
    let dir = tempfile::tempdir().expect("a folder");
    let key = dir.path().join("key");
    std::fs::write(&key, "2a".repeat(32)).expect("written");
    let with_key = |key: &Path| {
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let mut config = super::support::follow(&[nobody], &dir);
        config.snapshot_key_file = Some(key.to_owned());
        config
    };
    first_life_with(&dir, 1, |config| config.snapshot_key_file = Some(key.clone())).await;
    assert!(!dir.path().join("state/snapshot-key").exists(), "no other key was made");
    let running = run(with_key(&key)).await.expect("it starts");
    assert_eq!(serves(&running, "/r1").await, 200);
    within("the end", running.shutdown()).await;
    let running = alone(&dir).await;
    assert_eq!(get(running.admin(), "/readyz").await.expect("an answer").0, 503, "sealed with another key");
    within("the end", running.shutdown()).await;
    assert!(matches!(run(with_key(Path::new("/nowhere/key"))).await, Err(RunError::Key(_))));
    std::fs::write(&key, "short").expect("written");
    assert!(matches!(run(with_key(&key)).await, Err(RunError::Key(_))));
}
