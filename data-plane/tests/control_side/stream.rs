//! The stream, with the test as control plane.

use gateway_data_plane::run;
use gateway_proto::buckets::Buckets;
use gateway_proto::kind::{Key, Kind};
use gateway_proto::{FEATURE_BUCKETS, wire};
use tonic::transport::Identity;
use wire::ack_outcome::Value as Outcome;
use wire::control_plane_message::Message;
use wire::data_plane_message::Message as Said;
use wire::sync_mode::Value as Mode;

use super::support::{
    Content, ControlPlane, cursor, follow, get, listener, listener_at, low, respond, until, within,
};

/// A heartbeat that does not come into it.
const SELDOM: u32 = 60_000;

#[tokio::test]
async fn a_full_transfer_then_a_difference_are_applied_acknowledged_and_served() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let mut config = control.config(&dir);
    config.node = Some("edge-1".into());
    config.group = "edge".into();
    config.zone = "z1".into();
    config.labels.insert("team".into(), "a".into());
    let running = run(config).await.expect("it starts");
    let mut stream = control.accept().await;
    let hello = &stream.hello;
    assert_eq!((hello.node.as_str(), hello.group.as_str(), hello.zone.as_str()), ("edge-1", "edge", "z1"));
    assert_eq!((hello.labels.get("team").map(String::as_str), hello.protocol), (Some("a"), 1));
    assert_eq!(hello.cursor, None, "it holds nothing");

    stream.welcome(Mode::Full, SELDOM).await;
    let one = Content::of(&(listener("public") + &respond("/one", "1")));
    let first = cursor("e", 7, one.root());
    stream.transaction(1, None, &first, &one).await;
    let ack = stream.ack().await;
    assert_eq!((ack.transaction, ack.outcome(), ack.cursor.as_ref()), (1, Outcome::Applied, Some(&first)));
    assert_eq!(ack.listeners[0].name, "default/public");
    let public = ack.listeners[0].address.parse().expect("an address");
    assert_eq!(get(public, "/one").await.expect("an answer").0, 200);
    assert_eq!(get(running.admin(), "/readyz").await.expect("an answer").0, 200);

    let two = Content {
        deletes: vec![Key::new(Kind::Route, "default", "one")],
        ..Content::of(&respond("/two", "2"))
    };
    let all = Content::of(&(listener("public") + &respond("/two", "2")));
    let second = cursor("e", 8, all.root());
    stream.transaction(2, Some(&first), &second, &two).await;
    let ack = stream.ack().await;
    assert_eq!((ack.outcome(), ack.cursor.as_ref()), (Outcome::Applied, Some(&second)));
    assert_eq!(get(public, "/one").await.expect("an answer").0, 404);
    assert_eq!(get(public, "/two").await.expect("an answer").0, 200);
    let metrics = get(running.admin(), "/metrics").await.expect("an answer").1;
    assert!(
        metrics.contains("gateway_control_plane_connected 1")
            && metrics.contains("gateway_config_revision 8")
    );
}

#[tokio::test]
async fn a_bad_object_is_refused_and_reported_and_the_rest_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, 100).await;
    let good = Content::of(&(listener("public") + &respond("/one", "1")));
    let bad = Content::of(
        "kind: Upstream\napiVersion: gateway/v1\nmetadata: {name: bad}\nspec: {targets: [{address: nowhere}]}\n",
    );
    let mut all = good.clone();
    all.upserts.extend(bad.upserts.clone());
    stream.transaction(1, None, &cursor("e", 1, all.root()), &all).await;
    let ack = stream.ack().await;
    assert_eq!((ack.outcome(), ack.cursor), (Outcome::Partial, Some(cursor("e", 1, good.root()))));
    let hash = bad.upserts[0].hash().0.to_vec();
    assert_eq!(
        (ack.rejects[0].hash.clone(), ack.rejects[0].code.as_str(), ack.rejects[0].retryable),
        (hash.clone(), "invalid", false)
    );
    assert_eq!(ack.rejects[0].field, "spec.targets[0].address");
    let public = ack.listeners[0].address.parse().expect("an address");
    assert_eq!(get(public, "/one").await.expect("an answer").0, 200);
    let Some(Said::Heartbeat(heartbeat)) = stream.next().await else { panic!("a heartbeat is due") };
    assert_eq!((heartbeat.parked[0].refused.clone(), heartbeat.parked[0].held.clone()), (hash, Vec::new()));
    assert_eq!(heartbeat.cursor, Some(cursor("e", 1, good.root())));
}

