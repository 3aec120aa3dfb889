//! The control plane as a program: settings, logging, then [`gateway_control_plane::run`] until a signal.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use gateway_control_plane::config::{Command, Config, ConfigError, Log, LogFormat, LogLevel, Migrate};
use gateway_control_plane::{secrets, store};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let done = match Command::load(std::env::args_os()) {
        Ok(Command::Serve(config, log)) => {
            start_logging(log);
            on_runtime(run(*config))
        }
        Ok(Command::Migrate(what)) => on_runtime(migrate(what)),
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => Err(error.into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(&error),
    }
}

fn on_runtime(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(work)
}

/// Says why in one line: what happened, then each cause that is not part of the words before it.
fn failed(error: &anyhow::Error) -> ExitCode {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    // There is nowhere left to complain to.
    let _ = writeln!(std::io::stderr(), "error: {text}");
    ExitCode::FAILURE
}

async fn run(config: Config) -> anyhow::Result<()> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut running = gateway_control_plane::run(config).await?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
        failed = running.failed() => return Err(failed.into()),
    }
    tracing::info!("ending");
    running.shutdown().await;
    Ok(())
}

async fn migrate(what: Migrate) -> anyhow::Result<()> {
    let Migrate { from, to } = what;
    let moved = store::transfer::transfer(&from, &to).await?;
    let rows: u64 = moved.rows.values().sum();
    let head = moved.head;
    let mut said = format!(
        "moved {rows} rows of {} tables: revision {} of epoch {}, root hash {}\n",
        moved.rows.len(),
        head.revision,
        head.epoch,
        head.root
    );
    if let Some(master) = moved.master {
        said.push_str(&format!(
            "its secrets are sealed with master key {}: give every control plane the file with that key as --master-key-file\n",
            secrets::shown(master)
        ));
    }
    said.push_str(
        "start control planes on the new store only: what is written to the old one from now on is lost\n",
    );
    // A closed pipe is no reason to complain.
    let _ = std::io::stdout().write_all(said.as_bytes());
    Ok(())
}

fn start_logging(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // sqlx logs what it also returns as an error.
    let which = Targets::new().with_default(level).with_target("sqlx", LevelFilter::ERROR);
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let colours = std::io::stderr().is_terminal() && !no_color;
    let lines = tracing_subscriber::fmt::layer().with_ansi(colours).with_writer(std::io::stderr);
    let lines = match log.format {
        LogFormat::Json => lines.json().boxed(),
        LogFormat::Text => lines.boxed(),
    };
    tracing_subscriber::registry().with(lines.with_filter(which)).init();
}
