//! What a route costs in memory: the live heap bytes of a compiled engine divided by its routes. The figure holds
//! everything an engine keeps: the canonical encoding of each object (for the next compile, dumps and hashes), its
//! names, who refers to whom, the checked routes and the tables. One test, so that no other allocates meanwhile.

#[path = "fixture/fleet.rs"]
mod fleet;

use std::alloc::System;

use fleet::Shape;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of a route at 100,000 routes.
const MOST: usize = 1_200;

#[test]
fn a_route_costs_at_most_1200_bytes() {
    const COUNT: usize = 20_000;
    for (name, shape) in Shape::ALL {
        let region = Region::new(ALLOCATOR);
        let engine = fleet::engine(shape, COUNT);
        let change = region.change();
        let each = (change.bytes_allocated - change.bytes_deallocated) / COUNT;
        println!("{name}: {each} bytes a route, {} routes", engine.routes().count());
        assert!(each <= MOST, "{name}: a route costs {each} bytes");
    }
}
