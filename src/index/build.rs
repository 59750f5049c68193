//! Gathers entries and writes them as a segment.

use std::collections::HashMap;

use crate::clock::Surroundings;
use crate::crypto::{Keyring, Kind, Part};
use crate::error::{Error, Result};
use crate::id::BlobId;
use crate::index::entry::{Entry, Location, PAGE_ENTRIES, PAGE_ROWS, PAGE_STORED, PackRow};
use crate::object::Header;
use crate::pack::Footer;

/// Collects the blobs of packs for one segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentBuilder {
    rows: Vec<PackRow>,
    entries: Vec<Entry>,
    /// The rows of packs that were added blob by blob.
    numbers: HashMap<PackRow, u32>,
}

impl SegmentBuilder {
    /// Adds every blob of a pack.
    pub(crate) fn add_pack(&mut self, pack: PackRow, footer: &Footer) -> Result<()> {
        let row = u32::try_from(self.rows.len()).map_err(|_| Error::worker("an index segment has too many packs"))?;
        self.rows.push(pack);
        for (place, block) in footer.places() {
            let mut at = 0u32;
            for (id, length) in &block.blobs {
                self.entries.push(Entry { id: *id, row, place, at, length: *length });
                at = at.saturating_add(*length);
            }
        }
        Ok(())
    }

    /// Adds one blob, as another segment knows it.
    pub(crate) fn add_blob(&mut self, id: BlobId, location: &Location) -> Result<()> {
        let row = match self.numbers.get(&location.pack) {
            Some(row) => *row,
            None => {
                let row = u32::try_from(self.rows.len());
                let row = row.map_err(|_| Error::worker("an index segment has too many packs"))?;
                self.rows.push(location.pack);
                self.numbers.insert(location.pack, row);
                row
            }
        };
        let Location { place, at, length, .. } = *location;
        self.entries.push(Entry { id, row, place, at, length });
        Ok(())
    }

    /// Whether it holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes out what was added of blobs that were added before at another place: a segment has each blob once.
    ///
    /// None is dropped but what is wholly the same, since it isn't known which of them is what it should be.
    pub(crate) fn split_doubled(&mut self) -> Result<Self> {
        self.entries.sort_by_key(|entry| entry.id);
        let (mut once, mut doubled) = (Vec::<Entry>::with_capacity(self.entries.len()), Self::default());
        for entry in std::mem::take(&mut self.entries) {
            match once.last() {
                Some(first) if first.id == entry.id => {
                    let location = |entry: &Entry| {
                        let Entry { row, place, at, length, .. } = *entry;
                        self.rows.get(row as usize).map(|pack| Location { pack: *pack, place, at, length })
                    };
                    if let Some(other) = location(&entry).filter(|other| location(first) != Some(*other)) {
                        doubled.add_blob(entry.id, &other)?;
                    }
                }
                _ => once.push(entry),
            }
        }
        self.entries = once;
        Ok(doubled)
    }

    /// The segment's bytes; a blob that was added twice keeps its first place.
    pub(crate) fn seal(mut self, keyring: &Keyring, surroundings: &Surroundings) -> Result<Vec<u8>> {
        self.entries.sort_by_key(|entry| entry.id);
        self.entries.dedup_by_key(|entry| entry.id);

        let mut sealer = keyring.sealer(Kind::Index, surroundings);
        let mut out = Vec::new();
        Header::of(&sealer).write(&mut out);

        let mut counts = (self.entries.len() as u64).to_le_bytes().to_vec();
        #[expect(clippy::cast_possible_truncation, reason = "add_pack checked it")]
        counts.extend_from_slice(&(self.rows.len() as u32).to_le_bytes());
        sealer.seal(Part::Footer, "", &mut counts)?;
        out.extend_from_slice(&counts);

        for entries in self.entries.chunks(PAGE_ENTRIES) {
            let mut page = Vec::with_capacity(PAGE_STORED);
            entries.iter().for_each(|entry| entry.write(&mut page));
            sealer.seal(Part::Page, "", &mut page)?;
            out.extend_from_slice(&page);
        }
        for rows in self.rows.chunks(PAGE_ROWS) {
            let mut page = Vec::new();
            rows.iter().for_each(|row| row.write(&mut page));
            sealer.seal(Part::PackTable, "", &mut page)?;
            out.extend_from_slice(&page);
        }
        Ok(out)
    }
}
