//! Walks what a backup was asked for, in the order of keys.
//!
//! Owns the order, the excludes and the rule for other file systems; reads no
//! content. Depth first, the names of a folder sorted by their bytes: since
//! keys are compared name by name, that is their order. Memory holds the names
//! of the folders on the current path, and a bounded number of them is open.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::excludes::Excludes;
use super::folder::Folder;
use super::found::{Found, path_of};
use super::roots::{Base, Planned, Root, plan};
use crate::error::{Error, Result};
use crate::tree::{EntryKind, Key};

/// What a walk leaves out.
///
/// Patterns follow gitignore's rules, relative to each root: `*.o` matches at any depth, `/target` only directly in
/// a root, `cache/` only folders, a later `!keep.o` takes an earlier match back. What is excluded as a folder isn't
/// entered, so that nothing in it can be taken back. Roots themselves, and what leads to them, are never left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalkOptions {
    /// Patterns, applied after those of the files.
    pub(crate) excludes: Vec<String>,
    /// Files with a pattern a line.
    pub(crate) exclude_files: Vec<PathBuf>,
    /// Whether to stay on the file system of each root: a mount point is stored as an empty folder.
    pub(crate) one_file_system: bool,
}

/// A path that couldn't be read; the walk goes on without it and what is below it.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) path: PathBuf,
    pub(crate) error: Error,
}

/// Yields each path once, keys strictly ascending.
///
/// A folder whose names can't be listed is yielded twice: as found, and as unreadable.
#[derive(Debug)]
pub(crate) struct Walk {
    excludes: Excludes,
    one_file_system: bool,
    /// Where absolute and relative roots start.
    bases: [Option<Arc<Folder>>; 2],
    /// The folders on the current path.
    frames: Vec<Frame>,
    /// The folder that was yielded last and is to be listed next.
    entering: Option<Entering>,
}

/// A folder that is being walked.
#[derive(Debug)]
struct Frame {
    /// None at the top, where absolute and relative roots meet.
    folder: Option<(Arc<Folder>, Key)>,
    base: Base,
    names: std::vec::IntoIter<CString>,
    planned: BTreeMap<CString, Planned>,
    scope: Option<Scope>,
}

/// The root that a path was found under. A path without one only leads to roots.
#[derive(Clone, Copy, Debug)]
struct Scope {
    /// How many components of a key lead to the root.
    above: usize,
    device: u64,
}

/// A folder that was found and is still to be listed.
#[derive(Debug)]
struct Entering {
    found: Found,
    planned: BTreeMap<CString, Planned>,
    scope: Option<Scope>,
}

impl Walk {
    /// Plans a walk; a root that doesn't exist or an exclude that makes no sense is an error here.
    pub(crate) fn new(roots: &[PathBuf], options: &WalkOptions) -> Result<Self> {
        let excludes = Excludes::new(&options.excludes, &options.exclude_files)?;
        let top = plan(roots)?;
        let mut walk = Self {
            excludes,
            one_file_system: options.one_file_system,
            bases: [None, None],
            frames: Vec::new(),
            entering: None,
        };
        let mut names: Vec<CString> = top.children.keys().cloned().collect();
        let mut scope = None;
        if top.root.is_some() {
            let fail = |error| Error::file("read", OsStr::from_bytes(top.base.folder().to_bytes()), error);
            let folder = walk.base(top.base).map_err(fail)?;
            scope = Some(Scope { above: 0, device: folder.stat(c".", true).map_err(fail)?.device });
            names = merge(folder.list().map_err(fail)?, names);
        }
        let names = names.into_iter();
        walk.frames.push(Frame { folder: None, base: top.base, names, planned: top.children, scope });
        Ok(walk)
    }

    fn base(&mut self, base: Base) -> std::io::Result<Arc<Folder>> {
        let [absolute, relative] = &mut self.bases;
        let slot = if base == Base::Absolute { absolute } else { relative };
        match slot {
            Some(folder) => Ok(folder.clone()),
            None => Ok(slot.insert(Folder::base_at(base.folder())?).clone()),
        }
    }

    /// Lists the folder that was just yielded.
    fn enter(&mut self, entering: Entering) -> Result<(), Unreadable> {
        let Entering { found, planned, scope } = entering;
        let mut names: Vec<CString> = planned.keys().cloned().collect();
        let mut outcome = Ok(());
        let folder = found.as_folder();
        if scope.is_some() {
            match folder.list() {
                Ok(listed) => names = merge(listed, names),
                Err(error) => outcome = Err(unreadable("list", found.base, &found.key, error)),
            }
        }
        let names = names.into_iter();
        self.frames.push(Frame { folder: Some((folder, found.key)), base: found.base, names, planned, scope });
        outcome
    }

