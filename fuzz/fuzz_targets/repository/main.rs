//! Plays the attackers against a small repository: whoever can write to its store, and whoever holds an append-only
//! secret. Between what they do, an administrator gives commands and honest writers commit, in a drawn order.
//!
//! What must never happen: a panic, a loop, memory without bound, or
//! - that a snapshot which an honest writer was acknowledged doesn't read, byte for byte, unless a person forgot it, or
//!   an attacker damaged or deleted what it needs. What an attacker only adds makes nothing unreadable, and no command
//!   of the administrator makes unreadable what reads before it;
//! - that a check finds nothing and something can't be read back;
//! - that a restore leaves something out or otherwise and doesn't say so.

#![no_main]

mod attack;
mod original;
mod play;

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Unstructured};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    LazyLock::force(&original::ORIGINAL);
    original::RUNTIME.block_on(play::run(&steps(data)));
});

/// More steps show nothing that a few can't.
const STEPS_MAX: usize = 8;

/// As many steps as the input has bytes for.
fn steps(data: &[u8]) -> Vec<Step> {
    let mut left = Unstructured::new(data);
    let mut steps = Vec::new();
    while !left.is_empty() && steps.len() < STEPS_MAX {
        let Ok(step) = left.arbitrary() else { break };
        steps.push(step);
    }
    steps
}

/// One thing that is done.
#[derive(Arbitrary, Debug)]
enum Step {
    Attack(attack::Edit),
    Command(play::Command),
}
