//! Decodes lists of what counts and records of collections from hostile bytes: may refuse them, may not panic nor use
//! memory without bound.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::signed_record(data));
