//! Bodies by table, and the decoder against the encoder. Splits are the property tests' business
//! (`tests/wire`).

use super::*;
use crate::{Field, KnownField};

/// Everything a decoder says about `input`: data, trailer section, bytes consumed.
fn decode_all(decoder: &mut Decoder, input: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
    let (mut data, mut at) = (Vec::new(), 0);
    loop {
        let rest = &input[at..];
        let frame = decoder.decode(rest)?;
        at += frame.consumed();
        match frame {
            Frame::Data(range) => data.extend_from_slice(&rest[range]),
            Frame::End { trailers, .. } => return Ok((data, rest[trailers].to_vec(), at)),
            Frame::NeedMore { .. } => return Err(BodyError::Truncated),
        }
    }
}

fn chunked(input: &[u8]) -> Result<(Vec<u8>, Vec<u8>, usize), BodyError> {
    decode_all(&mut Decoder::new(Framing::Chunked, ChunkedLimits::default()), input)
}

#[test]
fn well_formed_chunked_bodies_are_read_to_their_end() {
    for (input, data, trailers) in [
        ("0\r\n\r\n", "", ""),
        ("5\r\nhello\r\n0\r\n\r\n", "hello", ""),
        ("5\r\nhello\r\n00000006\r\n world\r\n000\r\n\r\n", "hello world", ""),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789", ""),
        ("1;a\r\nx\r\n0;last\r\n\r\n", "x", ""),
        ("1;a=b;c=\"d;\\\"\\r e\t\u{e4}\";f\r\nx\r\n0\r\n\r\n", "x", ""),
        ("2\r\n\r\n\r\n0\r\n\r\n", "\r\n", ""),
        ("0\r\nA: b\r\nC:\r\n\r\n", "", "A: b\r\nC:\r\n\r\n"),
    ] {
        let followed = format!("{input}GET / HTTP/1.1\r\n\r\n");
        let want = (data.as_bytes().to_vec(), trailers.as_bytes().to_vec(), input.len());
        assert_eq!(chunked(followed.as_bytes()), Ok(want), "{input:?}");
    }
}

#[test]
fn bodies_that_two_readers_could_read_differently_are_refused() {
    use BodyError::{ChunkExtension, ChunkSize, LineEnd, Trailers};
    let cases: &[(&[u8], BodyError)] = &[
        (b"\r\n", ChunkSize),
        (b";a\r\n", ChunkSize),
        (b"+5\r\nhello\r\n", ChunkSize),
        (b"-5\r\nhello\r\n", ChunkSize),
        (b"0x5\r\nhello\r\n", ChunkSize),
        (b" 5\r\nhello\r\n", ChunkSize),
        (b"5 \r\nhello\r\n", ChunkSize),
        (b"5\t\r\nhello\r\n", ChunkSize),
        (b"5\nhello\n0\n\n", ChunkSize),
        (b"5_0\r\n", ChunkSize),
        (b"g\r\n", ChunkSize),
        (b"\0\r\n", ChunkSize),
        (b"00000000000000005\r\nhello\r\n", ChunkSize),
        (b"10000000000000005\r\nhello\r\n", ChunkSize),
        (b"5\rhello\r\n", LineEnd),
        (b"5\r\nhello0\r\n\r\n", LineEnd),
        (b"5\r\nhello\n0\r\n\r\n", LineEnd),
        (b"5\r\nhello\r0\r\n\r\n", LineEnd),
        (b"5\r\nhelloXX0\r\n\r\n", LineEnd),
        (b"5;\r\nhello\r\n", ChunkExtension),
        (b"5;a\nhello\r\n", ChunkExtension),
        (b"5;a=\r\nhello\r\n", ChunkExtension),
        (b"5;a=\"b\r\nhello\r\n", ChunkExtension),
        (b"5;a=\"b\"c\r\nhello\r\n", ChunkExtension),
        (b"5; a\r\nhello\r\n", ChunkExtension),
        (b"5;a =b\r\nhello\r\n", ChunkExtension),
        (b"5;a=b \r\nhello\r\n", ChunkExtension),
        (b"5;a=b\0\r\nhello\r\n", ChunkExtension),
        (b"5;a\xc3\xa4\r\nhello\r\n", ChunkExtension),
        (b"5;a\rb\r\nhello\r\n", LineEnd),
        (b"0\r\n\n", Trailers),
        (b"0\r\nA: b\n\r\n", Trailers),
        (b"0\r\nA : b\r\n\r\n", Trailers),
        (b"0\r\n: b\r\n\r\n", Trailers),
        (b"0\r\nA: b\r\n c\r\n\r\n", Trailers),
        (b"0\r\nA\r\n\r\n", Trailers),
        (b"0\r\nA: \0\r\n\r\n", Trailers),
        (b"0\r\nContent-Length: 5\r\n\r\n", BodyError::TrailerForbidden),
        (b"0\r\ntransfer-encoding: chunked\r\n\r\n", BodyError::TrailerForbidden),
        (b"0\r\nA: b\r\nHost: x\r\n\r\n", BodyError::TrailerForbidden),
    ];
    for &(input, error) in cases {
        assert_eq!(chunked(input), Err(error), "{}", input.escape_ascii());
    }
}

