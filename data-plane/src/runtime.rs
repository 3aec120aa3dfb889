//! The worker threads: one per core, each with a single-threaded runtime, its own sockets, pools, timers, buffers and
//! metric cells. Nothing on a request's way is shared, locked or counted between them; what they have in common is
//! [`Shared`], which they only read.
//!
//! The control side talks to them through one bounded channel each: open a listener, close one, look at the new
//! snapshot, drain. A worker ends when it has drained.
//!
//! Invariant: whatever a worker holds in an `Rc` never leaves its thread.

use std::cell::{Cell, RefCell};
use std::io;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway_engine::route::RouteSlot;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc};
use tokio::task::spawn_local;

use crate::buffer;
use crate::jwks::KeySets;
use crate::proxy::date::Date;
use crate::proxy::exchange::Exchange;
use crate::proxy::identity::RequestIds;
use crate::server::listener::{self, Bound, Door};
use crate::server::tls::Tickets;
use crate::snapshot::{Live, Reader};
use crate::telemetry::metrics::Slot;
use crate::telemetry::request_log::WorkerLog;
use crate::telemetry::{Metrics, RequestLog, WorkerMetrics};
use crate::upstream::Registry;
use crate::upstream::discovered::Discovered;
use crate::upstream::dns::Resolver;
use crate::wheel::Wheel;

/// Commands that may wait for a worker.
const MAX_COMMANDS: usize = 256;
/// Exchanges kept for reuse per worker.
const MAX_SPARE_EXCHANGES: usize = 512;

/// What the workers have in common: made once by `run()`, read by all.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The configuration in force.
    pub(crate) live: Arc<Live>,
    /// Hands each worker its cells.
    pub(crate) metrics: Arc<Metrics>,
    /// Where finished requests are logged.
    pub(crate) request_log: RequestLog,
    /// Endpoints that were discovered.
    pub(crate) discovered: Arc<Discovered>,
    /// Addresses of the targets that are given by name.
    pub(crate) resolver: Arc<Resolver>,
    /// Keys of token issuers that are at an address.
    pub(crate) key_sets: KeySets,
    /// Seals the tickets by which TLS sessions are resumed.
    pub(crate) tickets: Tickets,
}

/// The running workers.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Vec<Handle>,
}

#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Command {
    Open { name: Arc<str>, socket: std::net::TcpListener },
    Close { name: Arc<str> },
    Refresh,
    Drain { delay: Duration, timeout: Duration },
}

impl Workers {
    /// Starts `count` workers. They serve nothing until a listener is opened.
    ///
    /// # Errors
    /// When the system refuses a thread or a runtime.
    pub(crate) fn start(count: NonZeroUsize, shared: &Arc<Shared>) -> io::Result<Workers> {
        let workers = (0..count.get())
            .map(|index| Handle::start(index, Arc::clone(shared)))
            .collect::<io::Result<_>>()?;
        Ok(Workers { workers })
    }

    /// How many there are: [`listener::bind`] needs to know.
    pub(crate) fn count(&self) -> NonZeroUsize {
        NonZeroUsize::new(self.workers.len()).expect("started with at least one")
    }

    /// Starts accepting on the sockets of `bound`, one per worker. Call it once the snapshot that has the listener of
    /// this name (`namespace/name`) is live; until then connections wait in the backlog.
    pub(crate) async fn open(&self, name: &Arc<str>, bound: Bound) {
        for (worker, socket) in self.workers.iter().zip(bound.into_sockets()) {
            worker.send(Command::Open { name: Arc::clone(name), socket }).await;
        }
    }

    /// Stops accepting on a listener: takes what is queued, closes the sockets, closes idle connections, finishes
    /// what is in flight.
    pub(crate) async fn close(&self, name: &Arc<str>) {
        for worker in &self.workers {
            worker.send(Command::Close { name: Arc::clone(name) }).await;
        }
    }

    /// Makes the workers look at the live snapshot now instead of at their next request, so that an idle one does
    /// not keep an old one alive. Call it after each swap.
    pub(crate) async fn refresh(&self) {
        for worker in &self.workers {
            worker.send(Command::Refresh).await;
        }
    }

