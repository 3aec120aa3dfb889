//! `cargo +nightly fuzz run chunked`: any bytes through the `chunked` oracle.
#![no_main]

#[path = "../oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check("chunked", data));
