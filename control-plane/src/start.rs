//! Puts the parts together and takes them down again: the store first, then what follows it, then the two servers;
//! in reverse at the end. Invariant: no port is open before the head is in memory, and when [`run`] fails, nothing
//! is left running.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gateway_proto::admin::Role;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::admission::{Admission, Bounds};
use crate::api::{self, Api};
use crate::audit::AuditLog;
use crate::auth::{self, AdminFileError, Authenticator, Secret};
use crate::config::{Config, ConfigError};
use crate::credentials::Credentials;
use crate::discovery::Discovery;
use crate::identity::{Authority, IdentityError, OwnCertificate, Settings};
use crate::leader;
use crate::nodes::Nodes;
use crate::publish::Publisher;
use crate::secrets::{self, MasterKeyError};
use crate::state::{Live, StateError};
use crate::state_dir::{StateDir, StateDirError};
use crate::store::{self, Store, StoreError};
use crate::sync::server::{Gate, Streams, serve as serve_streams};
use crate::telemetry::Metrics;
use crate::tls::{self, TlsError};

/// Name of the file with the first admin token, in the state directory.
const ADMIN_TOKEN: &str = "admin-token";
/// Its name until the store is known to hold it.
const PENDING_TOKEN: &str = "admin-token.pending";
/// At the end: time to finish what is under way (connections of the admin API are given 10 s),
const FINISH: Duration = Duration::from_secs(12);
/// to write down what is left,
const WRITE_OUT: Duration = Duration::from_secs(5);
/// and to take leave of the store.
const CLOSE: Duration = Duration::from_secs(3);

/// A control plane that serves.
#[derive(Debug)]
pub struct Running {
    /// Where the admin API is bound.
    pub admin: SocketAddr,
    /// Where the stream is bound.
    pub stream: SocketAddr,
    /// The file with the first admin token, if this start created the store.
    pub admin_token_path: Option<PathBuf>,
    stop: CancellationToken,
    /// What must not end before `stop`.
    servers: Vec<JoinHandle<Result<(), RunError>>>,
    /// Ended last: what other tasks still tell is written down.
    writers: Vec<JoinHandle<()>>,
    store: Arc<dyn Store>,
    _state: StateDir,
}

