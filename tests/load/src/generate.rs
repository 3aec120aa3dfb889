//! The load: connections, pace, and the loop that serves both. In closed loop each connection sends the next request
//! when the last one is answered; in open loop requests are due at a fixed pace whatever the proxy does, and latency
//! counts from the time a request was due, so that a stall is charged to every request it held up.

use std::collections::VecDeque;
use std::io::{self, Read as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use rustls::ClientConfig;
use serde_json::json;

use crate::connection::{Connection, Finished, Received};
use crate::socket::{Scratch, Socket, tls_config};
use crate::tally::{Failure, Tally};
use crate::traffic::{Spread, Traffic};

/// How long the last answers may take when the time is over.
const GRACE_NS: u64 = 3_000_000_000;
/// A proxy that fails this often is broken: the run ends.
const GIVE_UP: u64 = 10_000;
/// Connections that are opened at once when they are only to be held.
const OPENING: usize = 32;
const TIMER: Token = Token(usize::MAX);

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Http1,
    Http2,
}

/// What load, on what.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// The proxy
    #[arg(long)]
    target: SocketAddr,
    #[arg(long, value_enum, default_value = "http1")]
    protocol: Protocol,
    /// TLS 1.3, X25519, AES-128-GCM, full handshakes
    #[arg(long)]
    tls: bool,
    #[arg(long, default_value = "64", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Requests at once on a connection (http2)
    #[arg(long, default_value = "1", value_parser = clap::value_parser!(u32).range(1..=100))]
    streams: u32,
    /// How long to measure
    #[arg(long, default_value = "5")]
    seconds: f64,
    /// How long before that, with the same load
    #[arg(long, default_value = "0")]
    warmup: f64,
    /// Requests a second (open loop); without it as fast as answers come (closed loop)
    #[arg(long)]
    rate: Option<f64>,
    /// Spread the requests over this many routes
    #[arg(long, default_value = "0")]
    routes: u32,
    /// On this many hosts
    #[arg(long, default_value = "0")]
    hosts: u32,
    /// POST with a body of this many bytes
    #[arg(long, default_value = "0")]
    post: usize,
    /// Every body must have this many bytes
    #[arg(long, default_value = "1024")]
    expect: u64,
    /// A new connection for each request
    #[arg(long)]
    reconnect: bool,
    /// One request on each connection, then hold them all until standard input ends
    #[arg(long, conflicts_with_all = ["rate", "reconnect"])]
    hold: bool,
    /// Another header field, as `name: value` (http1)
    #[arg(long = "header", value_parser = header)]
    headers: Vec<(String, String)>,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(": ").ok_or("expected `name: value`")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(crate) fn run(settings: Settings) -> anyhow::Result<()> {
    Client::new(settings)?.run()
}

struct Client {
    poll: Poll,
    timer: TimerFd,
    tls: Option<Arc<ClientConfig>>,
    connections: Vec<Option<Connection>>,
    /// Connections that could take a request, once for each request they could take. First in, first out: every
    /// connection has its turn.
    free: VecDeque<usize>,
    /// Connections with something to send.
    dirty: Vec<usize>,
    /// Next connection to open (`hold`).
    fresh: usize,
    /// Requests that were due and begun (open loop).
    begun: u64,
    outstanding: usize,
    traffic: Traffic,
    tally: Tally,
    scratch: Scratch,
    start: Instant,
    settings: Settings,
}

