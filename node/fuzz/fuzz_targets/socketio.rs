//! One packet's text: parsed, written again, and read into its parts.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flotilla_fuzz::socketio(input));
