//! A connection that speaks HTTP/1.1, to a client or to a target: one buffer to read into, one vector that heads and
//! small bodies are gathered in so that they leave in one send, and a decoder and an encoder for the bodies.
//!
//! A read that does not fill the buffer ends reading: the runtime then knows that the socket is empty, and nobody asks
//! the system again to hear so. Large data is written from where it lies, together with what was gathered before.
//!
//! Invariant: while `direct` is not zero, a chunk of that many bytes is announced and must be sent as it was offered.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use gateway_engine::context::Scheme;
use gateway_http1::body::{self, BodyError, ChunkedLimits, Decoder, Encoder, Frame};
use gateway_http1::{Field, Framing};

use crate::buffer::{self, Buffer};
use crate::relay::{Sink, Source, SourceError, Step};
use crate::stream::Stream;

/// Data up to this size is copied behind what is gathered: cheaper than a second slice in the system call.
const COPY: usize = 4 * 1024;
/// Gathered bytes that are sent before more is added.
const GATHER: usize = 16 * 1024;

/// A connection and what is read from and written to it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: Stream,
    /// Read and not yet consumed.
    pub(crate) buffer: Buffer,
    /// Gathered to be sent; the first `sent` bytes of it were.
    out: Vec<u8>,
    sent: usize,
    /// Something that was sent is no longer in `out`: it cannot be sent again.
    gone: bool,
    decoder: Decoder,
    /// Bytes of data at the front of the buffer.
    data: usize,
    /// The last read filled the buffer: there is more than fits.
    brimming: bool,
    trailers: Vec<u8>,
    encoder: Encoder,
    /// Rest of the data that is being sent from where it lies.
    direct: usize,
    chunked: bool,
    received: u64,
    delivered: u64,
    /// The last message did not fit into a small buffer: nor will the next, most likely.
    large: bool,
}

impl Wire {
    /// A connection that reads into `buffer`, which may have no memory yet.
    pub(crate) fn new(stream: impl Into<Stream>, buffer: Buffer) -> Self {
        Wire {
            stream: stream.into(),
            buffer,
            out: Vec::new(),
            sent: 0,
            gone: false,
            decoder: Decoder::new(Framing::None, ChunkedLimits::default()),
            data: 0,
            brimming: false,
            trailers: Vec::new(),
            encoder: Encoder::new(Framing::None),
            direct: 0,
            chunked: false,
            received: 0,
            delivered: 0,
            large: false,
        }
    }

    /// Begins the next request on a connection that waited: `out` is sent first.
    pub(crate) fn begin(&mut self, out: Vec<u8>) {
        self.out = out;
        self.sent = 0;
        self.gone = false;
    }

    /// Nothing was seen on it since it was last read from: no end, no bytes that nobody asked for. Asks the system
    /// only when the reactor has seen something.
    pub(crate) fn is_quiet(&self) -> bool {
        self.stream.is_quiet()
    }

    /// What its other side spoke.
    pub(crate) const fn scheme(&self) -> Scheme {
        self.stream.scheme()
    }

    /// A TLS record has begun to arrive.
    pub(crate) fn is_mid_record(&self) -> bool {
        self.stream.is_mid_record()
    }

    /// The connection alone; what is buffered is lost.
    pub(crate) fn into_stream(self) -> Stream {
        self.stream
    }

    /// Takes the vector back.
    pub(crate) fn take_back(&mut self) -> Vec<u8> {
        self.sent = 0;
        self.out.clear();
        std::mem::take(&mut self.out)
    }

    /// Makes room for the next message, as much as the last one needed.
    pub(crate) fn make_room(&mut self) {
        self.buffer.make_room(if self.large { buffer::LARGE } else { buffer::SMALL });
    }

