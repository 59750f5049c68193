//! The layers of the library, enforced: a module imports only from ranks below
//! its own, names what it imports, and stays small enough to read.
//!
//! Works on tokens, so comments and strings don't count; test code may import
//! what it likes. Where a layer's modules build on one another the ranks say
//! in which order; modules of one rank don't know each other.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test stops where it fails")]

use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module by layer and rank, lowest first.
const LAYERS: &[(&str, &[&[&str]])] = &[
    ("words", &[&["clock", "error", "id"], &["cpu", "progress"]]),
    ("transforms", &[&["codec"], &["compress", "crypto"], &["chunker", "layout", "retention"]]),
    ("objects", &[&["store"], &["object"]]),
    (
        "structures",
        &[
            &["kept", "pack", "tree"],
            &["index", "files"],
            &["blobs"],
            &["content", "cutter", "reach"],
            &["collection", "snapshot"],
            &["registration"],
        ],
    ),
    ("repository", &[&["config", "slot"], &["roster"], &["repository"]]),
    (
        "operations",
        &[
            &["draft", "merge"],
            &[
                "backup",
                "check",
                "diff",
                "drill",
                "feed",
                "forget",
                "gc",
                "history",
                "keys",
                "read",
                "repair",
                "replicate",
                "restore",
                "snapshots",
                "stats",
                "undelete",
                "writer",
            ],
        ],
    ),
    // Doors into the library for its own fuzzers and benches, and the crate's root.
    ("doors", &[&["bench", "fuzzing"], &["lib"]]),
];

/// The one module that may name the codec's crate.
const CODEC: (&str, &str) = ("bincode", "codec");

/// More lines than this don't belong in one file.
const MAX_LINES: usize = 800;

#[test]
fn modules_import_only_from_below() {
    let files = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    assert!(files.iter().any(|file| file.module == "lib"), "the sources were not found");
    let wrong = check(&files);
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A file of the library.
struct Source {
    /// Its name under `src`.
    path: PathBuf,
    /// The top-level module that it belongs to; `lib` is the root.
    module: String,
    /// How many modules down from the root it is.
    depth: usize,
    text: String,
}

impl Source {
    fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Self {
        let path = path.into();
        let mut parts: Vec<_> = path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if parts.len() > 1 && parts.last().is_some_and(|part| part == "mod") {
            parts.pop();
        }
        let module = parts[0].clone();
        let depth = if module == "lib" { 0 } else { parts.len() };
        Self { path, module, depth, text: text.into() }
    }

    /// The name of the file that holds the module `name` declared here, without its ending.
    fn child(&self, name: &str) -> PathBuf {
        let own = self.path.with_extension("");
        if self.depth == 0 {
            PathBuf::from(name)
        } else if own.ends_with("mod") {
            own.with_file_name(name)
        } else {
            own.join(name)
        }
    }
}

fn sources(root: &Path) -> Vec<Source> {
    fn walk(root: &Path, folder: &Path, found: &mut Vec<Source>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(root, &path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source::new(path.strip_prefix(root).unwrap(), text));
            }
        }
    }
    let mut found = Vec::new();
    walk(root, root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// What is wrong with the files, one line for each.
fn check(files: &[Source]) -> Vec<String> {
    let parsed: Vec<_> = files.iter().map(|file| (file, tokens(&file.text))).collect();
    let mut only_tests = Vec::new();
    for (file, tokens) in &parsed {
        only_tests.extend(without_tests(tokens).1.iter().map(|name| file.child(name)));
    }
    let mut wrong = Vec::new();
    for (file, tokens) in &parsed {
        let lines = file.text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("src/{}: {lines} lines, more than {MAX_LINES}", file.path.display()));
        }
        if file.module != CODEC.1 {
            let named = tokens.iter().filter(|token| token.text == CODEC.0);
            wrong.extend(named.map(|token| at(file, token.line, format!("{} is named outside {}", CODEC.0, CODEC.1))));
        }
        let own = file.path.with_extension("");
        if only_tests.iter().any(|tests| own.starts_with(tests)) {
            continue;
        }
        let Some(rank) = rank(&file.module) else {
            wrong.push(at(file, 1, format!("the module {} has no layer: add it to the table", file.module)));
            continue;
        };
        for reference in references(&without_tests(tokens).0, file.depth) {
            wrong.extend(judge(file, rank, &reference).map(|reason| at(file, reference.line, reason)));
        }
    }
    wrong
}

fn at(file: &Source, line: usize, reason: String) -> String {
    format!("src/{}:{line}: {reason}", file.path.display())
}

fn judge(file: &Source, own: usize, reference: &Token) -> Option<String> {
    let name = &reference.text;
    if name == "*" {
        return Some("the whole crate is imported: name what is used".to_owned());
    }
    if *name == file.module || file.module == "lib" {
        return None;
    }
    match rank(name) {
        None => Some(format!("crate::{name} is imported by way of the root: name the module that owns it")),
        Some(other) if other >= own => {
            Some(format!("{} ({}) imports {name} ({}), which is not below it", file.module, layer(own), layer(other)))
        }
        Some(_) => None,
    }
}

