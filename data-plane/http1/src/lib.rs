//! The HTTP/1.1 wire format: bytes in, heads and body frames out. Sans-IO, strict, without unsafe code.
//!
//! The crate owns RFC 9112 on both sides of the gateway: [`request`] and [`response`] read heads,
//! [`body`] reads and writes bodies, [`write`](mod@write) writes heads. It never touches a socket or
//! a clock and never decides policy: it says what a message is, or why it is none.
//!
//! Invariants:
//! - **One meaning.** A message that two parsers could frame differently (CL with TE, odd codings,
//!   bare CR or LF, obs-fold …) is refused, and the connection must be closed. Reading is
//!   strict by construction; tests hold it against hyper and against tables of known attacks.
//! - **No dependence on the split.** However the input was cut into reads, the result is the same.
//! - **Bounded, and free of allocation once warm.** Output vectors belong to the caller and are reused.
//!
//! All positions are [`Span`]s: `u32` offsets into the buffer that the caller passed in.

pub mod body;
pub mod field;
pub mod head;
pub mod request;
pub mod response;
mod scan;
pub mod span;
pub mod target;
mod tokens;
mod word;
pub mod write;

pub use field::{Field, KnownField};
pub use head::{Framing, Limits, Method, ParseError, Status, Version};
pub use span::Span;
