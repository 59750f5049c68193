//! Copies what lies in small packs into large ones.
//!
//! Nodes get new hints: at their children's new places where these are copied
//! too, and otherwise at where they lie now, by their old hints or by the index.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;

use crate::blobs::{BlobWriter, Condemned, Evidence, LookUp, Treatment, WriteOptions, list_packs};
use crate::cpu;
use crate::crypto::Keyring;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, WriterId};
use crate::index::Location;
use crate::layout::Name;
use crate::merge::MergeReport;
use crate::object::{if_whole, verify_id};
use crate::pack::{BlockKind, Encoding, Hint, Hints, PACK_MAX, parse_pack, split_hints};
use crate::repository::Repository;
use crate::tree;

/// Packs read at a time.
const READ: usize = 4;

/// What came of copying.
#[derive(Default)]
pub(crate) struct Copied {
    /// The packs that were copied: one that is gone, or damaged, isn't among them.
    pub(crate) packs: BTreeSet<ObjectId>,
    /// The packs that were written.
    pub(crate) written: Vec<ObjectId>,
    /// The blobs that lie in them.
    pub(crate) blobs: HashSet<BlobId>,
}

/// Whether a blob is to be copied.
pub(crate) type IsWanted = dyn Fn(&BlobId) -> Result<bool> + Send + Sync;

/// A block of a pack, opened, its blobs verified.
struct Opened {
    kind: BlockKind,
    treatment: Treatment,
    blobs: Vec<(BlobId, Bytes)>,
    /// The children of its nodes, with where they lay.
    children: Vec<(BlobId, Option<Hint>)>,
}

impl Repository {
    /// Stores the blobs of `packs` that are wanted again, together, with a segment that describes them.
    pub(crate) async fn copy_packs(
        &self,
        packs: &[(ObjectId, u64)],
        is_wanted: Arc<IsWanted>,
        report: &mut MergeReport,
    ) -> Result<Copied> {
        if packs.is_empty() {
            return Ok(Copied::default());
        }
        // No snapshot depends on the copies before a collection has condemned the originals, so there is nothing to
        // register for.
        let id = WriterId::new(self.surroundings().random());
        // Parents may come before their children, so they are held back to the end.
        let options = WriteOptions { look_up: LookUp::Nothing, held_max: usize::MAX, ..WriteOptions::default() };
        let evidence = Evidence::new(Condemned::default());
        let mut writer = BlobWriter::new(self.parts().clone(), id, evidence, options);
        let (mut copied, mut stored) = (BTreeSet::new(), HashSet::new());
        let there = list_packs(self.store()).await?;
        // By value, or the future could not be sent to another thread.
        let ids: Vec<_> = packs.iter().map(|(id, _)| *id).collect();
        let mut opened = futures::stream::iter(ids).map(|id| self.open_pack(id)).buffered(READ);
        while let Some(opened) = opened.next().await {
            let Some((id, blocks)) = opened? else { continue };
            #[cfg(test)]
            let blocks =
                if crate::simulation::has(crate::simulation::Bug::DeletesUncopied) { Vec::new() } else { blocks };
            for Opened { kind, treatment, blobs, children } in blocks {
                self.learn_places(children, &there).await?;
                for (id, blob) in blobs {
                    if is_wanted(&id)? {
                        writer.add(kind, id, blob, treatment).await?;
                        stored.insert(id);
                    }
                }
                writer.end_file().await?;
            }
            copied.insert(id);
        }
        writer.flush().await?;
        let written = writer.stats();
        report.packs_written += written.packs;
        report.bytes_written += written.stored_bytes;
        Ok(Copied { packs: copied, written: writer.packs().to_vec(), blobs: stored })
    }

    /// Remembers where nodes lie, so that those that refer to them are stored with hints.
    async fn learn_places(&self, nodes: Vec<(BlobId, Option<Hint>)>, there: &HashSet<ObjectId>) -> Result<()> {
        let memory = self.reader().memory();
        let is_sound = |hint: &Hint| there.contains(&hint.pack);
        let mut unknown = Vec::new();
        for (id, hint) in nodes {
            if memory.hint(&id).filter(is_sound).is_some() {
                continue;
            }
            match hint.filter(is_sound) {
                Some(hint) => memory.keep_hint(id, hint),
                None => unknown.push(id),
            }
        }
        unknown.sort_unstable();
        unknown.dedup();
        for (id, Location { pack, place, at, length }) in self.index().find_sorted(unknown.into()).await? {
            if there.contains(&pack.id) {
                memory.keep_hint(id, Hint { pack: pack.id, place, at, length });
            }
        }
        Ok(())
    }

    /// Reads a pack and verifies its name and everything in it; nothing if it can't be used.
    async fn open_pack(&self, id: ObjectId) -> Result<Option<(ObjectId, Vec<Opened>)>> {
        let name = Name::Pack(id).to_string();
        let keyring = self.keyring().clone();
        let opened = match self.store().get(&name, PACK_MAX).await {
            Ok(bytes) => {
                let open = move || {
                    open_blocks(&id, &bytes, &keyring, &name).map_err(|error| if_whole(error, &bytes, &id, &name))
                };
                cpu::start(open).await
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok(blocks) => Ok(Some((id, blocks))),
            Err(error @ (Error::NotFound { .. } | Error::Corrupt { .. })) => {
                tracing::warn!(pack = %id, %error, "a pack can't be merged");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn open_blocks(id: &ObjectId, pack: &Bytes, keyring: &Keyring, name: &str) -> Result<Vec<Opened>> {
    // A sound pack under another's name is none that could be condemned.
    verify_id(pack, id, name)?;
    let (opener, _, footer) = parse_pack(pack, keyring, name)?;
    let mut opened = Vec::with_capacity(footer.blocks.len());
    for (place, entry) in footer.places() {
        #[expect(clippy::cast_possible_truncation, reason = "parse_pack checked that blocks lie in the pack")]
        let message = pack.slice(place.range().start as usize..place.range().end as usize);
        let plain = Bytes::from(place.open(&opener, message.into(), name)?);
        let (end, hints) = match place.kind {
            BlockKind::Data => (plain.len(), None),
            BlockKind::Nodes => {
                let (nodes, hints) = split_hints(&plain, name)?;
                (nodes.len(), Some(Hints::decode(hints, name)?))
            }
        };
        let id_key = place.kind.id_key(keyring);
        let pack_id = id;
        let (mut at, mut blobs, mut children) = (0, Vec::with_capacity(entry.blobs.len()), Vec::new());
        for (id, length) in &entry.blobs {
            let after = at + *length as usize;
            if after > end || id_key.id(&plain[at..after]) != *id {
                return Err(Error::corrupt(name, format!("blob {id} has other content than its id says")));
            }
            let blob = plain.slice(at..after);
            if let Some(hints) = &hints
                && tree::has_children(&blob)
            {
                #[expect(clippy::cast_possible_truncation, reason = "an offset in a block")]
                let told = hints.children(at as u32, pack_id, &place).into_iter().chain(std::iter::repeat(None));
                children.extend(tree::children(&blob)?.into_iter().zip(told));
            }
            blobs.push((*id, blob));
            at = after;
        }
        let treatment = if place.encoding == Encoding::Raw { Treatment::Raw } else { Treatment::Compress };
        opened.push(Opened { kind: place.kind, treatment, blobs, children });
    }
    Ok(opened)
}