/// Why a control plane does not start, or stopped by itself.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings that would be unsafe.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The state directory.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The store does not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored cannot be taken into memory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The master key.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The control plane's CA.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The admin token file.
    #[error(transparent)]
    AdminToken(#[from] AdminFileError),
    /// Certificate or key.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A port cannot be bound.
    #[error("cannot listen on {address} for {what}: {source}")]
    Bind {
        /// Which server.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The stream's server failed.
    #[error("the stream's server failed: {0}")]
    Stream(#[from] tonic::transport::Error),
    /// A part that must not end did.
    #[error("a part ended by itself: {0}")]
    Ended(String),
}

/// Starts everything and returns once it serves.
///
/// # Errors
/// [`RunError`]; nothing is left running then.
pub async fn run(config: Config) -> Result<Running, RunError> {
    let config = config.checked()?;
    let state = StateDir::open(&config.state_dir)?;
    let tls =
        config.tls.as_ref().map(|files| tls::server_config(files, &[b"h2", b"http/1.1"])).transpose()?;
    let settings = identity_settings(&config)?;
    let (store, admin_token_path) = open_store(&config, &state).await?;
    let vault = secrets::open(config.master_key_file.as_deref(), &state, &*store).await?;
    let vault = Arc::new(vault);
    if let Some(path) = &config.admin_token_file {
        auth::put_admin_token_file(&*store, path).await?;
    }
    // The store answers, so that serving is near: data planes that come back meanwhile wait in the queue of the socket.
    // Refused, each would wait longer and longer before it comes again.
    let (stream_listener, stream) = bind("the stream", config.stream_listen).await?;
    let live = Live::load(Arc::clone(&store), Arc::clone(&vault)).await?;
    let credentials = Credentials::load(Arc::clone(&store)).await?;
    let discovery = Discovery::load(&*store, config.discovery_file_dir.clone()).await?;
    let auth = Authenticator::new(Arc::clone(&store)).await?;
    let authority =
        Authority::open(Arc::clone(&store), Arc::clone(&vault), settings, Timestamp::now()).await?;
    let (admin_listener, admin) = bind("the admin API", config.admin_listen).await?;

    let stop = CancellationToken::new();
    let metrics = Arc::new(Metrics::new());
    let follower = tokio::spawn(Arc::clone(&live).follow(stop.clone()));
    let key_follower = tokio::spawn(Arc::clone(&credentials).follow(stop.clone()));
    let (discovering, keeper) = discovery.start(&live, &store, stop.clone());
    let board = discovery.watch();
    let (publisher, publishing) =
        Publisher::start(Arc::clone(&live), Arc::clone(&store), board, stop.clone()).await;
    let (audit, audit_writer) = AuditLog::start(Arc::clone(&store));
    let (nodes, nodes_writer) = Nodes::start(Arc::clone(&store), stop.clone());
    let chores = leader::run(Arc::clone(&store), config.chores, Arc::clone(&metrics), stop.clone());
    let chores = tokio::spawn(chores);
    let certifying = tokio::spawn(Arc::clone(&authority).follow(Arc::clone(&nodes), stop.clone()));
    let is_open = stream.ip().is_loopback() || config.insecure;
    let gate = Gate::new(Arc::clone(&authority), audit.clone(), is_open, is_open && config.tls.is_none());
    let streams = Streams::new(
        Arc::clone(&publisher),
        credentials,
        Arc::clone(&nodes),
        Arc::clone(&metrics),
        gate,
        stop.clone(),
    );
    let (large_bodies, watchers) = Api::turns();
    let router = api::router(Arc::new(Api {
        admission: Admission::new(
            Arc::clone(&store),
            vault,
            Arc::clone(&live),
            Arc::clone(&metrics),
            Bounds { max_credentials: config.max_credentials, sources: discovery.abilities() },
        ),
        discovery: Arc::clone(&discovery),
        live,
        store: Arc::clone(&store),
        auth,
        authority,
        audit,
        nodes,
        publisher,
        metrics,
        large_bodies,
        watchers,
        stop: stop.clone(),
    }));
    tracing::info!(address = %admin, tls = tls.is_some(), "admin API listens");
    tracing::info!(address = %stream, certificates_needed = !is_open, "stream listens");
    if is_open && stream.ip().is_loopback() {
        tracing::info!(
            "data planes on loopback are taken without credentials: who connects is sent the secrets of the group it names"
        );
    } else if is_open {
        tracing::warn!(address = %stream, "data planes are taken without credentials from anywhere (--insecure): who connects is sent the secrets of the group it names");
    }
    let api_stop = stop.clone();
    let servers = vec![
        tokio::spawn(async move {
            api::server::serve(admin_listener, router, tls, api_stop).await;
            Ok(())
        }),
        tokio::spawn(async move {
            discovery.settled().await;
            Ok(serve_streams(stream_listener, streams).await?)
        }),
        tokio::spawn(watched("follows the store", follower)),
        tokio::spawn(watched("publishes", publishing)),
        tokio::spawn(watched("finds services", discovering)),
        tokio::spawn(watched("keeps the CA", certifying)),
        tokio::spawn(watched("follows the credentials", key_follower)),
    ];
    let writers = vec![audit_writer, nodes_writer, chores, keeper];
    Ok(Running { admin, stream, admin_token_path, stop, servers, writers, store, _state: state })
}

impl Running {
    /// Waits until something fails that nothing restarts; for ever if all is well.
    pub async fn failed(&mut self) -> RunError {
        let servers = self.servers.iter_mut();
        let (ended, at, _) = futures_util::future::select_all(servers).await;
        drop(self.servers.remove(at));
        match ended {
            Ok(Ok(())) => RunError::Ended("without a reason".to_owned()),
            Ok(Err(error)) => error,
            Err(error) => RunError::Ended(error.to_string()),
        }
    }

    /// Finishes what is under way, tells the data planes to leave, writes down what is known, and ends.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        // Any of them may be waiting for a store that does not answer.
        let end = Instant::now() + FINISH;
        for mut server in self.servers.drain(..) {
            match timeout_at(end, &mut server).await {
                Ok(Ok(Ok(()))) => {}
                Ok(Ok(Err(error))) => tracing::warn!(%error, "a server did not end well"),
                Ok(Err(error)) => tracing::error!(%error, "a server panicked"),
                Err(_) => {
                    tracing::warn!("a server did not end in time");
                    server.abort();
                }
            }
        }
        let end = Instant::now() + WRITE_OUT;
        for writer in self.writers.drain(..) {
            // A connection that was not finished in time may still hold the audit log open.
            match timeout_at(end, writer).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "a writer panicked"),
                Err(_) => tracing::warn!("not everything was written down in time"),
            }
        }
        if timeout(CLOSE, self.store.close()).await.is_err() {
            tracing::warn!("the store was not closed in time");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn open_store(
    config: &Config,
    state: &StateDir,
) -> Result<(Arc<dyn Store>, Option<PathBuf>), RunError> {
    let default = || format!("sqlite://{}", state.path().join("gateway.db").display());
    let url = config.database_url.clone().unwrap_or_else(default);
    secrets::check(config.master_key_file.as_deref(), &url)?;
    let (secret, mut record) = auth::new_token(auth::FIRST_TOKEN, Role::Admin, Vec::new(), None);
    // Written before the store that keeps only its hash: a crash between the two must not lose the only token.
    let left = state.read_secret(PENDING_TOKEN)?.and_then(|text| Secret::parse(&text).ok());
    match &left {
        Some(left) => record.digest = left.digest(),
        None => drop(state.write_secret(PENDING_TOKEN, secret.reveal())?),
    }
    let digest = record.digest;
    let opened = store::open(&url, &record).await?;
    let made = opened.created
        || (left.is_some() && opened.store.tokens().await?.tokens.iter().any(|token| token.digest == digest));
    if !made {
        state.remove_secret(PENDING_TOKEN)?;
        return Ok((opened.store, None));
    }
    let path = state.rename_secret(PENDING_TOKEN, ADMIN_TOKEN)?;
    tracing::info!(path = %path.display(), "made the store; the first admin token is in this file");
    Ok((opened.store, Some(path)))
}

/// A task without which the process would serve on and grow stale: its panic ends the process.
async fn watched(what: &'static str, task: JoinHandle<()>) -> Result<(), RunError> {
    task.await.map_err(|error| RunError::Ended(format!("the task that {what}: {error}")))
}

fn identity_settings(config: &Config) -> Result<Settings, RunError> {
    let own = config.tls.as_ref().map(tls::pair).transpose()?;
    Ok(Settings {
        lifetime: SignedDuration::try_from(config.node_certificate_ttl).unwrap_or(SignedDuration::MAX),
        own: own.map(|(chain, key)| OwnCertificate { chain, key }),
        client_roots: config.tls_client_ca.as_deref().map(tls::certificates).transpose()?.unwrap_or_default(),
    })
}

async fn bind(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), RunError> {
    let fault = |source| RunError::Bind { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    Ok((listener, bound))
}
