//! The command line of the gateway. `cli` says what can be asked for; one module per command does it through
//! `client` (the admin API) or the engine (offline); everything that is shown goes through `output`, everything that
//! failed through `report`. Only `dev` knows that planes exist as code.
//!
//! Invariant: the exit code says what happened, see `report::Exit`.

mod apply;
mod ca;
mod changes;
mod cli;
mod client;
mod context;
mod delete;
mod describe;
mod dev;
mod diff;
mod discovery;
mod dump;
mod explain;
mod get;
mod join_token;
mod key;
mod manifests;
mod nodes;
mod objects;
mod output;
mod report;
mod restore;
mod rollout;
mod route;
mod secrets;
mod spans;
mod status;
mod token;
mod validate;
mod wait;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory as _;

use cli::{Cli, Command, ContextCommand, KeyCommand, RouteCommand};
use client::Client;
use output::Output;
use report::{Exit, Failure};

/// Runs one command line; the first argument is the program's name.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::read(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage as u8 } else { 0 };
            // A closed pipe is no reason to complain.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let output = Output::new(cli.quiet);
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output.failure(&Failure::runtime(format!("cannot start: {error}")));
            return ExitCode::from(Exit::Runtime as u8);
        }
    };
    match runtime.block_on(Box::pin(run(cli, &output))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            ExitCode::from(failure.exit as u8)
        }
    }
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    let connect = || -> Result<Client, Failure> { Client::new(&context::endpoint(&cli.connection)?) };
    match &cli.command {
        Command::Apply(args) => apply::run(args, connect, output).await,
        Command::Diff(args) => diff::run(args, &connect()?, output).await,
        Command::Validate(args) => validate::run(args, output),
        Command::Get(args) => get::run(args, &connect()?, output).await,
        Command::Describe(args) => describe::run(args, &connect()?, output).await,
        Command::Delete(args) => delete::run(args, connect, output).await,
        Command::Explain(args) => explain::run(args, output),
        Command::Route(RouteCommand::Test(args)) => route::run(args, &connect()?, output).await,
        Command::Rollout(command) => rollout::run(command, &connect()?, output).await,
        Command::Nodes(args) => nodes::run(args, &connect()?, output).await,
        Command::Status(args) => status::run(args, &connect()?, output).await,
        Command::Token(command) => token::run(command, &connect()?, output).await,
        Command::JoinToken(command) => join_token::run(command, &connect()?, output).await,
        Command::Ca(command) => ca::run(command, &connect()?, output).await,
        Command::Key(KeyCommand::Generate) => key::generate(output),
        Command::Key(command) => key::run(command, &connect()?, output).await,
        Command::Secrets(command) => secrets::run(command, &connect()?, output).await,
        Command::Dump(args) => dump::run(args, &connect()?, output).await,
        Command::Restore(args) => restore::run(args, &connect()?, output).await,
        Command::Login(args) => context::login(args, &cli.connection, output).await,
        Command::Context(ContextCommand::List) => context::list(output),
        Command::Context(ContextCommand::Use { name }) => context::switch(name, output),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "gatewayctl", &mut script);
            output.raw(&String::from_utf8_lossy(&script))
        }
        Command::Dev(args) => dev::run(args, output).await,
    }
}
