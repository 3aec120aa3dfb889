//! What an API key costs in memory: the live heap bytes of a table divided by its keys. One test, so that no other
//! allocates meanwhile.

use std::alloc::System;

use gateway_engine::identity::Keys;
use gateway_proto::credential::{Grant, KeyDigest};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Bytes of a key with the name of its consumer.
const MOST: usize = 64;

#[test]
fn a_key_costs_at_most_64_bytes_even_if_every_one_has_its_own_consumer() {
    let full = std::env::var_os("GATEWAY_TEST_PROFILE").is_some_and(|profile| profile == "full");
    let count: usize = if full { 1_000_000 } else { 200_000 };
    for (name, consumers) in [("a hundred keys each", count / 100), ("one key each", count)] {
        let region = Region::new(ALLOCATOR);
        let keys = Keys::default();
        let grant = |n: usize| Grant {
            digest: KeyDigest::of(&n.to_le_bytes()),
            consumer: format!("default/user-{}", n % consumers).into(),
            expires: 0,
        };
        keys.set((0..count).map(grant).collect());
        let change = region.change();
        let each = (change.bytes_allocated - change.bytes_deallocated) / count;
        println!("{name}: {each} bytes a key, {} keys", keys.len());
        assert!(each <= MOST, "{name}: a key costs {each} bytes");
    }
}
