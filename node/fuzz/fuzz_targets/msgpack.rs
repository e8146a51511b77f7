//! One message of MessagePack: read, written again, and given to a client's core.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| flotilla_fuzz::msgpack(input));
