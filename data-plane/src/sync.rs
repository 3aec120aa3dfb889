//! Where configuration comes from: the stream of a control plane, or files; and the copies that a data plane starts
//! from when the control plane is away: its own on disk, or another's. Each source owns the `Applier` and feeds it, one change at a time.

pub(crate) mod bootstrap;
pub(crate) mod client;
pub(crate) mod decode;
pub(crate) mod file;
pub(crate) mod last_good;
mod renewal;
pub(crate) mod session;
pub(crate) mod words;
