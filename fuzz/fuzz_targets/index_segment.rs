//! Decodes an index segment from hostile bytes: may refuse them, may not panic nor use memory without bound.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::index_segment(data));
