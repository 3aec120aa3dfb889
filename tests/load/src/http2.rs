//! As much of an HTTP/2 client as GET requests need (RFC 9113): prebuilt header blocks, frames counted and skipped.
//! Field names and values go into the server's dynamic table with the first request of a connection and are named by
//! index after that, as real clients do. Responses are read for their `:status`, their length and their end.

use crate::http1::Malformed;
use crate::traffic::FIELDS;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

const FRAME_HEAD: usize = 9;
/// Window of the connection, kept between half of this and all of it.
const WINDOW: u32 = 1 << 30;
const DEFAULT_WINDOW: u32 = 65_535;
/// Window of each stream: responses of the benchmark fit.
const STREAM_WINDOW: u32 = 16 << 20;
/// Largest frame that a server may send us (we do not ask for more than the default).
const MAX_FRAME: usize = 16_384;

/// A response, or what came instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// What [`Session::request`] was given.
    pub(crate) due: u64,
    pub(crate) status: u16,
    pub(crate) body: u64,
    /// False: the stream was reset.
    pub(crate) complete: bool,
}

#[derive(Debug)]
struct Stream {
    id: u32,
    due: u64,
    status: u16,
    body: u64,
}

/// One connection's state.
#[derive(Debug)]
pub(crate) struct Session {
    next: u32,
    open: Vec<Stream>,
    /// A frame that has not all come yet.
    held: Vec<u8>,
    /// Bytes of DATA since the connection's window was last raised.
    received: u32,
    leaving: bool,
}

impl Session {
    /// A new connection; what it begins with goes to `out`.
    pub(crate) fn new(out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut settings = Vec::new();
        for (name, value) in [(2_u16, 0_u32), (4, STREAM_WINDOW)] {
            settings.extend_from_slice(&name.to_be_bytes()); // 2: no push, 4: initial window
            settings.extend_from_slice(&value.to_be_bytes());
        }
        frame(out, SETTINGS, 0, 0, &settings);
        frame(out, WINDOW_UPDATE, 0, 0, &(WINDOW - DEFAULT_WINDOW).to_be_bytes());
        Session { next: 1, open: Vec::new(), held: Vec::new(), received: 0, leaving: false }
    }

    /// Sends GET / on a new stream.
    pub(crate) fn request(&mut self, due: u64, out: &mut Vec<u8>) {
        let flags = END_STREAM | END_HEADERS;
        if self.next == 1 {
            frame(out, HEADERS, flags, self.next, &first_block());
        } else {
            frame(out, HEADERS, flags, self.next, &next_block());
        }
        self.open.push(Stream { id: self.next, due, status: 0, body: 0 });
        self.next += 2;
    }

    /// The due times of what has not been answered.
    pub(crate) fn unanswered(&self) -> impl Iterator<Item = u64> + '_ {
        self.open.iter().map(|stream| stream.due)
    }

    /// The server takes no more requests on this connection.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving
    }

    /// Takes bytes; answers that the protocol demands go to `out`, finished requests to `finished`.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        finished: &mut Vec<Finished>,
    ) -> Result<(), Malformed> {
        if self.held.is_empty() {
            let taken = self.frames(bytes, out, finished)?;
            self.held.extend_from_slice(&bytes[taken..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let taken = self.frames(&held, out, finished)?;
            held.drain(..taken);
            self.held = held;
        }
        Ok(())
    }

    fn frames(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        finished: &mut Vec<Finished>,
    ) -> Result<usize, Malformed> {
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + FRAME_HEAD) {
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            if length > MAX_FRAME {
                return Err(Malformed);
            }
            let Some(payload) = bytes.get(at + FRAME_HEAD..at + FRAME_HEAD + length) else { break };
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
            self.frame(Frame { kind: head[3], flags: head[4], id, payload }, out, finished)?;
            at += FRAME_HEAD + length;
        }
        Ok(at)
    }

    fn frame(
        &mut self,
        read: Frame<'_>,
        out: &mut Vec<u8>,
        finished: &mut Vec<Finished>,
    ) -> Result<(), Malformed> {
        match read.kind {
            SETTINGS if read.flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
            PING if read.flags & ACK == 0 => frame(out, PING, ACK, 0, read.payload),
            GOAWAY => self.leaving = true,
            RST_STREAM => self.finish(read.id, false, finished),
            HEADERS => {
                let status = status(read.content()?);
                if let Some(stream) = self.open.iter_mut().find(|stream| stream.id == read.id)
                    && stream.status == 0
                {
                    stream.status = status; // what follows later are trailers
                }
                if read.flags & END_STREAM != 0 {
                    self.finish(read.id, true, finished);
                }
            }
            DATA => {
                self.received += read.payload.len() as u32;
                if self.received >= WINDOW / 2 {
                    frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
                    self.received = 0;
                }
                let count = read.content()?.len() as u64;
                if let Some(stream) = self.open.iter_mut().find(|stream| stream.id == read.id) {
                    stream.body += count;
                }
                if read.flags & END_STREAM != 0 {
                    self.finish(read.id, true, finished);
                }
            }
            _ => {} // acknowledgements, windows for what we do not send, continuations of fields we do not read
        }
        Ok(())
    }

    fn finish(&mut self, id: u32, complete: bool, finished: &mut Vec<Finished>) {
        if let Some(index) = self.open.iter().position(|stream| stream.id == id) {
            let Stream { due, status, body, .. } = self.open.swap_remove(index);
            finished.push(Finished { due, status, body, complete });
        }
    }
}

