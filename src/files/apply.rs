//! Gives a restored path its metadata, as far as this process may.
//!
//! The order matters: changing the owner clears set-user-id and capabilities,
//! so it comes first; attributes come before the mode, which may forbid setting
//! them; access control lists come after it, because they define its group
//! bits; times come last. Owners are looked up by name, then taken by number;
//! those that access control lists name are known by number alone.

use std::borrow::Cow;
use std::path::Path;

use super::attributes::{self, Attributes, Changes};
use super::metadata::Posix;
use super::owners::Owners;
use super::place::Place;
use super::stat::Stat;
use crate::error::{Error, Result};
use crate::tree::EntryKind;

const SET_UID: u32 = 0o4000;
const SET_GID: u32 = 0o2000;

/// The attribute that gives a program rights as set-user-id does.
const CAPABILITY: &[u8] = b"security.capability";

/// What of the metadata of files is restored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope {
    /// Owners and groups; otherwise everything belongs to whoever restores.
    pub(crate) owners: bool,
    /// Set-user-id and set-group-id of files, and their capabilities.
    pub(crate) set_id: bool,
    /// Extended attributes. Access control lists always are: without them the mode would mean something else.
    pub(crate) attributes: bool,
}

impl Default for Scope {
    fn default() -> Self {
        Self { owners: true, set_id: true, attributes: true }
    }
}

impl Scope {
    /// The attributes that are restored, or that are left alone where they are there.
    fn of<'a>(&self, attributes: &'a Attributes) -> Cow<'a, Attributes> {
        if self.set_id && self.attributes {
            return Cow::Borrowed(attributes);
        }
        let is_wanted = |name: &[u8]| match name {
            _ if !self.attributes => name.starts_with(attributes::LISTS),
            _ => self.set_id || name != CAPABILITY,
        };
        Cow::Owned(attributes.iter().filter(|(name, _)| is_wanted(name)).cloned().collect())
    }
}

/// What somebody else than whoever restores, and the owner to be, may do to a path that stands there, through the
/// handle that he may have opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exposure {
    None,
    Read,
    Write,
}

/// Who restores, and whom the system knows.
#[derive(Debug)]
pub(super) struct Restorer {
    scope: Scope,
    owners: Owners,
    is_root: bool,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Restorer {
    /// This process.
    pub(super) fn current(scope: Scope) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let mut groups: Vec<u32> =
            rustix::process::getgroups().unwrap_or_default().iter().map(|g| g.as_raw()).collect();
        let gid = rustix::process::getegid().as_raw();
        groups.push(gid);
        Self { scope, owners: Owners::default(), is_root: uid == 0, uid, gid, groups }
    }

    /// Whether it is root who restores.
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
        let (current, extended) = (self.current_attributes(&current), self.scope.of(&posix.extended));
        let (lists, others) = Changes::new(&current, &extended).split_lists();
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
        let current = self.current_attributes(&current);
        Ok(problems.is_empty() && Changes::new(&current, &self.scope.of(&posix.extended)).is_empty())
    }

    /// Those that are compared with what is wanted: others stay as they are.
    fn current_attributes<'a>(&self, current: &'a Attributes) -> Cow<'a, Attributes> {
        Scope { set_id: true, ..self.scope }.of(current)
    }

    /// What somebody else may do to what stands at `place`, to which this metadata is to be given.
    pub(super) fn exposure(&self, place: &Place<'_>, stat: &Stat, posix: Option<&Posix>) -> Exposure {
        let Some(posix) = posix else {
            return if stat.uid == self.uid { Exposure::None } else { Exposure::Write };
        };
        let (uid, gid) = (
            if self.scope.owners { self.wanted_owner(posix).0 } else { self.uid },
            self.owner(stat, posix).1, // as far as it can be given
        );
        if stat.uid != self.uid && stat.uid != uid {
            return Exposure::Write;
        }
        let list = attributes::access_list(place);
        let wanted = posix.extended.iter().find(|(name, _)| name == attributes::ACCESS_LIST).map(|(_, list)| list);
        if list.is_some() && list.as_ref() != wanted {
            return Exposure::Write;
        }
        let others = posix.mode & 0o6;
        // Beside a list the bits of the group are no longer its own.
        let group = if stat.gid == gid && list.as_ref() == wanted { posix.mode >> 3 & 0o6 } else { others };
        let excess = (stat.mode >> 3 & 0o6 & !group) | (stat.mode & 0o6 & !others);
        match excess {
            0 => Exposure::None,
            0o4 => Exposure::Read,
            _ => Exposure::Write,
        }
    }

    /// Makes a folder that stands there one that nobody else puts anything into, before something is restored in it;
    /// it gets its owner and mode when that is done.
    pub(super) fn take_over(&self, place: &Place<'_>, stat: &Stat, posix: Option<&Posix>) -> std::io::Result<()> {
        const PRIVATE: u32 = 0o700;
        let exposure = if posix.is_some() { self.exposure(place, stat, posix) } else { Exposure::None };
        let is_ours = self.is_root || stat.uid == self.uid;
        match exposure {
            Exposure::Write if self.is_root => {
                place.set_owner(self.uid, self.gid)?;
                place.set_mode(PRIVATE)
            }
            Exposure::Write | Exposure::Read if is_ours => place.set_mode(stat.mode & 0o700 | PRIVATE),
            _ if !self.is_root && stat.mode & PRIVATE != PRIVATE => place.set_mode(stat.mode | PRIVATE),
            _ => Ok(()),
        }
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
        if !self.scope.owners {
            (stat.uid, stat.gid)
        } else if self.is_root {
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
            mode &= if self.scope.set_id { !0 } else { !(SET_UID | SET_GID) };
            mode &= if stat.uid == uid { !0 } else { !SET_UID };
            mode &= if stat.gid == gid { !0 } else { !SET_GID };
        }
        mode
    }
}
