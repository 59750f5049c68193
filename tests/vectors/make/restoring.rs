//! What restoring makes of a tree: nothing is written outside of the destination or through a link.

use serde_json::{Value as Json, json};

use super::trees::Tree;
use super::{Cases, restore};
use crate::forge::Value;
use crate::good::posix;
use crate::tree::{FILE, FOLDER, Piece, SYMLINK, entry, inline, key, leaf, pieces, small};

fn folder() -> Value {
    entry(FOLDER, &inline(""), &inline(""))
}

fn link(target: &str) -> Value {
    entry(SYMLINK, &inline(target), &inline(""))
}

impl Cases {
    /// A tree, the paths of it that must be refused, and what must stand in the destination.
    fn restored(&mut self, what: &str, rule: &str, tree: &Tree, refused: &[&str], restored: Json) {
        let verdict = if refused.is_empty() { "fine" } else { "in part" };
        let changes = self.planted(tree);
        let expect = json!({"refused": refused, "restored": restored});
        self.add((what, rule), changes, restore("bad"), verdict, expect);
    }

    pub(super) fn add_restoring(&mut self) {
        let below = Tree::leaf(&[("l", link("/tmp")), ("l/x", small("escaped")), ("m", small("1"))]);
        self.restored("restore: an entry below a symlink", "R49", &below, &["l/x"], json!(["l -> /tmp", "m: 1"]));
        let inside = Tree::leaf(&[("d", folder()), ("l", link("d")), ("l/x", small("escaped"))]);
        self.restored(
            "restore: an entry below a symlink to a folder",
            "R49",
            &inside,
            &["l/x"],
            json!(["d/", "l -> d"]),
        );
        let deep = Tree::leaf(&[("l", link("..")), ("l/a", folder()), ("l/a/x", small("escaped"))]);
        self.restored("restore: entries far below a symlink", "R49", &deep, &["l/a", "l/a/x"], json!(["l -> .."]));
        let file = Tree::leaf(&[("f", small("a file")), ("f/x", small("below it"))]);
        self.restored("restore: an entry below a file", "R49", &file, &["f/x"], json!(["f: a file"]));
        let odd = Value::new().n(9).bytes("of a later version");
        let odd = Tree::leaf(&[("o", odd), ("o/x", small("below it")), ("p", small("beside it"))]);
        self.restored(
            "restore: an unknown kind, and an entry below it",
            "R49",
            &odd,
            &["o", "o/x"],
            json!(["p: beside it"]),
        );
        let deep = Tree::leaf(&[("a/b/c", small("deep"))]);
        self.restored("restore: folders that have no entry", "R48", &deep, &[], json!(["a/", "a/b/", "a/b/c: deep"]));
        let chunk = b"the first half".as_slice();
        let half = Piece::Chunk(self.good.keys.chunk(chunk), 14, 1);
        let half = entry(FILE, &pieces(&[half, Piece::Chunk([9; 20], 5, 1)]), &inline(""));
        let half = Tree::leaf(&[("half", half), ("whole", small("1"))]).with(&[chunk]);
        self.restored("restore: a file that can't be completed", "R53", &half, &["half"], json!(["whole: 1"]));
        let empty = Tree::leaf(&[("e", link("")), ("f", small("1"))]);
        self.restored("restore: a symlink to nothing", "R50", &empty, &["e"], json!(["f: 1"]));
        let linked = |content: &str| entry(FILE, &inline(content), &inline(posix(Some((1, 2)), &[]).0));
        let same =
            Tree::new(vec![leaf(&[(key("a"), linked("x")), (key("b"), linked("x")), (key("c"), linked("y"))])], 3);
        self.restored(
            "restore: names of one file, one of which has changed",
            "R51",
            &same,
            &[],
            json!(["a: x", "b: x", "c: y"]),
        );
        let even = Value::new().numbers([0, 0, 0, 0]).extensions(&[(2, "new")]);
        let even = Tree::leaf(&[("a", entry(FILE, &inline("content"), &inline(even.0)))]);
        self.restored("restore: metadata that can't be used", "R40", &even, &["a"], json!(["a: content"]));
    }
}