impl Client {
    fn new(settings: Settings) -> anyhow::Result<Self> {
        anyhow::ensure!(
            settings.seconds > 0.0 && settings.warmup >= 0.0,
            "--seconds and --warmup must be positive"
        );
        anyhow::ensure!(settings.rate.is_none_or(|rate| rate > 0.0), "--rate must be positive");
        let http2 = settings.protocol == Protocol::Http2;
        anyhow::ensure!(!http2 || settings.post == 0, "--post needs --protocol http1");
        anyhow::ensure!(http2 || settings.streams == 1, "--streams needs --protocol http2");
        let poll = Poll::new()?;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)?;
        poll.registry().register(&mut SourceFd(&timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)?;
        let spread = Spread { routes: settings.routes, hosts: settings.hosts };
        let count = settings.connections as usize;
        let free: VecDeque<usize> = if settings.hold {
            (0..count.min(OPENING)).collect()
        } else {
            (0..settings.streams).flat_map(|_| 0..count).collect()
        };
        Ok(Client {
            poll,
            timer,
            tls: settings.tls.then(|| tls_config(if http2 { b"h2" } else { b"http/1.1" })),
            connections: (0..count).map(|_| None).collect(),
            fresh: free.len(),
            free,
            dirty: Vec::new(),
            begun: 0,
            outstanding: 0,
            traffic: Traffic::new(spread, settings.post, &settings.headers, settings.reconnect),
            tally: Tally::default(),
            scratch: Scratch::default(),
            start: Instant::now(),
            settings,
        })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let warm = Duration::from_secs_f64(self.settings.warmup).as_nanos() as u64;
        let end = warm + Duration::from_secs_f64(self.settings.seconds).as_nanos() as u64;
        let mut measuring_since = None;
        let mut events = Events::with_capacity(512);
        loop {
            let now = self.now();
            if measuring_since.is_none() && now >= warm {
                measuring_since = Some(now);
                self.tally.measure();
                crate::say(&json!({ "event": "measuring" }))?;
            }
            if self.is_over(now, end) {
                break;
            }
            let wake = if now < end { self.launch(now, end) } else { None };
            self.send();
            let edge = if now < warm {
                warm
            } else if now < end {
                end
            } else {
                end + GRACE_NS
            };
            let wait = self.arm(wake)?.unwrap_or(Duration::from_nanos(edge.saturating_sub(now)));
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                if event.token() == TIMER {
                    self.timer.wait()?;
                } else {
                    self.ready(event);
                }
            }
        }
        let measured = Duration::from_nanos(self.now() - measuring_since.unwrap_or(warm));
        self.finish(measured, end)
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn is_over(&self, now: u64, end: u64) -> bool {
        let held = self.settings.hold && self.outstanding == 0 && self.free.is_empty();
        let timed = now >= end && (self.outstanding == 0 || now >= end + GRACE_NS);
        held || timed || self.tally.failures() >= GIVE_UP
    }

    /// Begins what is due; when the next one is due, if a connection is free for it (open loop).
    fn launch(&mut self, now: u64, end: u64) -> Option<u64> {
        while let Some(&index) = self.free.front() {
            let due = match self.settings.rate {
                None => now,
                Some(rate) => {
                    let due = due(self.begun, rate);
                    if due > now {
                        return (due < end).then_some(due);
                    }
                    due
                }
            };
            self.free.pop_front();
            self.begun += 1;
            self.begin(index, due);
        }
        None
    }

    fn begin(&mut self, index: usize, due: u64) {
        if self.connections[index].is_none() {
            match self.connect(index) {
                Ok(connection) => self.connections[index] = Some(connection),
                Err(_) => {
                    self.tally.failed(Failure::Connect);
                    self.release(index);
                    return;
                }
            }
        }
        if let Some(connection) = &mut self.connections[index] {
            connection.request(&mut self.traffic, due);
            self.outstanding += 1;
            self.dirty.push(index);
        }
    }

    fn connect(&mut self, index: usize) -> io::Result<Connection> {
        let mut socket = Socket::connect(self.settings.target, self.tls.as_ref())?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(socket.source(), Token(index), interest)?;
        self.tally.connected();
        Ok(Connection::new(socket, self.settings.protocol == Protocol::Http2))
    }

