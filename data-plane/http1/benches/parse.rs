//! Nanoseconds per head and per chunk: `cargo bench -p gateway-http1`.
//!
//! The heads are what a browser-like client and a small service send; `drip` is the same request
//! arriving byte by byte, which must stay linear.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gateway_http1::body::{ChunkedLimits, Decoder, Encoder, Frame};
use gateway_http1::request::{self, RequestHead};
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::write::HeadWriter;
use gateway_http1::{Framing, Limits, Method};

const REQUEST: &[u8] = b"GET /api/v1/shops/17/items?limit=50&cursor=abc HTTP/1.1\r\n\
    Host: shop.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
    Accept: application/json\r\n\
    Accept-Encoding: gzip, deflate, br\r\n\
    Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\
    X-Request-ID: 01890a5d-ac96-774b-bcce-b302099a8057\r\n\
    Connection: keep-alive\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Server: service/1.4\r\n\
    Date: Sat, 21 Nov 2026 13:00:00 GMT\r\n\
    Content-Type: application/json; charset=utf-8\r\n\
    Content-Length: 1024\r\n\
    Cache-Control: private, max-age=60\r\n\
    ETag: \"5f3a-62b1c\"\r\n\
    Vary: Accept-Encoding\r\n\r\n";

fn heads(c: &mut Criterion) {
    let limits = Limits::default();
    let mut group = c.benchmark_group("head");
    let mut head = RequestHead::new();
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |b| b.iter(|| request::parse(black_box(REQUEST), &limits, &mut head)));
    group.bench_function("request drip", |b| {
        b.iter(|| {
            let mut status = None;
            for end in 1..=REQUEST.len() {
                status = Some(request::parse(black_box(&REQUEST[..end]), &limits, &mut head));
            }
            status
        });
    });
    let mut out = Vec::new();
    group.bench_function("write request", |b| {
        b.iter(|| {
            out.clear();
            let query = head.target.query.map(|span| span.of(REQUEST));
            let path = head.target.path.of(REQUEST);
            let mut writer = HeadWriter::request(&mut out, b"GET", path, query).expect("it was parsed");
            for field in head.fields.iter().filter(|field| !field.is_hop_by_hop()) {
                writer.parsed(REQUEST, field);
            }
            writer.framing(head.framing);
            writer.finish();
            black_box(out.len())
        });
    });
    let mut head = ResponseHead::new();
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |b| {
        b.iter(|| response::parse(black_box(RESPONSE), &limits, Method::Get, &mut head));
    });
    group.bench_function("write response", |b| {
        b.iter(|| {
            out.clear();
            let mut writer = HeadWriter::response(&mut out, head.status).expect("it was parsed");
            for field in head.fields.iter().filter(|field| !field.is_hop_by_hop()) {
                writer.parsed(RESPONSE, field);
            }
            writer.framing(head.framing);
            writer.finish();
            black_box(out.len())
        });
    });
    group.finish();
}

fn bodies(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunked 64 KiB");
    for chunk in [64, 8192] {
        let mut wire = Vec::new();
        let mut encoder = Encoder::new(Framing::Chunked);
        for _ in 0..65_536 / chunk {
            encoder.data(&vec![b'x'; chunk], &mut wire).expect("chunks have no length to exceed");
        }
        encoder.end([], &mut wire).expect("chunks have no length to exceed");
        group.throughput(Throughput::Bytes(wire.len() as u64));
        group.bench_function(format!("decode chunks of {chunk}"), |b| {
            b.iter(|| {
                let mut decoder = Decoder::new(Framing::Chunked, ChunkedLimits::default());
                let (mut at, mut data) = (0, 0);
                while let Ok(frame) = decoder.decode(black_box(&wire[at..])) {
                    at += frame.consumed();
                    match frame {
                        Frame::Data(range) => data += range.len(),
                        Frame::End { .. } | Frame::NeedMore { .. } => break,
                    }
                }
                data
            });
        });
    }
    group.finish();
}

criterion_group!(benches, heads, bodies);
criterion_main!(benches);