/// How far up a module stands.
fn rank(module: &str) -> Option<usize> {
    LAYERS.iter().flat_map(|(_, ranks)| *ranks).position(|rank| rank.contains(&module))
}

/// The name of the layer that a rank belongs to.
fn layer(rank: usize) -> &'static str {
    LAYERS.iter().flat_map(|(name, ranks)| ranks.iter().map(move |_| *name)).nth(rank).unwrap()
}

/// A word, `::`, or any other single character that isn't space.
#[derive(Clone, Debug, PartialEq)]
struct Token {
    text: String,
    line: usize,
}

/// Cuts Rust into tokens, without comments and without what is in quotes.
fn tokens(source: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = source;
    let mut line = 1;
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (len, keep) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(len) = quoted(rest) {
            (len, false)
        } else if rest.starts_with("::") {
            (2, true)
        } else if word > 0 {
            (word, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, after) = rest.split_at(len);
        if keep {
            tokens.push(Token { text: text.to_owned(), line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

/// The length of the (nested) comment that `text` begins with.
fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            return at;
        }
    }
    text.len()
}

/// The length of the string or character that `text` begins with, if it does.
fn quoted(text: &str) -> Option<usize> {
    let prefix = text.find(|c: char| !matches!(c, 'b' | 'c' | 'r')).filter(|len| *len <= 2)?;
    let (prefix, body) = text.split_at(prefix);
    if prefix.ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        let inside = body[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(prefix.len() + hashes + 1 + inside.find(&end).map_or(inside.len(), |at| at + end.len()));
    }
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let inside = &body[1..];
    if quote == '\'' && !inside.starts_with('\\') {
        // Not a lifetime: one character and the closing quote.
        let len = inside.chars().next()?.len_utf8();
        return inside[len..].starts_with('\'').then_some(prefix.len() + len + 2);
    }
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(prefix.len() + 1 + at + 1),
            _ => {}
        }
    }
    Some(text.len())
}

/// The tokens but for items that are compiled for tests alone, and the names of modules in other files among these.
fn without_tests(tokens: &[Token]) -> (Vec<Token>, Vec<String>) {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut kept = Vec::new();
    let mut modules = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let attribute = text(at) == "#" && text(at + 1) == "[";
        let end = if attribute { matching(tokens, at + 1) } else { at };
        let words: Vec<_> = (at..end).map(text).collect();
        let for_tests = attribute && words[2] == "cfg" && words.contains(&"test") && !words.contains(&"not");
        if !for_tests {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        let end = item_end(tokens, end);
        if let Some(name) = (at..end).find(|at| text(*at) == "mod").filter(|_| text(end - 1) == ";") {
            modules.push(text(name + 1).to_owned());
        }
        at = end;
    }
    (kept, modules)
}

/// Where the bracket that opens at `open` has closed.
fn matching(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text.as_str() {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at + 1;
        }
    }
    tokens.len()
}

/// Where the item that begins at `at` (attributes and all) has ended.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            ";" => return at + 1,
            "{" => return matching(tokens, at),
            "}" => return at,
            "(" | "[" => at = matching(tokens, at),
            _ => at += 1,
        }
    }
    at
}

