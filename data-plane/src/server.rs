//! The side that clients see: sockets, and a small task per connection that speaks their protocol.
//! It hands every request to [`crate::proxy`] and knows nothing of routes and upstreams.

pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod listener;
pub(crate) mod tls;

#[cfg(test)]
mod tests;
