//! Pages of Envoy, and what peers say of themselves.

#![no_main]

#[path = "../../tests/untrusted/pages.rs"]
mod pages;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pages::run(data));
