//! The protocol of writers, commits and collection, model-checked.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod collector;
mod forgetter;
mod intruder;
mod merger;
mod model;
mod reader;
mod rules;
mod store;
mod worlds;
mod writer;

mod removed;

use stateright::{Checker, Model};

use model::Protocol;

/// Checks that nothing is lost in any run of a world, and that some run of it comes to an end.
fn assert_holds(protocol: Protocol) {
    let checker = protocol.checker().spawn_bfs().join();
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let mut finishes = false;
    for (property, path) in checker.discoveries() {
        if property == model::FINISHED {
            finishes = true;
            continue;
        }
        let end = format!("{:?}", path.last_state());
        panic!("{property}:\n{end}\n{:#?}", path.into_actions());
    }
    assert!(finishes, "no run comes to an end");
}

macro_rules! worlds_hold {
    ($($world:ident)*) => {
        $(#[test]
        fn $world() {
            assert_holds(worlds::$world());
        })*
    };
}

worlds_hold! {
    contention
    collection
    new_series
    two_series
    lost_answers
    feed
    fenced_feed
    forgotten_parent
    forgotten_since
    freed_numbers
    fenced_numbers
    fenced_by_two
    duplicates
    taken_over
    two_forget
    undelete
    merging
    merging_beside_a_writer
    reading
}
