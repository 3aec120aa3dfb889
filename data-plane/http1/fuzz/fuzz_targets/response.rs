//! `cargo +nightly fuzz run response`: any bytes through the `response` oracle.
#![no_main]

#[path = "../oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check("response", data));
