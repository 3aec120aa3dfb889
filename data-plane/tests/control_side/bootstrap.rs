//! Another data plane's snapshot: what a new one serves while no control plane answers.

use gateway_data_plane::{Config, Running, run};
use gateway_proto::wire::sync_mode::Value as Mode;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::support::{Content, ControlPlane, cursor, follow, get, listener, respond, until, within};

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

fn content() -> Content {
    Content::of(&(listener("public") + &respond("/r1", "x")))
}

/// Of a data plane that shares its key.
fn sealed(mut config: Config, key: &TempDir) -> Config {
    let path = key.path().join("key");
    std::fs::write(&path, "2a".repeat(32)).expect("written");
    config.snapshot_key_file = Some(path);
    config
}

/// Nobody to connect to, and a snapshot to begin with.
fn new_replica(dir: &TempDir, key: &TempDir, from: &str) -> Config {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let mut config = sealed(follow(&[nobody, nobody], dir), key);
    config.bootstrap_snapshot = Some(from.parse().expect("a file or URL"));
    config
}

/// Of an answer whose body is no text.
async fn status(running: &Running, path: &str) -> u16 {
    let mut stream = TcpStream::connect(running.admin()).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: any\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.expect("an answer");
    let head = String::from_utf8_lossy(&response[..12]).into_owned();
    head[9..].parse().expect("a status")
}

/// A data plane that serves revision 1 and keeps it on disk.
async fn first(dir: &TempDir, key: &TempDir) -> (ControlPlane, super::support::Stream, Running) {
    let mut control = ControlPlane::start().await;
    let running = run(sealed(control.config(dir), key)).await.expect("it starts");
    assert_eq!(status(&running, "/snapshot").await, 503, "there is nothing yet");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, 60_000).await;
    let content = content();
    stream.transaction(1, None, &cursor("e", 1, content.root()), &content).await;
    stream.ack().await;
    until("the copy on disk", async || status(&running, "/snapshot").await == 200).await;
    (control, stream, running)
}

#[tokio::test]
async fn a_new_replica_serves_the_snapshot_of_another_and_goes_on_from_there() {
    let (dir, key, new) = (folder(), folder(), folder());
    let (_control, _stream, running) = first(&dir, &key).await;
    let url = format!("http://{}/snapshot", running.admin());
    for from in [url, dir.path().join("state/last-good").display().to_string()] {
        let replica = run(new_replica(&new, &key, &from)).await.expect("it starts");
        let public = within("the listener", replica.listener("default/public")).await;
        assert_eq!(get(public, "/r1").await.expect("an answer").0, 200);
        assert_eq!(status(&replica, "/readyz").await, 200);
        within("the end", replica.shutdown()).await;
        // It is its own by now: the next start needs nobody.
        let mut control = ControlPlane::start().await;
        let replica = run(sealed(control.config(&new), &key)).await.expect("it starts");
        assert_eq!(control.accept().await.hello.cursor, Some(cursor("e", 1, content().root())));
        within("the end", replica.shutdown()).await;
        std::fs::remove_dir_all(new.path().join("state")).expect("gone");
    }
}

#[tokio::test]
async fn a_control_plane_that_answers_comes_before_the_snapshot() {
    let (dir, key, new) = (folder(), folder(), folder());
    let (_control, _stream, running) = first(&dir, &key).await;
    let mut control = ControlPlane::start().await;
    let mut config = sealed(control.config(&new), &key);
    config.bootstrap_snapshot = format!("http://{}/snapshot", running.admin()).parse().ok();
    let _replica = run(config).await.expect("it starts");
    assert_eq!(control.accept().await.hello.cursor, None, "it begins with nothing");
}

#[tokio::test]
async fn what_is_no_snapshot_of_its_key_and_group_is_passed_over() {
    let (dir, key, new) = (folder(), folder(), folder());
    let (_control, _stream, _running) = first(&dir, &key).await;
    let good = std::fs::read(dir.path().join("state/last-good")).expect("there");
    let path = new.path().join("snapshot");
    let mut damaged = good.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    std::fs::write(&path, damaged).expect("written");

    let elsewhere = folder();
    let mut foreign = new_replica(&elsewhere, &key, &path.display().to_string());
    foreign.group = "edge".to_owned();
    let foreign = run(foreign).await.expect("it starts");
    let replica = run(new_replica(&new, &key, &path.display().to_string())).await.expect("it starts");
    assert_eq!(status(&replica, "/readyz").await, 503);
    // A good one in its place is found by the replica that it is for.
    std::fs::write(&path, good).expect("written");
    until("the good one to serve", async || status(&replica, "/readyz").await == 200).await;
    assert_eq!(status(&foreign, "/readyz").await, 503);
}

#[tokio::test]
async fn a_copy_that_nobody_else_can_open_is_not_handed_out() {
    let (dir, control) = (folder(), ControlPlane::start().await);
    let running = run(control.config(&dir)).await.expect("it starts");
    let (code, said) = get(running.admin(), "/snapshot").await.expect("an answer");
    assert!(code == 404 && said.contains("--snapshot-key-file"), "{said}");
}
