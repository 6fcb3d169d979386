//! Certificates, revocation lists, keys and SPIFFE bundles.

#![no_main]

#[path = "../../tests/untrusted/pem.rs"]
mod pem;

libfuzzer_sys::fuzz_target!(|data: &[u8]| pem::run(data));
