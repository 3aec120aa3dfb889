//! The proxy seen from both of its ends, byte by byte: raw clients and raw targets around a data plane on manifests.

mod bodies;
mod drain;
mod faults;
mod forwarding;
mod http2;
mod http2_endings;
mod http2_target;
mod http2_upstream;
mod http2_upstream_faults;
mod interim;
mod local_answers;
mod phases;
mod smuggling;
mod support;
mod timeouts;
mod tunnels;
