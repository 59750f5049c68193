//! Reads, walks and compares trees whose nodes are nearly what their parents say.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::trees::tree(data));
