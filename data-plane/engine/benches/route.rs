//! Lookup in nanoseconds, with 1 to 100,000 routes: each on a host of its own, all on one host, and as templates.
//! Run with `cargo bench -p gateway-engine --bench route`.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_engine::route::{Lookup, RequestView};
use gateway_proto::kind::Resource;
use gateway_proto::wire::{self, path_match};

/// How the routes are spread.
#[derive(Clone, Copy)]
enum Shape {
    Hosts,
    Prefixes,
    Templates,
}

impl Shape {
    fn host(self, at: usize) -> String {
        match self {
            Shape::Hosts => format!("service-{at}.example.com"),
            Shape::Prefixes | Shape::Templates => "api.example.com".to_owned(),
        }
    }

    fn path(self, at: usize) -> path_match::Kind {
        match self {
            Shape::Hosts => path_match::Kind::Prefix("/api".to_owned()),
            Shape::Prefixes => path_match::Kind::Prefix(format!("/api/v1/resource-{at}")),
            Shape::Templates => path_match::Kind::Template(format!("/api/v1/resource-{at}/{{id}}")),
        }
    }

    fn request(self, at: usize) -> (String, String) {
        let path = match self {
            Shape::Hosts => "/api/users/42".to_owned(),
            Shape::Prefixes | Shape::Templates => format!("/api/v1/resource-{at}/42"),
        };
        (self.host(at), path)
    }
}

fn metadata(name: String) -> Option<wire::Metadata> {
    Some(wire::Metadata { name, ..Default::default() })
}

fn engine(shape: Shape, count: usize) -> Engine {
    let spec = wire::ListenerSpec { port: Some(80), ..Default::default() };
    let listener = wire::Listener { metadata: metadata("l".into()), spec: Some(spec), ..Default::default() };
    let routes = (0..count).map(|at| -> Resource {
        let path = Some(wire::PathMatch { kind: Some(shape.path(at)) });
        let spec = wire::RouteSpec {
            hosts: vec![shape.host(at)],
            matches: vec![wire::Match { path, ..Default::default() }],
            action: Some(wire::route_spec::Action::Respond(wire::Respond::default())),
            ..Default::default()
        };
        wire::Route { metadata: metadata(format!("r{at}")), spec: Some(spec), ..Default::default() }.into()
    });
    let changes = routes.chain([listener.into()]).map(Change::Upsert).collect();
    compile(&Engine::default(), changes).expect("sound").engine
}

fn find(criterion: &mut Criterion) {
    for (name, shape) in
        [("hosts", Shape::Hosts), ("prefixes", Shape::Prefixes), ("templates", Shape::Templates)]
    {
        let mut group = criterion.benchmark_group(format!("find/{name}"));
        for count in [1, 100, 10_000, 100_000] {
            let engine = engine(shape, count);
            let listener = engine.listener("default/l").expect("there").clone();
            // A thousand different requests spread over the table, so that it is not one warm cache line.
            let requests: Vec<(String, String)> =
                (0..1_000).map(|at| shape.request(at * 7_919 % count)).collect();
            let mut next = 0;
            group.bench_function(BenchmarkId::from_parameter(count), |bencher| {
                bencher.iter(|| {
                    let (host, path) = &requests[next];
                    next = (next + 1) % requests.len();
                    let view = RequestView {
                        method: b"GET",
                        host,
                        path,
                        query: b"",
                        source: IpAddr::V4(Ipv4Addr::LOCALHOST),
                        headers: &[] as &[(&str, &str)],
                    };
                    match engine.find(&listener, black_box(&view)) {
                        Lookup::Found(found) => found.route.slot,
                        _ => panic!("every request has a route"),
                    }
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, find);
criterion_main!(benches);
