//! Properties over generated messages: the oracle of the fuzz targets (every split the same, more bytes
//! change nothing, written and read again the same), and what is written is read back.

use gateway_http1::body::{ChunkedLimits, Decoder, Encoder, Frame};
use gateway_http1::head::Status;
use gateway_http1::request::{self, RequestHead};
use gateway_http1::write::HeadWriter;
use gateway_http1::{Framing, Limits, Method};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use crate::{generate, oracle, ours};

proptest! {
    #![proptest_config(generate::cases(40_000))]

    #[test]
    fn a_request_means_the_same_in_every_split(choices in generate::choices()) {
        oracle::check("request", &generate::requests(&choices));
    }

    #[test]
    fn a_response_means_the_same_in_every_split(choices in generate::choices(), method in 0u8..3) {
        oracle::check("response", &[&[method][..], &generate::response(&choices)].concat());
    }

    #[test]
    fn a_chunked_body_means_the_same_in_every_split(choices in generate::choices()) {
        oracle::check("chunked", &generate::chunked(&choices));
    }
}

#[test]
fn the_generated_messages_are_of_both_kinds() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut requests, mut responses, mut reasons) = (0, 0, std::collections::HashSet::new());
    for _ in 0..2_000 {
        let choices = generate::choices().new_tree(&mut runner).unwrap().current();
        let (seen, stop) = ours::requests(&generate::requests(&choices));
        requests += usize::from(!seen.is_empty());
        reasons.insert(format!("{stop:?}"));
        match ours::response(&generate::response(&choices), Method::Get) {
            Ok(_) => responses += 1,
            Err(stop) => drop(reasons.insert(format!("{stop:?}"))),
        }
    }
    // A generator that makes only one kind would leave half of the properties without a case.
    assert!((500..1_500).contains(&requests) && (500..1_500).contains(&responses), "{requests} {responses}");
    assert!(reasons.len() >= 25, "{reasons:?}");
}

/// A field name and value that may be written.
fn field() -> impl Strategy<Value = (String, String)> {
    ("[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", "([!-~\u{80}-\u{ff}]([ \t!-~\u{80}-\u{ff}]{0,20}[!-~])?)?")
}

proptest! {
    #![proptest_config(generate::cases(2_000))]

    #[test]
    fn what_is_written_is_read_back(
        method in "[!#$%&'*+.^_`|~A-Z-]{1,8}",
        path in "/[!$-;=@-Z_a-z~]{0,20}",
        query in proptest::option::of("[!$-;=?-~]{0,20}"),
        fields in proptest::collection::vec(field(), 0..8),
        pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        chunked in any::<bool>(),
    ) {
        prop_assume!(method != "CONNECT");
        let special = ["host", "connection", "content-length", "transfer-encoding"];
        let fields: Vec<_> = fields
            .into_iter()
            .filter(|(name, _)| !special.iter().any(|special| name.eq_ignore_ascii_case(special)))
            .collect();
        let body = pieces.concat();
        let framing = if chunked { Framing::Chunked } else { Framing::Length(body.len() as u64) };
        let mut out = Vec::new();
        let query_bytes = query.as_deref().map(str::as_bytes);
        let mut writer = HeadWriter::request(&mut out, method.as_bytes(), path.as_bytes(), query_bytes).unwrap();
        writer.field(b"host", b"a.example").unwrap();
        for (name, value) in &fields {
            writer.field(name.as_bytes(), value.as_bytes()).unwrap();
        }
        writer.framing(framing);
        writer.finish();
        let head_len = out.len();
        let mut encoder = Encoder::new(framing);
        for piece in &pieces {
            encoder.data(piece, &mut out).unwrap();
        }
        encoder.end([], &mut out).unwrap();

        let mut head = RequestHead::new();
        prop_assert_eq!(request::parse(&out, &Limits::default(), &mut head), Ok(Status::Complete));
        prop_assert_eq!(head.len, head_len);
        prop_assert_eq!(head.method_span.of(&out), method.as_bytes());
        prop_assert_eq!(head.target.path.of(&out), path.as_bytes());
        prop_assert_eq!(head.target.query.map(|span| span.of(&out)), query_bytes);
        prop_assert_eq!(head.framing, framing);
        let read: Vec<(&[u8], &[u8])> =
            head.fields[1..head.fields.len() - 1].iter().map(|f| (f.name.of(&out), f.value.of(&out))).collect();
        let written: Vec<(&[u8], &[u8])> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        prop_assert_eq!(read, written);

        let (mut decoder, mut at, mut read) = (Decoder::new(framing, ChunkedLimits::default()), head_len, vec![]);
        loop {
            let rest = &out[at..];
            let frame = decoder.decode(rest).unwrap();
            at += frame.consumed();
            match frame {
                Frame::Data(range) => read.extend_from_slice(&rest[range]),
                Frame::End { .. } => break,
                Frame::NeedMore { .. } => prop_assert!(false, "the body is whole"),
            }
        }
        prop_assert_eq!((read, at), (body, out.len()));
    }
}
