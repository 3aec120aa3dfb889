//! What the policy chain costs per exchange (request and response pass): with every policy of the first set on three
//! levels, and with none. `fill` is the fixture's own share, to be taken off. Allocations are a test
//! (`tests/chain_allocations.rs`), not a number here.

#[path = "../tests/fixture/chain.rs"]
mod chain;

use std::hint::black_box;

use chain::Fixture;
use criterion::{Criterion, criterion_group, criterion_main};

fn policies(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    let mut fixture = Fixture::full();
    group.bench_function("fill", |b| b.iter(|| black_box(&mut fixture).fill()));
    group.bench_function("full", |b| {
        b.iter(|| {
            fixture.fill();
            black_box(fixture.exchange())
        });
    });
    let mut fixture = Fixture::plain();
    group.bench_function("none", |b| {
        b.iter(|| {
            fixture.fill();
            black_box(fixture.exchange())
        });
    });
    group.finish();
}

criterion_group!(benches, policies);
criterion_main!(benches);
