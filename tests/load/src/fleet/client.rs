//! One data plane of the fleet: connects, says Hello, takes what comes for applied, acknowledges it, beats, and comes
//! back with the real one's backoff. What a transaction starts from is checked; what is in it is passed over.

use std::collections::BTreeMap;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use gateway_proto::digest::{ItemHash, RootHash};
use gateway_proto::endpoints::{hash_of_set, hash_of_source, sums};
use gateway_proto::{SYNC_PROTOCOL, wire};
use h2::client::{Connection, SendRequest};
use h2::{RecvStream, SendStream};
use prost::Message as _;
use rand::RngExt as _;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, interval_at, sleep};
use tokio_rustls::TlsConnector;
use wire::data_plane_message::Message as Say;

use super::counted::Counted;
use super::{Fleet, now};

/// Longest pause before the first and before any later attempt to reconnect, as in `sync/client.rs` of the data plane.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Windows of hyper's client, which the real data plane is.
const WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 5 << 20;
/// A message of gRPC begins with a flag and its length.
const PREFIX: usize = 5;

trait Socket: AsyncRead + AsyncWrite + Unpin {}
impl<S: AsyncRead + AsyncWrite + Unpin> Socket for S {}

/// What is read of the control plane's messages: protobuf passes over the rest, and objects stay where they are.
#[derive(Clone, PartialEq, prost::Message)]
struct Heard {
    #[prost(oneof = "Told", tags = "1, 2, 4, 60, 61")]
    told: Option<Told>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Told {
    #[prost(message, tag = "1")]
    Welcome(wire::Welcome),
    #[prost(message, tag = "2")]
    Chunk(Piece),
    #[prost(message, tag = "4")]
    Heartbeat(wire::Heartbeat),
    #[prost(message, tag = "60")]
    Endpoints(wire::EndpointsChunk),
    #[prost(message, tag = "61")]
    CompareEndpoints(wire::CompareEndpoints),
}

/// A `Chunk`.
#[derive(Clone, PartialEq, prost::Message)]
struct Piece {
    #[prost(uint64, tag = "1")]
    transaction: u64,
    #[prost(fixed64, optional, tag = "2")]
    base_sum: Option<u64>,
    #[prost(message, optional, tag = "3")]
    target: Option<wire::Cursor>,
    #[prost(message, repeated, tag = "4")]
    upserts: Vec<Upsert>,
    #[prost(bool, tag = "6")]
    last: bool,
}

/// An object, as far as it is looked at.
#[derive(Clone, PartialEq, prost::Message)]
struct Upsert {
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

/// An open stream.
struct Stream<'a> {
    fleet: &'a Fleet,
    index: usize,
    say: SendStream<Bytes>,
    hear: RecvStream,
    unread: BytesMut,
    /// History of the Welcome.
    epoch: String,
    heartbeat: Duration,
    target: Option<wire::Cursor>,
}

/// Comes back for ever.
pub(super) async fn run(fleet: Rc<Fleet>, index: usize) {
    let mut bound = BACKOFF.0;
    loop {
        let ended = connect(&fleet, index, &mut bound).await;
        fleet.update(index, |client| client.is_open = false);
        let why = ended.err().map_or_else(|| "closed".to_owned(), |error| format!("{error:#}"));
        fleet.count(|counts| *counts.ends.entry(why).or_default() += 1);
        sleep(rand::rng().random_range(Duration::ZERO..=bound)).await;
        bound = (bound * 2).min(BACKOFF.1);
    }
}

async fn connect(fleet: &Rc<Fleet>, index: usize, bound: &mut Duration) -> anyhow::Result<()> {
    let stream = TcpStream::connect(fleet.settings.target).await.context("connect")?;
    stream.set_nodelay(true)?;
    let socket = Counted::new(stream, Rc::clone(fleet));
    let socket: Box<dyn Socket> = match &fleet.tls {
        None => Box::new(socket),
        Some(tls) => {
            let name = ServerName::try_from("localhost").expect("a valid name");
            let connector = TlsConnector::from(std::sync::Arc::clone(tls));
            Box::new(connector.connect(name, socket).await.context("TLS")?)
        }
    };
    let (requests, mut connection) = h2::client::Builder::new()
        .initial_window_size(WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake::<_, Bytes>(socket)
        .await?;
    if !fleet.settings.stall {
        let connection =
            tokio::task::spawn_local(async move { connection.await.map_err(anyhow::Error::from) });
        let mut stream = open(fleet, index, requests).await?;
        *bound = BACKOFF.0;
        if fleet.settings.adopt && stream.held().epoch.is_empty() {
            fleet.update(index, |client| {
                client.held = client.head.take().unwrap_or_default();
                client.welcomed_at = None;
            });
            connection.abort();
            return Ok(());
        }
        let ended = stream.follow().await;
        connection.abort();
        return ended;
    }
    let stream = tokio::select! {
        ended = &mut connection => return Ok(ended?),
        stream = open(fleet, index, requests) => stream?,
    };
    hold(connection, stream).await
}

/// Keeps a connection open and reads nothing from it: only what the system takes is taken.
async fn hold(_connection: Connection<Box<dyn Socket>>, _stream: Stream<'_>) -> anyhow::Result<()> {
    pending().await
}

/// Up to the Welcome.
async fn open(fleet: &Fleet, index: usize, requests: SendRequest<Bytes>) -> anyhow::Result<Stream<'_>> {
    let mut requests = requests.ready().await?;
    let scheme = if fleet.tls.is_some() { "https" } else { "http" };
    let request = http::Request::post(format!("{scheme}://localhost/gateway.v1.Sync/Stream"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut sender) = requests.send_request(request, false)?;
    let client = fleet.clients.borrow()[index].clone();
    let endpoints = root(&client.endpoints);
    let hello = wire::Hello {
        node: format!("{}-{index}", fleet.settings.prefix),
        group: "default".to_owned(),
        protocol: SYNC_PROTOCOL,
        cursor: (!client.held.epoch.is_empty()).then_some(client.held),
        endpoints,
        ..Default::default()
    };
    say(&mut sender, Say::Hello(hello))?;
    let hear = answer.await?.into_body();
    let mut stream = Stream {
        fleet,
        index,
        say: sender,
        hear,
        unread: BytesMut::new(),
        epoch: String::new(),
        heartbeat: Duration::ZERO,
        target: None,
    };
    while stream.epoch.is_empty() {
        stream.read().await?;
    }
    Ok(stream)
}

/// Sum of what is held of endpoints.
fn root(held: &BTreeMap<String, ItemHash>) -> Vec<u8> {
    held.values().copied().collect::<RootHash>().to_bytes().to_vec()
}

fn say(into: &mut SendStream<Bytes>, message: Say) -> anyhow::Result<()> {
    let message = wire::DataPlaneMessage { message: Some(message) };
    let mut frame = BytesMut::with_capacity(PREFIX + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len())?);
    message.encode(&mut frame)?;
    Ok(into.send_data(frame.freeze(), false)?)
}

impl Stream<'_> {
    async fn follow(&mut self) -> anyhow::Result<()> {
        // Everybody beats in a turn of his own.
        let first = rand::rng().random_range(Duration::ZERO..=self.heartbeat);
        let mut beat = interval_at(Instant::now() + first, self.heartbeat);
        loop {
            tokio::select! {
                read = self.read() => read?,
                _ = beat.tick() => {
                    let cursor = Some(self.held());
                    say(&mut self.say, Say::Heartbeat(wire::Heartbeat { cursor, ..Default::default() }))?;
                }
            }
        }
    }

