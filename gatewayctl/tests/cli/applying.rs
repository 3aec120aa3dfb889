//! `apply`, `diff`, `validate`, `delete`: what they take, what they say, and their exit codes.

use std::net::TcpListener;

use crate::process::{Dev, alone, answering, command};

#[test]
fn apply_reads_files_folders_and_standard_input_and_says_what_it_did() {
    let dev = Dev::start();
    dev.write("m/a.yaml", &answering("a", "/a", "a"));
    dev.write("m/below/b.yaml", &answering("b", "/b", "b"));
    let out = dev.ok(&["apply", "-f", "m", "-m", "only the top", "--wait"]);
    assert_eq!(out, "Route default/a created\n1 created; revision 2\ndev: applied revision 2\n");
    assert_eq!(dev.get("/a"), (200, "a".to_owned()));
    assert!(dev.ok(&["rollout", "history"]).contains("only the top"));
    let out = dev.ok(&["apply", "-f", "m", "-R", "--wait"]);
    assert_eq!(out, "Route default/b created\n1 created, 1 unchanged; revision 3\ndev: applied revision 3\n");
    assert_eq!(dev.ok(&["-q", "apply", "-f", "m", "-R"]), "");
    let done = dev.piped(&["apply", "-f", "-", "-n", "shop"], &answering("c", "/c", "c"));
    assert_eq!((done.code, done.out.as_str()), (Some(0), "Route shop/c created\n1 created; revision 4\n"));
}

#[test]
fn a_dry_run_changes_nothing_and_on_the_client_needs_no_server() {
    let dev = Dev::start();
    dev.write("a.yaml", &answering("a", "/a", "a"));
    let out = dev.ok(&["apply", "-f", "a.yaml", "--dry-run=server"]);
    assert_eq!(out, "Route default/a created\n1 created; nothing was stored (dry run)\n");
    assert_eq!(dev.run(&["get", "route", "a"]).code, Some(1));
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::copy(dev.home.path().join("a.yaml"), home.path().join("a.yaml")).expect("copied");
    for arguments in [&["apply", "-f", "a.yaml", "--dry-run=client"][..], &["validate", "-f", "a.yaml"]] {
        let mut command = command(home.path(), arguments);
        let done = command.env("GATEWAY_SERVER", "http://127.0.0.1:1").output().expect("it runs");
        assert_eq!(String::from_utf8_lossy(&done.stdout), "1 object is valid\n", "{arguments:?}");
    }
}

#[test]
fn a_stale_base_is_exit_code_4_and_changes_nothing() {
    let dev = Dev::start();
    dev.write("a.yaml", &answering("a", "/a", "a"));
    let done = dev.run(&["apply", "-f", "a.yaml", "--base-revision", "0"]);
    assert_eq!(done.code, Some(4), "{}", done.err);
    assert!(done.err.contains("rollout history"), "{}", done.err);
    assert_eq!(dev.run(&["get", "route", "a"]).code, Some(1));
    dev.ok(&["apply", "-f", "a.yaml", "--base-revision", "1"]);
}

#[test]
fn prune_deletes_what_carries_the_labels_and_is_gone_from_the_manifests() {
    let dev = Dev::start();
    let (a, b) = (answering("a", "/a", "a"), answering("b", "/b", "b"));
    dev.write("all.yaml", &format!("{a}---\n{b}"));
    dev.write("less.yaml", &a);
    dev.ok(&["apply", "-f", "all.yaml"]);
    dev.ok(&["apply", "-f", "less.yaml"]);
    dev.ok(&["get", "route", "b"]);
    let refused = dev.run(&["apply", "-f", "less.yaml", "--prune", "-l", "team=shop", "--max-delete", "0"]);
    assert_ne!(refused.code, Some(0), "{}", refused.out);
    let diff = dev.ok(&["diff", "-f", "less.yaml", "--prune", "-l", "team=shop"]);
    assert!(diff.starts_with("--- Route default/b\n+++ (none)\n"), "{diff}");
    let out = dev.ok(&["apply", "-f", "less.yaml", "--prune", "-l", "team=shop"]);
    assert!(out.starts_with("Route default/b deleted\n"), "{out}");
    dev.ok(&["get", "route", "echo"]);
}

#[test]
fn what_the_server_finds_wrong_is_underlined_in_the_users_file_with_exit_code_3() {
    let dev = Dev::start();
    let route = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: a }\nspec:\n  forward:\n    backends: [{ upstream: nowhere }]\n";
    dev.write("bad.yaml", route);
    for command in ["apply", "diff"] {
        let done = dev.run(&[command, "-f", "bad.yaml"]);
        assert_eq!(done.code, Some(3), "{}", done.err);
        assert!(done.err.contains("bad.yaml:6:28") && done.err.contains("^^^^^^^"), "{}", done.err);
    }
    // The reference leads to something on the server, which offline nobody knows.
    dev.write("good.yaml", &route.replace("nowhere", "echo"));
    let offline = dev.run(&["validate", "-f", "good.yaml"]);
    assert_eq!(offline.code, Some(3));
    assert!(offline.err.contains("--dry-run=server"), "{}", offline.err);
    dev.ok(&["apply", "-f", "good.yaml", "--dry-run=server"]);
}

