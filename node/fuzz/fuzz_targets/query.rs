//! A client's query, its regular expressions too, and a value that it is asked about.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flotilla_fuzz::query(input));
