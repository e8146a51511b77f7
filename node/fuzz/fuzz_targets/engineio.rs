//! A polling body, its packets, and a request's query.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flotilla_fuzz::engineio(input));
