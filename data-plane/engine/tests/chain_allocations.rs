//! The policy chain allocates nothing per request once its storage is warm. A binary of its own, because it replaces
//! the allocator, with one test, because the counters are the process's.

#[path = "fixture/chain.rs"]
mod chain;

use std::alloc::System;

use chain::Fixture;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[test]
fn a_request_through_every_policy_allocates_nothing_once_warm() {
    for (mut fixture, fields) in [(Fixture::full(), 17 + 11), (Fixture::plain(), 15 + 6)] {
        fixture.fill();
        assert_eq!(fixture.exchange(), fields);
        // The counters are the process's: the test runner's own thread may allocate meanwhile, but not in every round.
        let rounds = (0..5).map(|_| {
            let region = Region::new(ALLOCATOR);
            for _ in 0..1000 {
                fixture.fill();
                fixture.exchange();
            }
            let change = region.change();
            change.allocations + change.reallocations
        });
        assert_eq!(rounds.min(), Some(0));
    }
}
