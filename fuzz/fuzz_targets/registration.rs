//! Decodes registrations and their ends from hostile bytes, also as plaintexts that are sealed.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| backstop::fuzzing::registration(data));
