//! Attacks that combine such.