    /// Looks at one name of the innermost folder; nothing if it is to be left out.
    fn visit(&mut self, name: CString) -> Result<Option<Found>, Unreadable> {
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        let outer = frame.scope;
        let mut planned = frame.planned.remove(&name);
        let found = self.look(&name, planned.as_mut())?;
        let is_folder = found.kind() == EntryKind::Folder;
        let scope = if planned.as_ref().is_some_and(|planned| planned.root.is_some()) {
            Some(Scope { above: found.key.depth(), device: found.stat.device })
        } else {
            let included = outer.filter(|scope| !self.excludes.matches(&found.key, scope.above, is_folder));
            let local = included.filter(|scope| !self.one_file_system || scope.device == found.stat.device);
            let is_mount_point = included.is_some() && is_folder;
            if planned.is_none() && local.is_none() && !is_mount_point {
                return Ok(None);
            }
            local
        };
        let planned = planned.map(|planned| planned.children).unwrap_or_default();
        if !is_folder && !planned.is_empty() {
            return Err(unreadable("list", found.base, &found.key, rustix::io::Errno::NOTDIR.into()));
        }
        if is_folder && (scope.is_some() || !planned.is_empty()) {
            self.entering = Some(Entering { found: found.clone(), planned, scope });
        }
        Ok(Some(found))
    }

    /// The state of one name of the innermost folder.
    fn look(&mut self, name: &CString, planned: Option<&mut Planned>) -> Result<Found, Unreadable> {
        let top = || planned.as_ref().map(|planned| planned.base);
        let (folder, key, base) = match self.frames.last() {
            Some(Frame { folder: Some((folder, key)), base, .. }) => {
                (Ok(folder.clone()), key.join(name.to_bytes()), *base)
            }
            frame => {
                let base = top().or(frame.map(|frame| frame.base)).unwrap_or(Base::Relative);
                (self.base(base), Key::new([name.to_bytes()]), base)
            }
        };
        let key = key.map_err(|error| self.nameless(name, error))?;
        let fail = |error| unreadable("read", base, &key, error);
        let folder = folder.map_err(fail)?;
        let follow = planned.map_or(Ok(false), |planned| planned.settle(&folder, name)).map_err(fail)?;
        let stat = folder.stat(name, follow).map_err(fail)?;
        Ok(Found { key, stat, folder, base, follow })
    }

    /// Of a path too long for a key.
    fn nameless(&self, name: &CString, error: Error) -> Unreadable {
        let frame = self.frames.last().and_then(|frame| Some((frame.base, frame.folder.as_ref()?)));
        let mut path = frame.map_or(PathBuf::new(), |(base, (_, key))| path_of(base.prefix(), key));
        path.push(OsStr::from_bytes(name.to_bytes()));
        Unreadable { path, error }
    }
}

impl Iterator for Walk {
    type Item = Result<Found, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entering) = self.entering.take()
                && let Err(unreadable) = self.enter(entering)
            {
                return Some(Err(unreadable));
            }
            match self.frames.last_mut()?.names.next() {
                None => drop(self.frames.pop()),
                Some(name) => match self.visit(name).transpose() {
                    None => {}
                    found => return found,
                },
            }
        }
    }
}

impl Planned {
    /// Whether a symlink of this name is to be followed.
    ///
    /// A root that is a symlink while something below it was asked for too is only the way there.
    fn settle(&mut self, folder: &Arc<Folder>, name: &CString) -> std::io::Result<bool> {
        match self.root {
            None | Some(Root::Followed) => Ok(true),
            Some(Root::Itself) if self.children.is_empty() => Ok(false),
            Some(Root::Itself) => {
                let leads_on = folder.stat(name, false)?.kind == EntryKind::Symlink;
                self.root = self.root.filter(|_| !leads_on);
                Ok(leads_on)
            }
        }
    }
}

fn unreadable(operation: &'static str, base: Base, key: &Key, error: std::io::Error) -> Unreadable {
    let path = path_of(base.prefix(), key);
    Unreadable { error: Error::file(operation, &path, error), path }
}

/// Both lists in order, without repetition.
fn merge(mut names: Vec<CString>, more: Vec<CString>) -> Vec<CString> {
    if !more.is_empty() {
        names.extend(more);
        names.sort_unstable();
        names.dedup();
    }
    names
}
