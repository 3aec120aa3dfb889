//! The form of paths and hosts is that of the naive model, and stable.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway_engine_fuzz::normalize(data));
