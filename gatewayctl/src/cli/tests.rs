//! What the command line takes, refuses and says about itself.

use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;

fn parse(line: &str) -> Result<Command, ErrorKind> {
    // An environment that happens to be set must not decide.
    let words = std::iter::once("gatewayctl").chain(line.split_whitespace());
    Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.kind())
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
        assert_eq!(args.kind, Kinds(vec![Kind::Route]));
    }
    let Ok(Command::Get(args)) = parse("get all") else { panic!("all") };
    assert_eq!(args.kind.0, Kind::ALL);
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
        ("apply -f x --dry-run=maybe", InvalidValue),
        ("apply -f x --base-revision last", ValueValidation),
        ("apply -f x -n Shop", ValueValidation),
        ("get routes a -l a=b", ArgumentConflict),
        ("get routes -A -n x", ArgumentConflict),
        ("get routes -o xml", InvalidValue),
        ("delete", MissingRequiredArgument),
        ("delete route", MissingRequiredArgument),
        ("delete route a -f x", ArgumentConflict),
        ("status route", MissingRequiredArgument),
        ("route test GET / -H nothing", ValueValidation),
        ("route test GET / --source localhost", ValueValidation),
        ("rollout history --limit 0", ValueValidation),
        ("rollout status --timeout soon", ValueValidation),
        ("token create ci --role owner", ValueValidation),
        ("token create ci --role viewer --expires soon", ValueValidation),
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
