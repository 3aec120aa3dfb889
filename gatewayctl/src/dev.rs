//! `dev`: everything in one process, for the first five minutes and for working on manifests. The only file that
//! reaches the planes, through the same `run()` that their programs call.
//!
//! What is applied here carries a label, and goes when it is no longer in the manifests, in whatever namespace and
//! also after a restart. Objects that were applied by other means are left alone. The context that is saved for other
//! commands lasts as long as this one.

mod echo;
mod sample;
mod watch;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use gateway_control_plane as control_plane;
use gateway_data_plane as data_plane;
use gateway_engine::manifest::Document;
use gateway_proto::admin::DataPlaneList;
use gateway_proto::kind::{Key, Kind};
use tokio::signal::unix::{SignalKind, signal};

use crate::apply::Terms;
use crate::cli::{DevArgs, Manifests};
use crate::client::Client;
use crate::context::{Endpoint, Lent};
use crate::objects::Filter;
use crate::output::Output;
use crate::report::{Exit, Failure};
use crate::{apply, manifests, objects, wait};

/// Name of the data plane, and of the saved context.
const DEV: &str = "dev";
/// How long the data plane has to take a change.
const APPLIED_WITHIN: Duration = Duration::from_secs(30);
/// How long requests in flight may take at the end.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

/// Runs it until Ctrl-C or SIGTERM.
pub(crate) async fn run(args: &DevArgs, output: &Output) -> Result<(), Failure> {
    log();
    let stopped = stopped()?;
    let echo = echo::start()
        .await
        .map_err(|error| Failure::runtime(format!("cannot start the echo upstream: {error}")))?;
    let mut control = Box::pin(control_plane::run(control_config(args))).await.map_err(|error| {
        Failure::runtime(format!("cannot start the control plane: {error}")).help(
            "is another `gatewayctl dev` running here? try --admin-listen 127.0.0.1:0 and --state-dir DIR",
        )
    })?;
    let plane = Box::pin(data_plane::run(data_config(args, control.stream)?)).await;
    let plane = plane.map_err(|error| Failure::runtime(format!("cannot start the data plane: {error}")))?;

    let token = token(&args.state_dir.join("control-plane"))?;
    let endpoint =
        Endpoint { server: format!("http://{}", control.admin), token: Some(token.clone()), ca_file: None };
    let session = Session { client: Client::new(&endpoint)?, args, echo };
    let mut lent = None;
    let outcome = tokio::select! {
        outcome = serve(&session, endpoint, &mut lent, output) => outcome,
        () = stopped => Ok(()),
        error = control.failed() => Err(Failure::runtime(format!("the control plane failed: {error}"))),
    };
    output.note("draining");
    let taken_back = lent.map_or(Ok(()), Lent::take_back);
    plane.shutdown().await;
    control.shutdown().await;
    outcome.and(taken_back)
}

/// What a running `dev` applies to.
struct Session<'a> {
    client: Client,
    args: &'a DevArgs,
    echo: SocketAddr,
}

/// Applies, says what there is, and applies again on changes; ends only with an error.
async fn serve(
    session: &Session<'_>,
    endpoint: Endpoint,
    lent: &mut Option<Lent>,
    output: &Output,
) -> Result<(), Failure> {
    let args = session.args;
    // Before the first reading, so that no change in between is missed.
    let changes = args.watch.then(|| watch::Changes::of(&args.files, args.recursive)).transpose();
    let mut changes =
        changes.map_err(|error| Failure::runtime(format!("cannot watch the manifests: {error}")))?;
    match (session.apply(output).await, &changes) {
        (Ok(()), _) => {}
        // While they are watched, broken manifests are what the next change mends.
        (Err(failure), Some(_)) => output.failure(&failure),
        (Err(failure), None) if failure.exit == Exit::NotApplied && args.files.is_empty() => {
            return Err(failure.help("is the port taken? try --listen 127.0.0.1:0"));
        }
        (Err(failure), None) => return Err(failure),
    }
    *lent = Some(Lent::new(DEV, endpoint.clone())?);
    session.introduce(&endpoint, output).await?;
    loop {
        match &mut changes {
            None => std::future::pending::<()>().await,
            Some(changes) => changes.next().await,
        }
        if let Err(failure) = session.apply(output).await {
            output.failure(&failure);
        }
    }
}