/// What the tokens name in the crate's root, by `crate::` or by enough `super::`, in a file `depth` modules down.
fn references(tokens: &[Token], depth: usize) -> Vec<Token> {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text.as_str());
    let mut found = Vec::new();
    // For each open brace, whether it is a module's.
    let mut braces = Vec::new();
    let mut supers = 0;
    for at in 0..tokens.len() {
        match text(at) {
            "{" => braces.push(at >= 2 && text(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if text(at + 1) == "::" => found.extend(named(tokens, at + 2)),
            "crate" if text(at + 1) == "as" => found.push(Token { text: "*".to_owned(), line: tokens[at].line }),
            "super" if text(at + 1) == "::" => {
                supers += 1;
                let depth = depth + braces.iter().filter(|module| **module).count();
                if text(at + 2) != "super" {
                    if supers == depth {
                        found.extend(named(tokens, at + 2));
                    }
                    supers = 0;
                }
            }
            _ => {}
        }
    }
    found
}

/// The first names of a path, or of each path of a group, that begins at `at`.
fn named(tokens: &[Token], at: usize) -> Vec<Token> {
    match tokens.get(at) {
        Some(open) if open.text == "{" => {
            let mut names = Vec::new();
            let end = matching(tokens, at) - 1;
            let mut at = at + 1;
            while at < end {
                names.push(tokens[at].clone());
                while at < end && tokens[at].text != "," {
                    at = if tokens[at].text == "{" { matching(tokens, at) } else { at + 1 };
                }
                at += 1;
            }
            names
        }
        Some(token) => vec![token.clone()],
        None => Vec::new(),
    }
}

/// What the checker says of one planted file.
fn planted(path: &str, text: &str) -> Vec<String> {
    check(&[Source::new(path, text)])
}

#[test]
fn planted_violations_are_found() {
    let violations = [
        ("id.rs", "use crate::error::Error;", "id (words) imports error (words)"),
        ("codec.rs", "fn f() -> crate::tree::Node { todo() }", "codec (transforms) imports tree (structures)"),
        ("pack/reader.rs", "use crate::{error::{Error, Result}, blobs::Blob};", "imports blobs"),
        ("pack/reader.rs", "use crate::{\n    id::*,\n    repository\n};", "src/pack/reader.rs:3: pack (structures)"),
        ("pack/reader.rs", "use super::super::index::Index;", "imports index"),
        ("pack/mod.rs", "use super::index::Index;", "imports index"),
        ("pack.rs", "mod inner { use super::super::index::Index; }", "imports index"),
        ("pack.rs", "#[cfg(not(test))]\nuse crate::index::Index;", "imports index"),
        ("pack.rs", "#[cfg(test)]\nfn f() { g() }\nuse crate::index::Index;", "src/pack.rs:3: "),
        ("pack.rs", "#[cfg(test)]\nmod tests;\n/* \" */ use crate::index::Index;", "imports index"),
        ("pack.rs", "const Q: char = '\"'; use crate::index::Index; const R: &str = \"\";", "imports index"),
        ("pack.rs", "fn f<'a>(x: &'a str) -> crate::index::Index<'a> {}", "imports index"),
        ("pack.rs", "macro_rules! m { () => { $crate::index::f() } }", "imports index"),
        ("backup.rs", "use crate::restore::Plan;", "backup (operations) imports restore (operations)"),
        ("backup.rs", "use crate::*;", "the whole crate"),
        ("backup.rs", "use crate::{error::Error, *};", "the whole crate"),
        ("backup.rs", "use crate as backstop;", "the whole crate"),
        ("backup.rs", "use crate::Error;", "by way of the root"),
        ("helpers.rs", "", "no layer"),
        ("helpers/deep.rs", "", "no layer"),
        ("tree.rs", "use bincode::Encode;", "bincode is named outside codec"),
        ("tree.rs", &"\n".repeat(801), "801 lines"),
    ];
    for (path, text, expected) in violations {
        let found = planted(path, text);
        assert!(found.iter().any(|line| line.contains(expected)), "{path}: {text}\n{expected} is not in {found:?}");
    }
}

#[test]
fn what_is_allowed_is_not_reported() {
    let allowed = [
        ("progress.rs", "use crate::error::Error;"),
        ("codec.rs", "use bincode::Encode; use crate::{error::{Error, Result}, id::BlobId};"),
        (
            "pack/reader.rs",
            "use crate::pack::Footer; use super::Footer; pub(crate) fn f() {} pub(in crate::pack) fn g() {}",
        ),
        ("pack.rs", "mod inner { use super::Footer; }"),
        (
            "pack.rs",
            "//! See [`crate::index`].\n/* crate::index /* crate::blobs */ crate::tree */ const A: &str = \"crate::index\";",
        ),
        (
            "pack.rs",
            "const A: &str = r#\"\" crate::index \"#; const B: &[u8] = b\"\\\" crate::index\"; const C: char = '\\'';",
        ),
        ("pack.rs", "#[cfg(test)]\nmod tests { use crate::index::Index; fn f() { { } } }"),
        ("pack.rs", "#[cfg(test)]\n#[path = \"x\"]\nuse crate::{index::Index, blobs};"),
        ("pack.rs", "#[cfg(all(test, unix))]\nconst A: [u8; 2] = crate::index::A;"),
        ("lib.rs", "mod error; pub use crate::error::Error; #[cfg(fuzzing)] pub mod fuzzing;"),
        ("repository/open.rs", "use crate::{clock::Clock, registration::Registration};"),
    ];
    for (path, text) in allowed {
        assert_eq!(planted(path, text), Vec::<String>::new(), "{path}: {text}");
    }
    let tests_alone = [
        Source::new("pack/mod.rs", "#[cfg(test)]\nmod tests;"),
        Source::new("pack/tests.rs", "use crate::index::Index;"),
        Source::new("tree.rs", "#[cfg(test)]\nmod tests;"),
        Source::new("tree/tests.rs", "use crate::files::Walk;"),
    ];
    assert_eq!(check(&tests_alone), Vec::<String>::new());
    let not_declared =
        [Source::new("pack/mod.rs", "mod tests;"), Source::new("pack/tests.rs", "use crate::index::Index;")];
    assert_eq!(check(&not_declared).len(), 1);
}

#[test]
fn a_module_has_one_place_in_the_table() {
    let mut modules: Vec<_> = LAYERS.iter().flat_map(|(_, ranks)| *ranks).flat_map(|rank| *rank).collect();
    let listed = modules.len();
    modules.sort();
    modules.dedup();
    assert_eq!(modules.len(), listed);
}
