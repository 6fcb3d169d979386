//! Sequences of requests, answers, changes, delays and losses.

#![no_main]

#[path = "../../tests/conformance/sequence.rs"]
mod sequence;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sequence::run(data));