impl Session<'_> {
    fn documents(&self, output: &Output) -> Result<Vec<Document>, Failure> {
        let args = self.args;
        let mut documents = if args.files.is_empty() {
            sample::documents(args.listen, self.echo)?
        } else {
            let files = Manifests { files: args.files.clone(), recursive: args.recursive, namespace: None };
            // While they are watched, manifests may well be emptied.
            if args.watch { manifests::read_any(&files, output)? } else { manifests::read(&files, output)? }
        };
        sample::mark(&mut documents);
        Ok(documents)
    }

    /// Brings the store and the data plane to what the manifests say.
    async fn apply(&self, output: &Output) -> Result<(), Failure> {
        let documents = self.documents(output)?;
        let objects: Vec<Key> = documents.iter().map(Document::key).collect();
        let deletes = self.left_over(&objects).await?;
        let terms = Terms { deletes, message: Some("gatewayctl dev"), ..Terms::default() };
        let response = apply::send(&self.client, &documents, &terms, output).await?;
        apply::show(&response, &documents, false, output)?;
        self.connected().await?;
        wait::until_applied(&self.client, response.revision, &objects, APPLIED_WITHIN, output).await
    }

    /// What was applied here and is no longer among the manifests, in every namespace.
    async fn left_over(&self, objects: &[Key]) -> Result<Vec<Key>, Failure> {
        let wanted: BTreeSet<&Key> = objects.iter().collect();
        let labels = [(sample::MARK.0.to_owned(), sample::MARK.1.to_owned())].into();
        let filter = Filter { namespace: "*", labels: Some(&labels), sealed: false };
        let mut left_over = Vec::new();
        // Keys are not taken away because a file changed.
        for kind in Kind::ALL.iter().filter(|kind| **kind != Kind::Credential) {
            let stored = objects::list(&self.client, *kind, &filter).await?;
            left_over.extend(stored.iter().filter_map(objects::key).filter(|key| !wanted.contains(key)));
        }
        Ok(left_over)
    }

    /// Waits for our own data plane: it starts at the same time and must not be missed.
    async fn connected(&self) -> Result<DataPlaneList, Failure> {
        let look = async {
            loop {
                let list: DataPlaneList = self.client.get("/v1/data-planes", &[]).await?;
                if list.items.iter().any(|plane| plane.id == DEV && plane.connected) {
                    return Ok(list);
                }
                tokio::time::sleep(Duration::from_millis(25)).await;
            }
        };
        let late =
            |_| Failure::runtime("the data plane does not connect").help("its log lines above say why");
        tokio::time::timeout(APPLIED_WITHIN, look).await.map_err(late)?
    }

    /// `namespace/name` of the listeners that speak TLS.
    async fn secured(&self) -> Result<BTreeSet<String>, Failure> {
        let everywhere = Filter { namespace: "*", labels: None, sealed: false };
        let listeners = objects::list(&self.client, Kind::Listener, &everywhere).await?;
        let secured = listeners.iter().filter(|it| objects::text(it, "/spec/protocol") == "https");
        Ok(secured.filter_map(objects::key).map(|key| format!("{}/{}", key.namespace, key.name)).collect())
    }

    /// Addresses, token and three lines to try.
    async fn introduce(&self, endpoint: &Endpoint, output: &Output) -> Result<(), Failure> {
        let list = self.connected().await?;
        let plane = list.items.iter().find(|plane| plane.id == DEV);
        let listeners: Vec<(&String, &String)> =
            plane.into_iter().flat_map(|plane| &plane.listeners).collect();
        let secured = self.secured().await?;
        let url = |(name, address): (&String, &String)| {
            format!("{}://{address}", if secured.contains(name) { "https" } else { "http" })
        };
        let token = endpoint.token.as_deref().unwrap_or_default();
        output.line(format!("\nadmin API   {}\ntoken       {token}", endpoint.server))?;
        for &(name, address) in &listeners {
            output.line(format!("listener    {}  ({name})", url((name, address))))?;
        }
        output.line(format!(
            "echo        http://{}\ncontext     {DEV} (used by other gatewayctl commands until this one ends)\n",
            self.echo
        ))?;
        let gateway = listeners.first().map_or_else(|| "http://127.0.0.1:8080".to_owned(), |&it| url(it));
        // Certificates to try things with are seldom signed by anybody.
        let curl = if gateway.starts_with("https") { "curl -k" } else { "curl" };
        output.line("try:")?;
        output.line(format!("  {curl} -i {gateway}/"))?;
        output.line(format!("  {curl} {gateway}/hello/you"))?;
        output.line(format!("  curl -H 'Authorization: Bearer {token}' {}/v1/routes", endpoint.server))?;
        output.line("\nCtrl-C ends it.")
    }
}

fn control_config(args: &DevArgs) -> control_plane::config::Config {
    control_plane::config::Config {
        admin_listen: args.admin_listen,
        stream_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        discovery_file_dir: args.discovery_file_dir.clone(),
        ..control_plane::config::Config::in_dir(args.state_dir.join("control-plane"))
    }
}

fn data_config(args: &DevArgs, stream: SocketAddr) -> Result<data_plane::config::Config, Failure> {
    let url =
        format!("http://{stream}").parse().map_err(|error| Failure::runtime(format!("{stream}: {error}")))?;
    let source = data_plane::config::Source::ControlPlane(vec![url]);
    Ok(data_plane::config::Config {
        node: Some(DEV.to_owned()),
        admin_listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        drain_timeout: DRAIN_WITHIN,
        access_log: data_plane::config::AccessLog::Stdout,
        ..data_plane::config::Config::new(source, args.state_dir.join("data-plane"))
    })
}

/// The token that the control plane made with its store, now or at an earlier start.
fn token(state_dir: &Path) -> Result<String, Failure> {
    let path = state_dir.join("admin-token");
    let token = std::fs::read_to_string(&path);
    let token = token.map_err(|error| {
        Failure::runtime(format!("cannot read {}: {error}", path.display()))
            .help("remove the state folder to begin anew, or name another with --state-dir")
    })?;
    Ok(token.trim().to_owned())
}

/// Warnings and errors of both planes go to standard error.
fn log() {
    let coloured = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_ansi(coloured)
        .with_writer(std::io::stderr);
    if subscriber.try_init().is_err() {
        tracing::debug!("somebody else logs already");
    }
}

/// Ends with Ctrl-C or SIGTERM.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let on =
        |kind| signal(kind).map_err(|error| Failure::runtime(format!("cannot listen for signals: {error}")));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
