//! The snapshot stream to the data planes: `session.rs` decides what a data plane gets, `server.rs` moves bytes.

pub mod codec;
pub mod header;
pub mod server;
pub mod session;
