//! What must hold for any bytes whatever, shared by the fuzz targets and the stable tests.
//!
//! - The result does not depend on how the input is split, and a head is complete with its last byte.
//! - More bytes behind it never change a result.
//! - What is accepted is made of what RFC 9110 allows, all spans lie inside of the head.
//! - Written out again and read again it means the same.

use gateway_http1::body::{self, BodyError, ChunkedLimits, Decoder, Encoder, Frame};
use gateway_http1::head::Status;
use gateway_http1::request::{self, RequestHead};
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::write::HeadWriter;
use gateway_http1::{Field, Framing, KnownField, Limits, Method, ParseError};

/// Small, so that the limits are part of what is tested.
const LIMITS: Limits = Limits { max_head_bytes: 2048, max_target_bytes: 200, max_fields: 16 };
const CHUNKED: ChunkedLimits =
    ChunkedLimits { max_extension_bytes: 64, max_trailer_bytes: 256, max_trailer_fields: 4 };

/// Holds `data` to the rules of one of the three targets.
pub(crate) fn check(target: &str, data: &[u8]) {
    match target {
        "request" => request(data),
        "response" => response(data),
        "chunked" => chunked(data),
        other => panic!("no oracle is called {other}"),
    }
}

/// How inputs are cut: the ends of the pieces.
fn splits(len: usize) -> Vec<Vec<usize>> {
    let cuts = |step: usize| -> Vec<usize> { (1..=len / step).map(|i| i * step).chain([len]).collect() };
    let mut splits =
        vec![vec![len / 2, len], vec![len.min(1), len], vec![len.saturating_sub(1), len], cuts(7), cuts(64)];
    if len <= 1024 {
        splits.push(cuts(1));
    }
    splits
}

/// The result of feeding a parser ever longer prefixes, with how many bytes it had then.
fn feed<H>(
    data: &[u8],
    ends: &[usize],
    mut head: H,
    parse: impl Fn(&[u8], &mut H) -> Result<Status, ParseError>,
) -> (Result<Option<H>, ParseError>, usize) {
    for &end in ends {
        match parse(&data[..end], &mut head) {
            Ok(Status::Partial) => {}
            Ok(Status::Complete) => return (Ok(Some(head)), end),
            Err(error) => return (Err(error), end),
        }
    }
    (Ok(None), data.len())
}

/// Holds a head parser to the rules that both kinds of head share; the accepted head, if any.
fn head<H: Clone + Default + PartialEq + std::fmt::Debug>(
    data: &[u8],
    parse: impl Fn(&[u8], &mut H) -> Result<Status, ParseError>,
    len: impl Fn(&H) -> usize,
) -> Option<H> {
    let (whole, _) = feed(data, &[data.len()], H::default(), &parse);
    for ends in splits(data.len()) {
        let (result, seen) = feed(data, &ends, H::default(), &parse);
        assert_eq!(result, whole, "split at {ends:?}: {}", data.escape_ascii());
        // Byte by byte (the last end is there twice):
        if let (Ok(Some(head)), true) = (&result, ends.len() > data.len()) {
            assert_eq!(seen, len(head), "complete with its last byte: {}", data.escape_ascii());
        }
    }
    if !matches!(whole, Ok(None)) {
        let longer = [data, b"\r\n\r\nGET / HTTP/1.1\r\n\r\n"].concat();
        let (result, _) = feed(&longer, &[longer.len()], H::default(), &parse);
        assert_eq!(result, whole, "with more bytes: {}", data.escape_ascii());
    }
    whole.ok().flatten()
}

fn fields_are_clean(buf: &[u8], len: usize, fields: &[Field]) {
    assert!(buf[..len].ends_with(b"\r\n\r\n") && len <= LIMITS.max_head_bytes);
    assert!(fields.len() <= LIMITS.max_fields);
    for field in fields {
        let (name, value) = (field.name.of(buf), field.value.of(buf));
        assert!(field.name.end() < field.value.start() && field.value.end() < len);
        assert!(!name.is_empty() && name.iter().all(|b| b.is_ascii_graphic() && *b != b':'));
        assert!(value.iter().all(|b| *b >= 0x20 && *b != 0x7f || *b == b'\t'));
        assert_eq!(value.trim_ascii(), value);
        assert_eq!(field.known, KnownField::classify(name));
    }
}

