//! The proxy: stateless, one single-threaded worker per core, configuration swapped in atomically.
//! [`run`] is the only place that knows every part; the binary, `gatewayctl dev` and the tests start it alike.
//! It owns no process-wide state (no signals, no global log), so that several may run in one process.

mod admin;
mod apply;
mod buffer;
pub mod config;
mod credentials;
mod digits;
mod endpoints;
mod http2;
mod identity;
mod jwks;
mod proxy;
mod relay;
mod runtime;
mod server;
#[cfg(feature = "simulation")]
pub mod simulation;
pub mod snapshot;
pub mod state_dir;
mod stream;
mod sync;
mod task;
pub mod telemetry;
mod upstream;
mod wheel;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gateway_engine::manifest::ManifestErrors;
use tokio::sync::{Notify, watch};

use admin::{Admin, Identity};
use apply::Applier;
pub use apply::{Cursor, Reject, State};
pub use config::Config;
use credentials::Lane;
pub use identity::IdentityError;
use identity::{Passport, Told};
use jwks::KeySets;
use runtime::{Shared, Workers};
use server::tls::Tickets;
use snapshot::{Live, Snapshot};
use state_dir::{StateDir, StateDirError};
use sync::bootstrap::Bootstrap;
use sync::client::Client;
use sync::file::Files;
pub use sync::last_good::KeyError;
use sync::last_good::{self, LastGood, Saver};
use task::Task;
use telemetry::{Metrics, RequestLog};
use upstream::dns::Resolver;

