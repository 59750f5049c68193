//! From compressed blocks to a pack that has been looked at again.

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::clock::Surroundings;
use crate::crypto::{Keyring, Kind, Opener, Part, TAG_LEN};
use crate::error::{Error, Result};
use crate::id::{ObjectId, WriterId};
use crate::object::{self, Header};
use crate::pack::block::{BlockKind, CompressedBlock, Place};
use crate::pack::footer::{BlockEntry, Footer, parse_pack, trailer};
use crate::pack::hints::{Hints, split_hints};
use crate::pack::{BLOCKS_START, PACK_MAX};

/// A pack ready to be uploaded.
#[derive(Debug)]
pub(crate) struct SealedPack {
    pub(crate) id: ObjectId,
    pub(crate) header: Header,
    pub(crate) footer: Footer,
    /// Length of the footer's message.
    pub(crate) footer_len: u32,
    pub(crate) bytes: Vec<u8>,
}

/// Seals blocks as a pack made by `writer`, opens it again and checks every blob.
pub(crate) fn seal_pack(
    blocks: Vec<CompressedBlock>,
    writer: &WriterId,
    keyring: &Keyring,
    surroundings: &Surroundings,
) -> Result<SealedPack> {
    let mut sealer = keyring.sealer(Kind::Pack, surroundings);
    let header = Header::of(&sealer);
    let mut bytes =
        Vec::with_capacity(BLOCKS_START + blocks.iter().map(|block| block.stored.len() + 64).sum::<usize>());
    header.write(&mut bytes);
    bytes.extend_from_slice(writer.as_bytes());

    let (mut footer, mut sealed) = (Footer::default(), Vec::with_capacity(blocks.len()));
    for CompressedBlock { kind, encoding, plain_len, blobs, stored } in blocks {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a block's plaintext has a bound and its frame is no longer"
        )]
        let stored_len = (stored.len() + TAG_LEN) as u32;
        footer.blocks.push(BlockEntry { kind, encoding, stored_len, plain_len, blobs });
        sealed.push((kind, stored));
    }
    let blocks_end = footer.places().last().map_or(BLOCKS_START as u64, |(place, _)| place.range().end);
    let mut message = footer.message(usize::try_from(blocks_end).unwrap_or(usize::MAX));
    let too_long = |_| Error::worker("a pack's footer grew beyond its bound");
    let footer_len = u32::try_from(message.len() + TAG_LEN).map_err(too_long)?;
    let mut end = trailer(footer_len, u32::try_from(sealed.len()).map_err(too_long)?);

    // Numbers follow the order of sealing, and a reader has to know the trailer's beforehand.
    sealer.seal(Part::Trailer, "", &mut end)?;
    for (kind, mut stored) in sealed {
        sealer.seal(kind.part(), "", &mut stored)?;
        bytes.extend_from_slice(&stored);
    }
    sealer.seal(Part::Footer, &writer.to_string(), &mut message)?;
    bytes.extend_from_slice(&message);
    bytes.extend_from_slice(&end);
    if bytes.len() as u64 > PACK_MAX {
        return Err(Error::worker("a pack grew beyond its bound"));
    }

    let pack = SealedPack { id: object::object_id(&bytes), header, footer, footer_len, bytes };
    pack.verify(keyring)?;
    Ok(pack)
}

impl SealedPack {
    /// Reads the pack as a stranger would: a fault of this machine's memory must not reach the store.
    fn verify(&self, keyring: &Keyring) -> Result<()> {
        let name = format!("the new pack {}", self.id);
        let (opener, _, footer) = parse_pack(&self.bytes, keyring, &name)?;
        if footer != self.footer {
            return Err(Error::corrupt(name, "its footer reads back differently"));
        }
        let places: Vec<_> = footer.places().collect();
        places
            .into_par_iter()
            .try_for_each(|(place, entry)| verify_block(&self.bytes, &place, entry, &opener, keyring, &name))
    }
}

/// Opens one block of a pack in memory and checks the id of every blob in it.
pub(crate) fn verify_block(
    pack: &[u8],
    place: &Place,
    entry: &BlockEntry,
    opener: &Opener,
    keyring: &Keyring,
    object: &str,
) -> Result<()> {
    #[expect(clippy::cast_possible_truncation, reason = "at most PACK_MAX")]
    let message = pack.get(place.range().start as usize..place.range().end as usize);
    let message = message.ok_or_else(|| object::too_short(object))?;
    let plain = place.open(opener, message.to_vec(), object)?;
    let id_key = place.kind.id_key(keyring);
    let mut rest = plain.as_slice();
    if place.kind == BlockKind::Nodes {
        let (nodes, hints) = split_hints(rest, object)?;
        Hints::decode(hints, object)?;
        rest = nodes;
    }
    for (id, length) in &entry.blobs {
        let (blob, after) = rest.split_at_checked(*length as usize).ok_or_else(|| object::too_short(object))?;
        if id_key.id(blob) != *id {
            return Err(Error::corrupt(object, format!("blob {id} has other content than its id says")));
        }
        rest = after;
    }
    if rest.is_empty() { Ok(()) } else { Err(Error::corrupt(object, "the lengths of a block's blobs don't add up")) }
}