    /// Bytes read and bytes sent since the last call: what one message took.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        self.large = self.received > buffer::SMALL as u64;
        (std::mem::take(&mut self.received), std::mem::take(&mut self.delivered))
    }

    /// Bytes read and sent so far.
    pub(crate) fn progress(&self) -> u64 {
        self.received + self.delivered
    }

    /// Where to gather a head.
    pub(crate) fn gather(&mut self) -> &mut Vec<u8> {
        if self.sent > 0 && self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
            self.gone = true;
        }
        &mut self.out
    }

    /// Where the next byte that is gathered will be in all that this connection sends, until the counts are taken.
    pub(crate) fn position(&self) -> u64 {
        self.delivered + (self.out.len() - self.sent) as u64
    }

    /// Takes back what was given to it from there on, if none of it was sent.
    pub(crate) fn retract(&mut self, position: u64) -> bool {
        let Some(kept) = position.checked_sub(self.delivered) else { return false };
        self.out.truncate(self.sent + kept as usize);
        self.direct = 0;
        true
    }

    /// Expects a body after the head that was consumed.
    pub(crate) fn expect_body(&mut self, framing: Framing) {
        self.decoder = Decoder::new(framing, ChunkedLimits::default());
        self.data = 0;
        self.trailers.clear();
    }

    /// Announced a body in the head that was gathered.
    pub(crate) fn announce_body(&mut self, framing: Framing) {
        self.encoder = Encoder::new(framing);
        self.chunked = framing == Framing::Chunked;
        self.direct = 0;
    }

    /// The body that was expected has been read to its end.
    pub(crate) fn is_body_read(&self) -> bool {
        self.decoder.is_done() && self.data == 0
    }

    /// Nothing was sent yet of what was gathered.
    pub(crate) fn is_untouched(&self) -> bool {
        self.sent == 0 && !self.gone
    }

    /// Everything that was given to this connection is still there to be given to another.
    pub(crate) fn is_replayable(&self) -> bool {
        !self.gone
    }

    /// Goes on with another connection: what is gathered will be sent again from its beginning.
    pub(crate) fn restart(&mut self, fresh: Wire) {
        self.stream = fresh.stream;
        self.sent = 0;
        self.buffer.release();
    }

    /// There is something to read, as far as the reactor has told of it.
    pub(crate) fn is_told(&self) -> bool {
        self.stream.is_told()
    }

    /// Waits until there is something to read; holds no buffer if nothing is left in it.
    pub(crate) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            self.buffer.release();
        }
        self.stream.poll_readable(cx)
    }

    /// Notices that the other side is done, or the connection broken, while there is no room for what it says.
    pub(crate) fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_ended(cx)
    }

    /// Reads once, whatever fits into the buffer, which gets at least `room` bytes in size; 0: the other side is done.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        let count = ready!(self.stream.poll_read(cx, &mut self.buffer, room))?;
        self.brimming = self.buffer.is_full();
        self.received += count as u64;
        Poll::Ready(Ok(count))
    }

    /// Closes so that the other side cannot take what it got for the whole: a reset.
    pub(crate) fn reset(&mut self) {
        self.stream.reset();
    }

    /// Says that nothing more will be sent.
    pub(crate) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown(cx)
    }

    /// Writes what is gathered, then up to `direct` bytes of `data`, then the end of the chunk; how much of the data.
    fn poll_write_direct(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let data = &data[..self.direct];
        let suffix: &[u8] = if self.chunked { b"\r\n" } else { b"" };
        loop {
            let gathered = &self.out[self.sent..];
            let slices = [IoSlice::new(gathered), IoSlice::new(data), IoSlice::new(suffix)];
            let slices = match (gathered.is_empty(), suffix.is_empty()) {
                (true, true) => &slices[1..2],
                (true, false) => &slices[1..],
                (false, true) => &slices[..2],
                (false, false) => &slices[..],
            };
            let mut count = ready!(self.stream.poll_write(cx, slices))?;
            self.delivered += count as u64;
            let of_gathered = count.min(self.out.len() - self.sent);
            self.sent += of_gathered;
            count -= of_gathered;
            let of_data = count.min(data.len());
            if of_data == 0 {
                continue;
            }
            self.gone = true;
            self.direct -= of_data;
            if self.direct == 0 {
                let rest = &suffix[count - of_data..];
                self.gather().extend_from_slice(rest);
            }
            return Poll::Ready(Ok(of_data));
        }
    }
}

