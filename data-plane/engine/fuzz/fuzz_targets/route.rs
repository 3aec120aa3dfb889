//! The table answers as the naive model does.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway_engine_fuzz::route(data));
