//! Compilation with 100,000 routes: a full build, and what one change of each kind costs. A route: its action, what
//! it matches, a new one, one less. An upstream that 1,000 routes use and one that all use, the listener of all
//! routes, a policy that 100, and one that all routes refer to. Run with `cargo bench -p gateway-engine --bench compile`.

#[path = "../tests/fixture/fleet.rs"]
mod fleet;

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use fleet::Shape;
use gateway_engine::Engine;
use gateway_engine::compile::{Change, compile};
use gateway_proto::kind::{Key, Kind, Resource};
use gateway_proto::wire::{self, policy_entry, route_spec};

const COUNT: usize = 100_000;

fn metadata(name: &str) -> Option<wire::Metadata> {
    Some(wire::Metadata { name: name.to_owned(), ..Default::default() })
}

/// A policy that sets a response header to `value`.
fn policy(name: &str, value: &str) -> Resource {
    let set = [("x-team".to_owned(), value.to_owned())].into();
    let edits = policy_entry::Policy::ResponseHeaders(wire::HeaderEdits { set, ..Default::default() });
    let policies = vec![wire::PolicyEntry { policy: Some(edits) }];
    let spec = Some(wire::PolicySpec { policies, ..Default::default() });
    wire::Policy { metadata: metadata(name), spec, ..Default::default() }.into()
}

/// Everything, with every route referring to the policies of `refs`.
fn fleet_with(shape: Shape, refs: impl Fn(usize) -> Vec<String>, one_upstream: bool) -> Vec<Change> {
    let routes = (0..COUNT).map(|at| {
        let mut route = fleet::route(shape, at);
        let spec = route.spec.get_or_insert_default();
        spec.policy_refs = refs(at);
        if one_upstream && let Some(route_spec::Action::Forward(forward)) = &mut spec.action {
            forward.backends[0].upstream = "u0".to_owned();
        }
        Resource::from(route)
    });
    let others = (0..fleet::UPSTREAMS).map(|at| fleet::upstream(at, 9_000)).chain([
        fleet::listener(80),
        policy("few", "a"),
        policy("all", "a"),
    ]);
    routes.chain(others).map(Change::Upsert).collect()
}

fn built(changes: Vec<Change>) -> Engine {
    compile(&Engine::default(), changes).expect("sound").engine
}

fn one(criterion: &mut Criterion, name: &str, engine: &Engine, change: Change) {
    let mut group = criterion.benchmark_group("compile/one-in-100000");
    group.sample_size(20);
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || vec![change.clone()],
            |changes| black_box(compile(engine, changes)),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let shape = Shape::Tens;
    let few = |at: usize| if at.is_multiple_of(1_000) { vec!["few".to_owned()] } else { Vec::new() };
    let engine = built(fleet_with(shape, few, false));
    let mut action = fleet::route(shape, 77);
    let respond = wire::Respond { status: Some(201), ..Default::default() };
    action.spec.get_or_insert_default().action = Some(route_spec::Action::Respond(respond));
    let mut moved = fleet::route(shape, 77);
    moved.spec.get_or_insert_default().hosts = vec!["new.example.com".to_owned()];
    let upsert = |resource: Resource| Change::Upsert(resource);
    one(criterion, "route-action", &engine, upsert(action.into()));
    one(criterion, "route-host", &engine, upsert(moved.into()));
    one(criterion, "route-new", &engine, upsert(fleet::route(shape, COUNT).into()));
    one(criterion, "route-gone", &engine, Change::Delete(Key::new(Kind::Route, "default", "r77")));
    one(criterion, "upstream-of-1000", &engine, upsert(fleet::upstream(0, 9_001)));
    one(criterion, "listener-of-all", &engine, upsert(fleet::listener(81)));
    one(criterion, "policy-of-100", &engine, upsert(policy("few", "b")));
    let engine = built(fleet_with(shape, |_| vec!["all".to_owned()], true));
    one(criterion, "upstream-of-all", &engine, upsert(fleet::upstream(0, 9_001)));
    let mut action = fleet::route(shape, 77);
    action.spec.get_or_insert_default().policy_refs = vec!["all".to_owned()];
    one(criterion, "route-action-under-all", &engine, upsert(action.into()));
    one(criterion, "policy-of-all", &engine, upsert(policy("all", "b")));
}

fn whole(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile/whole-100000");
    group.sample_size(10);
    for (name, shape) in Shape::ALL {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || fleet::changes(shape, COUNT),
                |changes| black_box(compile(&Engine::default(), changes)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

/// What the data plane ships with: where it puts things decides what a lookup misses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

criterion_group!(benches, changes, whole);
criterion_main!(benches);