#[test]
fn a_size_of_sixteen_digits_is_a_size() {
    let mut decoder = Decoder::new(Framing::Chunked, ChunkedLimits::default());
    assert_eq!(decoder.decode(b"ffffffffffffffff\r\nx"), Ok(Frame::Data(18..19)));
    assert_eq!(decoder.data_left(), u64::MAX - 1);
}

#[test]
fn extensions_are_bounded_over_the_whole_body() {
    let limits = ChunkedLimits { max_extension_bytes: 6, ..ChunkedLimits::default() };
    let decode = |input: &[u8]| decode_all(&mut Decoder::new(Framing::Chunked, limits), input);
    assert!(decode(b"1;a\r\nx\r\n1;b\r\ny\r\n0;c\r\n\r\n").is_ok(), "name and CR count: 2 + 2 + 2");
    let error = Err(BodyError::ChunkExtensionsTooLarge);
    assert_eq!(decode(b"1;a\r\nx\r\n1;b\r\ny\r\n0;cc\r\n\r\n"), error);
}

#[test]
fn the_trailer_section_is_bounded_in_bytes_and_in_fields() {
    let limits = ChunkedLimits { max_trailer_bytes: 16, max_trailer_fields: 2, ..ChunkedLimits::default() };
    let decode = |input: &[u8]| decode_all(&mut Decoder::new(Framing::Chunked, limits), input);
    assert!(decode(b"0\r\na: bcdefghij\r\n\r\n").is_ok(), "16 bytes");
    assert_eq!(decode(b"0\r\na: bcdefghijk\r\n\r\n"), Err(BodyError::TrailersTooLarge));
    assert!(decode(b"0\r\na:b\r\nc:d\r\n\r\n").is_ok());
    assert_eq!(decode(b"0\r\na:\r\nb:\r\nc:\r\n\r\n"), Err(BodyError::TrailersTooLarge));
}

#[test]
fn a_trailer_section_waits_in_the_buffer_until_it_is_whole() {
    let mut decoder = Decoder::new(Framing::Chunked, ChunkedLimits::default());
    assert_eq!(decoder.decode(b"1\r\nx\r\n0\r\nA: "), Ok(Frame::Data(3..4)));
    assert_eq!(decoder.decode(b"\r\n0\r\nA: "), Ok(Frame::NeedMore { consumed: 5 }));
    assert_eq!(decoder.decode(b"A: b\r\n\r"), Ok(Frame::NeedMore { consumed: 0 }));
    assert!(!decoder.is_done());
    assert_eq!(decoder.decode(b"A: b\r\n\r\nmore"), Ok(Frame::End { trailers: 0..8, consumed: 8 }));
    assert!(decoder.is_done());
    assert_eq!(decoder.decode(b"more"), Ok(Frame::End { trailers: 0..0, consumed: 0 }));
}

#[test]
fn forbidden_trailers_are_dropped_and_others_are_read() {
    let section = b"Grpc-Status: 0\r\nAuthorization: x\r\nSet-Cookie: y\r\nX-Checksum:\tz \r\n\r\n";
    let mut fields = vec![Field {
        name: crate::Span::EMPTY,
        value: crate::Span::EMPTY,
        known: KnownField::Other,
        nominated: true,
        usual: false,
    }];
    parse_trailers(section, &mut fields).unwrap();
    let texts: Vec<(&[u8], &[u8])> =
        fields.iter().map(|field| (field.name.of(section), field.value.of(section))).collect();
    assert_eq!(texts, [(&b"Grpc-Status"[..], &b"0"[..]), (b"X-Checksum", b"z")]);
    parse_trailers(b"", &mut fields).unwrap();
    assert!(fields.is_empty());
}

