//! Gives a restored path its metadata, as far as this process may.
//!
//! The order matters: changing the owner clears set-user-id and capabilities,
//! so it comes first; attributes come before the mode, which may forbid setting
//! them; access control lists come after it, because they define its group
//! bits; times come last. Owners are looked up by name, then taken by number;
//! those that access control lists name are known by number alone.

use std::path::Path;

use super::attributes::{self, Changes};
use super::metadata::Posix;
use super::owners::Owners;
use super::place::Place;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::EntryKind;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// Who restores, and whom the system knows.
#[derive(Debug)]
pub(super) struct Restorer {
    owners: Owners,
    is_root: bool,
    uid: u32,
    groups: Vec<u32>,
}

impl Restorer {
    /// This process.
    pub(super) fn current() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        groups.push(rustix::process::getegid().as_raw());
        Self { owners: Owners::default(), is_root: uid == 0, uid, groups }
    }

    pub(super) fn is_root(&self) -> bool {
        self.is_root
    }

    /// Gives what stands at `place` the metadata `posix`; each part that can't be given is a warning.
    pub(super) fn apply(&self, place: &Place<'_>, kind: EntryKind, posix: &Posix, path: &Path) -> Result<Vec<Error>> {
        let fail = |error| Error::file("set the metadata of", path, error);
        let mut warnings = Vec::new();
        let stat = self.apply_owner(place, place.stat().map_err(fail)?, posix, path, &mut warnings).map_err(fail)?;
        if stat.kind != kind {
            return Err(fail(std::io::Error::other("something else has taken its place")));
        }
        let has_mode = kind != EntryKind::Symlink;
        let mut mode = stat.mode;
        if has_mode && !self.is_root && mode & 0o600 != 0o600 && place.set_mode(mode | 0o600).is_ok() {
            mode |= 0o600;
        }
        let mut problems = Vec::new();
        let current = attributes::read(place, &mut problems);
        let (lists, others) = Changes::new(&current, &posix.extended).split_lists();
        others.apply(place, &mut problems);
        let wanted = self.mode(&stat, posix);
        let mut set_mode = || {
            if let Err(error) = place.set_mode(wanted) {
                warnings.push(Error::file("set the mode of", path, error));
            }
        };
        if has_mode && mode != wanted {
            set_mode();
        }
        if !lists.is_empty() {
            lists.apply(place, &mut problems);
            if has_mode && place.stat().map_err(fail)?.mode != wanted {
                set_mode();
            }
        }
        warnings.extend(problems.into_iter().map(|error| Error::file("set an extended attribute of", path, error)));
        if let Err(error) = place.set_modified(posix.modified) {
            warnings.push(Error::file("set the time of", path, error));
        }
        Ok(warnings)
    }

    /// Whether [`Self::apply`] would change nothing.
    pub(super) fn matches(&self, place: &Place<'_>, kind: EntryKind, posix: &Posix) -> std::io::Result<bool> {
        let stat = place.stat()?;
        let has_mode = kind != EntryKind::Symlink;
        if stat.kind != kind
            || self.owner(&stat, posix) != (stat.uid, stat.gid)
            || (has_mode && self.mode(&stat, posix) != stat.mode)
            || stat.modified != posix.modified
        {
            return Ok(false);
        }
        let mut problems = Vec::new();
        let current = attributes::read(place, &mut problems);
        Ok(problems.is_empty() && Changes::new(&current, &posix.extended).is_empty())
    }

    /// Sets the owner and tells the state afterwards.
    fn apply_owner(
        &self,
        place: &Place<'_>,
        stat: Stat,
        posix: &Posix,
        path: &Path,
        warnings: &mut Vec<Error>,
    ) -> std::io::Result<Stat> {
        let (uid, gid) = self.owner(&stat, posix);
        if (uid, gid) == (stat.uid, stat.gid) {
            return Ok(stat);
        }
        if let Err(error) = place.set_owner(uid, gid) {
            warnings.push(Error::file("set the owner of", path, error));
        }
        place.stat()
    }

    /// The owner that the path should have and that this process can give it.
    fn owner(&self, stat: &Stat, posix: &Posix) -> (u32, u32) {
        let (uid, gid) = self.wanted_owner(posix);
        if self.is_root {
            (uid, gid)
        } else if stat.uid == self.uid && self.groups.contains(&gid) {
            (stat.uid, gid)
        } else {
            (stat.uid, stat.gid)
        }
    }

    fn wanted_owner(&self, posix: &Posix) -> (u32, u32) {
        (self.owners.uid(posix.user.as_ref(), posix.uid), self.owners.gid(posix.group.as_ref(), posix.gid))
    }

    /// The mode for a path with this owner: nobody else's set-user-id is handed to whoever restores.
    fn mode(&self, stat: &Stat, posix: &Posix) -> u32 {
        let (uid, gid) = self.wanted_owner(posix);
        let mut mode = posix.mode;
        if stat.kind != EntryKind::Folder {
            mode &= if stat.uid == uid { !0 } else { !SET_UID };
            mode &= if stat.gid == gid { !0 } else { !SET_GID };
        }
        mode
    }
}
