//! As much of HTTP/1.1 as both ends need: where a message ends, its status, whether the connection ends with it.
//! Knows no sockets; bytes come in pieces of any size. A message that makes no sense is an error, never a guess.

/// Header fields that a proxy may send; more is an error that shows.
const MAX_FIELDS: usize = 64;
/// Longest head.
const MAX_HEAD: usize = 64 * 1024;

/// The bytes are no HTTP/1.1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A complete message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// Of a response; 0 for a request.
    pub(crate) status: u16,
    /// Body bytes, without chunk framing.
    pub(crate) body: u64,
    /// The sender ends the connection after it.
    pub(crate) close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Requests,
    Responses,
}

/// Reads the messages that come on one connection, one after the other.
#[derive(Debug)]
pub(crate) struct Reader {
    side: Side,
    /// A head that has not all come yet.
    held: Vec<u8>,
    body: Body,
    message: Message,
}

#[derive(Debug)]
enum Body {
    /// Between messages, or in a head.
    Head,
    Length(u64),
    Chunks(Chunk),
    /// A response that the end of the connection ends.
    UntilClose,
}

/// Where in a chunked body.
#[derive(Debug)]
enum Chunk {
    Size(u64),
    Extension(u64),
    Data(u64),
    /// The line end after the data.
    DataEnd,
    /// In the trailer; whether the current line has anything on it.
    Trailer(bool),
}

const NOTHING: Message = Message { status: 0, body: 0, close: false };

impl Reader {
    pub(crate) fn new(side: Side) -> Self {
        Reader { side, held: Vec::new(), body: Body::Head, message: NOTHING }
    }

    /// Takes bytes up to the end of one message: how many were taken, and the message if that was its end.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<(usize, Option<Message>), Malformed> {
        let mut at = 0;
        if matches!(self.body, Body::Head) {
            match self.head(bytes)? {
                None => return Ok((bytes.len(), None)),
                Some(taken) => at = taken,
            }
        }
        let rest = &bytes[at..];
        let (taken, ended) = match &mut self.body {
            Body::Head => (0, false), // a 1xx head was skipped: the real one follows
            Body::Length(left) => {
                let taken = (*left).min(rest.len() as u64);
                *left -= taken;
                self.message.body += taken;
                (taken as usize, *left == 0)
            }
            Body::Chunks(chunk) => {
                let (taken, data, ended) = chunk.skip(rest)?;
                self.message.body += data;
                (taken, ended)
            }
            Body::UntilClose => {
                self.message.body += rest.len() as u64;
                (rest.len(), false)
            }
        };
        Ok((at + taken, ended.then(|| self.end())))
    }

    /// The connection ended: the message that ended with it, if it may end so.
    pub(crate) fn ended(&mut self) -> Option<Message> {
        matches!(self.body, Body::UntilClose).then(|| self.end())
    }

    fn end(&mut self) -> Message {
        self.body = Body::Head;
        std::mem::replace(&mut self.message, NOTHING)
    }

    /// Reads a head; how many of `bytes` belong to it, none when it is not complete.
    fn head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let before = self.held.len();
        if before == 0 {
            if let Some(length) = self.parse(bytes)? {
                return Ok(Some(length));
            }
            self.held.extend_from_slice(bytes);
        } else {
            self.held.extend_from_slice(bytes);
            let held = std::mem::take(&mut self.held);
            if let Some(length) = self.parse(&held)? {
                return Ok(Some(length - before));
            }
            self.held = held;
        }
        if self.held.len() > MAX_HEAD { Err(Malformed) } else { Ok(None) }
    }

    fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let (status, parsed, fields) = match self.side {
            Side::Requests => {
                let mut request = httparse::Request::new(&mut fields);
                let parsed = request.parse(bytes).map_err(|_| Malformed)?;
                (0, parsed, request.headers)
            }
            Side::Responses => {
                let mut response = httparse::Response::new(&mut fields);
                let parsed = response.parse(bytes).map_err(|_| Malformed)?;
                (response.code.unwrap_or(0), parsed, response.headers)
            }
        };
        let httparse::Status::Complete(length) = parsed else { return Ok(None) };
        if (100..200).contains(&status) {
            return Ok(Some(length)); // still Body::Head
        }
        let (mut size, mut chunked, mut close) = (None, false, false);
        for field in fields.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                let text = std::str::from_utf8(field.value).map_err(|_| Malformed)?;
                size = Some(text.trim().parse::<u64>().map_err(|_| Malformed)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                chunked = field.value.eq_ignore_ascii_case(b"chunked");
            } else if field.name.eq_ignore_ascii_case("connection") {
                close = field.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.message = Message { status, body: 0, close };
        self.body = match (chunked, size, self.side) {
            (true, ..) => Body::Chunks(Chunk::Size(0)),
            (false, Some(size), _) => Body::Length(size),
            (false, None, Side::Requests) => Body::Length(0),
            (false, None, Side::Responses) if status == 204 || status == 304 => Body::Length(0),
            (false, None, Side::Responses) => {
                self.message.close = true;
                Body::UntilClose
            }
        };
        Ok(Some(length))
    }
}

