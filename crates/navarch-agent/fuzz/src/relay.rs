//! What is said on a stream.

#![no_main]

#[path = "../../tests/untrusted/relay.rs"]
mod relay;

libfuzzer_sys::fuzz_target!(|data: &[u8]| relay::run(data));
