//! The codec seen from outside: tables of smuggling shapes, generated messages in every split, seeds of
//! the fuzz targets, and hyper's reading of the same bytes beside ours.
//!
//! `GATEWAY_TEST_PROFILE=full` multiplies the number of generated cases.

#![allow(clippy::unwrap_used)] // a helper's panic is its test's failure

mod generate;
mod hyper_client;
mod hyper_io;
mod hyper_server;
#[path = "../../fuzz/oracle.rs"]
mod oracle;
mod ours;
mod requests;
mod responses;
mod seeds;
mod splits;
