//! Compilation: one changed route among 100,000, in its action only and in what it matches, and a full build.
//! Run with `cargo bench -p gateway-engine --bench compile`.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_proto::kind::Resource;
use gateway_proto::wire::{self, path_match};

const COUNT: usize = 100_000;

fn metadata(name: String) -> Option<wire::Metadata> {
    Some(wire::Metadata { name, ..Default::default() })
}

fn route(at: usize, path: &str, status: u32) -> Resource {
    let kind = path_match::Kind::Prefix(format!("/{path}/v1/resource-{at}"));
    let respond = wire::Respond { status: Some(status), ..Default::default() };
    let spec = wire::RouteSpec {
        hosts: vec![format!("service-{}.example.com", at % 100)],
        matches: vec![wire::Match { path: Some(wire::PathMatch { kind: Some(kind) }), ..Default::default() }],
        action: Some(wire::route_spec::Action::Respond(respond)),
        ..Default::default()
    };
    wire::Route { metadata: metadata(format!("r{at}")), spec: Some(spec), ..Default::default() }.into()
}

fn everything() -> Vec<Change> {
    let spec = wire::ListenerSpec { port: Some(80), ..Default::default() };
    let listener = wire::Listener { metadata: metadata("l".into()), spec: Some(spec), ..Default::default() };
    let routes = (0..COUNT).map(|at| route(at, "api", 200));
    routes.chain([listener.into()]).map(Change::Upsert).collect()
}

fn changes(criterion: &mut Criterion) {
    let engine = compile(&Engine::default(), everything()).expect("sound").engine;
    let mut group = criterion.benchmark_group("compile/100000");
    for (name, change) in [("one_action", route(77, "api", 201)), ("one_match", route(77, "new", 200))] {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || vec![Change::Upsert(change.clone())],
                |changes| black_box(compile(&engine, changes)),
                BatchSize::SmallInput,
            );
        });
    }
    group.sample_size(10);
    group.bench_function("whole", |bencher| {
        bencher.iter_batched(
            everything,
            |changes| black_box(compile(&Engine::default(), changes)),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, changes);
criterion_main!(benches);