#[tokio::test]
async fn a_taken_port_is_retried_and_reported_when_it_serves() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, SELDOM).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let content = Content::of(&(listener_at("public", "127.0.0.1", port) + &respond("/one", "1")));
    let target = cursor("e", 1, content.root());
    stream.transaction(1, None, &target, &content).await;
    let ack = stream.ack().await;
    assert_eq!(
        (ack.outcome(), ack.rejects[0].code.as_str(), ack.rejects[0].retryable),
        (Outcome::Partial, "port_in_use", true)
    );
    drop(taken);
    let status = stream.status().await;
    assert_eq!((status.rejects.len(), status.cursor), (0, Some(target)));
    assert_eq!(status.listeners[0].address, format!("127.0.0.1:{port}"));
}

#[tokio::test]
async fn it_never_goes_back_and_does_not_follow_a_new_store_that_lost_most_of_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, SELDOM).await;
    let routes = ["/a", "/b", "/c"].map(|path| respond(path, "x")).concat();
    let content = Content::of(&(listener("public") + &routes));
    let held = cursor("e", 5, content.root());
    stream.transaction(1, None, &held, &content).await;
    assert_eq!(stream.ack().await.outcome(), Outcome::Applied);

    let keys = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    keys.set_nonblocking(true).expect("a socket");
    let issuer = format!(
        "---\napiVersion: gateway/v1\nkind: TokenIssuer\nmetadata: {{ name: its }}\nspec: {{ issuer: its, jwksUri: 'http://{}/' }}\n",
        keys.local_addr().expect("bound")
    );
    let less = Content::of(&(listener("public") + &respond("/a", "x") + &issuer));
    for (number, target, code) in
        [(2, cursor("e", 4, less.root()), "backwards"), (3, cursor("new", 9, less.root()), "epoch_shrink")]
    {
        stream.transaction(number, None, &target, &less).await;
        let ack = stream.ack().await;
        assert_eq!(
            (ack.outcome(), ack.rejects[0].code.as_str(), ack.cursor.as_ref()),
            (Outcome::Rejected, code, Some(&held))
        );
    }
    let asked = keys.accept().map_err(|error| error.kind());
    assert!(matches!(asked, Err(std::io::ErrorKind::WouldBlock)), "nothing of a refused store is followed");
    // A new store with most of it is followed, whatever its revision.
    let most = Content::of(&(listener("public") + &respond("/a", "x") + &respond("/b", "x")));
    let restored = cursor("new", 2, most.root());
    stream.transaction(4, None, &restored, &most).await;
    let ack = stream.ack().await;
    assert_eq!((ack.outcome(), ack.cursor), (Outcome::Applied, Some(restored)));

    // One that an operator has allowed to be smaller too.
    let nothing = cursor("allowed", 1, Content::default().root());
    let chunk = wire::Chunk {
        transaction: 5,
        target: Some(nothing.clone()),
        last: true,
        allow_shrink: true,
        ..Default::default()
    };
    stream.send(Message::Chunk(chunk)).await;
    let ack = stream.ack().await;
    assert_eq!((ack.outcome(), ack.cursor), (Outcome::Applied, Some(nothing)));
}

#[tokio::test]
async fn a_control_plane_that_is_away_is_passed_over_and_a_lost_one_is_found_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
    let mut control = ControlPlane::start().await;
    let running = run(follow(&[nobody, control.address], &dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, SELDOM).await;
    let content = Content::of(&(listener("public") + &respond("/one", "1")));
    let target = cursor("e", 1, content.root());
    stream.transaction(1, None, &target, &content).await;
    let ack = stream.ack().await;
    drop(stream);
    let again = control.accept().await;
    assert_eq!(again.hello.cursor, Some(target), "it resumes from what it holds");
    assert_eq!(again.hello.listeners, ack.listeners);
    assert_eq!(get(running.listener("default/public").await, "/one").await.expect("an answer").0, 200);
}

#[tokio::test]
async fn asked_to_leave_it_opens_the_new_stream_before_it_closes_the_old() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let mut old = control.accept().await;
    old.welcome(Mode::Full, SELDOM).await;
    old.send(Message::Drain(wire::Drain { within_ms: 1 })).await;
    let new = control.accept().await;
    // Still there: it takes a message without an error.
    old.send(Message::Heartbeat(wire::Heartbeat::default())).await;
    new.welcome(Mode::InSync, SELDOM).await;
    assert_eq!(old.next().await, None, "now it has left");
}

