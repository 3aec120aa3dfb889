//! Compile never panics, whatever the objects.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gateway_engine_fuzz::compile(data));
