//! Decodes a keyring from hostile bytes, seals and opens with it, and lets it learn another generation.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::keyring(data));
