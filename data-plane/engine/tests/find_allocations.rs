//! Finding a route allocates nothing, whatever the table holds. One test, so that no other allocates meanwhile.

use std::alloc::System;

use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_engine::path;
use gateway_engine::route::{Lookup, RequestView};
use gateway_proto::kind::Resource;
use gateway_proto::wire::{self, path_match, value_match};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn metadata(name: String) -> Option<wire::Metadata> {
    Some(wire::Metadata { name, ..Default::default() })
}

fn route(at: usize) -> Resource {
    let kind = match at % 4 {
        0 => path_match::Kind::Exact(format!("/exact/{at}")),
        1 => path_match::Kind::Prefix(format!("/prefix/{at}")),
        2 => path_match::Kind::Template(format!("/template/{at}/{{id}}/{{*rest}}")),
        _ => path_match::Kind::Regex(format!("/regex/{at}/[0-9]+")),
    };
    let header = wire::ValueMatch { name: "x-a".into(), kind: Some(value_match::Kind::Exact("1".into())) };
    let entry = wire::Match {
        path: Some(wire::PathMatch { kind: Some(kind) }),
        methods: vec!["GET".into()],
        headers: if at % 8 < 4 { vec![header] } else { Vec::new() },
        ..Default::default()
    };
    let spec = wire::RouteSpec {
        hosts: vec![format!("h{}.example.org", at % 10), "*.wild.org".into()],
        matches: vec![entry],
        action: Some(wire::route_spec::Action::Respond(wire::Respond::default())),
        ..Default::default()
    };
    wire::Route { metadata: metadata(format!("r{at}")), spec: Some(spec), ..Default::default() }.into()
}

#[test]
fn finding_a_route_allocates_nothing() {
    let spec = wire::ListenerSpec { port: Some(1), ..Default::default() };
    let listener = wire::Listener { metadata: metadata("l".into()), spec: Some(spec), ..Default::default() };
    let changes = (0..200).map(route).chain([listener.into()]).map(Change::Upsert).collect();
    let engine = compile(&Engine::default(), changes).expect("sound").engine;
    let listener = engine.listener("default/l").expect("there");
    let mut scratch = Vec::with_capacity(256);
    let mut outcomes = [0; 3];
    let mut least = usize::MAX;
    // The regex crate makes its scratch space at the first search of a pattern on a thread: one round for that. More
    // than one after it, because the test runner's own thread may allocate meanwhile, but not in every round.
    for round in 0..5 {
        let region = Region::new(ALLOCATOR);
        for at in 0..200 {
            for (method, host) in [("GET", "h1.example.org"), ("POST", "a.b.wild.org"), ("GET", "x.wild.org")]
            {
                let mut text = [0_u8; 64];
                let length = write_path(at, &mut text);
                let path = path::normalize(&text[..length], &mut scratch).expect("sound");
                let view = RequestView {
                    method: method.as_bytes(),
                    host,
                    path,
                    query: b"",
                    source: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
                    headers: &[("x-a", "1")][..],
                };
                match engine.find(listener, &view) {
                    Lookup::Found(found) => {
                        outcomes[0] +=
                            found.params(path).map(|param| param.value.len().min(1)).sum::<usize>().max(1);
                    }
                    Lookup::MethodNotAllowed(_) => outcomes[1] += 1,
                    Lookup::NotFound => outcomes[2] += 1,
                }
            }
        }
        let change = region.change();
        if round > 0 {
            least = least.min(change.allocations + change.reallocations);
        }
    }
    assert_eq!(least, 0);
    assert!(outcomes.iter().all(|count| *count > 50), "{outcomes:?}");
}

/// A path that the route of this number takes, without allocating.
fn write_path(at: usize, out: &mut [u8]) -> usize {
    use std::io::Write as _;
    let length = out.len();
    let mut rest = &mut *out;
    match at % 4 {
        0 => write!(rest, "/exact/{at}"),
        1 => write!(rest, "/prefix/{at}/x"),
        2 => write!(rest, "/template/./{at}/7/x/y"),
        _ => write!(rest, "/regex/{at}/7"),
    }
    .expect("it fits");
    length - rest.len()
}