/// Why a data plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state directory cannot be used.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The request log cannot be opened.
    #[error("cannot open the request log: {0}")]
    RequestLog(#[source] io::Error),
    /// The system refuses threads.
    #[error("cannot start the workers: {0}")]
    Workers(#[source] io::Error),
    /// The admin port cannot be bound.
    #[error("cannot bind the admin port {address}: {source}")]
    Admin {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The key of the last good snapshot cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The stream's certificates cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manifests are wrong: there is nothing to serve.
    #[error("{0}")]
    Manifests(ManifestErrors),
}

impl RunError {
    /// Exit code of a process that could not start: 3 when the configuration is wrong, else 1.
    pub const fn exit_code(&self) -> u8 {
        match self {
            RunError::Manifests(_) => 3,
            _ => 1,
        }
    }
}

/// A data plane at work. Dropping it ends it at once; [`Running::shutdown`] lets requests finish.
#[derive(Debug)]
pub struct Running {
    admin: SocketAddr,
    node: String,
    state: watch::Receiver<State>,
    draining: watch::Sender<bool>,
    reload: Arc<Notify>,
    shared: Arc<Shared>,
    source: Source,
    _admin: Task,
    workers: Arc<Workers>,
    drain_delay: Duration,
    drain_timeout: Duration,
    /// Last: unlocked when everything else is gone.
    _state_dir: Arc<StateDir>,
}

/// Starts a data plane on the calling tokio runtime (which carries its control side; workers have their own threads).
/// With `--manifests` it returns once they are loaded; with a control plane at once, see [`Running::state`].
///
/// # Errors
/// [`RunError`]; nothing is left running then.
pub async fn run(config: Config) -> Result<Running, RunError> {
    let state_dir = Arc::new(StateDir::open(&config.state_dir)?);
    let identity = identity(&config, &state_dir)?;
    let metrics = Arc::new(Metrics::new(config.phase_timing));
    let shared = Arc::new(Shared {
        live: Arc::new(Live::new(Snapshot::default())),
        request_log: RequestLog::start(&config.access_log, &metrics).map_err(RunError::RequestLog)?,
        metrics,
        discovered: Arc::default(),
        resolver: Resolver::new(tokio::runtime::Handle::current()),
        key_sets: KeySets::new(tokio::runtime::Handle::current()),
        tickets: Tickets::new(),
    });
    let workers = config.workers.unwrap_or_else(cores);
    let workers = Arc::new(Workers::start(workers, &shared).map_err(RunError::Workers)?);
    let (publish, state) = watch::channel(State::default());
    let (draining, is_draining) = watch::channel(false);
    let (listener, address) = admin::bind(config.admin_listen)
        .await
        .map_err(|source| RunError::Admin { address: config.admin_listen, source })?;
    let reload = Arc::new(Notify::new());
    let applier = Applier::new(Arc::clone(&shared), Arc::clone(&workers), &config.group, publish);
    let admin = Arc::new(Admin {
        identity: identity.clone(),
        state: state.clone(),
        draining: is_draining,
        metrics: Arc::clone(&shared.metrics),
        live: Arc::clone(&shared.live),
        endpoints: applier.endpoints().window(),
        is_public: !address.ip().is_loopback(),
        copy: config.snapshot_key_file.is_some().then(|| last_good::newest(&state_dir)),
    });
    let admin = Task::spawn(admin::serve(admin, listener));
    let source = match &config.source {
        config::Source::Manifests(path) => Source::files(path, applier, &reload).await?,
        config::Source::ControlPlane(urls) => {
            let last_good =
                LastGood::open(Arc::clone(&state_dir), config.snapshot_key_file.as_deref(), &config.group)?;
            let (saver, saving) = Saver::start(last_good.clone());
            let metrics = Arc::clone(&shared.metrics);
            let told = Told {
                ca: config.tls_ca.clone(),
                own: config.tls.clone(),
                join_token: config.join_token_file.clone(),
            };
            let (node, group) = (&identity.node, &identity.group);
            let passport = Passport::open(told, node, group, Arc::clone(&state_dir), Arc::clone(&metrics))?;
            let client = Client::new(urls, passport, identity.clone(), metrics, saver);
            let bootstrap = config.bootstrap_snapshot.clone();
            let bootstrap =
                bootstrap.map(|from| Bootstrap::new(from, config.tls_ca.clone(), last_good.clone()));
            Source::stream(client.or(bootstrap), saving, &last_good, applier).await
        }
    };
    Ok(Running {
        admin: address,
        node: identity.node,
        state,
        draining,
        reload,
        shared,
        source,
        _admin: admin,
        workers,
        drain_delay: config.drain_delay,
        drain_timeout: config.drain_timeout,
        _state_dir: state_dir,
    })
}

/// Where the configuration comes from, at work.
#[derive(Debug)]
struct Source {
    feed: Task,
    /// Writes the last good configuration.
    saving: Option<Task>,
    /// Writes the credentials.
    keeping: Option<Task>,
}

impl Source {
    async fn files(path: &Path, mut applier: Applier, reload: &Arc<Notify>) -> Result<Self, RunError> {
        let mut files = Files::watch(path.to_owned(), Arc::clone(reload));
        files.load(&mut applier).await.map_err(RunError::Manifests)?;
        Ok(Source { feed: Task::spawn(files.run(applier)), saving: None, keeping: None })
    }

    /// Disk, then stream.
    async fn stream(client: Client, saving: Task, last_good: &LastGood, mut applier: Applier) -> Self {
        if !last_good.restore(&mut applier).await {
            tracing::info!("no configuration on disk: not ready until a control plane sends one");
        }
        let (lane, keeping) = Lane::restore(last_good.journal(), applier.engine()).await;
        applier.refresh_readiness();
        Source { feed: Task::spawn(client.run(applier, lane)), saving: Some(saving), keeping: Some(keeping) }
    }

    /// No news from here on. Drops the applier, and waits until what it handed over is on disk.
    async fn stop(self) {
        self.feed.stop().await;
        for writer in self.saving.into_iter().chain(self.keeping) {
            writer.ended().await;
        }
    }
}

fn identity(config: &Config, state_dir: &StateDir) -> Result<Identity, StateDirError> {
    let source = match &config.source {
        config::Source::ControlPlane(urls) => urls.iter().map(ToString::to_string).collect(),
        config::Source::Manifests(path) => vec![path.display().to_string()],
    };
    Ok(Identity {
        node: config.node.clone().map_or_else(|| state_dir.node(), Ok)?,
        group: config.group.clone(),
        zone: config.zone.clone(),
        labels: config.labels.clone(),
        source,
        version: env!("CARGO_PKG_VERSION"),
    })
}

fn cores() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

impl Running {
    /// Address of the admin port.
    pub const fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// Name of this data plane.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// What is in service, and every change of it.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Waits until a listener (`namespace/name`) is bound and returns its address.
    pub async fn listener(&self, name: &str) -> SocketAddr {
        let mut state = self.state.clone();
        let bound = state.wait_for(|state| state.listeners.contains_key(name)).await;
        bound.expect("the sender lives as long as the source, which this owns").listeners[name]
    }

    /// Loads manifests again and opens the request log's file anew: what SIGHUP means.
    pub fn reload(&self) {
        self.reload.notify_one();
        self.shared.request_log.reopen();
    }

    /// Leaves in good order: not ready; serves on for the drain delay; closes the sockets; gives what is in flight
    /// the drain timeout.
    pub async fn shutdown(self) {
        self.draining.send_replace(true);
        self.source.stop().await;
        self.workers.drain(self.drain_delay, self.drain_timeout).await;
    }
}
