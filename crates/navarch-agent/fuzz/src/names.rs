//! Questions, answers and tables of names.

#![no_main]

#[path = "../../tests/untrusted/names.rs"]
mod names;

libfuzzer_sys::fuzz_target!(|data: &[u8]| names::run(data));
