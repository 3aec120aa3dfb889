//! The floor of the benchmark: bytes from a client to the origin and back, one pair of sockets for each connection,
//! nothing looked at. What it costs is what the system takes from every proxy that reads and writes each message once.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

const LISTENER: Token = Token(usize::MAX);
/// What is read at once.
const PIECE: usize = 64 * 1024;

/// From where to where.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[arg(long)]
    listen: SocketAddr,
    /// Every connection gets one of its own to here
    #[arg(long)]
    target: SocketAddr,
}

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(settings.listen)?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut pairs: Vec<Option<Pair>> = Vec::new();
    let mut free = Vec::new();
    let mut piece = vec![0; PIECE];
    let mut events = Events::with_capacity(512);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            if event.token() == LISTENER {
                while let Ok((client, _)) = listener.accept() {
                    let index = free.pop().unwrap_or(pairs.len());
                    // Whoever cannot be forwarded is closed; the load counts it as an error.
                    let pair = Pair::open(client, settings.target, poll.registry(), index).ok();
                    if pair.is_none() {
                        free.push(index);
                    }
                    if index < pairs.len() { pairs[index] = pair } else { pairs.push(pair) }
                }
                continue;
            }
            let index = event.token().0 / 2;
            let Some(pair) = pairs.get_mut(index).and_then(Option::as_mut) else { continue };
            let side = event.token().0 % 2;
            let to_the_end = event.is_read_closed() || event.is_error();
            let open = (pair.waiting[side].is_empty()
                || pair.forward(1 - side, false, &mut piece).unwrap_or(false))
                && (!event.is_readable() && !to_the_end
                    || pair.forward(side, to_the_end, &mut piece).unwrap_or(false));
            if !open {
                pairs[index] = None;
                free.push(index);
            }
        }
    }
}

/// A client and its connection to the origin; the first of each array is the client's.
struct Pair {
    streams: [TcpStream; 2],
    /// What could not be sent yet to that side.
    waiting: [Vec<u8>; 2],
}

impl Pair {
    fn open(client: TcpStream, target: SocketAddr, registry: &Registry, index: usize) -> io::Result<Pair> {
        let mut streams = [client, TcpStream::connect(target)?];
        for (side, stream) in streams.iter_mut().enumerate() {
            stream.set_nodelay(true)?;
            registry.register(stream, Token(index * 2 + side), Interest::READABLE | Interest::WRITABLE)?;
        }
        Ok(Pair { streams, waiting: [Vec::new(), Vec::new()] })
    }

    /// Moves what one side has to the other; false when that side has ended.
    fn forward(&mut self, from: usize, to_the_end: bool, piece: &mut [u8]) -> io::Result<bool> {
        let to = 1 - from;
        loop {
            if !self.waiting[to].is_empty() {
                let sent = sent(self.streams[to].write(&self.waiting[to]))?;
                self.waiting[to].drain(..sent);
                if !self.waiting[to].is_empty() {
                    return Ok(true);
                }
            }
            let count = match self.streams[from].read(piece) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(true);
                }
                Err(error) => return Err(error),
            };
            let sent = sent(self.streams[to].write(&piece[..count]))?;
            self.waiting[to].extend_from_slice(&piece[sent..count]);
            if count < piece.len() && !to_the_end {
                return Ok(true);
            }
        }
    }
}

/// How much a socket took, also when that is nothing for now.
fn sent(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(0),
        other => other,
    }
}
