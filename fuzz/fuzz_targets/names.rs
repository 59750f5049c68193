//! Parses names as a hostile listing gives them, and their neighbours.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::names(data));
