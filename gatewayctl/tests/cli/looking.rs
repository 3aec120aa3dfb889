//! `get`, `describe`, `explain`, `route test`, `nodes`, `status`, `dump`: what they show.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use crate::process::{Dev, alone, answering, command};

#[test]
fn get_selects_by_kind_name_label_and_namespace_in_every_format() {
    let dev = Dev::start();
    dev.write("a.yaml", &answering("a", "/a", "a"));
    dev.ok(&["apply", "-f", "a.yaml", "-n", "shop"]);
    assert_eq!(dev.ok(&["get", "routes", "-n", "shop", "-o", "name"]), "route/a\n");
    assert_eq!(dev.ok(&["get", "routes", "-A", "-l", "team=shop", "-o", "name"]), "route/shop/a\n");
    let everything = dev.ok(&["get", "all", "-A", "-o", "name"]);
    let back = [&["get", "-o", "name"], everything.lines().collect::<Vec<_>>().as_slice()].concat();
    assert_eq!(dev.ok(&back), everything);
    assert_eq!(dev.ok(&["get", "routes", "-A", "-l", "team=x", "-o", "name"]), "");
    assert_eq!(dev.ok(&["get", "route", "hello", "echo", "-o", "name"]), "route/hello\nroute/echo\n");
    let table = dev.ok(&["get", "all", "-A"]);
    assert!(table.contains("shop        a       *       exact /a"), "{table}");
    assert!(dev.ok(&["get", "upstreams", "-o", "wide"]).contains("GENERATION"));
    let one: serde_json::Value =
        serde_json::from_str(&dev.ok(&["get", "route", "a", "-n", "shop", "-o", "json"])).expect("JSON");
    assert_eq!(one["spec"]["respond"]["body"], "a");
    let none = dev.run(&["get", "policies"]);
    assert_eq!((none.code, none.out.as_str()), (Some(0), ""));
    assert!(none.err.contains("none found in namespace default"));
}

#[test]
fn what_get_and_dump_write_applies_as_no_change() {
    let dev = Dev::start();
    // Twice a dollar for the manifest, and each of these twice for the template.
    let literal = answering("a", "/a", "$$$${HOME} ${route.name} $$");
    assert_eq!(dev.piped(&["apply", "-f", "-", "--wait"], &literal).code, Some(0));
    assert_eq!(dev.get("/a"), (200, "${HOME} default/a $".to_owned()));
    for arguments in [&["get", "all", "-o", "yaml"][..], &["get", "routes", "-o", "json"], &["dump"]] {
        let text = dev.ok(arguments);
        assert!(text.contains("$$$${HOME}"), "{text}");
        let again = dev.piped(&["apply", "-f", "-"], &text);
        assert_eq!(again.code, Some(0), "{}", again.err);
        assert!(again.out.ends_with("unchanged; revision 2\n"), "{}", again.out);
    }
}

#[test]
fn a_watch_goes_on_with_what_changes() {
    let dev = Dev::start();
    let mut watch = command(dev.home.path(), &["get", "routes", "-w", "-o", "name"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    let mut next = || lines.next().expect("it goes on").expect("text");
    assert_eq!((next(), next()), ("route/echo".to_owned(), "route/hello".to_owned()));
    assert_eq!(dev.piped(&["apply", "-f", "-"], &answering("new", "/new", "x")).code, Some(0));
    assert_eq!(next(), "route/new");
    dev.ok(&["delete", "route", "new"]);
    assert_eq!(next(), "Route default/new deleted");
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
}

#[test]
fn an_object_is_described_with_where_it_serves() {
    let dev = Dev::start();
    let text = dev.ok(&["describe", "route", "hello"]);
    assert!(text.contains("template: /hello/{name}") && text.contains("dev          applied"), "{text}");
    assert_eq!(dev.run(&["describe", "route", "none"]).code, Some(1));
    assert_eq!(
        dev.piped(&["apply", "-f", "-", "-n", "shop", "--wait"], &answering("a", "/a", "a")).code,
        Some(0)
    );
    for command in [&["describe", "route", "a"][..], &["status", "route", "a"]] {
        assert_eq!(dev.run(command).code, Some(1), "it is in another namespace");
        assert!(dev.ok(&[command, &["-n", "shop"]].concat()).contains("applied"));
    }
    let nodes = dev.ok(&["nodes"]);
    assert!(nodes.contains("dev   default") && nodes.contains("in sync"), "{nodes}");
    let nodes: serde_json::Value = serde_json::from_str(&dev.ok(&["nodes", "-o", "json"])).expect("JSON");
    assert_eq!(nodes["items"][0]["id"], "dev");
    assert!(dev.ok(&["status"]).contains("1 connected, 1 in sync"));
}

#[test]
fn route_test_asks_the_live_table() {
    let dev = Dev::start();
    let text = dev.ok(&["route", "test", "GET", "http://x.example/hello/you"]);
    assert!(text.contains("listener default/public") && text.contains("route   default/hello"), "{text}");
    assert!(text.contains("lost    default/echo"), "{text}");
    let conditional = "apiVersion: gateway/v1\nkind: Route\nmetadata: { name: beta }\nspec:\n  hosts: [x.example]\n  matches:\n    - headers: [{ name: x-beta, exact: \"1\" }]\n      sources: [10.0.0.0/8]\n  respond: {}\n";
    assert_eq!(dev.piped(&["apply", "-f", "-"], conditional).code, Some(0));
    let winner = |extra: &[&str]| {
        let arguments = [&["route", "test", "GET", "http://x.example/", "-o", "json"], extra].concat();
        let answer: serde_json::Value = serde_json::from_str(&dev.ok(&arguments)).expect("JSON");
        answer["listeners"][0]["winner"]["route"].as_str().expect("a route").to_owned()
    };
    assert_eq!(winner(&["-H", "X-Beta: 1", "--source", "10.1.1.1"]), "default/beta");
    assert_eq!(winner(&["-H", "X-Beta: 1"]), "default/echo");
    assert_eq!(winner(&["--source", "10.1.1.1", "--listener", "public"]), "default/echo");
    assert_ne!(dev.run(&["route", "test", "GET", "/", "--listener", "none"]).code, Some(0));
}

#[test]
fn explain_needs_no_server() {
    let home = tempfile::tempdir().expect("temporary folder");
    let done = alone(home.path(), &["explain", "route.spec.matches"]);
    assert!(done.code == Some(0) && done.out.contains("methods <list of string>"), "{}", done.out);
}
