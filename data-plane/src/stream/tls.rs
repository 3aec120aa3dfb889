//! The server's side of a TLS connection: rustls does the protocol and the cryptography in buffers of ours, which are
//! borrowed while there is something in them. A connection that waits holds keys and little else.
//!
//! What the other side must not be able to do: end a body by cutting the connection (an end without close_notify is an
//! error), have us keep more than one buffer of what it sent, or have us answer faster than it reads.
//!
//! Invariant: `incoming` begins with a record; every whole record in it is processed before the socket is read again.

use std::io::{self, IoSlice};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::ServerConfig;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use tokio::io::ReadBuf;

use super::socket::Socket;
use crate::buffer::{self, Buffer, Pool};

/// Plaintext of one record at most (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// Pieces up to this size are packed into one record: a copy costs less than a record of its own.
const PACK: usize = 4 * 1024;
/// What a record is longer than its plaintext, at most; and room for a message that rustls sends with it.
const OVERHEAD: usize = 128;
/// Plaintext that is taken before what it became is sent.
const BATCH: usize = 3 * RECORD;
/// Ciphertext that may wait while more is taken: the end of a handshake goes out with the first response.
const MAY_WAIT: usize = 4 * 1024;
/// Ciphertext beyond which nothing is read: more than the two above and their overhead, so that only what rustls
/// answers by itself can amount to it.
const DEAF: usize = 64 * 1024;

/// A TLS connection, from its first byte on.
pub(crate) struct Session {
    socket: Socket,
    rustls: UnbufferedServerConnection,
    buffers: Rc<Pool>,
    /// As it came from the network.
    incoming: Buffer,
    /// Ready for the network.
    outgoing: Buffer,
    /// Decrypted, but there was no room for it.
    plain: Vec<u8>,
    /// How much of that has been read.
    plain_read: usize,
    state: State,
    /// The other side said that it will send no more.
    peer_done: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Open,
    /// We said that we will send no more, or are not to say so.
    Silent,
    /// The other side broke the protocol, and was told so.
    Failed,
}

