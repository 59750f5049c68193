//! Goes through the entries in order and makes room for them.
//!
//! Creates folders, takes away what stands in the way and, if that is asked
//! for, what the snapshot lacks; decides what is to be compared and what is
//! written anew, which names are links to another, and when a folder is
//! complete, so that it can be given its metadata. Works on one thread.
//!
//! Invariant: nothing is restored below anything that isn't a folder of the
//! snapshot, whatever stands in the destination.

use std::collections::{HashMap, HashSet};
use std::iter::Peekable;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::files::{LinkGroup, Metadata, Range, Scratch, Stat};
use crate::id::BlobId;
use crate::restore::compare::{Part, Special, Work};
use crate::restore::entries::{Content, Item, Listed};
use crate::restore::file::FileJob;
use crate::restore::remove::remove;
use crate::restore::session::Session;
use crate::tree::{EntryKind, Key, Piece};

/// What of a snapshot is restored, and where in the destination it goes.
#[derive(Clone, Debug)]
pub(super) enum Selection {
    All,
    /// The children of a folder, which the destination stands for.
    Below(Key),
    /// One thing that isn't a folder, under its own name.
    Alone,
}

impl Selection {
    /// Where an entry goes; nothing for the folder that the destination stands for.
    fn place(&self, name: &Key) -> Result<Option<Key>> {
        match self {
            Selection::All => Ok(Some(name.clone())),
            Selection::Below(folder) => Ok(name.strip_prefix(folder)),
            Selection::Alone => Key::new([name.file_name()]).map(Some),
        }
    }
}

/// What was selected.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) files: u64,
    pub(super) folders: u64,
    pub(super) others: u64,
    pub(super) bytes: u64,
    /// Of `others`, those that were left out by choice.
    pub(super) left_out: u64,
}

/// Another name of a file.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) key: Key,
    pub(super) name: Key,
    pub(super) to: Key,
    pub(super) group: LinkGroup,
    pub(super) is_file: bool,
}

/// A folder that nothing more goes into; no key means the destination itself.
#[derive(Debug)]
pub(super) struct Complete {
    pub(super) key: Option<Key>,
    pub(super) name: Option<Key>,
    pub(super) metadata: Metadata,
    pub(super) new: bool,
}

/// What is left to do of a window.
#[derive(Default)]
pub(super) struct Arranged {
    pub(super) works: Vec<Work>,
    pub(super) links: Vec<Link>,
    pub(super) complete: Vec<Complete>,
}

/// A folder that things are being restored into.
struct OpenFolder {
    key: Option<Key>,
    name: Option<Key>,
    metadata: Option<Metadata>,
    /// It was created just now (or would be), so nothing is in it.
    new: bool,
    /// What stands in it and hasn't come up in the snapshot, where that is to be removed.
    names: Option<Peekable<std::vec::IntoIter<Vec<u8>>>>,
}

/// The first name of a file that has several.
struct Leader {
    /// Its path in the destination, kept aside.
    path: Range,
    content: BlobId,
}

/// An entry of anything but a folder, without its content.
struct Other {
    key: Key,
    name: Key,
    kind: EntryKind,
    size: u64,
    metadata: Metadata,
}

/// What a name is among those of its file.
enum Role {
    Only,
    /// The first of several: the others are linked to it.
    First(LinkGroup),
    Link(Link),
}

/// See the module.
pub(super) struct Arranger {
    session: Arc<Session>,
    selection: Selection,
    /// From the destination inwards.
    open: Vec<OpenFolder>,
    /// Below this nothing can be restored, and why.
    barred: Option<(Key, &'static str)>,
    leaders: HashMap<LinkGroup, Leader>,
    /// Their paths: there may be millions, of 4 KiB each.
    paths: Scratch,
    /// Files with several names that stand in the destination and are already one of the snapshot's.
    claimed: HashSet<(u64, u64)>,
    /// The large file that came last, and whether its first pieces have come.
    large: Option<(Arc<FileJob>, bool)>,
    delete: bool,
    pub(super) counts: Counts,
}

impl Arranger {
    /// Starts in the destination.
    pub(super) fn new(session: &Arc<Session>, selection: Selection) -> Result<Self> {
        let delete = session.delete && !matches!(selection, Selection::Alone);
        let new = !session.has_destination();
        // A dry run writes nothing where it looks.
        let aside = session.destination().ok().filter(|_| !session.dry_run).map(|to| to.root().to_owned());
        let paths = Scratch::new(aside.unwrap_or_else(std::env::temp_dir));
        let names = if delete && !new { Some(session.destination()?.list(None)?.into_iter().peekable()) } else { None };
        Ok(Self {
            session: Arc::clone(session),
            selection,
            open: vec![OpenFolder { key: None, name: None, metadata: None, new, names }],
            barred: None,
            leaders: HashMap::new(),
            paths,
            claimed: HashSet::new(),
            large: None,
            delete,
            counts: Counts::default(),
        })
    }

