//! Records of many users, as a sync server keeps them.

use super::random::Random;

/// Records that a user has.
pub const PER_USER: u64 = 20;

/// The length of a record in bytes.
pub const LENGTH: usize = 300;

/// The folders that a user's records lie in, evenly.
const COLLECTIONS: [&str; 4] = ["calendar", "contacts", "notes", "tasks"];

/// The folder of a user.
pub fn user(user: u64) -> String {
    format!("users/{user:08}")
}

/// Where record `number` lies; in the order of the numbers.
pub fn path(number: u64) -> String {
    let within = number % PER_USER;
    let collection = COLLECTIONS[(within / (PER_USER / COLLECTIONS.len() as u64)) as usize];
    format!("{}/{collection}/{within:02}-{:08x}", user(number / PER_USER), Random::new(number).next() as u32)
}

/// What a record says in its `version`-th form: half of it words that compress, half of it noise that doesn't.
pub fn content(number: u64, version: u64) -> Vec<u8> {
    let mut random = Random::new(number ^ version << 48);
    let mut content = random.text(LENGTH / 2);
    content.extend_from_slice(&random.bytes(LENGTH - LENGTH / 2));
    content
}
