//! Parts of the hot path, each with everything it needs made before counting begins.

#[path = "../../../data-plane/engine/tests/fixture/chain.rs"]
mod chain;
#[path = "../../../data-plane/engine/tests/fixture/fleet.rs"]
mod fleet;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, bail};
use gateway_engine::route::{Lookup, RequestView};
use gateway_http1::request::{self, RequestHead};
use gateway_http1::response::{self, ResponseHead};
use gateway_http1::write::HeadWriter;
use gateway_http1::{Limits, Method};

use crate::counted_by_the_guard;
use fleet::Shape;

/// Names, and how many passes are counted.
pub(crate) const ALL: [(&str, u64); 7] = [
    ("find/hosts/1", 10_000),
    // Building more takes too long under valgrind, and 100,000 routes execute the same code.
    ("find/hosts/10000", 10_000),
    ("find/one-host/10000", 10_000),
    ("find/templates/10000", 10_000),
    ("policies/full", 1_000),
    ("head/request", 1_000),
    ("head/response", 1_000),
];

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

/// Runs a part: under valgrind, in a process of its own.
pub(crate) fn run(name: &str) -> anyhow::Result<()> {
    let (_, passes) =
        *ALL.iter().find(|(part, _)| *part == name).with_context(|| format!("no part {name}"))?;
    match name {
        "find/hosts/1" => find(Shape::Hosts, 1, passes),
        "find/hosts/10000" => find(Shape::Hosts, 10_000, passes),
        "find/one-host/10000" => find(Shape::OneHost, 10_000, passes),
        "find/templates/10000" => find(Shape::Templates, 10_000, passes),
        "policies/full" => policies(passes),
        "head/request" => head_request(passes),
        "head/response" => head_response(passes),
        _ => bail!("part {name} has a count and no code"),
    }
}

/// Finds each of the routes in turn.
fn find(shape: Shape, routes: usize, passes: u64) -> anyhow::Result<()> {
    let engine = fleet::engine(shape, routes);
    let listener = engine.listener("default/l").context("no listener")?;
    let requests: Vec<(String, String)> = (0..routes).map(|at| shape.request(at)).collect();
    let mut next = requests.iter().cycle();
    counted_by_the_guard(passes, || {
        let Some((host, path)) = next.next() else { return };
        let view = RequestView {
            method: b"GET",
            host,
            path,
            query: b"",
            source: IpAddr::V4(Ipv4Addr::LOCALHOST),
            headers: &[] as &[(&str, &str)],
        };
        assert!(
            matches!(engine.find(listener, black_box(&view)), Lookup::Found(_)),
            "every request has a route"
        );
    });
    Ok(())
}

/// An exchange through every policy on three levels.
fn policies(passes: u64) -> anyhow::Result<()> {
    let mut fixture = chain::Fixture::full();
    counted_by_the_guard(passes, || {
        fixture.fill();
        black_box(fixture.exchange());
    });
    Ok(())
}

/// Parses a request's head and writes it again.
fn head_request(passes: u64) -> anyhow::Result<()> {
    let (limits, mut head, mut out) = (Limits::default(), RequestHead::new(), Vec::new());
    let mut written = 0;
    counted_by_the_guard(passes, || {
        let _length = black_box(request::parse(black_box(REQUEST), &limits, &mut head));
        out.clear();
        let query = head.target.query.map(|span| span.of(REQUEST));
        let path = head.target.path.of(REQUEST);
        let Ok(mut writer) = HeadWriter::request(&mut out, b"GET", path, query) else { return };
        for field in head.fields.iter().filter(|field| !field.is_hop_by_hop()) {
            writer.parsed(REQUEST, field);
        }
        writer.framing(head.framing);
        writer.finish();
        written += u64::from(out.ends_with(b"\r\n\r\n"));
    });
    anyhow::ensure!(written == passes, "a head was not written");
    Ok(())
}

/// Parses a response's head and writes it again.
fn head_response(passes: u64) -> anyhow::Result<()> {
    let (limits, mut head, mut out) = (Limits::default(), ResponseHead::new(), Vec::new());
    let mut written = 0;
    counted_by_the_guard(passes, || {
        let _length = black_box(response::parse(black_box(RESPONSE), &limits, Method::Get, &mut head));
        out.clear();
        let Ok(mut writer) = HeadWriter::response(&mut out, head.status) else { return };
        for field in head.fields.iter().filter(|field| !field.is_hop_by_hop()) {
            writer.parsed(RESPONSE, field);
        }
        writer.framing(head.framing);
        writer.finish();
        written += u64::from(out.ends_with(b"\r\n\r\n"));
    });
    anyhow::ensure!(written == passes, "a head was not written");
    Ok(())
}
