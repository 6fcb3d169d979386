//! Requests as they come from the wire.

#![no_main]

#[path = "../../tests/conformance/wire.rs"]
mod wire;

libfuzzer_sys::fuzz_target!(|data: &[u8]| wire::run(data));
