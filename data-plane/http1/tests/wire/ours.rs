//! Whole messages through our codec, in a shape that hyper's reading can be compared with.

use std::collections::BTreeMap;

use gateway_http1::body::{self, BodyError, ChunkedLimits, Decoder, Frame};
use gateway_http1::head::Status;
use gateway_http1::request::{self, RequestHead};
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::{Field, Framing, Limits, Method, ParseError, Span, Version};

/// Names in lower case with their values in order, which is all that a `HeaderMap` keeps.
pub(crate) type Fields = BTreeMap<String, Vec<Vec<u8>>>;

/// A message and its whole body.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Seen {
    /// Method, authority, path and query, or status; and the version.
    pub(crate) start: Vec<String>,
    pub(crate) fields: Fields,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

/// Why reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Between two messages.
    Idle,
    /// Inside of a message.
    Partial,
    /// The last message does not allow another one.
    Close,
    Head(ParseError),
    Body(BodyError),
}

fn text(buf: &[u8], span: Span) -> String {
    String::from_utf8_lossy(span.of(buf)).into_owned()
}

fn fields(buf: &[u8], fields: &[Field]) -> Fields {
    let mut map = Fields::new();
    for field in fields {
        let values = map.entry(text(buf, field.name).to_ascii_lowercase()).or_default();
        values.push(field.value.of(buf).to_vec());
    }
    map
}

fn version(version: Version) -> String {
    match version {
        Version::Http10 => "HTTP/1.0".into(),
        Version::Http11 => "HTTP/1.1".into(),
    }
}

/// Reads the body at `buf` into `seen`; how much of `buf` it took. `eof`: nothing follows `buf`.
fn read_body(buf: &[u8], framing: Framing, eof: bool, seen: &mut Seen) -> Result<usize, Stop> {
    let mut decoder = Decoder::new(framing, ChunkedLimits::default());
    let mut at = 0;
    loop {
        let rest = &buf[at..];
        let frame = decoder.decode(rest).map_err(Stop::Body)?;
        at += frame.consumed();
        match frame {
            Frame::Data(range) => seen.body.extend_from_slice(&rest[range]),
            Frame::End { trailers, .. } => {
                let section = &rest[trailers];
                let mut found = Vec::new();
                body::parse_trailers(section, &mut found).map_err(Stop::Body)?;
                seen.trailers = fields(section, &found);
                return Ok(at);
            }
            Frame::NeedMore { .. } if eof => return decoder.finish().map(|()| at).map_err(Stop::Body),
            Frame::NeedMore { .. } => return Err(Stop::Partial),
        }
    }
}

/// All requests of a connection that stays open.
pub(crate) fn requests(input: &[u8]) -> (Vec<Seen>, Stop) {
    let (mut messages, mut at, mut head) = (Vec::new(), 0, RequestHead::new());
    while at < input.len() {
        let buf = &input[at..];
        match request::parse(buf, &Limits::default(), &mut head) {
            Ok(Status::Complete) => {}
            Ok(Status::Partial) => return (messages, Stop::Partial),
            Err(error) => return (messages, Stop::Head(error)),
        }
        let target = &head.target;
        let path = if target.path.is_empty() && target.form == gateway_http1::target::Form::Absolute {
            "/".into()
        } else {
            text(buf, target.path)
        };
        let start = vec![
            text(buf, head.method_span),
            text(buf, target.authority),
            path,
            target.query.map_or("none".into(), |query| text(buf, query)),
            version(head.version),
        ];
        let mut seen = Seen { start, fields: fields(buf, &head.fields), ..Seen::default() };
        match read_body(&buf[head.len..], head.framing, false, &mut seen) {
            Ok(len) => at += head.len + len,
            Err(stop) => return (messages, stop),
        }
        messages.push(seen);
        if !head.keep_alive {
            return (messages, Stop::Close);
        }
    }
    (messages, Stop::Idle)
}

/// The final response on a connection that ends behind `input`.
pub(crate) fn response(input: &[u8], method: Method) -> Result<Seen, Stop> {
    let (mut at, mut head) = (0, ResponseHead::new());
    loop {
        let buf = &input[at..];
        match response::parse(buf, &Limits::default(), method, &mut head) {
            Ok(Status::Complete) => {}
            Ok(Status::Partial) => return Err(Stop::Partial),
            Err(error) => return Err(Stop::Head(error)),
        }
        at += head.len;
        if head.interim {
            continue;
        }
        let start = vec![head.status.to_string(), version(head.version)];
        let mut seen = Seen { start, fields: fields(buf, &head.fields), ..Seen::default() };
        if !head.tunnel {
            read_body(&input[at..], head.framing, true, &mut seen)?;
        }
        return Ok(seen);
    }
}
