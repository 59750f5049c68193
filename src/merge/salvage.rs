//! What can be read of a pack, be it whole or damaged.
//!
//! A block counts if it opens and its blobs have their ids, wherever its pack's
//! bytes come from. Where the footer can't be read, blocks are found by what
//! index segments say of the pack.

use std::collections::BTreeMap;
use std::collections::HashSet;

use bytes::Bytes;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::crypto::{Keyring, Kind};
use crate::error::{Error, Result};
use crate::id::{BlobId, ObjectId};
use crate::index::{Location, PackRow};
use crate::layout::Name;
use crate::object::{if_whole, too_short, verify_id};
use crate::pack::{Footer, Place, parse_header, parse_pack, verify_block};

/// A block of a damaged pack that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Salvaged {
    pub(crate) row: PackRow,
    pub(crate) place: Place,
    /// Its blobs: where each begins in the block's plaintext, and its length.
    pub(crate) blobs: Vec<(BlobId, u32, u32)>,
}

impl Salvaged {
    /// Where each of its blobs is.
    pub(crate) fn locations(&self) -> impl Iterator<Item = (BlobId, Location)> + '_ {
        let (pack, place) = (self.row, self.place);
        self.blobs.iter().map(move |(id, at, length)| (*id, Location { pack, place, at: *at, length: *length }))
    }
}

/// What was seen of a pack.
#[derive(Debug)]
pub(crate) struct Examined {
    pub(crate) id: ObjectId,
    /// Whether its bytes are those that its name is the hash of.
    pub(crate) is_as_written: bool,
    /// What is wrong with it; nothing if it is whole.
    pub(crate) problem: Option<String>,
    /// Of a damaged one, the blocks that can be read.
    pub(crate) blocks: Vec<Salvaged>,
    /// Of a damaged one, how many blobs it should have that can't be read, as far as that is known.
    pub(crate) lost: u64,
}

/// Reads all of a pack; `told` is what segments say of it.
///
/// # Errors
/// [`Error::Unsupported`] if it is whole and of a version or key generation that isn't known.
pub(crate) fn examine_pack(
    id: ObjectId,
    bytes: &[u8],
    keyring: &Keyring,
    told: &[(BlobId, Location)],
) -> Result<Examined> {
    let name = Name::Pack(id).to_string();
    let mut problems = Vec::new();
    let verified = verify_id(bytes, &id, &name);
    let is_as_written = verified.is_ok();
    if let Err(error) = verified {
        problems.push(reason(error)?);
    }
    let parsed = parse_header(bytes, &name).and_then(|(header, _)| {
        let row = PackRow { id, generation: header.generation, salt: header.salt };
        parse_pack(bytes, keyring, &name).map(|(.., footer)| (row, footer))
    });
    let (blocks, lost) = match parsed {
        Ok((row, footer)) => {
            let (blocks, failed) = by_footer(row, &footer, bytes, keyring, &name)?;
            problems.extend(failed.1);
            (blocks, failed.0)
        }
        Err(error) => {
            problems.push(reason(if_whole(error, bytes, &id, &name))?);
            by_segments(told, bytes, keyring)
        }
    };
    problems.dedup();
    let problem = (!problems.is_empty()).then(|| problems.join("; "));
    let blocks = if problem.is_some() { blocks } else { Vec::new() };
    Ok(Examined { is_as_written, id, problem, blocks, lost })
}

type Failed = (u64, Option<String>);

fn by_footer(
    row: PackRow,
    footer: &Footer,
    bytes: &[u8],
    keyring: &Keyring,
    name: &str,
) -> Result<(Vec<Salvaged>, Failed)> {
    let opener = keyring.opener(Kind::Pack, row.generation, &row.salt, name)?;
    let places: Vec<_> = footer.places().collect();
    let verified: Vec<_> = places
        .into_par_iter()
        .map(|(place, entry)| (place, entry, verify_block(bytes, &place, entry, &opener, keyring, name)))
        .collect();
    let (mut blocks, mut lost, mut problem) = (Vec::new(), 0, None);
    for (place, entry, verdict) in verified {
        if let Err(error) = verdict {
            lost += entry.blobs.len() as u64;
            problem = Some(reason(error)?);
            continue;
        }
        let mut at = 0u32;
        let mut blobs = Vec::with_capacity(entry.blobs.len());
        for (id, length) in &entry.blobs {
            blobs.push((*id, at, *length));
            at = at.saturating_add(*length);
        }
        blocks.push(Salvaged { row, place, blobs });
    }
    Ok((blocks, (lost, problem)))
}

fn by_segments(told: &[(BlobId, Location)], bytes: &[u8], keyring: &Keyring) -> (Vec<Salvaged>, u64) {
    let mut by_place = BTreeMap::<(u32, u32, PackRow), (Place, Vec<(BlobId, u32, u32)>)>::new();
    for (id, location) in told {
        let Location { pack, place, at, length } = *location;
        by_place.entry((place.offset, place.number, pack)).or_insert((place, Vec::new())).1.push((*id, at, length));
    }
    let mut blocks = Vec::new();
    let mut found = HashSet::new();
    for ((.., row), (place, blobs)) in by_place {
        let mut block = Salvaged { row, place, blobs };
        if let Ok(opened) = open_block(bytes, &block, keyring) {
            let sound: HashSet<_> = opened.into_iter().map(|(id, _)| id).collect();
            block.blobs.retain(|(id, ..)| sound.contains(id));
            found.extend(sound);
            blocks.push(block);
        }
    }
    let all: HashSet<_> = told.iter().map(|(id, _)| *id).collect();
    (blocks, (all.len() - found.len()) as u64)
}

/// The blobs of a block that are what their ids say; an error if it doesn't open.
pub(crate) fn open_block(pack: &[u8], block: &Salvaged, keyring: &Keyring) -> Result<Vec<(BlobId, Bytes)>> {
    let Salvaged { row, place, blobs } = block;
    let name = Name::Pack(row.id).to_string();
    place.validate(&name)?;
    let opener = keyring.opener(Kind::Pack, row.generation, &row.salt, &name)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most PACK_MAX, as validated")]
    let message = pack.get(place.range().start as usize..place.range().end as usize);
    let message = message.ok_or_else(|| too_short(&name))?;
    let plain = Bytes::from(place.open(&opener, message.to_vec(), &name)?);
    let id_key = place.kind.id_key(keyring);
    let cut = |(id, at, length): &(BlobId, u32, u32)| {
        let (start, end) = (*at as usize, *at as usize + *length as usize);
        let blob = (end <= plain.len()).then(|| plain.slice(start..end))?;
        (id_key.id(&blob) == *id).then_some((*id, blob))
    };
    Ok(blobs.iter().filter_map(cut).collect())
}

/// What an error says of a stored object; one that says nothing of it is returned.
fn reason(error: Error) -> Result<String> {
    match error {
        Error::Corrupt { reason, .. } => Ok(reason),
        other => Err(other),
    }
}