#[tokio::test]
async fn another_content_at_the_same_revision_is_told_compared_and_mended() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let running = run(control.config(&dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    assert_eq!(stream.hello.features, [FEATURE_BUCKETS]);
    stream.welcome(Mode::Full, SELDOM).await;
    let routes = ["/stays", "/wrong"].map(|path| respond(path, "x")).concat();
    let content = Content::of(&(listener("public") + &routes));
    let held = cursor("e", 1, content.root());
    stream.transaction(1, None, &held, &content).await;
    let public = stream.ack().await.listeners[0].address.parse().expect("an address");
    let right = Content::of(&(listener("public") + &respond("/stays", "x")));
    let head = cursor("e", 1, right.root());
    let beat = wire::Heartbeat { cursor: Some(head.clone()), ..Default::default() };
    stream.send(Message::Heartbeat(beat)).await;
    let Some(Said::Heartbeat(told)) = stream.next().await else { panic!("it does not wait for its turn") };
    assert_eq!(told.cursor.as_ref(), Some(&held));

    stream.send(Message::Compare(wire::Compare {})).await;
    let Some(Said::Buckets(told)) = stream.next().await else { panic!("asked for its sums") };
    let sums = |content: &Content| -> Buckets {
        let items: Vec<_> = content.upserts.iter().map(|it| (it.key(), it.hash())).collect();
        items.iter().map(|(key, hash)| (key, *hash)).collect()
    };
    assert_eq!(Buckets::from_slice(&told.sums), Some(sums(&content)));
    let differing = sums(&content).differing(&sums(&right));
    let mended = wire::Chunk {
        transaction: 2,
        base_sum: told.cursor.as_ref().map(low),
        target: Some(head.clone()),
        last: true,
        buckets: differing.iter().map(|bucket| u32::try_from(bucket).expect("small")).collect(),
        ..Default::default()
    };
    stream.send(Message::Chunk(mended)).await;
    let ack = stream.ack().await;
    assert_eq!((ack.outcome(), ack.cursor), (Outcome::Applied, Some(head)));
    assert_eq!(get(public, "/wrong").await.expect("an answer").0, 404);
    assert_eq!(get(public, "/stays").await.expect("an answer").0, 200);
    drop(running);
}

#[tokio::test]
async fn a_silent_control_plane_is_left() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let _running = run(control.config(&dir)).await.expect("it starts");
    let silent = control.accept().await;
    silent.welcome(Mode::InSync, 100).await;
    control.accept().await;
}

#[tokio::test]
async fn over_tls_only_a_control_plane_with_a_certificate_of_the_given_authority_is_followed() {
    // Another test of this process may have been first.
    let _installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let dir = tempfile::tempdir().expect("a folder");
    let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let identity = Identity::from_pem(signed.cert.pem(), signed.signing_key.serialize_pem());
    let mut control = ControlPlane::start_with(Some(identity)).await;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, signed.cert.pem()).expect("written");
    let port = control.address.port();
    let config = |name: &str, ca: Option<&std::path::Path>| {
        let url = format!("https://localhost:{port}").parse().expect("a URL");
        let source = gateway_data_plane::config::Source::ControlPlane(vec![url]);
        let mut config = gateway_data_plane::Config::new(source, dir.path().join(name));
        config.tls_ca = ca.map(Into::into);
        config
    };
    let unknown = run(config("stranger", None)).await.expect("it starts");
    let known = run(config("known", Some(&ca))).await.expect("it starts");
    let stream = control.accept().await;
    assert_eq!(stream.hello.node, known.node());
    let metrics = get(unknown.admin(), "/metrics").await.expect("an answer").1;
    assert!(metrics.contains("gateway_control_plane_connected 0"), "{metrics}");
    let missing = run(config("x", Some("/nowhere/ca.pem".as_ref()))).await;
    assert!(missing.expect_err("refused").to_string().contains("/nowhere/ca.pem"));
}

#[tokio::test]
async fn hard_work_does_not_keep_it_from_leaving_in_good_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut control = ControlPlane::start().await;
    let running = run(control.config(&dir)).await.expect("it starts");
    let mut stream = control.accept().await;
    stream.welcome(Mode::Full, SELDOM).await;
    let content = Content::of(&(listener("public") + &respond("/one", "1")));
    stream.transaction(1, None, &cursor("e", 1, content.root()), &content).await;
    stream.ack().await;
    within("the end", running.shutdown()).await;
    until("the stream's end", async || stream.next().await.is_none()).await;
}
