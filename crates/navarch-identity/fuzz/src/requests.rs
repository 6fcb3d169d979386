//! Requests for certificates.

#![no_main]

#[path = "../../tests/untrusted/requests.rs"]
mod requests;

libfuzzer_sys::fuzz_target!(|data: &[u8]| requests::run(data));
