//! `rollout`, `token`, `login`, `context`: the way back, and who may.

use crate::process::{Dev, answering};

#[test]
fn rollout_goes_back_and_tells_what_changed() {
    let dev = Dev::start();
    for body in ["one", "two"] {
        assert_eq!(dev.piped(&["apply", "-f", "-", "--wait"], &answering("a", "/a", body)).code, Some(0));
    }
    assert_eq!(dev.get("/a"), (200, "two".to_owned()));
    let newest = dev.ok(&["rollout", "diff"]);
    assert!(newest.contains("-    body: one\n+    body: two\n"), "{newest}");
    let since = dev.ok(&["rollout", "diff", "1", "2"]);
    assert!(since.starts_with("--- (none)\n+++ Route default/a\n"), "{since}");
    let out = dev.ok(&["rollout", "undo", "--wait"]);
    assert_eq!(out, "back to revision 2: 1 updated; revision 4\ndev: applied revision 4\n");
    assert_eq!(dev.get("/a"), (200, "one".to_owned()));
    dev.ok(&["rollout", "undo", "--to-revision", "1", "--wait"]);
    assert_eq!(dev.get("/a").0, 200, "the echo upstream has it again");
    assert_eq!(dev.ok(&["rollout", "status", "--timeout", "10s"]), "dev: applied revision 5\n");
    assert_eq!(dev.ok(&["rollout", "history", "--limit", "2"]).lines().count(), 3);
    let history: serde_json::Value =
        serde_json::from_str(&dev.ok(&["rollout", "history", "-o", "json"])).expect("JSON");
    assert_eq!(history[0]["revision"], 5);
    assert_ne!(dev.run(&["rollout", "undo", "--to-revision", "99"]).code, Some(0));
}

#[test]
fn tokens_are_good_for_their_role_namespace_and_time() {
    let dev = Dev::start();
    let made = dev.ok(&["token", "create", "ci", "--role", "editor", "-n", "shop", "--expires", "1h"]);
    let token = made.trim();
    let listed = dev.ok(&["token", "list"]);
    assert!(listed.contains("ci") && listed.contains("editor") && listed.contains("shop"), "{listed}");
    dev.write("a.yaml", &answering("a", "/a", "a"));
    let as_ci = |arguments: &[&str]| dev.run(&[&["--token", token], arguments].concat());
    assert_eq!(as_ci(&["apply", "-f", "a.yaml", "-n", "shop"]).code, Some(0));
    let elsewhere = as_ci(&["apply", "-f", "a.yaml"]);
    assert_eq!(elsewhere.code, Some(1));
    assert!(elsewhere.err.contains("shop"), "{}", elsewhere.err);
    dev.ok(&["token", "revoke", "ci"]);
    let ended = as_ci(&["get", "routes", "-n", "shop"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.err.contains("gatewayctl login"), "{}", ended.err);
}

#[test]
fn a_login_is_checked_and_saved_as_a_context() {
    let dev = Dev::start();
    let token = dev.ok(&["token", "create", "me", "--role", "viewer"]);
    let server = dev
        .ok(&["context", "list"])
        .lines()
        .last()
        .and_then(|line| line.split_whitespace().last())
        .expect("dev")
        .to_owned();
    let bad = dev.run(&["login", "mine", "--server", &server, "--token", "gwa_wrong"]);
    assert_eq!(bad.code, Some(1), "{}", bad.err);
    dev.ok(&["login", "mine", "--server", &server, "--token", token.trim()]);
    assert!(dev.ok(&["context", "list"]).contains("*   mine"));
    dev.ok(&["get", "routes"]);
    assert_eq!(dev.run(&["delete", "route", "hello"]).code, Some(1), "a viewer deletes nothing");
    dev.ok(&["--context", "dev", "delete", "route", "hello"]);
    dev.ok(&["context", "use", "dev"]);
    assert!(dev.ok(&["context", "list"]).contains("*   dev"));
    assert_eq!(dev.run(&["context", "use", "none"]).code, Some(1));
}