impl Source for Wire {
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Step, SourceError>> {
        loop {
            match self.decoder.decode(self.buffer.filled())? {
                Frame::Data(range) => {
                    self.buffer.consume(range.start);
                    self.data = range.len();
                    return Poll::Ready(Ok(Step::Data));
                }
                Frame::End { trailers, consumed } => {
                    self.trailers.extend_from_slice(&self.buffer.filled()[trailers]);
                    self.buffer.consume(consumed);
                    return Poll::Ready(Ok(Step::End));
                }
                Frame::NeedMore { consumed } => self.buffer.consume(consumed),
            }
            // Small until a body turns out not to fit; no memory while there is nothing to read.
            let large = self.brimming || self.decoder.data_left() > buffer::SMALL as u64;
            if self.buffer.is_empty() {
                ready!(self.poll_readable(cx))?;
            }
            let room = if large { buffer::LARGE } else { buffer::SMALL };
            if ready!(self.poll_fill(cx, room))? == 0 {
                self.decoder.finish()?;
            }
        }
    }

    fn data(&self) -> &[u8] {
        &self.buffer.filled()[..self.data]
    }

    fn consume(&mut self, count: usize) {
        self.buffer.consume(count);
        self.data -= count;
    }

    fn trailers(&self) -> &[u8] {
        &self.trailers
    }
}

impl Sink for Wire {
    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        if self.direct == 0 {
            if self.out.len() - self.sent >= GATHER {
                ready!(self.poll_flush(cx))?;
            }
            self.gather();
            if data.len() <= COPY {
                self.encoder.data(data, &mut self.out).map_err(io::Error::other)?;
                return Poll::Ready(Ok(data.len()));
            }
            self.encoder.begin(data.len(), &mut self.out).map_err(io::Error::other)?;
            self.direct = data.len();
        }
        self.poll_write_direct(cx, data)
    }

    fn end(&mut self, trailers: &[u8]) -> io::Result<()> {
        self.gather();
        if !self.chunked {
            return self.encoder.end([], &mut self.out).map_err(io::Error::other);
        }
        let mut fields: Vec<Field> = Vec::new();
        if !trailers.is_empty() {
            body::parse_trailers(trailers, &mut fields).map_err(io::Error::other)?;
        }
        let fields = fields.iter().map(|field| (field.name.of(trailers), field.value.of(trailers)));
        self.encoder.end(fields, &mut self.out).map_err(io::Error::other)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            let count = ready!(self.stream.poll_write(cx, &[IoSlice::new(&self.out[self.sent..])]))?;
            self.sent += count;
            self.delivered += count as u64;
        }
        self.stream.poll_flush(cx)
    }
}

/// The other side ended in the middle of something.
pub(crate) fn is_cut_short(error: &SourceError) -> bool {
    matches!(error, SourceError::Io(_) | SourceError::Body(BodyError::Truncated))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;

    use super::*;
    use crate::buffer::Pool;

    /// Both ends of a connection; ours without a buffer.
    fn connected() -> (Wire, std::net::TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let theirs = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (ours, _) = listener.accept().expect("accepted");
        ours.set_nonblocking(true).expect("a socket");
        let ours = tokio::net::TcpStream::from_std(ours).expect("registered");
        (Wire::new(ours, Pool::new().none()), theirs)
    }

    #[tokio::test]
    async fn a_message_is_first_read_with_as_much_room_as_the_last_one_needed() {
        let (mut wire, mut theirs) = connected();
        for (size, room) in [(100, buffer::SMALL), (buffer::SMALL + 1, buffer::LARGE), (100, buffer::SMALL)] {
            theirs.write_all(&vec![b'x'; size]).expect("sent");
            let mut read = 0;
            while read < size {
                read += poll_fn(|cx| wire.poll_fill(cx, buffer::LARGE)).await.expect("it is there");
            }
            wire.take_counts();
            wire.buffer.release();
            wire.make_room();
            assert_eq!(wire.buffer.capacity(), room, "after {size} bytes");
        }
    }
}
