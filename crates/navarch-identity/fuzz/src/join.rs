//! Join tokens.

#![no_main]

#[path = "../../tests/untrusted/join.rs"]
mod join;

libfuzzer_sys::fuzz_target!(|data: &[u8]| join::run(data));
