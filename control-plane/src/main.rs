//! The control plane as a program: settings, logging, then [`gateway_control_plane::run`] until a signal.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use gateway_control_plane::config::{Config, ConfigError, Log, LogFormat, LogLevel};
use tokio::signal::unix::{SignalKind, signal};
use tracing::level_filters::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let (config, log) = match Config::load(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => return Err(error.into()),
    };
    start_logging(log);
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(run(config))?;
    Ok(ExitCode::SUCCESS)
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

fn start_logging(log: Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let colours = std::io::stderr().is_terminal();
    let lines =
        tracing_subscriber::fmt().with_max_level(level).with_ansi(colours).with_writer(std::io::stderr);
    match log.format {
        LogFormat::Json => lines.json().init(),
        LogFormat::Text => lines.init(),
    }
}
