//! HTTP/2 as both sides use it: the h2 crate keeps the protocol's state, what it reads and writes goes through a
//! [`transport::Transport`], bodies come in and go out through [`body`], heads are made and taken apart by [`fields`].
//!
//! It is h2 itself and not hyper over it: a stream is then a source and a sink like a connection that speaks HTTP/1.1,
//! interim responses and the reasons of resets are at hand, and nothing waits in channels in between
//! (`.github/decisions/012-h2-without-hyper.md`).

pub(crate) mod body;
pub(crate) mod fields;
pub(crate) mod transport;
