//! The proxy: stateless, one single-threaded worker per core, configuration swapped in atomically.
//! `run` is the only place that knows every part; the binary, `gatewayctl dev` and the tests start it alike.

pub mod config;
pub mod snapshot;
pub mod state_dir;
pub mod telemetry;