/// Name, value, hop-by-hop; without the framing fields, which writers make anew.
type Texts<'a> = Vec<(&'a [u8], &'a [u8], bool)>;

fn texts<'a>(buf: &'a [u8], fields: &[Field]) -> Texts<'a> {
    let kept = fields.iter().filter(|field| !field.known.is_framing());
    kept.map(|field| (field.name.of(buf), field.value.of(buf), field.is_hop_by_hop())).collect()
}

/// Any bytes as a request.
fn request(data: &[u8]) {
    let parse = |buf: &[u8], head: &mut RequestHead| request::parse(buf, &LIMITS, head);
    let Some(head) = head(data, parse, |head| head.len) else { return };
    fields_are_clean(data, head.len, &head.fields);
    let (method, target) = (head.method_span.of(data), head.target.span.of(data));
    assert_eq!(Method::from_bytes(method), head.method);
    assert!(
        target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') && target.len() <= LIMITS.max_target_bytes
    );
    let codings = head.fields.iter().filter(|f| f.known == KnownField::TransferEncoding).count();
    let lengths = head.fields.iter().filter(|f| f.known == KnownField::ContentLength).count();
    match head.framing {
        Framing::None => assert_eq!((codings, lengths), (0, 0)),
        Framing::Length(_) => assert_eq!((codings, lengths), (0, 1)),
        Framing::Chunked => assert_eq!((codings, lengths), (1, 0)),
        Framing::UntilClose => panic!("a request never runs until the close"),
    }

    let mut out = Vec::new();
    let mut writer =
        HeadWriter::request(&mut out, method, target, None).expect("a parsed request can be written");
    head.fields.iter().for_each(|field| writer.parsed(data, field));
    writer.framing(head.framing);
    writer.finish();
    let mut again = RequestHead::new();
    let limits = Limits { max_head_bytes: 2 * LIMITS.max_head_bytes, ..LIMITS };
    assert_eq!(request::parse(&out, &limits, &mut again), reparsed(&head), "{}", out.escape_ascii());
    if head.version == gateway_http1::Version::Http10 {
        return; // written as 1.1: whether a host is needed and the connection persists differs
    }
    assert_eq!(again.method_span.of(&out), method);
    assert_eq!(again.target.span.of(&out), target);
    assert_eq!(texts(&out, &again.fields), texts(data, &head.fields));
    assert_eq!(again.authority.of(&out), head.authority.of(data));
    let flags = |head: &RequestHead| {
        (head.framing, head.keep_alive, head.expect_continue, head.accepts_trailers, head.upgrade.is_some())
    };
    assert_eq!(flags(&again), flags(&head));
}

/// A request that was accepted is accepted again; one of HTTP/1.0 may lack the host that 1.1 needs.
fn reparsed(head: &RequestHead) -> Result<Status, ParseError> {
    let host = head.fields.iter().any(|field| field.known == KnownField::Host);
    if host { Ok(Status::Complete) } else { Err(ParseError::HostMissing) }
}

/// Any bytes as a response to a request of the method that the first byte chooses.
fn response(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let method = [Method::Get, Method::Head, Method::Connect][usize::from(*first) % 3];
    let parse = |buf: &[u8], head: &mut ResponseHead| response::parse(buf, &LIMITS, method, head);
    let Some(head) = head(data, parse, |head| head.len) else { return };
    fields_are_clean(data, head.len, &head.fields);
    assert!((100..=999).contains(&head.status));
    assert!(head.reason.end() < head.len && !head.reason.of(data).contains(&b'\r'));
    assert!(!head.keep_alive || head.framing != Framing::UntilClose);
    if !gateway_http1::write::has_body(method, head.status) {
        assert_eq!(head.framing, Framing::None);
    }

    let mut out = Vec::new();
    let mut writer = HeadWriter::response(&mut out, head.status).expect("a parsed status can be written");
    head.fields.iter().for_each(|field| writer.parsed(data, field));
    writer.framing(head.content_length.map_or(head.framing, Framing::Length));
    writer.finish();
    let mut again = ResponseHead::new();
    let limits = Limits { max_head_bytes: 2 * LIMITS.max_head_bytes, ..LIMITS };
    assert_eq!(response::parse(&out, &limits, method, &mut again), Ok(Status::Complete));
    assert_eq!(texts(&out, &again.fields), texts(data, &head.fields));
    let meaning =
        |head: &ResponseHead| (head.status, head.framing, head.content_length, head.interim, head.tunnel);
    assert_eq!(meaning(&again), meaning(&head));
}

