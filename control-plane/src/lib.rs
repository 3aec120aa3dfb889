//! The control plane: admin REST API, admission, store, and the snapshot stream to the data planes.
//! [`run`] is the only place that knows every part; `README.md` follows a change through them.

pub mod admission;
pub mod api;
pub mod audit;
pub mod auth;
pub mod config;
pub mod credentials;
pub mod discovery;
pub mod document;
pub mod identity;
pub mod leader;
pub mod nodes;
pub mod publish;
pub mod secrets;
pub mod selector;
pub mod sorted;
pub mod state;
pub mod state_dir;
pub mod store;
pub mod sync;
pub mod telemetry;
pub mod tls;

mod start;

pub use start::{RunError, Running, run};
