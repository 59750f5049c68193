//! A snapshot's tree, and the tree of a large file's pieces.
//!
//! A snapshot is an ordered map from [`Key`] to [`Entry`], stored as a prolly tree:
//! nodes named by their content and cut where the keys say, so that the same map
//! has the same root however it was reached, an edit rewrites a path, and a
//! comparison costs the difference.
//!
//! What is here knows neither packs nor encryption: it reads and writes nodes
//! through [`ReadNode`] and [`WriteNode`]. Who implements them computes and
//! verifies ids.
//!
//! - `key`, `entry`: what is mapped. `node`: the stored form, and what is checked of it.
//! - `split`: where nodes are cut. `build`: a tree from sorted entries. `edit`, `warm`: a tree from another.
//! - `cursor`, `read`: look up, range, list, visit. `diff`: compare.
//! - `sequence`: the pieces of large payloads.

mod build;
mod cursor;
mod diff;
mod edit;
mod entry;
mod key;
mod node;
mod read;
mod sequence;
mod span;
mod split;
#[cfg(test)]
mod tests;
mod warm;

pub use diff::Change;
pub use entry::{Entry, EntryKind, Payload, Piece, SequenceRoot};
pub use key::Key;

pub(crate) use build::{Root, TreeBuilder, check};
pub(crate) use diff::diff;
pub(crate) use edit::{Edit, Tally, edit};
pub(crate) use node::{Node, ReadNode, WriteNode, children, decode_node, has_children};
#[cfg(fuzzing)]
pub(crate) use node::{NodeRef, SequenceRef};
pub(crate) use read::{Visitor, get, list, range, visit_nodes};
pub(crate) use sequence::{SequenceBuilder, SequenceVisitor, pieces, visit_sequence};
pub(crate) use span::Span;
pub(crate) use split::{Splitter, TreeParameters};
