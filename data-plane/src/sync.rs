//! Where configuration comes from: the stream of a control plane, or files; and the copy on disk that a data plane
//! starts from when the control plane is away. Each source owns the `Applier` and feeds it, one change at a time.

pub(crate) mod client;
pub(crate) mod decode;
pub(crate) mod file;
pub(crate) mod last_good;
mod renewal;
pub(crate) mod session;
pub(crate) mod words;
