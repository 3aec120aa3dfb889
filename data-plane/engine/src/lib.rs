//! Configuration in, decisions out. Everything here is pure: no sockets, no clock, no SQL, so that the same code
//! answers in `gatewayctl validate`, in the control plane's admission and in every data plane.

pub mod action;
pub mod certificate;
pub mod compile;
pub mod context;
pub mod discovery;
pub mod engine;
pub mod head;
pub mod identity;
pub mod listener;
pub mod manifest;
pub mod path;
pub mod policy;
pub mod reject;
pub mod route;
mod sharing;
pub mod template;
pub mod upstream;
pub mod value;
pub mod violations;

pub use engine::Engine;