    fn held(&self) -> wire::Cursor {
        self.fleet.clients.borrow()[self.index].held.clone()
    }

    /// Reads what has come, and takes what is complete.
    async fn read(&mut self) -> anyhow::Result<()> {
        let Some(data) = self.hear.data().await else {
            let trailers = self.hear.trailers().await?.unwrap_or_default();
            let text = trailers.get("grpc-message").and_then(|it| it.to_str().ok()).unwrap_or("closed");
            bail!("{text}");
        };
        let data = data?;
        self.hear.flow_control().release_capacity(data.len())?;
        self.unread.extend_from_slice(&data);
        while self.unread.len() >= PREFIX {
            let length = (&self.unread[1..PREFIX]).get_u32() as usize;
            if self.unread.len() < PREFIX + length {
                break;
            }
            self.unread.advance(PREFIX);
            let message = self.unread.split_to(length);
            self.hear(Heard::decode(message.freeze())?, length as u64)?;
        }
        Ok(())
    }

    fn hear(&mut self, heard: Heard, bytes: u64) -> anyhow::Result<()> {
        match heard.told {
            Some(Told::Welcome(welcome)) => self.welcomed(&welcome),
            Some(Told::Chunk(piece)) => {
                self.fleet.count(|counts| {
                    counts.chunks += 1;
                    counts.chunk_bytes += bytes;
                    counts.objects += piece.upserts.len() as u64;
                    counts.object_bytes += piece.upserts.iter().map(|it| it.body.len() as u64).sum::<u64>();
                });
                self.take(piece)
            }
            Some(Told::Heartbeat(heartbeat)) => {
                let (head, held) = (heartbeat.cursor.unwrap_or_default(), self.held());
                let diverged = head.epoch == held.epoch && head.revision == held.revision && head != held;
                self.fleet.count(|counts| {
                    counts.heartbeats += 1;
                    counts.heartbeat_bytes += bytes;
                    counts.diverged += u64::from(diverged);
                });
                Ok(())
            }
            Some(Told::Endpoints(chunk)) => self.take_endpoints(chunk),
            // One end has lost the other: let everything come anew.
            Some(Told::CompareEndpoints(_)) => {
                self.fleet.update(self.index, |client| client.endpoints.clear());
                let sums = sums(std::iter::empty()).to_bytes();
                let held = wire::EndpointsHeld { root_hash: root(&BTreeMap::new()), sums };
                say(&mut self.say, Say::Endpoints(held))
            }
            None => Ok(()),
        }
    }