    /// Ends the workers: `delay` long everything is served, with `Connection: close`; then the sockets close, and
    /// what is in flight has `timeout` to finish. Returns when the last one has ended.
    pub(crate) async fn drain(&self, delay: Duration, timeout: Duration) {
        for worker in &self.workers {
            worker.send(Command::Drain { delay, timeout }).await;
        }
        for worker in &self.workers {
            worker.commands.closed().await;
            let thread = worker.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread {
                // It is at its last instructions; a panic in it was reported by the panic hook.
                let _ended = tokio::task::spawn_blocking(move || thread.join()).await;
            }
        }
    }
}

impl Handle {
    fn start(index: usize, shared: Arc<Shared>) -> io::Result<Handle> {
        let (commands, receiver) = mpsc::channel(MAX_COMMANDS);
        let (started, outcome) = std::sync::mpsc::sync_channel(1);
        let metrics = shared.metrics.worker();
        let body = move || {
            // `LocalRuntime`: the scheduler itself takes tasks that are not `Send`, without a `LocalSet` on top.
            match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
                Err(error) => {
                    let _nobody_waits = started.send(Err(error));
                }
                Ok(runtime) => {
                    let _nobody_waits = started.send(Ok(()));
                    runtime.block_on(run(Worker::new(shared, metrics), receiver));
                }
            }
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(body)?;
        outcome.recv().unwrap_or_else(|_| Err(io::Error::other("a worker ended as it began")))?;
        Ok(Handle { commands, thread: Mutex::new(Some(thread)) })
    }

    async fn send(&self, command: Command) {
        // A worker that has ended has nothing left to open, close or drain.
        let _ended = self.commands.send(command).await;
    }
}

/// How far a worker is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Business as usual.
    Serving,
    /// Responses say `Connection: close`.
    Leaving,
    /// The sockets are closed; idle connections go, those at work finish.
    Closing,
}

/// One core's state. Tasks hold it in an `Rc`.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    /// The snapshot in service.
    pub(crate) reader: Reader,
    pub(crate) buffers: Rc<buffer::Pool>,
    pub(crate) wheel: Rc<Wheel>,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) log: Rc<WorkerLog>,
    pub(crate) upstreams: Registry,
    pub(crate) ids: RequestIds,
    pub(crate) date: Date,
    #[expect(clippy::vec_box, reason = "requests hold the box: taking one up must not copy half a kilobyte")]
    exchanges: RefCell<Vec<Box<Exchange>>>,
    /// Requests seen per route with several backends, by route slot.
    turns: RefCell<Vec<u64>>,
    doors: RefCell<Vec<Rc<Door>>>,
    phase: Cell<Phase>,
    connections: Cell<usize>,
    /// Doors whose task has not ended.
    accepting: Cell<usize>,
    emptied: Notify,
}

impl Worker {
    /// A worker that serves nothing yet.
    pub(crate) fn new(shared: Arc<Shared>, metrics: WorkerMetrics) -> Rc<Self> {
        let upstreams = Registry::new(Arc::clone(&shared.resolver), Arc::clone(&shared.discovered));
        let reader = Reader::new(Arc::clone(&shared.live));
        let log = shared.request_log.worker();
        Rc::new(Worker {
            shared,
            reader,
            buffers: buffer::Pool::new(),
            wheel: Wheel::new(),
            metrics,
            log,
            upstreams,
            ids: RequestIds::new(),
            date: Date::default(),
            exchanges: RefCell::default(),
            turns: RefCell::default(),
            doors: RefCell::default(),
            phase: Cell::new(Phase::Serving),
            connections: Cell::new(0),
            accepting: Cell::new(0),
            emptied: Notify::new(),
        })
    }

    /// Where the worker is on its way out.
    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// How many requests a route has had on this worker. Slots are used again; where the count goes on from then
    /// does not matter.
    pub(crate) fn turn(&self, route: RouteSlot) -> u64 {
        let mut turns = self.turns.borrow_mut();
        let slot = route.0 as usize;
        if slot >= turns.len() {
            turns.resize(slot + 1, 0);
        }
        let turn = turns[slot];
        turns[slot] = turn.wrapping_add(1);
        turn
    }