#[test]
fn a_length_is_read_exactly_and_the_rest_is_left() {
    let mut decoder = Decoder::new(Framing::Length(5), ChunkedLimits::default());
    assert_eq!(decoder.decode(b""), Ok(Frame::NeedMore { consumed: 0 }));
    assert_eq!(decoder.decode(b"hel"), Ok(Frame::Data(0..3)));
    assert_eq!((decoder.data_left(), decoder.is_done()), (2, false));
    assert_eq!(decoder.clone().finish(), Err(BodyError::Truncated));
    assert_eq!(decoder.decode(b"loGET"), Ok(Frame::Data(0..2)));
    assert!(decoder.is_done());
    assert_eq!(decoder.decode(b"GET"), Ok(Frame::End { trailers: 0..0, consumed: 0 }));
    assert_eq!(decoder.finish(), Ok(()));
}

#[test]
fn a_body_until_the_close_ends_when_told_so() {
    let mut decoder = Decoder::new(Framing::UntilClose, ChunkedLimits::default());
    assert_eq!(decoder.decode(b"abc"), Ok(Frame::Data(0..3)));
    assert_eq!(decoder.decode(b""), Ok(Frame::NeedMore { consumed: 0 }));
    assert!(!decoder.is_done());
    assert_eq!(decoder.finish(), Ok(()));
    assert_eq!(decoder.decode(b""), Ok(Frame::End { trailers: 0..0, consumed: 0 }));
}

#[test]
fn messages_without_a_body_are_done_at_once() {
    for framing in [Framing::None, Framing::Length(0)] {
        let mut decoder = Decoder::new(framing, ChunkedLimits::default());
        assert!(decoder.is_done());
        assert_eq!(decoder.decode(b"GET"), Ok(Frame::End { trailers: 0..0, consumed: 0 }));
    }
}

#[test]
fn an_unfinished_chunked_body_is_truncated() {
    let whole = b"5\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for end in 0..whole.len() {
        let mut decoder = Decoder::new(Framing::Chunked, ChunkedLimits::default());
        assert_eq!(decode_all(&mut decoder, &whole[..end]), Err(BodyError::Truncated), "{end}");
        assert_eq!(decoder.finish(), Err(BodyError::Truncated), "{end}");
    }
}

#[test]
fn chunks_are_written_as_they_are_read() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Chunked);
    for len in [0usize, 1, 9, 10, 15, 16, 255, 256, 65_536] {
        encoder.data(&vec![b'x'; len], &mut out).unwrap();
    }
    encoder.end([(&b"A"[..], &b"b"[..])], &mut out).unwrap();
    assert!(out.starts_with(b"1\r\nx\r\n9\r\nxxxxxxxxx\r\na\r\n"), "an empty piece is no chunk");
    let (data, trailers, consumed) = chunked(&out).unwrap();
    assert_eq!((data.len(), consumed), (1 + 9 + 10 + 15 + 16 + 255 + 256 + 65_536, out.len()));
    assert_eq!(trailers, b"A: b\r\n\r\n");
}

#[test]
fn an_encoder_holds_the_body_to_what_was_announced() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Length(3));
    encoder.data(b"ab", &mut out).unwrap();
    assert_eq!(encoder.clone().end([], &mut out), Err(EncodeError::TooShort));
    assert_eq!(encoder.data(b"cd", &mut out), Err(EncodeError::TooLong));
    encoder.data(b"c", &mut out).unwrap();
    encoder.end([(&b"dropped"[..], &b""[..])], &mut out).unwrap();
    assert_eq!(out, b"abc");
    assert_eq!(encoder.data(b"d", &mut out), Err(EncodeError::TooLong), "after the end");
    assert_eq!(Encoder::new(Framing::None).data(b"x", &mut out), Err(EncodeError::TooLong));
    let mut until_close = Encoder::new(Framing::UntilClose);
    until_close.data(b"d", &mut out).unwrap();
    until_close.end([], &mut out).unwrap();
    assert_eq!(out, b"abcd");
}

#[test]
fn a_malformed_trailer_is_not_written() {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(Framing::Chunked);
    let end = encoder.end([(&b"ok"[..], &b"1"[..]), (b"a", b"b\r\nc: d")], &mut out);
    assert_eq!(end, Err(EncodeError::Trailer(crate::write::WriteError::Value)));
    assert!(out.is_empty());
}