/// What a decoder made of an input.
#[derive(Debug, PartialEq)]
struct Decoded {
    data: Vec<u8>,
    /// The trailer section and all bytes consumed, once the body is over.
    end: Result<Option<(Vec<u8>, usize)>, BodyError>,
}

/// Decodes like a connection does: what was not consumed stays in the buffer in front of the next piece.
fn decode(data: &[u8], ends: &[usize], framing: Framing, limits: ChunkedLimits) -> Decoded {
    let mut decoder = Decoder::new(framing, limits);
    let (mut out, mut consumed) = (Vec::new(), 0);
    for &end in ends {
        loop {
            let buf = &data[consumed..end];
            let frame = match decoder.decode(buf) {
                Ok(frame) => frame,
                Err(error) => return Decoded { data: out, end: Err(error) },
            };
            consumed += frame.consumed();
            match frame {
                Frame::Data(range) => {
                    assert!(!range.is_empty());
                    out.extend_from_slice(&buf[range]);
                }
                Frame::End { trailers, .. } => {
                    assert!(decoder.is_done());
                    return Decoded { data: out, end: Ok(Some((buf[trailers].to_vec(), consumed))) };
                }
                Frame::NeedMore { .. } => break,
            }
        }
    }
    assert!(!decoder.is_done());
    Decoded { data: out, end: Ok(None) }
}

/// Any bytes as a chunked body, and as bodies of the other framings.
fn chunked(data: &[u8]) {
    let framings = [Framing::Chunked, Framing::Length(data.len() as u64 / 2 + 1), Framing::UntilClose];
    for framing in framings {
        let whole = decode(data, &[data.len()], framing, CHUNKED);
        for ends in splits(data.len()) {
            assert_eq!(decode(data, &ends, framing, CHUNKED), whole, "{ends:?}: {}", data.escape_ascii());
        }
    }
    let Decoded { data: body, end: Ok(Some((section, _))) } =
        decode(data, &[data.len()], Framing::Chunked, CHUNKED)
    else {
        return;
    };
    let mut fields = Vec::new();
    body::parse_trailers(&section, &mut fields).expect("the decoder checked the section");
    let trailers: Vec<(&[u8], &[u8])> =
        fields.iter().map(|field| (field.name.of(&section), field.value.of(&section))).collect();
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Chunked);
    for piece in body.chunks(33) {
        encoder.data(piece, &mut out).expect("chunks have no length to exceed");
    }
    encoder.end(trailers.iter().copied(), &mut out).expect("parsed trailers can be written");
    // Writing puts a space behind every colon, which may take the section over the limit.
    let limits = ChunkedLimits { max_trailer_bytes: 2 * CHUNKED.max_trailer_bytes, ..CHUNKED };
    let again = decode(&out, &[out.len()], Framing::Chunked, limits);
    assert_eq!(again.data, body);
    let Ok(Some((section, consumed))) = again.end else { panic!("{:?}: {}", again.end, out.escape_ascii()) };
    assert_eq!(consumed, out.len());
    let mut fields = Vec::new();
    body::parse_trailers(&section, &mut fields).expect("the decoder checked the section");
    let written: Vec<(&[u8], &[u8])> =
        fields.iter().map(|field| (field.name.of(&section), field.value.of(&section))).collect();
    assert_eq!(written, trailers);
}
