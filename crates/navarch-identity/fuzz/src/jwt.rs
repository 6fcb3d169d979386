//! Tokens of an issuer, its keys, and the rule.

#![no_main]

#[path = "../../tests/untrusted/jwt.rs"]
mod jwt;

libfuzzer_sys::fuzz_target!(|data: &[u8]| jwt::run(data));
