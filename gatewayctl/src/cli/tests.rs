//! What the command line takes, refuses and says about itself.

use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Command, ErrorKind> {
    // An environment that happens to be set must not decide.
    let words = std::iter::once("gatewayctl").chain(line.split_whitespace());
    Cli::read(words).map(|cli| cli.command).map_err(|error| error.kind())
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_reads_as_it_should() {
    for name in ["", "apply", "get", "dev"] {
        let mut command = Cli::command();
        command.build();
        let command = command.find_subcommand_mut(name).cloned().unwrap_or_else(Cli::command);
        let text = command.term_width(110).render_long_help().to_string();
        insta::assert_snapshot!(format!("help-{name}"), text);
    }
}

#[test]
fn waiting_is_a_flag_with_an_optional_time() {
    for (line, expected) in [
        ("apply -f x", None),
        ("apply -f x --wait", Some(30_000)),
        ("apply -f x --wait=0s", Some(0)),
        ("apply -f x --wait=1m30s", Some(90_000)),
    ] {
        let Ok(Command::Apply(args)) = parse(line) else { panic!("{line}") };
        assert_eq!(args.wait.wait.map(|time| time.as_millis()), expected, "{line}");
    }
    assert_eq!(parse("apply -f x --wait=5").err(), Some(ErrorKind::ValueValidation));
}

#[test]
fn kinds_go_by_any_of_their_names() {
    for name in ["route", "routes", "Route", "ROUTES"] {
        let Ok(Command::Get(args)) = parse(&format!("get {name}")) else { panic!("{name}") };
        assert_eq!(args.kind, Subject::Kinds(vec![Kind::Route]));
    }
    let Ok(Command::Get(args)) = parse("get all") else { panic!("all") };
    assert_eq!(args.kind, Subject::Kinds(Kind::ALL.to_vec()));
    assert_eq!(parse("get rout").err(), Some(ErrorKind::ValueValidation));
}

#[test]
fn values_are_checked_where_they_are_given() {
    use ErrorKind::{ArgumentConflict, InvalidValue, MissingRequiredArgument, ValueValidation};
    for (line, kind) in [
        ("apply", MissingRequiredArgument),
        ("apply -f x --prune", MissingRequiredArgument),
        ("apply -f x -l a=b", MissingRequiredArgument),
        ("apply -f x --prune -l a", ValueValidation),
        ("apply -f x --max-delete 3", MissingRequiredArgument),
        ("apply -f x --prune -l a=b --max-delete few", ValueValidation),
        ("apply -f x --dry-run=maybe", InvalidValue),
        ("apply -f x --base-revision last", ValueValidation),
        ("apply -f x -n Shop", ValueValidation),
        ("diff -f x -n Shop", ValueValidation),
        ("validate", MissingRequiredArgument),
        ("get routes -n Shop", ValueValidation),
        ("get routes -l a", ValueValidation),
        ("describe rout a", ValueValidation),
        ("describe route a -n Shop", ValueValidation),
        ("delete route a -n Shop", ValueValidation),
        ("delete route a -R", ArgumentConflict),
        ("status route a -n Shop", ValueValidation),
        ("nodes -o yaml", InvalidValue),
        ("route test GET / -o yaml", InvalidValue),
        ("rollout history -o yaml", InvalidValue),
        ("rollout diff one", ValueValidation),
        ("rollout undo --to-revision last", ValueValidation),
        ("rollout undo --wait=soon", ValueValidation),
        ("token create ci", MissingRequiredArgument),
        ("token create ci --role viewer -n Shop", ValueValidation),
        ("login Mine", ValueValidation),
        ("completion cmd", InvalidValue),
        ("dev -R", MissingRequiredArgument),
        ("dev --admin-listen 9000", ValueValidation),
        ("get routes a -l a=b", ArgumentConflict),
        ("get routes -A -n x", ArgumentConflict),
        ("get route a -A", ArgumentConflict),
        ("get route/shop/a -A", ArgumentConflict),
        ("get route/a -l a=b", ArgumentConflict),
        ("get route/a/b/c", ValueValidation),
        ("get routes -o xml", InvalidValue),
        ("delete", MissingRequiredArgument),
        ("delete route", MissingRequiredArgument),
        ("delete route a -f x", ArgumentConflict),
        ("delete all a", ValueValidation),
        ("delete route a --dry-run=maybe", InvalidValue),
        ("status route", MissingRequiredArgument),
        ("route test GET / -H nothing", ValueValidation),
        ("route test GET / --source localhost", ValueValidation),
        ("rollout history --limit 0", ValueValidation),
        ("rollout status --timeout soon", ValueValidation),
        ("token create ci --role owner", ValueValidation),
        ("token create ci --role viewer --expires soon", ValueValidation),
        ("join-token create", MissingRequiredArgument),
        ("join-token create Edge", ValueValidation),
        ("join-token create edge --uses 0", ValueValidation),
        ("join-token create edge --ttl soon", ValueValidation),
        ("dev --watch", MissingRequiredArgument),
        ("dev --listen 8080", ValueValidation),
        ("dev -f x --listen 127.0.0.1:1", ArgumentConflict),
    ] {
        assert_eq!(parse(line).err(), Some(kind), "{line}");
    }
}

#[test]
fn labels_and_expiry_are_read() {
    let Ok(Command::Apply(args)) = parse("apply -f x --prune -l team=x,env=") else { panic!("prune") };
    let labels = args.prune.selector.expect("given");
    assert_eq!(labels, [("team", "x"), ("env", "")].map(|(key, value)| (key.into(), value.into())).into());
    let expires = |text: &str| {
        let Ok(Command::Token(TokenCommand::Create { expires, .. })) =
            parse(&format!("token create ci --role viewer --expires {text}"))
        else {
            panic!("{text}")
        };
        expires.expect("given")
    };
    assert_eq!(expires("2027-01-01T00:00:00Z").to_string(), "2027-01-01T00:00:00Z");
    assert!(expires("1h") > jiff::Timestamp::now());
}

#[test]
fn options_that_would_be_ignored_are_refused() {
    for line in [
        "apply -f x --dry-run=client --wait",
        "apply -f x --dry-run=client --base-revision 3",
        "apply -f x --dry-run=client -m why",
        "apply -f x --dry-run=client --prune -l a=b",
        "apply -f x --dry-run=client --server http://x",
        "apply -f x --dry-run --wait",
        "apply -f x --dry-run --allow-shrink",
        "delete route a --dry-run=client --ignore-not-found",
        "delete route a --dry-run=client --token t",
        "--server http://x validate -f x",
        "validate -f x --token t",
        "explain route --context c",
        "completion bash --ca-file x",
        "context list --server http://x",
        "dev --token t",
        "login mine --context other",
    ] {
        assert_eq!(parse(line).err(), Some(ErrorKind::ArgumentConflict), "{line}");
    }
    for line in [
        "apply -f x --dry-run --base-revision 3 -m why --server http://x",
        "apply -f x --dry-run=client",
        "--server http://x get routes",
        "route test GET / --server http://x",
        "delete route a --dry-run --ignore-not-found",
    ] {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn dry_runs_of_apply_and_delete_take_the_same_values() {
    for (value, expected) in [
        ("", None),
        ("--dry-run", Some(DryRun::Server)),
        ("--dry-run=server", Some(DryRun::Server)),
        ("--dry-run=client", Some(DryRun::Client)),
    ] {
        let Ok(Command::Apply(apply)) = parse(&format!("apply -f x {value}")) else { panic!("{value}") };
        let Ok(Command::Delete(delete)) = parse(&format!("delete route a {value}")) else {
            panic!("{value}")
        };
        assert_eq!((apply.dry_run, delete.dry_run), (expected, expected), "{value}");
    }
}
