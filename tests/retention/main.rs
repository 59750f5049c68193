//! What a retention policy keeps, and why: whole decisions that people have checked, and properties of all.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

mod golden;
mod oracle;
mod properties;
mod series;