    /// Arranges a window; the last one is followed by [`Arranger::finish`].
    pub(super) fn arrange(&mut self, items: Vec<Item>) -> Result<Arranged> {
        let mut out = Arranged::default();
        for item in items {
            self.session.go_on()?;
            match item {
                Item::Entry(listed) => {
                    self.large = None;
                    self.entry(*listed, &mut out);
                }
                Item::Pieces { pieces, last } => self.pieces(pieces, last, None, &mut out),
                Item::Broken(error) => self.pieces(Vec::new(), true, Some(error), &mut out),
                Item::Damaged(after, error) => {
                    // Names that can't be read must not be taken for names that aren't there.
                    self.delete = false;
                    let what =
                        after.map_or_else(|| "the first entries".to_owned(), |key| format!("entries after {key}"));
                    self.session.failed_part(what, &error);
                }
            }
        }
        Ok(out)
    }

    /// Completes all folders that are still open.
    pub(super) fn finish(&mut self, out: &mut Arranged) {
        while !self.open.is_empty() {
            self.close(out);
        }
    }

    fn entry(&mut self, listed: Listed, out: &mut Arranged) {
        let Listed { name, kind, size, content, metadata } = listed;
        self.count(kind, size);
        if let Some((bar, reason)) = &self.barred
            && name.starts_with(bar)
        {
            self.session.failed(&name, &Error::invalid(format!("the entry {bar}"), *reason));
            return;
        }
        if let Err(error) = kind.require_known(&name) {
            self.skip(name, &error, out);
            return;
        }
        let metadata = metadata.unwrap_or_else(|error| {
            self.session.failed(&name, &error);
            Metadata::default()
        });
        let placed = match self.selection.place(&name) {
            Ok(Some(key)) if kind == EntryKind::Folder => self.folder(&key, Some(&name), Some(metadata), out),
            Ok(Some(key)) => {
                let other = Other { key, name: name.clone(), kind, size, metadata };
                self.other(other, content, out)
            }
            Ok(None) => {
                let taken = if self.session.dry_run {
                    Ok(())
                } else {
                    self.session.destination().and_then(|to| to.take_over_root(&metadata))
                };
                if let Some(root) = self.open.first_mut() {
                    (root.name, root.metadata) = (Some(name.clone()), Some(metadata));
                }
                taken
            }
            Err(error) => Err(error),
        };
        if let Err(error) = &placed {
            self.session.failed(&name, error);
        }
        if kind != EntryKind::Folder {
            self.barred = Some((name, "it isn't a folder, so nothing can be below it"));
        } else if placed.is_err() {
            self.barred = Some((name, "the folder could not be created"));
        }
    }

    /// Passes over an entry that isn't understood. What stands in its place in the destination stays.
    fn skip(&mut self, name: Key, error: &Error, out: &mut Arranged) {
        self.session.failed(&name, error);
        if let Ok(Some(key)) = self.selection.place(&name)
            && let Err(error) = self.approach(&key, out).map(|()| self.pass(&key))
        {
            self.session.failed(&name, &error);
        }
        self.barred = Some((name, "it isn't restored, so nothing can be below it"));
    }

    fn count(&mut self, kind: EntryKind, size: u64) {
        match kind {
            EntryKind::File => {
                self.counts.files += 1;
                self.counts.bytes = self.counts.bytes.saturating_add(size);
            }
            EntryKind::Folder => self.counts.folders += 1,
            _ => self.counts.others += 1,
        }
    }

