//! `cargo +nightly fuzz run request`: any bytes through the `request` oracle.
#![no_main]

#[path = "../oracle.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|data: &[u8]| oracle::check("request", data));
