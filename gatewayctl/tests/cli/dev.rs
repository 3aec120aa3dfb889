//! `dev` itself.

use std::net::TcpListener;

use crate::process::{Dev, alone, answering};

const LISTENER: &str = "apiVersion: gateway/v1\nkind: Listener\nmetadata: { name: own }\nspec: { address: 127.0.0.1, port: 0 }\n---\n";

#[test]
fn it_serves_a_proxied_request_and_drains_on_ctrl_c() {
    let dev = Dev::start();
    let (status, body) = dev.get("/some/path?x=1");
    assert_eq!(status, 200);
    assert!(
        body.starts_with("GET /some/path?x=1\n") && body.contains("x-forwarded-for: 127.0.0.1"),
        "{body}"
    );
    assert_eq!(dev.get("/hello/you"), (200, "hello, you\n".to_owned()));
    // Without flags: the context that it saved.
    assert_eq!(dev.ok(&["get", "routes", "-o", "name"]), "route/echo\nroute/hello\n");
    let home = dev.interrupt_and_keep();
    let left = alone(home.path(), &["context", "list"]);
    assert!(left.err.contains("no contexts"), "its context goes with it: {}", left.out);
}

#[test]
fn it_applies_manifests_again_when_they_change_and_prunes_what_they_no_longer_hold() {
    let first = format!("{LISTENER}{}---\n{}", answering("a", "/a", "one"), answering("b", "/b", "two"));
    let mut dev = Dev::with(&["-f", "manifests", "-R", "--watch"], |home| {
        std::fs::create_dir_all(home.join("manifests/below")).expect("folder");
        std::fs::write(home.join("manifests/below/shop.yaml"), &first).expect("file");
    });
    assert_eq!(dev.get("/a"), (200, "one".to_owned()));
    let other = dev.piped(&["apply", "--wait", "-f", "-"], &answering("other", "/other", "kept"));
    assert_eq!(other.code, Some(0), "{}", other.err);

    dev.write("manifests/below/shop.yaml", &format!("{LISTENER}{}", answering("a", "/a", "changed")));
    dev.until("dev: applied revision 3");
    assert_eq!(dev.get("/a"), (200, "changed".to_owned()));
    assert_eq!(dev.get("/b").0, 404, "it was pruned");
    assert_eq!(dev.get("/other"), (200, "kept".to_owned()), "it was applied by other means");

    dev.write("manifests/below/shop.yaml", "kind: Rout\n");
    dev.until_error("unknown kind \"Rout\"");
    assert_eq!(dev.get("/a"), (200, "changed".to_owned()), "broken manifests change nothing");
    dev.write("manifests/below/shop.yaml", &format!("{LISTENER}{}", answering("a", "/a", "mended")));
    dev.until("dev: applied revision 4");
    assert_eq!(dev.get("/a"), (200, "mended".to_owned()));
}

#[test]
fn it_deletes_what_it_applied_in_namespaces_that_no_manifest_names_any_more() {
    let mut dev = Dev::with(&["-f", "m", "--watch"], |home| {
        std::fs::create_dir(home.join("m")).expect("folder");
        let route = answering("a", "/a", "x").replace("name: a,", "name: a, namespace: shop,");
        std::fs::write(home.join("m/a.yaml"), format!("{LISTENER}{route}")).expect("file");
    });
    let other = dev.piped(&["apply", "-f", "-", "-n", "other"], &answering("other", "/other", "kept"));
    assert_eq!(other.code, Some(0), "{}", other.err);
    dev.write("m/a.yaml", &format!("{LISTENER}{}", answering("a", "/a", "moved")));
    dev.until("dev: applied revision 3");
    assert_eq!(dev.ok(&["get", "routes", "-A", "-o", "name"]), "route/default/a\nroute/other/other\n");
    dev.write("m/a.yaml", "# nothing\n");
    dev.until("dev: applied revision 4");
    assert_eq!(dev.ok(&["get", "all", "-A", "-o", "name"]), "route/other/other\n");
    // The last file of the folder, too.
    dev.write("m/a.yaml", LISTENER);
    dev.until("dev: applied revision 5");
    std::fs::remove_file(dev.home.path().join("m/a.yaml")).expect("removed");
    dev.until("dev: applied revision 6");
    assert_eq!(dev.ok(&["get", "all", "-A", "-o", "name"]), "route/other/other\n");
}

#[test]
fn a_folder_without_manifests_is_a_mistake_unless_it_is_watched() {
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::create_dir(home.path().join("m")).expect("folder");
    let done = alone(home.path(), &["dev", "-f", "m", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("no manifests in this folder"), "{}", done.err);
    let mut dev = Dev::with(&["-f", "m", "--watch"], |home| {
        std::fs::create_dir(home.join("m")).expect("folder");
    });
    dev.write("m/a.yaml", &format!("{LISTENER}{}", answering("a", "/a", "x")));
    dev.until("dev: applied revision 1");
}

#[test]
fn its_state_survives_a_restart_and_is_not_shared() {
    let dev = Dev::start();
    let applied = dev.piped(&["apply", "--wait", "-f", "-"], &answering("mine", "/mine", "still here"));
    assert_eq!(applied.code, Some(0), "{}", applied.err);
    let second = dev.run(&["dev", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(second.code, Some(1), "the state folder is taken");
    assert!(second.err.contains("--state-dir"), "{}", second.err);
    let kept = tempfile::tempdir().expect("temporary folder");
    let state = kept.path().join("state");
    let arguments = ["--listen", "127.0.0.1:0", "--state-dir", state.to_str().expect("text")];
    let first = Dev::with(&arguments, |_| {});
    assert_eq!(
        first.piped(&["apply", "--wait", "-f", "-"], &answering("mine", "/mine", "still here")).code,
        Some(0)
    );
    assert_eq!(first.interrupt(), Some(0));
    assert_eq!(Dev::with(&arguments, |_| {}).get("/mine"), (200, "still here".to_owned()));
}

#[test]
fn a_port_that_is_taken_ends_it_and_says_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("bound").to_string();
    let home = tempfile::tempdir().expect("temporary folder");
    let done = alone(home.path(), &["dev", "--listen", &address, "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(done.code, Some(5), "{}", done.err);
    assert!(done.err.contains("try --listen 127.0.0.1:0"), "{}", done.err);
    assert!(!done.err.contains('\u{1b}'), "no colours into a file: {}", done.err);
    let done = alone(home.path(), &["dev", "--admin-listen", &address]);
    assert_eq!(done.code, Some(1), "{}", done.err);
    assert!(done.err.contains("try --admin-listen 127.0.0.1:0"), "{}", done.err);
}

#[test]
fn bad_manifests_end_it_with_exit_code_3_when_nothing_is_watched() {
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::write(home.path().join("bad.yaml"), "kind: Rout\n").expect("file");
    let done = alone(home.path(), &["dev", "-f", "bad.yaml", "--admin-listen", "127.0.0.1:0"]);
    assert_eq!(done.code, Some(3), "{}", done.err);
    assert!(done.err.contains("bad.yaml:1:7"), "{}", done.err);
}