    /// Leaves folders that `key` isn't in and enters those above it, also where the snapshot doesn't name them.
    fn approach(&mut self, key: &Key, out: &mut Arranged) -> Result<()> {
        while self.open.last().is_some_and(|top| top.key.as_ref().is_some_and(|top| !key.starts_with(top))) {
            self.close(out);
        }
        let top = self.open.last().and_then(|top| top.key.clone());
        let above: Vec<Key> =
            std::iter::successors(key.parent(), Key::parent).take_while(|above| Some(above) != top.as_ref()).collect();
        above.iter().rev().try_for_each(|above| self.enter(above, None, None))
    }

    fn folder(&mut self, key: &Key, name: Option<&Key>, metadata: Option<Metadata>, out: &mut Arranged) -> Result<()> {
        self.approach(key, out)?;
        self.enter(key, name, metadata)
    }

    fn enter(&mut self, key: &Key, name: Option<&Key>, metadata: Option<Metadata>) -> Result<()> {
        self.pass(key);
        let there = self.is_there(key, EntryKind::Folder, None, None)?;
        if !self.session.dry_run {
            self.session.destination()?.create_folder(key, metadata.as_ref())?;
        }
        let names = if self.delete && there {
            Some(self.session.destination()?.list(Some(key))?.into_iter().peekable())
        } else {
            None
        };
        self.open.push(OpenFolder { key: Some(key.clone()), name: name.cloned(), metadata, new: !there, names });
        Ok(())
    }

    /// Removes what stands in the innermost folder before `key`, which comes next in the snapshot.
    fn pass(&mut self, key: &Key) {
        let Some(folder) = self.open.last_mut() else { return };
        let Some(names) = &mut folder.names else { return };
        let mut gone = Vec::new();
        while let Some(name) = names.next_if(|name| name.as_slice() < key.file_name()) {
            gone.push(name);
        }
        names.next_if(|name| name == key.file_name());
        let folder = folder.key.clone();
        self.remove_all(folder.as_ref(), gone);
    }

    fn remove_all(&self, folder: Option<&Key>, names: Vec<Vec<u8>>) {
        if !self.delete {
            return;
        }
        for name in names {
            let key = folder.map_or_else(|| Key::new([&name]), |folder| folder.join(&name));
            let removed = key.and_then(|key| {
                remove(&self.session, &key).map_err(|error| self.session.failed(&key, &error)).or(Ok(()))
            });
            if let Err(error) = removed {
                self.session.failed_part(String::from_utf8_lossy(&name).into_owned(), &error);
            }
        }
    }

    /// Leaves the innermost folder.
    fn close(&mut self, out: &mut Arranged) {
        let Some(folder) = self.open.pop() else { return };
        let OpenFolder { key, name, metadata, new, names } = folder;
        self.remove_all(key.as_ref(), names.into_iter().flatten().collect());
        if let Some(metadata) = metadata {
            out.complete.push(Complete { key, name, metadata, new });
        }
    }

    /// Whether a thing of this kind stands at `key`, after taking away anything else.
    fn is_there(
        &mut self,
        key: &Key,
        kind: EntryKind,
        group: Option<LinkGroup>,
        metadata: Option<&Metadata>,
    ) -> Result<bool> {
        if self.open.last().is_some_and(|folder| folder.new) {
            return Ok(false);
        }
        let Some(stat) = self.session.destination()?.inspect(key)? else { return Ok(false) };
        let several = stat.names > 1 && kind != EntryKind::Folder;
        // What has other names besides may only stay if the snapshot, too, says that it has several.
        let is_strange = several && (group.is_none() || !self.claimed.insert((stat.device, stat.inode)))
            || kind == EntryKind::File
                && stat.kind == kind
                && metadata.is_some_and(|metadata| self.is_exposed(key, &stat, metadata));
        if stat.kind == kind && !is_strange {
            return Ok(true);
        }
        if stat.kind == kind && self.session.dry_run {
            return Ok(false);
        }
        if stat.kind == kind {
            self.session.destination()?.remove(key).map(drop)?
        } else {
            remove(&self.session, key)?
        }
        Ok(false)
    }

    /// Whether a file is to be made anew, since somebody else may hold the one that stands there open.
    fn is_exposed(&self, key: &Key, stat: &Stat, metadata: &Metadata) -> bool {
        // What can't be looked at shows when it is opened.
        self.session.destination().and_then(|to| to.is_exposed(key, stat, metadata)).unwrap_or_default()
    }

