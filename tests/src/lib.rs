//! The harness: starts the real binaries and real services as child processes on free ports, drives them as users
//! and clients would, and breaks them on purpose. Nothing is mocked. Waiting is always for a state (a revision, a
//! line, an answer), bounded by [`PATIENCE`]; nothing sleeps for a fixed time and hopes.

use std::time::Duration;

pub mod balancer;
pub mod certs;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod https;
pub mod process;
pub mod services;
pub mod stack;
pub mod tokens;
pub mod upstream;
pub mod wait;

/// How long a test waits for something that should happen: generous, because it only passes when something is broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The `full` profile asks for every figure an issue names; the default one for the same checks, smaller.
pub fn full_profile() -> bool {
    std::env::var_os("GATEWAY_TEST_PROFILE").is_some_and(|profile| profile == "full")
}
