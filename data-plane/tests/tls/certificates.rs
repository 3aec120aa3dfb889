//! Which certificate a client is shown, also while they change.

use crate::support::{Authority, BOTH, Gateway, OK};

#[tokio::test]
async fn the_name_that_is_asked_for_chooses() {
    let authority = Authority::new();
    let certificates =
        [authority.certificate("one", &["one.example"]), authority.certificate("wild", &["*.two.example"])];
    let gateway = Gateway::start("{ certificates: [one, wild] }", "{}", &certificates).await;
    let client = authority.client(BOTH, &[]);
    for name in ["one.example", "x.two.example"] {
        assert!(client.connect(&gateway, name).await.is_for(name), "{name}");
    }
    let stranger = client.try_connect(gateway.address, "three.example").await;
    assert!(
        stranger.is_err_and(|error| error.to_string().contains("not valid for name")),
        "the first is shown"
    );
}

#[tokio::test]
async fn a_new_certificate_is_shown_to_new_connections_and_old_ones_go_on() {
    let authority = Authority::new();
    let gateway = Gateway::simple(&authority).await;
    let mut old = authority.client(BOTH, &[]).connect(&gateway, "a.example").await;
    assert!(!old.is_for("b.example"));
    gateway.change(&[authority.certificate("c", &["a.example", "b.example"])]).await;
    let new = authority.client(BOTH, &[]).connect(&gateway, "b.example").await;
    assert!(new.is_for("a.example"));
    old.send("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let mut upstream = gateway.upstream().await;
    upstream.head().await;
    upstream.send(OK).await;
    old.is_answered_ok().await;
}
