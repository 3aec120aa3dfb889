//! The origin: answers every request with the same prebuilt bytes, on as many connections as come. What it has seen
//! can be read from a second port, so that the first one pays nothing for it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use clap::Args;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use serde_json::json;

use crate::http1::{Reader, Side};

const LISTENER: Token = Token(usize::MAX);
const COUNTS: Token = Token(usize::MAX - 1);
/// Request bodies are read and dropped in pieces of this size.
const PIECE: usize = 256 * 1024;

/// Where, and what to answer.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Every connection here gets one JSON object: connections and requests so far
    #[arg(long, default_value = "127.0.0.1:0")]
    counts: SocketAddr,
    /// Body bytes of each response
    #[arg(long, default_value = "1024")]
    body: usize,
}

pub(crate) fn run(settings: &Settings) -> anyhow::Result<()> {
    let mut listener = TcpListener::bind(settings.listen)?;
    let mut counts = TcpListener::bind(settings.counts)?;
    let poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut counts, COUNTS, Interest::READABLE)?;
    crate::say(&json!({
        "event": "listening",
        "address": listener.local_addr()?.to_string(),
        "counts": counts.local_addr()?.to_string(),
    }))?;
    Origin {
        poll,
        listener,
        counts,
        connections: Vec::new(),
        free: Vec::new(),
        response: response(settings.body),
        piece: vec![0; PIECE],
        accepted: 0,
        served: 0,
    }
    .run()
}

fn response(body: usize) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: no-store\r\n\
         Date: Sat, 21 Nov 2026 00:00:00 GMT\r\nServer: origin\r\nContent-Length: {body}\r\n\r\n"
    )
    .into_bytes();
    bytes.resize(bytes.len() + body, b'x');
    bytes
}

struct Origin {
    poll: Poll,
    listener: TcpListener,
    counts: TcpListener,
    /// By token.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    response: Vec<u8>,
    piece: Vec<u8>,
    accepted: u64,
    served: u64,
}

struct Connection {
    stream: TcpStream,
    reader: Reader,
    /// Responses to send, and how much of the first one is sent.
    owed: usize,
    sent: usize,
    /// End it when nothing is owed.
    close: bool,
}

impl Origin {
    fn run(mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(512);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept(),
                    COUNTS => self.tell(),
                    Token(index) => self.serve(index, event),
                }
            }
        }
    }

    fn accept(&mut self) {
        // Until it would block, as an edge-triggered poll asks for; other errors are the peer's.
        while let Some(accepted) = next(&self.listener) {
            let Some(mut stream) = accepted else { continue };
            let index = self.free.pop().unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            let interest = Interest::READABLE | Interest::WRITABLE;
            let ready = stream.set_nodelay(true);
            if ready
                .and_then(|()| self.poll.registry().register(&mut stream, Token(index), interest))
                .is_err()
            {
                self.free.push(index);
                continue;
            }
            self.accepted += 1;
            let reader = Reader::new(Side::Requests);
            self.connections[index] = Some(Connection { stream, reader, owed: 0, sent: 0, close: false });
        }
    }

    fn tell(&mut self) {
        while let Some(accepted) = next(&self.counts) {
            let line = json!({ "connections": self.accepted, "requests": self.served });
            if let Some(mut stream) = accepted {
                // Whoever asks and goes away gets nothing.
                let _ = writeln!(stream, "{line}");
            }
        }
    }

    fn serve(&mut self, index: usize, event: &Event) {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else { return };
        let mut open = true;
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            open = connection.read(&mut self.piece, event.is_read_closed(), &mut self.served).is_ok();
        }
        if open && (connection.owed > 0 || connection.close) {
            open = connection.write(&self.response).is_ok();
        }
        if !open {
            self.connections[index] = None;
            self.free.push(index);
        }
    }
}

/// The next connection that waits; `Some(None)` for one that is gone already.
fn next(listener: &TcpListener) -> Option<Option<TcpStream>> {
    match listener.accept() {
        Ok((stream, _)) => Some(Some(stream)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => None,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {
            Some(None)
        }
        Err(_) => None, // out of descriptors: those who wait see it
    }
}

/// The connection is over.
struct Over;

impl Connection {
    fn read(&mut self, piece: &mut [u8], to_the_end: bool, served: &mut u64) -> Result<(), Over> {
        loop {
            let count = match self.stream.read(piece) {
                Ok(0) => {
                    self.close = true;
                    return Ok(());
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(Over),
            };
            let mut rest = &piece[..count];
            while !rest.is_empty() {
                let (taken, message) = self.reader.feed(rest).map_err(|_| Over)?;
                rest = &rest[taken..];
                if let Some(message) = message {
                    self.owed += 1;
                    self.close |= message.close;
                    *served += 1;
                }
            }
            if count < piece.len() && !to_the_end {
                return Ok(());
            }
        }
    }

    fn write(&mut self, response: &[u8]) -> Result<(), Over> {
        while self.owed > 0 {
            match self.stream.write(&response[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Over),
            }
            if self.sent == response.len() {
                self.owed -= 1;
                self.sent = 0;
            }
        }
        if self.close { Err(Over) } else { Ok(()) }
    }
}
