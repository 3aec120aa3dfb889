//! Once its vectors are warm the codec allocates nothing. Alone in this binary, because the counter
//! sees every thread.

#![allow(clippy::unwrap_used)] // a helper's panic is its test's failure

use std::alloc::System;

use gateway_http1::body::{self, ChunkedLimits, Decoder, Encoder, Frame};
use gateway_http1::request::{self, RequestHead};
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::write::HeadWriter;
use gateway_http1::{Field, Framing, Limits, Method};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUEST: &[u8] = b"POST http://a.example/x?y HTTP/1.1\r\nHost: a.example:80\r\nUser-Agent: t\r\n\
    Connection: upgrade, x-hop\r\nUpgrade: websocket\r\nX-Hop: 1\r\nTE: trailers\r\n\
    Transfer-Encoding: chunked\r\n\r\n";
const BODY: &[u8] = b"5;a=b\r\nhello\r\n0\r\nChecksum: 1\r\nCookie: 2\r\n\r\n";
const RESPONSE: &[u8] =
    b"HTTP/1.1 404 Not Found\r\nServer: t\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

/// What lives as long as a connection.
#[derive(Default)]
struct Storage {
    request: RequestHead,
    response: ResponseHead,
    trailers: Vec<Field>,
    out: Vec<u8>,
}

/// One exchange, the request arriving in two pieces.
fn exchange(storage: &mut Storage) {
    let Storage { request: head, response, trailers, out } = storage;
    let limits = Limits::default();
    out.clear();
    request::parse(&REQUEST[..20], &limits, head).unwrap();
    request::parse(REQUEST, &limits, head).unwrap();
    let mut writer = HeadWriter::request(out, head.method_span.of(REQUEST), b"/x", None).unwrap();
    for field in head.fields.iter().filter(|field| !field.is_hop_by_hop()) {
        writer.parsed(REQUEST, field);
    }
    writer.field(b"X-Forwarded-For", b"192.0.2.1").unwrap();
    writer.framing(head.framing);
    writer.finish();
    let mut decoder = Decoder::new(head.framing, ChunkedLimits::default());
    let mut encoder = Encoder::new(Framing::Chunked);
    let mut rest = BODY;
    loop {
        let frame = decoder.decode(rest).unwrap();
        let buf = rest;
        rest = &rest[frame.consumed()..];
        match frame {
            Frame::Data(range) => encoder.data(&buf[range], out).unwrap(),
            Frame::End { trailers: section, .. } => {
                let section = &buf[section];
                body::parse_trailers(section, trailers).unwrap();
                let fields = trailers.iter().map(|field| (field.name.of(section), field.value.of(section)));
                encoder.end(fields, out).unwrap();
                break;
            }
            Frame::NeedMore { .. } => unreachable!("the body is whole"),
        }
    }
    response::parse(RESPONSE, &limits, Method::Get, response).unwrap();
    let mut writer = HeadWriter::response(out, response.status).unwrap();
    response.fields.iter().for_each(|field| writer.parsed(RESPONSE, field));
    writer.framing(response.framing);
    writer.finish();
}

#[test]
fn a_warm_exchange_allocates_nothing() {
    let mut storage = Storage::default();
    let region = Region::new(ALLOCATOR);
    exchange(&mut storage);
    assert!(region.change().allocations > 0, "the first exchange fills the vectors");
    // The counters are the process's: the test runner's own thread may allocate meanwhile, but not in every round.
    let rounds = (0..5).map(|_| {
        let region = Region::new(ALLOCATOR);
        (0..100).for_each(|_| exchange(&mut storage));
        let change = region.change();
        change.allocations + change.reallocations
    });
    assert_eq!(rounds.min(), Some(0));
}
