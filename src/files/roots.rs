//! The paths that a backup was asked for, merged into one plan in key order.
//!
//! An absolute path is stored without its leading `/`, a relative one as it
//! was given; `.` and `/` give their children at the top. The folders above a
//! root are part of the plan, so that a restore gives them back with their
//! metadata, but nothing else in them is. A folder above a root that is a
//! symlink is stored as the folder that it leads to; a root that is a symlink
//! is stored as a symlink, unless it is given with a `/` at its end.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD};

use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::Key;

/// What a key's path is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Base {
    /// The root of the file system.
    Absolute,
    /// The working folder.
    Relative,
}

impl Base {
    pub(super) fn folder(self) -> &'static CStr {
        match self {
            Base::Absolute => c"/",
            Base::Relative => c".",
        }
    }

    pub(super) fn prefix(self) -> &'static str {
        match self {
            Base::Absolute => "/",
            Base::Relative => "",
        }
    }
}

/// How a root itself is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// As what it is.
    Itself,
    /// As what it leads to, if it is a symlink.
    Followed,
}

/// A path that the plan leads through or to.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) base: Base,
    /// Present if all of it was asked for.
    pub(super) root: Option<Root>,
    /// What was asked for below it, by name.
    pub(super) children: BTreeMap<CString, Planned>,
}

/// Merges `paths`, each of which must exist.
pub(super) fn plan(paths: &[PathBuf]) -> Result<Planned> {
    let mut top: Option<Planned> = None;
    for path in paths {
        let (base, names, root) = parse(path)?;
        let flags = if root == Root::Itself { AtFlags::SYMLINK_NOFOLLOW } else { AtFlags::empty() };
        rustix::fs::statat(CWD, path, flags).map_err(|error| Error::file("read", path, error))?;
        let top = top.get_or_insert_with(|| Planned::through(base));
        if names.is_empty() {
            top.agree_on_top(path, base)?;
            (top.base, top.root) = (base, Some(root));
        } else {
            if top.root.is_some() && top.base != base {
                same_folder(path, Path::new("/"), Path::new("."))?;
            }
            top.insert(path, base, names, root)?;
        }
    }
    top.ok_or_else(|| Error::invalid("the list of paths", "it is empty; name at least one path to back up"))
}

impl Planned {
    fn through(base: Base) -> Self {
        Self { base, root: None, children: BTreeMap::new() }
    }

    /// Checks that everything planned so far has its place among the children of `base`.
    fn agree_on_top(&self, path: &Path, base: Base) -> Result<()> {
        let others = self.children.values().any(|child| child.base != base);
        if others || (self.root.is_some() && self.base != base) {
            same_folder(path, Path::new("/"), Path::new("."))?;
        }
        Ok(())
    }

    fn insert(&mut self, path: &Path, base: Base, names: Vec<CString>, root: Root) -> Result<()> {
        let mut node = self;
        let mut here = PathBuf::new();
        for name in names {
            here.push(OsStr::from_bytes(name.to_bytes()));
            node = node.children.entry(name).or_insert_with(|| Planned::through(base));
            if node.base != base {
                same_folder(path, &Path::new("/").join(&here), &here)?;
            }
        }
        // Given both ways, the one that asks for more counts.
        if node.root != Some(Root::Followed) {
            node.root = Some(root);
        }
        Ok(())
    }
}

/// Takes a path apart into names.
fn parse(path: &Path) -> Result<(Base, Vec<CString>, Root)> {
    let invalid = |reason| Error::invalid(format!("path {}", path.display()), reason);
    let mut base = Base::Relative;
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::Prefix(_) => base = Base::Absolute,
            Component::CurDir => {}
            Component::ParentDir => return Err(invalid("it contains \"..\"; use an absolute path")),
            Component::Normal(name) => {
                names.push(CString::new(name.as_bytes()).map_err(|_| invalid("it contains a NUL byte"))?);
            }
        }
    }
    let bytes = path.as_os_str().as_bytes();
    if bytes.is_empty() {
        return Err(Error::invalid("an empty path", "use \".\" for the working folder"));
    }
    if !names.is_empty() {
        Key::new(names.iter().map(|name| name.to_bytes()))?;
    }
    let followed = bytes.ends_with(b"/") || bytes.ends_with(b"/.");
    Ok((base, names, if followed { Root::Followed } else { Root::Itself }))
}

/// Refuses `path` if two paths that would be stored under one name aren't one file.
fn same_folder(path: &Path, absolute: &Path, relative: &Path) -> Result<()> {
    let stat = |path| Ok::<_, Error>(Stat::from(rustix::fs::stat(path).map_err(|e| Error::file("read", path, e))?));
    if stat(absolute)?.is_same_file(&stat(relative)?) {
        return Ok(());
    }
    let reason = format!(
        "{} and {} would be stored under one name; give all paths as absolute ones",
        absolute.display(),
        relative.display()
    );
    Err(Error::invalid(format!("path {}", path.display()), reason))
}