    fn other(&mut self, other: Other, content: Content, out: &mut Arranged) -> Result<()> {
        self.approach(&other.key, out)?;
        self.pass(&other.key);
        if !self.session.special_files && !matches!(other.kind, EntryKind::File | EntryKind::Symlink) {
            self.counts.left_out += 1;
            return Ok(());
        }
        let leads = match self.role(&other, &content)? {
            Role::Link(link) => {
                out.links.push(link);
                return Ok(());
            }
            Role::First(group) => Some(group),
            Role::Only => None,
        };
        let placed = self.is_there(&other.key, other.kind, leads, Some(&other.metadata));
        let work = placed.and_then(|there| self.work(other, content, leads, there));
        if let (Err(_), Some(group)) = (&work, leads) {
            self.session.lose(group);
        }
        out.works.extend(work?);
        Ok(())
    }

    /// Whether this is a further name of something that was there before.
    fn role(&mut self, other: &Other, content: &Content) -> Result<Role> {
        let Some(group) = other.metadata.posix.as_ref().and_then(|posix| posix.links) else { return Ok(Role::Only) };
        let fail = |error| Error::file("keep aside the names of", other.key.to_string(), error);
        let content = self.identity(other.kind, content);
        Ok(match self.leaders.get(&group) {
            Some(leader) if leader.content == content => Role::Link(Link {
                key: other.key.clone(),
                name: other.name.clone(),
                to: Key::from_path(self.paths.get(leader.path).map_err(fail)?)?,
                group,
                is_file: other.kind == EntryKind::File,
            }),
            Some(_) => Role::Only,
            None => {
                let path = self.paths.add(&other.key.as_path_bytes()).map_err(fail)?;
                self.leaders.insert(group, Leader { path, content });
                Role::First(group)
            }
        })
    }

    fn work(&mut self, other: Other, content: Content, leads: Option<LinkGroup>, there: bool) -> Result<Option<Work>> {
        let Other { key, name, kind, size, metadata } = other;
        let file =
            |key, name, metadata, hollow| Arc::new(FileJob::new(key, name, size, metadata, hollow, !there, leads));
        Ok(Some(match (kind, content) {
            (_, Content::Broken(error)) => return Err(error),
            (EntryKind::File, Content::Bytes(bytes)) => Work::Inline(file(key, name, metadata, false), bytes),
            (EntryKind::File, Content::Pieces(pieces)) => {
                let hollow = matches!(pieces.last(), Some((_, Piece::Hole { .. })));
                Work::Part(Part { file: file(key, name, metadata, hollow), pieces, first: true, last: true })
            }
            (EntryKind::File, Content::Later(_)) => {
                self.large = Some((file(key, name, metadata, true), true));
                return Ok(None);
            }
            (_, content) => {
                let target = if let Content::Bytes(target) = content { target } else { bytes::Bytes::new() };
                Work::Special(Box::new(Special { key, name, kind, target, metadata, there, leads }))
            }
        }))
    }

    /// Whether the large file that came last can still be restored.
    pub(super) fn follows_large(&self) -> bool {
        self.large.as_ref().is_some_and(|(file, _)| !file.has_failed())
    }

    /// More pieces of the large file that came last.
    fn pieces(&mut self, pieces: Vec<(u64, Piece)>, last: bool, broken: Option<Error>, out: &mut Arranged) {
        let Some((file, first)) = &mut self.large else { return };
        if let Some(error) = broken {
            file.fail(&self.session, &error);
        }
        let part = Part { file: Arc::clone(file), pieces, first: std::mem::take(first), last };
        out.works.push(Work::Part(part));
        if last {
            self.large = None;
        }
    }

    /// The same for two names if they have the same content, as they must if they are one file.
    fn identity(&self, kind: EntryKind, content: &Content) -> BlobId {
        let mut text = format!("{kind:?}").into_bytes();
        match content {
            Content::Bytes(bytes) => text.extend_from_slice(bytes),
            Content::Later(id) => text.extend_from_slice(id.as_bytes()),
            Content::Broken(_) => {}
            Content::Pieces(pieces) => text.extend(pieces.iter().flat_map(|piece| format!("{piece:?}").into_bytes())),
        }
        self.session.keyring.chunk_id().id(&text)
    }
}