    /// Sends what [`Client::launch`] queued: one write for all requests of a connection.
    fn send(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            if let Some(Err(error)) = self.connections[index].as_mut().map(Connection::flush) {
                self.broken(index, error.kind());
            }
        }
        self.dirty = dirty;
    }

    /// Arms the timer for `wake` (a poll's own timeout has only whole milliseconds). The poll need not time out then.
    fn arm(&self, wake: Option<u64>) -> anyhow::Result<Option<Duration>> {
        let Some(wake) = wake else { return Ok(None) };
        let left = wake.saturating_sub(self.now());
        if left == 0 {
            return Ok(Some(Duration::ZERO));
        }
        let left = TimeSpec::from(Duration::from_nanos(left));
        self.timer.set(Expiration::OneShot(left), TimerSetTimeFlags::empty())?;
        Ok(None)
    }

    fn ready(&mut self, event: &mio::event::Event) {
        let index = event.token().0;
        let Some(connection) = &mut self.connections[index] else { return };
        if event.is_writable()
            && let Err(error) = connection.flush()
        {
            self.broken(index, error.kind());
            return;
        }
        if !event.is_readable() && !event.is_read_closed() && !event.is_error() {
            return;
        }
        let mut received = Received::default();
        connection.receive(&mut self.scratch, event.is_read_closed(), &mut received);
        let now = self.now();
        let answered = !received.finished.is_empty();
        for Finished { due, status, body } in received.finished {
            self.outstanding -= 1;
            match (status, body) {
                (200, body) if body == self.settings.expect => self.tally.good(now.saturating_sub(due)),
                (200, _) => self.tally.failed(Failure::Body),
                _ => self.tally.failed(Failure::Status),
            }
            self.release(index);
        }
        for _ in received.lost {
            self.outstanding -= 1;
            self.tally.failed(Failure::Broken);
            self.release(index);
        }
        if let Some(error) = received.error {
            self.broken(index, error);
        } else if received.over || (self.settings.reconnect && answered) {
            self.over(index, answered);
        }
    }

    /// A connection ended in order: between two requests that is allowed.
    fn over(&mut self, index: usize, answered: bool) {
        let Some(connection) = self.connections[index].take() else { return };
        let unanswered = connection.unanswered().len();
        connection.close();
        if unanswered == 0 && !answered {
            self.tally.closed_between();
        }
        self.lose(index, unanswered, Failure::Broken);
    }

    fn broken(&mut self, index: usize, error: io::ErrorKind) {
        let Some(connection) = self.connections[index].take() else { return };
        let unanswered = connection.unanswered().len();
        let failure =
            if error == io::ErrorKind::ConnectionRefused { Failure::Connect } else { Failure::Broken };
        if unanswered == 0 {
            self.tally.closed_between();
        }
        self.lose(index, unanswered, failure);
    }

    fn lose(&mut self, index: usize, unanswered: usize, failure: Failure) {
        for _ in 0..unanswered {
            self.outstanding -= 1;
            self.tally.failed(failure);
            self.release(index);
        }
    }

    /// The connection could take another request; when connections are held, the next one has its turn instead.
    fn release(&mut self, index: usize) {
        if !self.settings.hold {
            self.free.push_back(index);
        } else if self.fresh < self.connections.len() {
            self.free.push_back(self.fresh);
            self.fresh += 1;
        }
    }

    fn finish(mut self, measured: Duration, end: u64) -> anyhow::Result<()> {
        // Who gives up has not waited for the rest.
        let waited_for = if self.tally.failures() < GIVE_UP { self.outstanding } else { 0 };
        (0..waited_for).for_each(|_| self.tally.failed(Failure::Unanswered));
        let mut report = self.tally.report(measured);
        // Requests that were due before the end and found no free connection: the rate was too much.
        report["unsent"] = match self.settings.rate {
            None => json!(0),
            Some(rate) => json!((self.begun..).take_while(|&number| due(number, rate) < end).count()),
        };
        if self.settings.hold {
            report["held"] = json!(self.connections.iter().flatten().count());
        }
        crate::say(&report)?;
        if self.settings.hold {
            io::stdin().read_to_end(&mut Vec::new()).context("cannot wait for the end of standard input")?;
        }
        Ok(())
    }
}

/// When the request of this number is due, in nanoseconds.
fn due(number: u64, rate: f64) -> u64 {
    (number as f64 * 1e9 / rate) as u64
}