impl Chunk {
    /// Bytes taken, data bytes among them, whether the body has ended.
    fn skip(&mut self, bytes: &[u8]) -> Result<(usize, u64, bool), Malformed> {
        let (mut at, mut data) = (0, 0);
        while at < bytes.len() {
            if let Chunk::Data(left) = self {
                let taken = (*left).min((bytes.len() - at) as u64);
                *left -= taken;
                data += taken;
                at += taken as usize;
                if *left == 0 {
                    *self = Chunk::DataEnd;
                }
                continue;
            }
            let byte = bytes[at];
            at += 1;
            *self = match (&*self, byte) {
                (Chunk::Size(size) | Chunk::Extension(size), b'\n') => {
                    if *size == 0 {
                        Chunk::Trailer(false)
                    } else {
                        Chunk::Data(*size)
                    }
                }
                (Chunk::Size(size), b';' | b'\r' | b' ') | (Chunk::Extension(size), _) => {
                    Chunk::Extension(*size)
                }
                (Chunk::Size(size), digit) => {
                    let digit = char::from(digit).to_digit(16).ok_or(Malformed)?;
                    let size = size.checked_mul(16).ok_or(Malformed)?;
                    Chunk::Size(size + u64::from(digit))
                }
                (Chunk::DataEnd, b'\n') => Chunk::Size(0),
                (Chunk::DataEnd, b'\r') => Chunk::DataEnd,
                (Chunk::DataEnd, _) => return Err(Malformed),
                (Chunk::Trailer(false), b'\n') => return Ok((at, data, true)),
                (Chunk::Trailer(true), b'\n') => Chunk::Trailer(false),
                (Chunk::Trailer(some), b'\r') => Chunk::Trailer(*some),
                (Chunk::Trailer(_), _) => Chunk::Trailer(true),
                (Chunk::Data(_), _) => return Err(Malformed), // taken above
            };
        }
        Ok((at, data, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Everything that `bytes` hold, fed in pieces of `piece`.
    fn read(side: Side, bytes: &[u8], piece: usize) -> Result<Vec<Message>, Malformed> {
        let (mut reader, mut found) = (Reader::new(side), Vec::new());
        for piece in bytes.chunks(piece) {
            let mut rest = piece;
            while !rest.is_empty() {
                let (taken, message) = reader.feed(rest)?;
                found.extend(message);
                rest = &rest[taken..];
            }
        }
        found.extend(reader.ended());
        Ok(found)
    }

    #[test]
    fn messages_end_where_their_framing_says_in_pieces_of_any_size() {
        let responses: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 100 Continue\r\n\r\n\
            HTTP/1.1 404 Not Found\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n10;x=y\r\n0123456789abcdef\r\n0\r\nt: v\r\n\r\n\
            HTTP/1.1 204 No Content\r\nconnection: Close\r\n\r\nHTTP/1.1 200 OK\r\n\r\nrest";
        let message = |status, body, close| Message { status, body, close };
        let expected =
            [message(200, 5, false), message(404, 19, false), message(204, 0, true), message(200, 4, true)];
        for piece in [1, 2, 7, 64, 10_000] {
            assert_eq!(read(Side::Responses, responses, piece).as_deref(), Ok(&expected[..]), "{piece}");
        }
    }

    #[test]
    fn requests_without_length_have_no_body() {
        let requests = b"GET / HTTP/1.1\r\nhost: a\r\n\r\nPOST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nab";
        let read = read(Side::Requests, requests, 3).expect("two requests");
        assert_eq!(read.iter().map(|message| message.body).collect::<Vec<_>>(), [0, 2]);
    }

    #[test]
    fn what_is_no_http_is_refused() {
        for bytes in [
            &b"NONSENSE\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
        ] {
            assert_eq!(read(Side::Responses, bytes, 100), Err(Malformed));
        }
    }
}
