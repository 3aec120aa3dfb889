//! What can be asked for: commands, flags and how their values are read. No behaviour; a value that parses is used by
//! the command that names it.

mod identity;
mod ignored;
mod subject;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use gateway_engine::value;
use gateway_proto::admin::Role;
use gateway_proto::kind::Kind;

pub(crate) use identity::{CaCommand, JoinTokenCommand, NodesArgs, NodesCommand, NodesFormat};
pub(crate) use subject::Subject;

/// The command line of the gateway.
///
/// Exit codes: 0 done, 1 runtime error, 2 difference found (diff --exit-code), 3 validation failed,
/// 4 conflict or in use, 5 stored but not applied everywhere, 64 wrong usage.
#[derive(Debug, Parser)]
#[command(name = "gatewayctl", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// Say only what was asked for and what went wrong
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(flatten)]
    pub(crate) connection: Connection,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// Reads a command line; the first argument is the program's name. Refuses options that would be ignored.
    pub(crate) fn read<T: Into<OsString> + Clone>(
        arguments: impl IntoIterator<Item = T>,
    ) -> Result<Self, clap::Error> {
        let mut command = Cli::command();
        let matches = command.try_get_matches_from_mut(arguments)?;
        let cli = Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))?;
        match ignored::complaint(&cli, &matches) {
            None => Ok(cli),
            Some((kind, message)) => Err(command.error(kind, message)),
        }
    }
}

/// Which control plane, and as whom.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct Connection {
    /// URL of the admin API [default: that of the context, else http://127.0.0.1:9000]
    #[arg(long, global = true, env = "GATEWAY_SERVER", hide_env_values = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Admin token [default: that of the context]
    #[arg(long, global = true, env = "GATEWAY_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// Saved server and token to use [default: the one chosen by `context use`, `login` or `dev`]
    #[arg(long, global = true, env = "GATEWAY_CONTEXT", hide_env_values = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// PEM file of the authority that signed the server's certificate [default: the system's]
    #[arg(long, global = true, env = "GATEWAY_CA_FILE", hide_env_values = true, value_name = "FILE")]
    pub(crate) ca_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create or replace objects from manifests, all or none
    Apply(ApplyArgs),
    /// Show what an apply would change
    Diff(DiffArgs),
    /// Check manifests offline, with the compiler that the gateway uses
    Validate(Manifests),
    /// List objects, or show some
    Get(GetArgs),
    /// Show an object and where it serves
    Describe(ObjectArgs),
    /// Delete objects
    Delete(DeleteArgs),
    /// Describe the fields of a kind
    Explain(ExplainArgs),
    /// Ask the route table
    #[command(subcommand)]
    Route(RouteCommand),
    /// History, and the way back
    #[command(subcommand)]
    Rollout(RolloutCommand),
    /// List data planes
    Nodes(NodesArgs),
    /// Show whether everything, or one object, serves everywhere
    Status(StatusArgs),
    /// Manage admin tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Manage the tokens that data planes join with
    #[command(subcommand)]
    JoinToken(JoinTokenCommand),
    /// Manage the control plane's own CA, which data planes' certificates come from
    #[command(subcommand)]
    Ca(CaCommand),
    /// Manage API keys of consumers
    #[command(subcommand)]
    Key(KeyCommand),
    /// Manage how secrets are sealed in the store
    #[command(subcommand)]
    Secrets(SecretsCommand),
    /// Write every object of every namespace as YAML
    Dump(DumpArgs),
    /// Make an empty store what a dump says, in a new epoch; data planes follow
    Restore(RestoreArgs),
    /// Check a server and token and save them as a context
    Login(LoginArgs),
    /// Saved servers and tokens
    #[command(subcommand)]
    Context(ContextCommand),
    /// Write a completion script for a shell
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Run everything in one process: control plane, data plane, an echo upstream and a sample route
    Dev(DevArgs),
}

