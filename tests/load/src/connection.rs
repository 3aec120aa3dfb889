//! One connection of the generator: requests in, finished exchanges out, over HTTP/1.1 or HTTP/2.

use std::io::{self, IoSlice};

use crate::http1::{Message, Reader, Side};
use crate::http2;
use crate::socket::{Scratch, Socket};
use crate::traffic::Traffic;

/// Request bodies are this, over and over.
static FILL: [u8; 64 * 1024] = [b'y'; 64 * 1024];

/// An exchange that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Finished {
    /// When it was due, as [`Connection::request`] was told.
    pub(crate) due: u64,
    /// 0: none that could be read.
    pub(crate) status: u16,
    pub(crate) body: u64,
}

#[derive(Debug)]
enum Session {
    Http1 { reader: Reader, due: Option<u64> },
    Http2(Box<http2::Session>),
}

/// What a look at the socket brought.
#[derive(Debug, Default)]
pub(crate) struct Received {
    pub(crate) finished: Vec<Finished>,
    /// Due times of what was lost: the connection broke, or the stream was reset.
    pub(crate) lost: Vec<u64>,
    /// The connection is not to be used again.
    pub(crate) over: bool,
    /// The error it ended with, if it did.
    pub(crate) error: Option<io::ErrorKind>,
}

#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    session: Session,
    /// Heads and frames to send, from `sent` on; then `body` bytes of [`FILL`].
    out: Vec<u8>,
    sent: usize,
    body: usize,
    /// Reused, so that reading allocates nothing.
    http2_finished: Vec<http2::Finished>,
}

impl Connection {
    pub(crate) fn new(socket: Socket, http2: bool) -> Self {
        let mut out = Vec::with_capacity(1024);
        let session = if http2 {
            Session::Http2(Box::new(http2::Session::new(&mut out)))
        } else {
            Session::Http1 { reader: Reader::new(Side::Responses), due: None }
        };
        Connection { socket, session, out, sent: 0, body: 0, http2_finished: Vec::new() }
    }

    pub(crate) fn close(self) {
        self.socket.close();
    }

    /// Queues a request that was due at `due`; [`Connection::flush`] sends it.
    pub(crate) fn request(&mut self, traffic: &mut Traffic, due: u64) {
        match &mut self.session {
            Session::Http1 { due: current, .. } => {
                *current = Some(due);
                traffic.head(&mut self.out);
                self.body = traffic.body();
            }
            Session::Http2(session) => session.request(due, &mut self.out),
        }
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()?;
        loop {
            let head = &self.out[self.sent..];
            let body = &FILL[..self.body.min(FILL.len())];
            if head.is_empty() && body.is_empty() {
                break;
            }
            let (head_length, all) = (head.len(), head.len() + body.len());
            let taken = self.socket.send(&[IoSlice::new(head), IoSlice::new(body)])?;
            self.sent += taken.min(head_length);
            self.body -= taken.saturating_sub(head_length);
            if taken < all {
                return Ok(());
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Due times of what has not been answered.
    pub(crate) fn unanswered(&self) -> Vec<u64> {
        match &self.session {
            Session::Http1 { due, .. } => due.iter().copied().collect(),
            Session::Http2(session) => session.unanswered().collect(),
        }
    }

    /// Reads what has come.
    pub(crate) fn receive(&mut self, scratch: &mut Scratch, to_the_end: bool, into: &mut Received) {
        let Connection { socket, session, out, http2_finished, .. } = self;
        let ended = socket.receive(scratch, to_the_end, |bytes| match session {
            Session::Http1 { reader, due } => http1(reader, due, bytes, into),
            Session::Http2(session) => {
                session.feed(bytes, out, http2_finished).map_err(|_| io::ErrorKind::InvalidData.into())
            }
        });
        for http2::Finished { due, status, body, complete } in self.http2_finished.drain(..) {
            if complete {
                into.finished.push(Finished { due, status, body });
            } else {
                into.lost.push(due);
            }
        }
        if let Session::Http2(session) = &self.session
            && session.is_leaving()
            && session.unanswered().next().is_none()
        {
            into.over = true;
        }
        if let (Ok(true), Session::Http1 { reader, due }) = (&ended, &mut self.session)
            && let (Some(message), Some(due)) = (reader.ended(), due.take())
        {
            into.finished.push(Finished { due, status: message.status, body: message.body });
        }
        match ended
            .and_then(|ended| if self.out.is_empty() { Ok(ended) } else { self.flush().map(|()| ended) })
        {
            Ok(false) => {}
            Ok(true) => into.over = true,
            Err(error) => {
                into.over = true;
                into.error = Some(error.kind());
            }
        }
    }
}

fn http1(
    reader: &mut Reader,
    due: &mut Option<u64>,
    mut bytes: &[u8],
    into: &mut Received,
) -> io::Result<()> {
    while !bytes.is_empty() {
        let (taken, message) = reader.feed(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        bytes = &bytes[taken..];
        if let Some(Message { status, body, close }) = message {
            // An answer to nothing is nonsense.
            let due = due.take().ok_or(io::ErrorKind::InvalidData)?;
            into.finished.push(Finished { due, status, body });
            into.over |= close;
        }
    }
    Ok(())
}
