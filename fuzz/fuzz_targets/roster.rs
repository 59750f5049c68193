//! Decodes a roster from hostile bytes, also as what an administrator signed.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::roster(data));
