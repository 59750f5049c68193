//! What one `stat` call tells of a path.

use rustix::fs::{self, FileType};

use super::metadata::{FileTime, LinkGroup, Posix};
use super::owners::Owners;
use crate::tree::EntryKind;

/// The state of a path at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) kind: EntryKind,
    /// Permission bits, set-user-id, set-group-id and sticky bit.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Bytes of content; of a symlink, of its target.
    pub(crate) size: u64,
    pub(crate) modified: FileTime,
    pub(crate) changed: FileTime,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// How many names it has.
    pub(crate) names: u64,
    /// Bytes allotted on the disk; below `size` where a file has holes (or is compressed).
    pub(crate) allotted: u64,
}

impl Stat {
    /// The names and numbers of a metadata record, without extended attributes.
    pub(crate) fn posix(&self, owners: &Owners) -> Posix {
        let several = self.names > 1 && self.kind != EntryKind::Folder;
        Posix {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            user: owners.user(self.uid),
            group: owners.group(self.gid),
            modified: self.modified,
            changed: self.changed,
            inode: self.inode,
            links: several.then_some(LinkGroup { device: self.device, inode: self.inode }),
            extended: Vec::new(),
        }
    }

    /// Whether this is the same file or folder, whatever its content.
    pub(crate) fn is_same_file(&self, other: &Stat) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether content and metadata are as they were, as far as the system tells.
    pub(crate) fn is_unchanged_since(&self, before: &Stat) -> bool {
        self.is_same_file(before)
            && (self.kind, self.size) == (before.kind, before.size)
            && (self.modified, self.changed) == (before.modified, before.changed)
    }

    /// Whether a file can have holes.
    pub(crate) fn may_have_holes(&self) -> bool {
        self.allotted < self.size
    }
}

/// The fields have other types on other systems.
#[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
impl From<fs::Stat> for Stat {
    fn from(stat: fs::Stat) -> Self {
        let time = |seconds, nanos: i64| FileTime { seconds, nanos: nanos.clamp(0, 999_999_999) as u32 };
        Self {
            kind: kind(&stat),
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified: time(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            changed: time(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
            device: stat.st_dev as u64,
            inode: stat.st_ino as u64,
            names: stat.st_nlink as u64,
            allotted: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        }
    }
}

#[allow(clippy::unnecessary_cast)]
fn kind(stat: &fs::Stat) -> EntryKind {
    let (major, minor) = (fs::major(stat.st_rdev as fs::Dev), fs::minor(stat.st_rdev as fs::Dev));
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Folder,
        FileType::Symlink => EntryKind::Symlink,
        FileType::Fifo => EntryKind::Fifo,
        FileType::CharacterDevice => EntryKind::CharDevice { major, minor },
        FileType::BlockDevice => EntryKind::BlockDevice { major, minor },
        // Doors and their like exist on no system that this builds for.
        _ => EntryKind::Socket,
    }
}
