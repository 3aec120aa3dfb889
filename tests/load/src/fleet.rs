//! A fleet of data planes in one process and one thread, for the benchmark of the stream: each has a connection of its
//! own and speaks the real protocol, but keeps only its cursor. What goes over the sockets is counted there, TLS
//! included. Driven by lines on standard input, answered with one JSON object a line; ends with its input.
//!
//! | line | answered |
//! |---|---|
//! | `open` | when every data plane has been welcomed since the last `forget`, and holds the head |
//! | `hold R` | when every data plane holds revision R or a later one; with the time of the last (and of the first) |
//! | `endpoints A` | when every data plane holds a set with the address A; with the time of the last |
//! | `status` | at once |
//! | `forget` | at once: counts begin anew, and nobody counts as welcomed |

mod client;
mod counted;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use anyhow::Context as _;
use gateway_proto::digest::ItemHash;
use gateway_proto::wire;
use nix::time::{ClockId, clock_gettime};
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

/// What the fleet is and where it goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Settings {
    /// Stream address of the control plane
    #[arg(long)]
    target: SocketAddr,
    /// PEM certificate that its own, for localhost, is checked against; without it: clear text
    #[arg(long)]
    ca: Option<PathBuf>,
    /// How many data planes
    #[arg(long, default_value_t = 1000)]
    clients: usize,
    /// What their names begin with
    #[arg(long, default_value = "light")]
    prefix: String,
    /// Hold the head that the first Welcome names, without taking it: as if they had been here before
    #[arg(long)]
    adopt: bool,
    /// Hear the Welcome, and read nothing from the connection after it
    #[arg(long)]
    stall: bool,
}

/// Everybody, and what was counted.
#[derive(Debug)]
struct Fleet {
    settings: Settings,
    tls: Option<Arc<ClientConfig>>,
    clients: RefCell<Vec<Client>>,
    counts: RefCell<Counts>,
    /// Something happened that an answer may wait for.
    changed: Notify,
}

/// What is kept of one data plane.
#[derive(Clone, Debug, Default)]
struct Client {
    held: wire::Cursor,
    /// When it came to hold that, in nanoseconds of the monotonic clock.
    held_at: u64,
    /// Head that its Welcome named, until it holds it.
    head: Option<wire::Cursor>,
    welcomed_at: Option<u64>,
    is_open: bool,
    /// Hashes of what it holds of endpoints, by name.
    endpoints: BTreeMap<String, ItemHash>,
    /// First address of the last set that came, and when.
    address: String,
    address_at: u64,
}

/// Since the last `forget`.
#[derive(Debug, Default)]
struct Counts {
    /// Bytes read from and written to the sockets.
    received: u64,
    sent: u64,
    /// Messages with objects, and their bytes.
    chunks: u64,
    chunk_bytes: u64,
    /// The objects in them, and the bytes of their encoding alone.
    objects: u64,
    object_bytes: u64,
    /// The control plane's heartbeats, and their bytes.
    heartbeats: u64,
    heartbeat_bytes: u64,
    /// How the Welcomes said that it would go on.
    modes: BTreeMap<&'static str, u64>,
    /// Streams that ended, by reason.
    ends: BTreeMap<String, u64>,
    /// Heartbeats that named another content for the revision that was held.
    diverged: u64,
}

/// Runs until standard input ends.
pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    let tls = settings.ca.as_deref().map(trusting).transpose()?;
    let count = settings.clients;
    let fleet = Rc::new(Fleet {
        settings,
        tls,
        clients: RefCell::new(vec![Client::default(); count]),
        counts: RefCell::default(),
        changed: Notify::new(),
    });
    let (told, lines) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(std::io::stdin()).lines();
        lines.map_while(Result::ok).try_for_each(|line| told.send(line))
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        for index in 0..count {
            tokio::task::spawn_local(client::run(Rc::clone(&fleet), index));
        }
        fleet.answer(lines).await
    })
}

fn trusting(path: &Path) -> anyhow::Result<Arc<ClientConfig>> {
    let unreadable = || format!("cannot read the certificate in {}", path.display());
    let pem = BufReader::new(File::open(path).with_context(unreadable)?);
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_reader_iter(pem) {
        roots.add(certificate.with_context(unreadable)?)?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    // Whoever comes back after a restart finds no server that knows its ticket.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(Arc::new(config))
}

impl Fleet {
    async fn answer(&self, mut lines: mpsc::UnboundedReceiver<String>) -> anyhow::Result<()> {
        while let Some(line) = lines.recv().await {
            let mut words = line.split_whitespace();
            let answer = match (words.next(), words.next()) {
                (Some("open"), None) => self.once(Client::is_at_head).await,
                (Some("hold"), Some(revision)) => {
                    let revision: u64 = revision.parse().with_context(|| line.clone())?;
                    self.once(|client| client.held.revision >= revision).await
                }
                (Some("endpoints"), Some(address)) => self.once(|client| client.address == address).await,
                (Some("status"), None) => self.status(),
                (Some("forget"), None) => {
                    *self.counts.borrow_mut() = Counts::default();
                    self.clients.borrow_mut().iter_mut().for_each(|client| client.welcomed_at = None);
                    self.status()
                }
                _ => anyhow::bail!("{line:?}: expected open, hold R, endpoints A, status or forget"),
            };
            crate::say(&answer)?;
        }
        Ok(())
    }

    /// Waits until that is true of every data plane.
    async fn once(&self, is_so: impl Fn(&Client) -> bool) -> Value {
        while !self.clients.borrow().iter().all(&is_so) {
            self.changed.notified().await;
        }
        self.status()
    }

    fn status(&self) -> Value {
        let clients = self.clients.borrow();
        let counts = self.counts.borrow();
        let times = || clients.iter().map(|client| client.held_at);
        json!({
            "clients": clients.len(),
            "open": clients.iter().filter(|client| client.is_open).count(),
            "heldFirst": times().min(),
            "heldLast": times().max(),
            "endpointsLast": clients.iter().map(|client| client.address_at).max(),
            "welcomedLast": clients.iter().filter_map(|client| client.welcomed_at).max(),
            "received": counts.received,
            "sent": counts.sent,
            "chunks": counts.chunks,
            "chunkBytes": counts.chunk_bytes,
            "objects": counts.objects,
            "objectBytes": counts.object_bytes,
            "heartbeats": counts.heartbeats,
            "heartbeatBytes": counts.heartbeat_bytes,
            "modes": counts.modes,
            "ends": counts.ends,
            "diverged": counts.diverged,
        })
    }

    /// Changes what is known of a data plane.
    fn update(&self, index: usize, change: impl FnOnce(&mut Client)) {
        change(&mut self.clients.borrow_mut()[index]);
        self.changed.notify_one();
    }

    fn count(&self, add: impl FnOnce(&mut Counts)) {
        add(&mut self.counts.borrow_mut());
    }
}

impl Client {
    fn is_at_head(&self) -> bool {
        self.welcomed_at.is_some() && self.head.is_none()
    }
}

/// Nanoseconds of the clock that all processes of a machine share.
fn now() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has it");
    u64::try_from(time.tv_sec() * 1_000_000_000 + time.tv_nsec()).unwrap_or(u64::MAX)
}
