//! Options that would be read and then ignored, because the command does nothing that they are about. They are
//! refused: whoever gives one expects something of it. The environment may hold what other commands need, so only
//! what stands on the command line counts.

use clap::ArgMatches;
use clap::error::ErrorKind;
use clap::parser::ValueSource;

use super::{Cli, Command, DryRun, Subject};

/// Options about the server to ask, and their names on the command line.
const CONNECTION: [(&str, &str); 4] =
    [("server", "--server"), ("token", "--token"), ("context", "--context"), ("ca_file", "--ca-file")];

/// What is wrong with a command line whose parts are all sound by themselves.
pub(super) fn complaint(cli: &Cli, matches: &ArgMatches) -> Option<(ErrorKind, String)> {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let name = matches.subcommand_name().unwrap_or_default();
    let conflict = |message: String| Some((ErrorKind::ArgumentConflict, message));
    if !asks(&cli.command)
        && let Some((_, option)) = CONNECTION.iter().find(|(id, _)| given(id))
    {
        return conflict(format!("{option} cannot be used here: this `{name}` asks no server that it names"));
    }
    if matches!(cli.command, Command::Login(_)) && given("context") {
        return conflict("login makes a context: give its name without --context".to_owned());
    }
    if let Some((option, dry_run)) = of_dry_run(&cli.command) {
        return conflict(format!("{option} cannot be used with --dry-run={dry_run}, which does not use it"));
    }
    match &cli.command {
        Command::Get(args) if matches!(args.kind, Subject::Object(_)) => {
            let option = if args.scope.all_namespaces { "--all-namespaces" } else { "--selector" };
            let wrong = args.scope.all_namespaces || args.selector.is_some();
            wrong.then(|| (ErrorKind::ArgumentConflict, format!("{option} goes with a kind, not with names")))
        }
        Command::Delete(args) if matches!(args.kind, Some(Subject::Kinds(_))) && args.names.is_empty() => {
            Some((ErrorKind::MissingRequiredArgument, "names of what to delete are missing".to_owned()))
        }
        // clap lets `requires` go when what is required conflicts with what is there.
        Command::Delete(args) if args.recursive && args.files.is_empty() => Some((
            ErrorKind::ArgumentConflict,
            "--recursive goes with manifests (-f), not with names".to_owned(),
        )),
        _ => None,
    }
}

/// The command asks the server that the connection options name.
const fn asks(command: &Command) -> bool {
    match command {
        Command::Validate(_)
        | Command::Explain(_)
        | Command::Completion { .. }
        | Command::Context(_)
        | Command::Dev(_) => false,
        Command::Apply(args) => !matches!(args.dry_run, Some(DryRun::Client)),
        Command::Delete(args) => !matches!(args.dry_run, Some(DryRun::Client)),
        _ => true,
    }
}

/// An option that a dry run has no use for, and where it runs.
fn of_dry_run(command: &Command) -> Option<(&'static str, &'static str)> {
    let (options, dry_run) = match command {
        Command::Apply(args) => {
            let client = args.dry_run == Some(DryRun::Client);
            let options = [
                ("--wait", args.wait.wait.is_some()),
                ("--allow-shrink", args.allow_shrink),
                ("--revive-keys", client && args.revive_keys),
                ("--base-revision", client && args.base_revision.is_some()),
                ("--message", client && args.message.is_some()),
                ("--prune", client && args.prune.prune),
            ];
            (options.to_vec(), args.dry_run?)
        }
        Command::Delete(args) => {
            let client = args.dry_run == Some(DryRun::Client);
            (vec![("--ignore-not-found", client && args.ignore_not_found)], args.dry_run?)
        }
        _ => return None,
    };
    let place = if dry_run == DryRun::Client { "client" } else { "server" };
    options.into_iter().find(|(_, given)| *given).map(|(option, _)| (option, place))
}
