//! Which paths a walk leaves out: gitignore's rules, by the crate that knows them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::{Error, Result};
use crate::tree::Key;

/// A list of patterns; a later one overrides an earlier one.
#[derive(Clone, Debug)]
pub(crate) struct Excludes(Gitignore);

impl Excludes {
    /// Reads the lines of `files`, in order, and after them `patterns`.
    pub(crate) fn new(patterns: &[String], files: &[PathBuf]) -> Result<Self> {
        // Paths are handed over relative to a root already; `.` keeps the matcher from cutting them again.
        let mut builder = GitignoreBuilder::new(".");
        for file in files {
            let text = std::fs::read_to_string(file).map_err(|error| Error::file("read", file, error))?;
            for line in text.trim_start_matches('\u{feff}').lines() {
                add(&mut builder, line, Some(file))?;
            }
        }
        for pattern in patterns {
            add(&mut builder, pattern, None)?;
        }
        builder.build().map(Self).map_err(|error| Error::invalid("the exclude patterns", error))
    }

    /// Whether to leave out `key`, whose first `above` components lead to the root, and everything below it.
    pub(crate) fn matches(&self, key: &Key, above: usize, is_folder: bool) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let path: PathBuf = key.components().skip(above).map(OsStr::from_bytes).collect();
        self.0.matched(path, is_folder).is_ignore()
    }
}

fn add(builder: &mut GitignoreBuilder, pattern: &str, file: Option<&PathBuf>) -> Result<()> {
    let place = file.map_or(String::new(), |file| format!(" in {}", Path::display(file)));
    let explain = |error| Error::invalid(format!("exclude pattern {pattern:?}{place}"), error);
    builder.add_line(file.cloned(), pattern).map_err(explain).map(|_| ())
}