/// Where manifests come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Manifests {
    /// File, folder (its *.yaml, *.yml and *.json) or - for standard input; may be given several times
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE|DIR|-")]
    pub(crate) files: Vec<PathBuf>,
    /// Read folders below folders too
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    /// Namespace of objects that name none
    #[arg(short, long, value_name = "NS", value_parser = name)]
    pub(crate) namespace: Option<String>,
}

/// What an apply may delete.
#[derive(Clone, Debug, Args)]
pub(crate) struct PruneArgs {
    /// Delete what carries the labels of -l and is not in the manifests (at most 10 objects, see --max-delete)
    #[arg(long, requires = "selector")]
    pub(crate) prune: bool,
    /// Labels of --prune; every object of the manifests must carry them
    #[arg(short = 'l', long = "selector", requires = "prune", value_name = "KEY=VALUE,...", value_parser = labels)]
    pub(crate) selector: Option<Labels>,
    /// Refuse to prune more objects than this
    #[arg(long, requires = "prune", value_name = "N")]
    pub(crate) max_delete: Option<u32>,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) manifests: Manifests,
    /// Why; kept in the history
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// Change nothing: check here (client), or do everything but store it (server, the default)
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "server", value_name = "WHERE")]
    pub(crate) dry_run: Option<DryRun>,
    /// Refuse unless this is the newest revision
    #[arg(long, value_name = "N")]
    pub(crate) base_revision: Option<u64>,
    /// Let data planes that come from another store drop most of what they serve (they report epoch_shrink otherwise)
    #[arg(long)]
    pub(crate) allow_shrink: bool,
    /// Let credentials bring keys that were revoked or rotated; otherwise an old manifest that names one is refused
    #[arg(long)]
    pub(crate) revive_keys: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// How long to wait for data planes.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// Wait until the connected data planes have applied it; 0s: do not wait [default: 30s on a terminal, else 0s]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "30s", value_name = "TIME", value_parser = duration)]
    pub(crate) wait: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DryRun {
    /// Without a server: only what is in the manifests is known
    Client,
    /// On the server, against what is stored
    Server,
}

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    pub(crate) manifests: Manifests,
    #[command(flatten)]
    pub(crate) prune: PruneArgs,
    /// End with exit code 2 when there is a difference
    #[arg(long)]
    pub(crate) exit_code: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns
    Table,
    /// More columns
    Wide,
    /// The objects as JSON
    Json,
    /// The objects as YAML, fit for apply
    Yaml,
    /// KIND/NAME lines, with -A KIND/NAMESPACE/NAME, as get and delete take them
    Name,
}

/// Which namespaces.
#[derive(Clone, Debug, Args)]
pub(crate) struct Scope {
    /// Namespace
    #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
    pub(crate) namespace: String,
    /// All namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "names"])]
    pub(crate) all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Listener, Route, Upstream or Policy; plurals and lower case will do; `all` for every kind; or an object as
    /// KIND/NAME or KIND/NAMESPACE/NAME
    #[arg(value_parser = subject::of_get)]
    pub(crate) kind: Subject,
    /// Names, none: all of the namespace; or more objects as KIND/NAME
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) scope: Scope,
    /// What to write
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) output: Format,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "KEY=VALUE,...", value_parser = labels, conflicts_with = "names")]
    pub(crate) selector: Option<Labels>,
    /// Go on and write what changes
    #[arg(short, long)]
    pub(crate) watch: bool,
}

