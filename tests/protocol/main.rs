//! The protocol of writers, commits and collection, model-checked.
//!
//! A model of its own, which uses nothing of the library: actors over a store of names, each step of theirs one request
//! or one decision, and all their interleavings tried in small [`worlds`]. Every world holds with all rules. Every
//! clause in [`rules`] is then left out on its own, and [`removed`] says in which world what is lost without it.
//!
//! What must hold in every state:
//! - each blob that is needed by a snapshot which counts, or can still be undeleted, is in a pack that exists;
//! - what was acknowledged is there, is its writer's own, and counts unless somebody forgot that very record;
//! - a reader finds a blob that a snapshot which counts needs.
//!
//! What the store does: creating a name that is taken loses, a listing shows what was written before, and one request
//! is one step. A put that was sent lands at any later time, whatever became of its client. Nothing has a clock; a
//! patience that runs out, or a delay that expires, is a step that may come at any time.
//!
//! A crash needs no step. An actor that isn't scheduled any more has crashed, and since every beginning of a run is a
//! run, crashes everywhere are among those checked. For the same reason a client that is merely slow, and wakes late,
//! needs no step either; two collectors can work on one collection at any distance from one another.
//!
//! What it abstracts from:
//! - Index segments and footers: what a pack holds is always told; whether the pack still exists is what matters.
//! - The deletions of one collection: its packs go in one step, and so do its records.
//! - The first mark reads all records in one step, packs in another; the second mark is one step.
//! - A writer reads the highest `kept/` and its parent in one step.
//! - Records of `gc/` and `kept/` below the highest are free names; nobody acts on what lands there.
//! - Records that weren't signed by an administrator are as if they weren't there, where that rule holds.
//!
//! Not needed for safety: sparing packs that a live registration made. No collector here does, and nothing is lost; it
//! saves copying. What else isn't needed, each with a test that finds no loss, stands at the end of [`removed`].

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