#[test]
fn a_listener_that_cannot_be_bound_is_exit_code_5() {
    let dev = Dev::start();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port();
    dev.write("taken.yaml", &format!("apiVersion: gateway/v1\nkind: Listener\nmetadata: {{ name: taken }}\nspec: {{ address: 127.0.0.1, port: {port} }}\n"));
    let done = dev.run(&["apply", "-f", "taken.yaml", "--wait=10s"]);
    assert_eq!(done.code, Some(5), "{}{}", done.out, done.err);
    assert!(done.out.contains("dev: refused Listener default/taken: spec.port"), "{}", done.out);
    assert!(done.err.contains("rollout undo"), "{}", done.err);
    let status = dev.ok(&["status", "listener", "taken"]);
    assert!(status.contains("refused"), "{status}");
    assert!(dev.ok(&["status"]).contains("dev: refuses Listener default/taken"));
}

#[test]
fn diff_says_by_its_exit_code_whether_there_is_a_difference() {
    let dev = Dev::start();
    dev.write("a.yaml", &answering("a", "/a", "a"));
    assert_eq!(dev.run(&["diff", "-f", "a.yaml", "--exit-code"]).code, Some(2));
    let out = dev.ok(&["diff", "-f", "a.yaml"]);
    assert!(out.starts_with("--- (none)\n+++ Route default/a\n"), "{out}");
    dev.ok(&["apply", "-f", "a.yaml"]);
    let same = dev.run(&["diff", "-f", "a.yaml", "--exit-code"]);
    assert_eq!((same.code, same.out.as_str()), (Some(0), ""));
}

#[test]
fn delete_keeps_what_others_need_and_takes_manifests_as_a_whole() {
    let dev = Dev::start();
    let refused = dev.run(&["delete", "upstream", "echo"]);
    assert_eq!(refused.code, Some(4), "{}", refused.err);
    assert!(refused.err.contains("Route default/echo"), "{}", refused.err);
    assert_eq!(dev.ok(&["delete", "route", "hello", "--dry-run"]), "Route default/hello would be deleted\n");
    assert_eq!(dev.ok(&["delete", "routes", "hello"]), "Route default/hello deleted\n");
    assert_eq!(dev.run(&["delete", "route", "hello"]).code, Some(1));
    dev.ok(&["delete", "route", "hello", "--ignore-not-found"]);
    dev.write("own/all.yaml", "apiVersion: gateway/v1\nkind: Upstream\nmetadata: { name: u }\nspec: { targets: [{ address: \"127.0.0.1:9\" }] }\n---\napiVersion: gateway/v1\nkind: Route\nmetadata: { name: r }\nspec: { forward: { backends: [{ upstream: u }] } }\n");
    dev.ok(&["apply", "-f", "own", "-n", "own"]);
    let would = "Route own/r would be deleted\nUpstream own/u would be deleted\n";
    for dry_run in ["--dry-run", "--dry-run=client"] {
        assert_eq!(dev.ok(&["delete", "-f", "own", "-n", "own", dry_run]), would);
    }
    assert_eq!(
        dev.ok(&["delete", "-f", "own", "-n", "own"]),
        "Route own/r deleted\nUpstream own/u deleted\n"
    );
}

#[test]
fn delete_takes_all_or_nothing_and_its_dry_run_knows() {
    let dev = Dev::start();
    // The upstream is still needed by the route of the sample, so nothing goes.
    for dry_run in [&[][..], &["--dry-run"]] {
        let done = dev.run(&[&["delete", "route/hello", "upstream/default/echo"], dry_run].concat());
        assert_eq!((done.code, done.out.as_str()), (Some(4), ""), "{}", done.err);
    }
    let missing = dev.run(&["delete", "route", "hello", "none"]);
    assert_eq!(missing.code, Some(1), "{}", missing.err);
    dev.ok(&["get", "route", "hello"]);
    let out = dev.ok(&["delete", "route", "hello", "none", "echo", "--ignore-not-found"]);
    assert_eq!(out, "Route default/echo deleted\nRoute default/hello deleted\n");
    assert!(dev.ok(&["rollout", "history"]).lines().nth(1).is_some_and(|newest| newest.starts_with('2')));
}

#[test]
fn mistakes_have_the_exit_codes_that_help_promises() {
    let home = tempfile::tempdir().expect("temporary folder");
    std::fs::write(home.path().join("empty.yaml"), "# nothing\n").expect("file");
    std::fs::write(home.path().join("broken.yaml"), "a: [\n").expect("file");
    for (arguments, code, text) in [
        (&["bogus"][..], 64, "unrecognized subcommand"),
        (&["apply"], 64, "--filename"),
        (&["apply", "-f", "missing.yaml"], 1, "missing.yaml"),
        (&["validate", "-f", "empty.yaml"], 3, "no object"),
        (&["validate", "-f", "broken.yaml"], 3, "broken.yaml:1:"),
        (&["--server", "http://127.0.0.1:1", "get", "routes"], 1, "gatewayctl login"),
        (&["--server", "nonsense", "get", "routes"], 64, "is no URL"),
        (&["--context", "none", "get", "routes"], 1, "no context \"none\""),
        (&["explain", "rout"], 64, "there are Listener"),
        (&["explain", "route", "--server", "http://x"], 64, "asks no server"),
        (&["--server", "http://me:hush@x", "nodes"], 64, "--token"),
    ] {
        let done = alone(home.path(), arguments);
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.err);
        assert!(done.err.contains(text), "{arguments:?}: {}", done.err);
    }
    let help = alone(home.path(), &["--help"]);
    assert!(help.code == Some(0) && help.out.contains("Exit codes") && help.err.is_empty());
    let script = alone(home.path(), &["completion", "bash"]);
    assert!(script.code == Some(0) && script.out.contains("_gatewayctl"));
}