/// What rustls wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    /// More records, before it can send any.
    Records,
    /// It can send.
    Anything,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("socket", &self.socket)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// A connection whose client is to begin.
    ///
    /// # Errors
    /// When the configuration cannot be used.
    pub(crate) fn new(
        config: Arc<ServerConfig>,
        socket: Socket,
        buffers: &Rc<Pool>,
    ) -> Result<Self, rustls::Error> {
        Ok(Session {
            socket,
            rustls: UnbufferedServerConnection::new(config)?,
            buffers: Rc::clone(buffers),
            incoming: buffers.none(),
            outgoing: buffers.none(),
            plain: Vec::new(),
            plain_read: 0,
            state: State::Open,
            peer_done: false,
        })
    }

    /// Shakes hands. Ready once requests can come; the last of our part may go out with the first response.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            self.advance(&mut ReadBuf::new(&mut []))?;
            if !self.rustls.is_handshaking() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.poll_send(cx))?;
            ready!(self.poll_receive(cx))?;
        }
    }

    /// The protocol that both agreed on (ALPN).
    pub(crate) fn protocol(&self) -> Option<&[u8]> {
        self.rustls.alpn_protocol()
    }

    pub(super) fn is_mid_record(&self) -> bool {
        !self.incoming.is_empty()
    }

    pub(super) fn is_quiet(&self) -> bool {
        !self.peer_done && self.plain.is_empty() && self.incoming.is_empty() && self.socket.is_quiet()
    }

    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.plain.is_empty() || self.peer_done {
            return Poll::Ready(Ok(()));
        }
        // What the handshake left to be sent must not wait for a client that waits for it.
        if self.is_deaf(cx)? {
            return Poll::Pending;
        }
        self.socket.poll_readable(cx)
    }

    pub(super) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.socket.poll_ended(cx)
    }

    /// Reads into `out`, of which nothing need be initialised: what was decrypted is copied there, and no more touched.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(self.read_plain(out)));
        }
        loop {
            let (count, _) = self.advance(out)?;
            if count > 0 {
                return Poll::Ready(Ok(count));
            }
            if self.peer_done {
                return Poll::Ready(Ok(0));
            }
            if self.is_deaf(cx)? {
                return Poll::Pending;
            }
            ready!(self.poll_receive(cx))?;
        }
    }

    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.outgoing.filled().len() > MAY_WAIT {
            ready!(self.poll_send(cx))?;
        }
        let taken = match slices {
            [one] => {
                let count = one.len().min(BATCH);
                self.encrypt(&one[..count])?;
                count
            }
            many => self.encrypt_many(many)?,
        };
        let _sent_later = self.poll_send(cx)?;
        Poll::Ready(Ok(taken))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.say_goodbye();
        ready!(self.poll_send(cx))?;
        Poll::Ready(self.socket.shutdown())
    }

    /// Says goodbye and closes. A session that is dropped without it leaves the other side with the end of a connection
    /// that nobody announced.
    pub(super) fn close(mut self) {
        self.say_goodbye();
        if !self.outgoing.is_empty() {
            // Whoever does not take it now has to do without.
            let _told = self.socket.try_write(self.outgoing.filled());
        }
    }

    pub(super) fn reset(&mut self) {
        self.state = State::Silent;
        self.socket.reset();
    }

    /// Processes the records that have come: decrypts into `out`, and what does not fit into `plain`. Returns how much
    /// is in `out`. After an error what is to be said about it has been sent, as far as the system took it.
    fn advance(&mut self, out: &mut ReadBuf<'_>) -> io::Result<(usize, Wants)> {
        if self.state == State::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut count = 0;
        loop {
            let UnbufferedStatus { discard, state } =
                self.rustls.process_tls_records(self.incoming.filled_mut());
            let mut wants = None;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let payload = record.map_err(broken)?.payload;
                        let fitting = payload.len().min(out.remaining());
                        out.put_slice(&payload[..fitting]);
                        count += fitting;
                        self.plain.extend_from_slice(&payload[fitting..]);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.outgoing, |room| data.encode(room))?;
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_done = true,
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::Closed) => {
                    wants = Some(Wants::Anything);
                }
                Ok(ConnectionState::BlockedHandshake) => wants = Some(Wants::Records),
                // Early data is not offered.
                Ok(_) => return Err(io::ErrorKind::Unsupported.into()),
                Err(error) => {
                    self.incoming.consume(discard);
                    return Err(self.fail(error));
                }
            }
            self.incoming.consume(discard);
            if let Some(wants) = wants {
                if self.incoming.is_empty() && self.incoming.capacity() > 0 {
                    self.incoming.release();
                }
                return Ok((count, wants));
            }
        }
    }

    /// The connection is over; tells the other side why.
    fn fail(&mut self, error: rustls::Error) -> io::Error {
        // The record at fault is still there: rustls must not see it once more.
        while self.rustls.wants_write() {
            let UnbufferedStatus { state, .. } = self.rustls.process_tls_records(self.incoming.filled_mut());
            let Ok(ConnectionState::EncodeTlsData(mut alert)) = state else { break };
            if encode(&mut self.outgoing, |room| alert.encode(room)).is_err() {
                break;
            }
        }
        self.state = State::Failed;
        // At worst it is told by a closed connection.
        let _told = self.socket.try_write(self.outgoing.filled());
        self.outgoing.release();
        broken(error)
    }

    fn read_plain(&mut self, out: &mut ReadBuf<'_>) -> usize {
        let rest = &self.plain[self.plain_read..];
        let count = rest.len().min(out.remaining());
        out.put_slice(&rest[..count]);
        self.plain_read += count;
        if self.plain_read == self.plain.len() {
            (self.plain, self.plain_read) = (Vec::new(), 0);
        }
        count
    }

    /// The same for several pieces: small ones share a record. Returns how much was taken.
    fn encrypt_many(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = 0;
        let mut packed = self.buffers.take(RECORD);
        for piece in pieces {
            let piece = &piece[..piece.len().min(BATCH - taken)];
            if piece.len() > PACK || packed.spare().len() < piece.len() {
                self.encrypt(packed.filled())?;
                packed.consume(packed.filled().len());
            }
            if piece.len() > PACK {
                self.encrypt(piece)?;
            } else {
                packed.spare()[..piece.len()].copy_from_slice(piece);
                packed.advance(piece.len());
            }
            taken += piece.len();
        }
        self.encrypt(packed.filled())?;
        Ok(taken)
    }

    /// Turns plaintext into records.
    fn encrypt(&mut self, plain: &[u8]) -> io::Result<()> {
        if plain.is_empty() {
            return Ok(());
        }
        if let (_, Wants::Records) = self.advance(&mut ReadBuf::new(&mut []))? {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let UnbufferedStatus { state, .. } = self.rustls.process_tls_records(self.incoming.filled_mut());
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let records = plain.len().div_ceil(RECORD);
        self.outgoing.make_room(self.outgoing.filled().len() + plain.len() + records * OVERHEAD);
        match traffic.encrypt(plain, self.outgoing.spare()) {
            Ok(count) => self.outgoing.advance(count),
            Err(EncryptError::InsufficientSize(InsufficientSizeError { required_size })) => {
                self.outgoing.make_room(self.outgoing.filled().len() + required_size);
                let count = traffic.encrypt(plain, self.outgoing.spare()).map_err(io::Error::other)?;
                self.outgoing.advance(count);
            }
            Err(error @ EncryptError::EncryptExhausted) => return Err(io::Error::other(error)),
        }
        Ok(())
    }

    /// Says, once, that we will send no more.
    fn say_goodbye(&mut self) {
        let has_to = self.state == State::Open && !self.rustls.is_handshaking();
        if !has_to || self.advance(&mut ReadBuf::new(&mut [])).is_err() {
            return;
        }
        self.state = State::Silent;
        let UnbufferedStatus { state, .. } = self.rustls.process_tls_records(self.incoming.filled_mut());
        if let Ok(ConnectionState::WriteTraffic(mut traffic)) = state {
            self.outgoing.make_room(self.outgoing.filled().len() + OVERHEAD);
            if let Ok(count) = traffic.queue_close_notify(self.outgoing.spare()) {
                self.outgoing.advance(count);
            }
        }
    }

    /// Sends what waits. Whether so much of it is left that nothing may be read: what rustls answers by itself is
    /// bounded by that alone, while whoever does not read our responses yet is heard all the same.
    fn is_deaf(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        Ok(self.poll_send(cx)?.is_pending() && self.outgoing.filled().len() > DEAF)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            let count = ready!(self.socket.poll_write(cx, &[IoSlice::new(self.outgoing.filled())]))?;
            self.outgoing.consume(count);
        }
        if self.outgoing.capacity() > 0 {
            self.outgoing.release();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads from the socket once.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A record may be larger than a small buffer.
        let brimming = self.incoming.is_full() && self.incoming.capacity() > 0;
        if brimming && self.incoming.filled().len() >= buffer::LARGE {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let room = if brimming { buffer::LARGE } else { buffer::SMALL };
        match self.socket.poll_read(cx, &mut self.incoming, room) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            Poll::Ready(outcome) => Poll::Ready(outcome.map(drop)),
            Poll::Pending => {
                if self.incoming.is_empty() && self.incoming.capacity() > 0 {
                    self.incoming.release();
                }
                Poll::Pending
            }
        }
    }
}

/// Has a message written, with as much room as it needs.
fn encode(
    outgoing: &mut Buffer,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>,
) -> io::Result<()> {
    if outgoing.capacity() == 0 {
        outgoing.make_room(buffer::SMALL);
    }
    let mut written = write(outgoing.spare());
    if let Err(EncodeError::InsufficientSize(InsufficientSizeError { required_size })) = written {
        outgoing.make_room(outgoing.filled().len() + required_size);
        written = write(outgoing.spare());
    }
    outgoing.advance(written.map_err(io::Error::other)?);
    Ok(())
}

fn broken(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests;