/// One object.
#[derive(Debug, Args)]
pub(crate) struct ObjectArgs {
    /// Kind
    #[arg(value_parser = kind)]
    pub(crate) kind: Kind,
    /// Name
    pub(crate) name: String,
    /// Namespace
    #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
    pub(crate) namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Kind, or an object as KIND/NAME or KIND/NAMESPACE/NAME
    #[arg(value_parser = subject::of_delete, required_unless_present = "files")]
    pub(crate) kind: Option<Subject>,
    /// Names, or more objects as KIND/NAME
    pub(crate) names: Vec<String>,
    /// Delete the objects of these manifests instead
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR|-", conflicts_with = "kind")]
    pub(crate) files: Vec<PathBuf>,
    /// Read folders below folders too
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,
    /// Namespace
    #[arg(short, long, value_name = "NS", value_parser = name)]
    pub(crate) namespace: Option<String>,
    /// Delete nothing: tell what is named (client), or check on the server (server, the default)
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "server", value_name = "WHERE")]
    pub(crate) dry_run: Option<DryRun>,
    /// An object that is not there is no error
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    /// A kind and fields of it, e.g. route.spec.matches; none: the kinds
    pub(crate) path: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// Tell which route a request would take, and why
    Test(RouteTestArgs),
}

#[derive(Debug, Args)]
pub(crate) struct RouteTestArgs {
    /// GET, POST, ...
    pub(crate) method: String,
    /// http://host/path?query, or /path
    pub(crate) url: String,
    /// Header field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub(crate) headers: Vec<(String, String)>,
    /// Ask this listener only, `name` or `namespace/name`
    #[arg(long)]
    pub(crate) listener: Option<String>,
    /// Client address [default: 127.0.0.1]
    #[arg(long, value_name = "IP")]
    pub(crate) source: Option<std::net::IpAddr>,
    /// text or json
    #[arg(short, long, value_enum, default_value = "text")]
    pub(crate) output: Plain,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Plain {
    /// For people
    Text,
    /// As the API answers
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RolloutCommand {
    /// List revisions, newest first
    History {
        /// How many
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
        /// text or json
        #[arg(short, long, value_enum, default_value = "text")]
        output: Plain,
    },
    /// Show what changed between two revisions
    Diff {
        /// Older revision [default: the one before the newest]
        from: Option<u64>,
        /// Newer revision [default: the newest]
        to: Option<u64>,
    },
    /// Go back to an earlier revision, as a new one
    Undo {
        /// The revision to go back to [default: the one before the newest]
        #[arg(long, value_name = "N")]
        to_revision: Option<u64>,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Wait until the connected data planes have applied the newest revision
    Status {
        /// How long
        #[arg(long, default_value = "30s", value_parser = duration)]
        timeout: Duration,
    },
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Kind; none: everything
    #[arg(value_parser = kind, requires = "name")]
    pub(crate) kind: Option<Kind>,
    /// Name
    pub(crate) name: Option<String>,
    /// Namespace
    #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
    pub(crate) namespace: String,
}

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Leave secrets out (***), or write them sealed: readable only with the control plane's master key
    #[arg(long, value_enum, default_value = "omit", value_name = "HOW")]
    pub(crate) secrets: DumpSecrets,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum DumpSecrets {
    /// Left out; fit for apply to a store that holds them
    Omit,
    /// Sealed; fit for restore only
    Sealed,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) manifests: Manifests,
    /// Also when the store holds something: delete what the dump does not name
    #[arg(long)]
    pub(crate) replace: bool,
    /// Why; kept in the history
    #[arg(short, long)]
    pub(crate) message: Option<String>,
    /// Do everything but store it
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// Seal every secret with the first key of the control plane's --master-key-file, so that the keys below it can go
    Rewrap,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token; it is shown once
    Create {
        /// Its name: the author in history and audit
        name: String,
        /// viewer, editor or admin
        #[arg(long, value_parser = role)]
        role: Role,
        /// Namespace it is good for; may be given several times; none: all
        #[arg(short, long = "namespace", value_name = "NS", value_parser = name)]
        namespaces: Vec<String>,
        /// How long it is good for (720h), or an RFC 3339 time [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<jiff::Timestamp>,
    },
    /// List tokens
    List,
    /// End a token
    Revoke {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a credential and its key; the key is shown once
    Create {
        /// Name of the credential
        #[arg(value_parser = name)]
        name: String,
        /// Consumer that it stands for
        #[arg(long, value_name = "NAME", value_parser = name)]
        consumer: String,
        /// Namespace of both
        #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
        namespace: String,
        /// How long it is good for (720h), or an RFC 3339 time [default: for ever]
        #[arg(long, value_name = "TIME", value_parser = expiry)]
        expires: Option<jiff::Timestamp>,
    },
    /// Put another key in the place of the one there is; it is shown once
    Rotate {
        /// Name of the credential
        #[arg(value_parser = name)]
        name: String,
        /// Its namespace
        #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
        namespace: String,
        /// How long the old key is taken beside the new one (24h) [default: it is refused at once]
        #[arg(long, value_name = "TIME")]
        grace: Option<String>,
    },
    /// Delete a credential: its key is refused everywhere, within half a second
    Revoke {
        /// Name of the credential
        #[arg(value_parser = name)]
        name: String,
        /// Its namespace
        #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
        namespace: String,
    },
    /// List credentials: whose they are, what upstreams know their keys by, until when they are good
    List {
        /// Namespace
        #[arg(short, long, value_name = "NS", default_value = gateway_proto::DEFAULT_NAMESPACE, value_parser = name)]
        namespace: String,
        /// All namespaces
        #[arg(short = 'A', long, conflicts_with = "namespace")]
        all_namespaces: bool,
    },
    /// Make a key without a control plane, for manifests that a data plane reads itself; asks nobody
    Generate,
}

#[derive(Debug, Args)]
pub(crate) struct LoginArgs {
    /// Name to save it under
    #[arg(default_value = "default", value_parser = name)]
    pub(crate) name: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List saved contexts
    List,
    /// Choose the context of later commands
    Use {
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct DevArgs {
    /// Manifests to apply instead of the sample route; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE|DIR")]
    pub(crate) files: Vec<PathBuf>,
    /// Read folders below folders too
    #[arg(short = 'R', long, requires = "files")]
    pub(crate) recursive: bool,
    /// Apply the manifests again when they change, and delete what they no longer hold
    #[arg(long, requires = "files")]
    pub(crate) watch: bool,
    /// Address of the sample listener; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080", conflicts_with = "files")]
    pub(crate) listen: SocketAddr,
    /// Folder of the store and the data plane's state
    #[arg(long, value_name = "DIR", default_value = ".gateway")]
    pub(crate) state_dir: PathBuf,
    /// Address of the admin API; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9000")]
    pub(crate) admin_listen: SocketAddr,
    /// Folder of the files that a DiscoverySource may name
    #[arg(long, value_name = "DIR")]
    pub(crate) discovery_file_dir: Option<PathBuf>,
}

/// Labels that must all be there.
pub(crate) type Labels = BTreeMap<String, String>;

fn kind(text: &str) -> Result<Kind, String> {
    let wanted = text.to_lowercase();
    let all = Kind::ALL.iter().copied();
    let known = || Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(", ");
    all.into_iter()
        .find(|kind| kind.as_str().to_lowercase() == wanted || kind.plural() == wanted)
        .ok_or_else(|| format!("unknown kind, expected one of {}", known()))
}

fn name(text: &str) -> Result<String, String> {
    value::name(text).map(|()| text.to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    value::duration(text)
}

fn labels(text: &str) -> Result<Labels, String> {
    text.split(',')
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(format!("{pair:?} is no label, expected KEY=VALUE")),
        })
        .collect()
}

fn header(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("expected NAME: VALUE".to_owned()),
    }
}

fn role(text: &str) -> Result<Role, String> {
    [Role::Viewer, Role::Editor, Role::Admin]
        .into_iter()
        .find(|role| role.as_str() == text)
        .ok_or_else(|| "expected viewer, editor or admin".to_owned())
}

fn expiry(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(at);
    }
    let span = value::duration(text)
        .map_err(|_| "expected a duration such as 720h, or an RFC 3339 time".to_owned())?;
    jiff::Timestamp::now().checked_add(span).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
