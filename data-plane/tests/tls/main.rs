//! TLS on listeners, seen from its clients: handshakes, what is spoken over it, certificates that change.

mod certificates;
mod endings;
mod handshakes;
mod http;
mod support;
