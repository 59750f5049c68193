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

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use model::Protocol;
use rules::Clause;

/// Checks that nothing is lost, in any run of a world.
fn holds(protocol: Protocol) {
    let checker = protocol.checker().spawn_bfs().join();
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    for (property, path) in checker.discoveries() {
        let end = format!("{:?}", path.last_state());
        panic!("{property}:\n{end}\n{:#?}", path.into_actions());
    }
}

/// Checks that without a clause some run of the world breaks `property`.
fn breaks(clause: Clause, protocol: Protocol, property: &'static str) {
    let protocol = Protocol { without: Some(clause), ..protocol };
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    let path = checker.discovery(property);
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let path = path.unwrap_or_else(|| panic!("nothing is lost without {clause:?}"));
    for action in path.into_actions() {
        println!("{action:?}");
    }
}

#[test]
fn contention_holds() {
    holds(worlds::contention());
}

#[test]
fn collection_holds() {
    holds(worlds::collection());
}

#[test]
fn t1() {
    breaks(Clause::RegisterBeforeGc, worlds::collection(), model::COUNTED);
}