struct Frame<'a> {
    kind: u8,
    flags: u8,
    id: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The payload without padding and priority.
    fn content(&self) -> Result<&'a [u8], Malformed> {
        let (mut start, mut end) = (0, self.payload.len());
        if self.flags & PADDED != 0 {
            end = end.checked_sub(usize::from(*self.payload.first().ok_or(Malformed)?)).ok_or(Malformed)?;
            start = 1;
        }
        if self.kind == HEADERS && self.flags & PRIORITY != 0 {
            start += 5;
        }
        self.payload.get(start..end).ok_or(Malformed)
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let [_, length @ ..] = (payload.len() as u32).to_be_bytes();
    out.extend_from_slice(&length);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// The status of a response that begins, as every server does, with the static table's entry for it
/// (RFC 7541, appendix A: 8 is 200, 9 is 204, …), after changes of the table's size; else 0.
fn status(mut block: &[u8]) -> u16 {
    while let [0x20..=0x3f, rest @ ..] = block {
        block = rest;
    }
    match block.first() {
        Some(0x88) => 200,
        Some(index @ 0x89..=0x8e) => [204, 206, 304, 400, 404, 500][usize::from(index - 0x89)],
        _ => 0,
    }
}

/// `:method GET`, `:scheme https`, `:path /` by the static table.
const STATIC: [u8; 3] = [0x82, 0x87, 0x84];

/// The first request's block: `:authority` (static name 1) and every field as new entries of the dynamic table.
fn first_block() -> Vec<u8> {
    let mut block = STATIC.to_vec();
    let text = |block: &mut Vec<u8>, text: &str| {
        block.push(text.len() as u8); // all are below 127 bytes: one byte of length, no Huffman coding
        block.extend_from_slice(text.as_bytes());
    };
    block.push(0x41);
    text(&mut block, "localhost");
    for (name, value) in FIELDS {
        block.push(0x40);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// Every later one: the same entries by index; the newest entry has the lowest, 62.
fn next_block() -> [u8; STATIC.len() + 1 + FIELDS.len()] {
    let mut block = [0; STATIC.len() + 1 + FIELDS.len()];
    block[..STATIC.len()].copy_from_slice(&STATIC);
    for (position, byte) in block[STATIC.len()..].iter_mut().enumerate() {
        *byte = 0x80 | (62 + (FIELDS.len() - position) as u8);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(id: u32, status: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame(&mut bytes, HEADERS, END_HEADERS, id, &[0x20, status, 0x61, 0x01, b'x']);
        frame(&mut bytes, DATA, PADDED, id, &[&[2], body, &[0, 0]].concat());
        frame(&mut bytes, DATA, END_STREAM, id, body);
        bytes
    }

    #[test]
    fn responses_are_matched_to_their_requests_in_pieces_of_any_size() {
        let mut bytes = Vec::new();
        frame(&mut bytes, SETTINGS, 0, 0, &[]);
        frame(&mut bytes, PING, 0, 0, b"12345678");
        bytes.extend(response(3, 0x88, b"abc"));
        bytes.extend(response(1, 0x8d, b""));
        frame(&mut bytes, RST_STREAM, 0, 5, &[0; 4]);
        frame(&mut bytes, GOAWAY, 0, 0, &[0; 8]);
        for piece in [1, 5, 9, 1000] {
            let (mut out, mut finished) = (Vec::new(), Vec::new());
            let mut session = Session::new(&mut out);
            [10, 11, 12, 13].into_iter().for_each(|due| session.request(due, &mut out));
            out.clear();
            for piece in bytes.chunks(piece) {
                session.feed(piece, &mut out, &mut finished).expect("well formed");
            }
            let all: Vec<_> = finished.iter().map(|it| (it.due, it.status, it.body, it.complete)).collect();
            assert_eq!(all, [(11, 200, 6, true), (10, 404, 0, true), (12, 0, 0, false)], "{piece}");
            assert_eq!(session.unanswered().collect::<Vec<_>>(), [13]);
            assert!(session.is_leaving());
            let mut answers = Vec::new();
            frame(&mut answers, SETTINGS, ACK, 0, &[]);
            frame(&mut answers, PING, ACK, 0, b"12345678");
            assert_eq!(out, answers);
        }
    }

    #[test]
    fn the_connection_window_is_raised_before_it_is_used_up() {
        let (mut out, mut finished) = (Vec::new(), Vec::new());
        let mut session = Session::new(&mut out);
        out.clear();
        let mut data = Vec::new();
        frame(&mut data, DATA, 0, 1, &[0; MAX_FRAME]);
        for _ in 0..WINDOW / 2 / MAX_FRAME as u32 {
            session.feed(&data, &mut out, &mut finished).expect("well formed");
        }
        let mut raised = Vec::new();
        frame(&mut raised, WINDOW_UPDATE, 0, 0, &(WINDOW / 2).to_be_bytes());
        assert_eq!(out, raised);
    }

    #[test]
    fn oversized_frames_and_padding_are_refused() {
        let (mut out, mut finished) = (Vec::new(), Vec::new());
        for bytes in [&[1, 0, 0, DATA, 0, 0, 0, 0, 1][..], &[0, 0, 1, DATA, PADDED, 0, 0, 0, 1, 9]] {
            let mut session = Session::new(&mut out);
            assert_eq!(session.feed(bytes, &mut out, &mut finished), Err(Malformed));
        }
    }
}
