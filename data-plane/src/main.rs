//! The data plane as a program: settings, logging, then [`gateway_data_plane::run`] until a signal.
//! SIGTERM and SIGINT drain (a second one ends at once), SIGHUP loads manifests and opens the request log anew.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use gateway_data_plane::Config;
use gateway_data_plane::config::ConfigError;
use tokio::signal::unix::{SignalKind, signal};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    let (config, log) = match Config::load(std::env::args_os()) {
        Ok(loaded) => loaded,
        Err(ConfigError::Usage(usage)) => usage.exit(),
        Err(error) => return Err(error.into()),
    };
    gateway_data_plane::telemetry::init(log);
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("another TLS provider was installed first"))?;
    // The control side is small: one thread, and the blocking pool for what takes long. Requests run elsewhere. What a
    // thread of the pool allocated and others freed goes back to the system when that thread ends: it ends soon.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().thread_keep_alive(Duration::from_millis(500)).build();
    runtime.context("cannot start the control runtime")?.block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut term = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut hup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    let running = match gateway_data_plane::run(config).await {
        Ok(running) => running,
        Err(error) => {
            tracing::error!("cannot start:\n{error}");
            return Ok(ExitCode::from(error.exit_code()));
        }
    };
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = int.recv() => break,
            _ = hup.recv() => running.reload(),
        }
    }
    tracing::info!("draining");
    tokio::select! {
        () = running.shutdown() => Ok(ExitCode::SUCCESS),
        _ = term.recv() => Ok(ExitCode::FAILURE),
        _ = int.recv() => Ok(ExitCode::FAILURE),
    }
}
