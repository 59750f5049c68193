//! Copies what lies in small packs into large ones.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures::StreamExt;

use crate::blobs::{BlobWriter, Condemned, Evidence, LookUp, Treatment, WriteOptions};
use crate::cpu;
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId, WriterId};
use crate::layout::Name;
use crate::merge::MergeReport;
use crate::pack::{BlockKind, Encoding, PACK_MAX, parse_pack, split_hints};
use crate::repository::Repository;

/// Packs read at a time.
const READ: usize = 4;

/// A block of a pack, opened, its blobs verified.
struct Opened {
    kind: BlockKind,
    treatment: Treatment,
    blobs: Vec<(BlobId, Bytes)>,
}

impl Repository {
    /// Stores all blobs of `packs` again, together, with a segment that describes them; the packs that are copied.
    ///
    /// One that is gone, or damaged, isn't among them.
    pub(super) async fn copy_packs(
        &self,
        packs: &[(ObjectId, u64)],
        report: &mut MergeReport,
    ) -> Result<BTreeSet<ObjectId>> {
        if packs.is_empty() {
            return Ok(BTreeSet::new());
        }
        // No snapshot depends on the copies before a collection has condemned the originals, so there is nothing to
        // register for.
        let id = WriterId::new(self.surroundings().random());
        let options = WriteOptions { look_up: LookUp::Nothing, ..WriteOptions::default() };
        let evidence = Evidence::new(Condemned::default());
        let mut writer = BlobWriter::new(self.parts().clone(), id, evidence, options);
        let mut copied = BTreeSet::new();
        // By value, or the future could not be sent to another thread.
        let ids: Vec<_> = packs.iter().map(|(id, _)| *id).collect();
        let mut opened = futures::stream::iter(ids).map(|id| self.open_pack(id)).buffered(READ);
        while let Some(opened) = opened.next().await {
            let Some((id, blocks)) = opened? else { continue };
            for Opened { kind, treatment, blobs } in blocks {
                for (id, blob) in blobs {
                    writer.add(kind, id, blob, treatment).await?;
                }
                writer.end_file().await?;
            }
            copied.insert(id);
        }
        writer.flush().await?;
        let written = writer.stats();
        report.packs_written += written.packs;
        report.bytes_written += written.stored_bytes;
        Ok(copied)
    }

    /// Reads a pack and verifies everything in it; nothing if it can't be used.
    async fn open_pack(&self, id: ObjectId) -> Result<Option<(ObjectId, Vec<Opened>)>> {
        let name = Name::Pack(id).to_string();
        let keyring = self.keyring().clone();
        let opened = match self.store().get(&name, PACK_MAX).await {
            Ok(bytes) => cpu::start(move || open_blocks(&bytes, &keyring, &name)).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(blocks) => Ok(Some((id, blocks))),
            Err(error @ (Error::NotFound { .. } | Error::Corrupt { .. } | Error::Unsupported { .. })) => {
                tracing::warn!(pack = %id, %error, "a pack can't be merged");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

fn open_blocks(pack: &Bytes, keyring: &crate::crypto::Keyring, name: &str) -> Result<Vec<Opened>> {
    let (opener, _, footer) = parse_pack(pack, keyring, name)?;
    let mut opened = Vec::with_capacity(footer.blocks.len());
    for (place, entry) in footer.places() {
        #[expect(clippy::cast_possible_truncation, reason = "parse_pack checked that blocks lie in the pack")]
        let message = pack.slice(place.range().start as usize..place.range().end as usize);
        let plain = Bytes::from(place.open(&opener, message.into(), name)?);
        let end = if place.kind == BlockKind::Nodes { split_hints(&plain, name)?.0.len() } else { plain.len() };
        let id_key = place.kind.id_key(keyring);
        let (mut at, mut blobs) = (0, Vec::with_capacity(entry.blobs.len()));
        for (id, length) in &entry.blobs {
            let after = at + *length as usize;
            if after > end || id_key.id(&plain[at..after]) != *id {
                return Err(Error::corrupt(name, format!("blob {id} has other content than its id says")));
            }
            blobs.push((*id, plain.slice(at..after)));
            at = after;
        }
        let treatment = if place.encoding == Encoding::Raw { Treatment::Raw } else { Treatment::Compress };
        opened.push(Opened { kind: place.kind, treatment, blobs });
    }
    Ok(opened)
}