    fn take_endpoints(&mut self, chunk: wire::EndpointsChunk) -> anyhow::Result<()> {
        let mut root_hash = Vec::new();
        self.fleet.update(self.index, |client| {
            for name in chunk.gone.iter().chain(&chunk.gone_sources) {
                client.endpoints.remove(name);
            }
            client.endpoints.extend(chunk.sources.iter().map(|it| (it.source.clone(), hash_of_source(it))));
            for set in &chunk.sets {
                client.endpoints.insert(set.upstream.clone(), hash_of_set(set));
                client.address = set.endpoints.first().map(|it| it.address.clone()).unwrap_or_default();
                client.address_at = now();
            }
            root_hash = root(&client.endpoints);
        });
        if !chunk.last {
            return Ok(());
        }
        say(&mut self.say, Say::Endpoints(wire::EndpointsHeld { root_hash, sums: Vec::new() }))
    }

    fn welcomed(&mut self, welcome: &wire::Welcome) -> anyhow::Result<()> {
        let head = welcome.head.clone().context("a Welcome names its head")?;
        self.epoch.clone_from(&head.epoch);
        self.heartbeat = Duration::from_millis(welcome.heartbeat_ms.max(100).into());
        let mode = welcome.mode().as_str_name();
        self.fleet.count(|counts| *counts.modes.entry(mode).or_default() += 1);
        self.fleet.update(self.index, |client| {
            client.welcomed_at = Some(now());
            client.is_open = true;
            client.head = (client.held != head).then_some(head);
        });
        Ok(())
    }

    fn take(&mut self, piece: Piece) -> anyhow::Result<()> {
        if let Some(mut target) = piece.target {
            let held = self.held();
            let root = RootHash::from_slice(&held.root_hash).unwrap_or_default();
            ensure!(
                piece.base_sum.is_none_or(|sum| root.low() == sum),
                "a transaction starts from something else"
            );
            if target.epoch.is_empty() {
                target.epoch.clone_from(&self.epoch);
            }
            self.target = Some(target);
        }
        if !piece.last {
            return Ok(());
        }
        let target = self.target.take().context("a transaction without a target")?;
        let listener =
            wire::BoundListener { name: "default/public".into(), address: "127.0.0.1:8080".into() };
        let ack = wire::Ack {
            transaction: piece.transaction,
            cursor: Some(target.clone()),
            listeners: vec![listener],
            ..Default::default()
        };
        say(&mut self.say, Say::Ack(ack))?;
        self.fleet.update(self.index, |client| {
            client.held = target;
            client.held_at = now();
            client.head = None;
        });
        Ok(())
    }
}
