//! Decodes a key slot from hostile bytes: may refuse them, may not panic nor use memory without bound.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::key_slot(data));