    /// Storage for one request.
    pub(crate) fn take_exchange(&self) -> Box<Exchange> {
        self.exchanges.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes the storage back.
    pub(crate) fn return_exchange(&self, mut exchange: Box<Exchange>) {
        let mut spare = self.exchanges.borrow_mut();
        if spare.len() < MAX_SPARE_EXCHANGES && exchange.is_worth_keeping() {
            exchange.clear();
            spare.push(exchange);
        }
    }

    /// Counts a connection until the guard is dropped.
    pub(crate) fn connection(self: &Rc<Self>, door: &Rc<Door>) -> Presence {
        self.connections.set(self.connections.get() + 1);
        let slot = door.view(self).map(|view| view.listener.slot.0);
        if let Some(index) = slot {
            self.metrics.connection_opened(Slot { index, name: door.name() });
        }
        Presence { worker: Rc::clone(self), door: Rc::clone(door), slot }
    }

    fn open(self: &Rc<Self>, name: Arc<str>, socket: std::net::TcpListener) {
        match Door::open(name, socket) {
            Ok((door, socket)) => {
                // Looked at now: should the listener go before its first connection, that one is served all the same.
                door.view(self);
                self.doors.borrow_mut().push(Rc::clone(&door));
                self.accepting.set(self.accepting.get() + 1);
                let worker = Rc::clone(self);
                spawn_local(async move {
                    listener::accept(Rc::clone(&worker), door, socket).await;
                    worker.accepting.set(worker.accepting.get() - 1);
                    worker.emptied.notify_one();
                });
            }
            Err(error) => tracing::error!(%error, "cannot watch a listening socket"),
        }
    }

    fn close(&self, leaves: impl Fn(&Door) -> bool) {
        self.doors.borrow_mut().retain(|door| {
            if leaves(door) {
                door.close();
            }
            !door.is_closing()
        });
        self.wheel.wake_all();
    }

    /// Lets go of a snapshot that is no longer in service.
    fn refresh(&self) {
        self.reader.refresh();
        for door in &*self.doors.borrow() {
            door.view(self);
        }
    }

    async fn drain(self: &Rc<Self>, delay: Duration, timeout: Duration) {
        self.phase.set(Phase::Leaving);
        // Idle HTTP/2 connections say goodbye now.
        self.wheel.wake_all();
        tokio::time::sleep(delay).await;
        self.phase.set(Phase::Closing);
        self.close(|_| true);
        let empty = async {
            // A closed door takes in what is queued before it ends.
            while self.connections.get() > 0 || self.accepting.get() > 0 {
                self.emptied.notified().await;
            }
        };
        if tokio::time::timeout(timeout, empty).await.is_err() {
            tracing::warn!(
                connections = self.connections.get(),
                "drain timeout: cutting what is still in flight"
            );
        }
    }
}

/// A connection that is counted.
#[derive(Debug)]
pub(crate) struct Presence {
    worker: Rc<Worker>,
    door: Rc<Door>,
    /// The listener's number when the connection was counted.
    slot: Option<u32>,
}

impl Drop for Presence {
    fn drop(&mut self) {
        if let Some(index) = self.slot {
            self.worker.metrics.connection_closed(Slot { index, name: self.door.name() });
        }
        self.worker.connections.set(self.worker.connections.get() - 1);
        if self.worker.connections.get() == 0 {
            self.worker.emptied.notify_one();
        }
    }
}

async fn run(worker: Rc<Worker>, mut commands: mpsc::Receiver<Command>) {
    spawn_local(Rc::clone(&worker.wheel).run());
    spawn_local(sweep(Rc::clone(&worker)));
    spawn_local(Rc::clone(&worker.log).flush());
    while let Some(command) = commands.recv().await {
        match command {
            Command::Open { name, socket } => worker.open(name, socket),
            Command::Close { name } => worker.close(|door| door.name() == &name),
            Command::Refresh => worker.refresh(),
            Command::Drain { delay, timeout } => return worker.drain(delay, timeout).await,
        }
    }
}

/// Closes pooled upstream connections that idled too long or were closed by the other side.
async fn sweep(worker: Rc<Worker>) {
    const EVERY: Duration = Duration::from_secs(1);
    loop {
        worker.upstreams.pooled().await;
        tokio::time::sleep(EVERY).await;
        worker.upstreams.sweep();
    }
}
