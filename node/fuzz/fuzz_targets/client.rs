//! Messages of one connection, good and bad, in any order.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flotilla_fuzz::client(input));
