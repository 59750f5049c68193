//! A pack's description of itself, from which an index can be rebuilt.

use std::ops::Range;

use crate::codec::{self, Decode, Encode};
use crate::crypto::{Keyring, Kind, Opener, Part, TAG_LEN};
use crate::error::{Error, Result};
use crate::id::{BlobId, WriterId};
use crate::object::{self, Header};
use crate::pack::block::{BLOB_MAX, BlockKind, Encoding, Place, message_number};
use crate::pack::{BLOCKS_START, FOOTER_MAX, PACK_MAX, TRAILER_LEN};

/// Packs shorter than this are padded.
const PADDED_BELOW: usize = 1 << 20;

/// One block as the footer describes it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct BlockEntry {
    pub(crate) kind: BlockKind,
    pub(crate) encoding: Encoding,
    pub(crate) stored_len: u32,
    pub(crate) plain_len: u32,
    /// Ids and lengths of the blobs, in the order in which they lie in the plaintext.
    pub(crate) blobs: Vec<(BlobId, u32)>,
}

/// All blocks of a pack, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Footer {
    pub(crate) blocks: Vec<BlockEntry>,
}

impl Footer {
    /// Each block with its place in the pack.
    pub(crate) fn places(&self) -> impl Iterator<Item = (Place, &BlockEntry)> {
        let mut offset = BLOCKS_START as u32;
        (0u32..).zip(&self.blocks).map(move |(number, entry)| {
            let BlockEntry { kind, encoding, stored_len, plain_len, .. } = *entry;
            let place = Place { kind, encoding, number, offset, stored_len, plain_len };
            offset = offset.saturating_add(stored_len);
            (place, entry)
        })
    }

    /// Checks that the blocks fill the pack up to `footer_start` and hold what they say.
    fn validate(&self, footer_start: u64, object: &str) -> Result<()> {
        let mut end = BLOCKS_START as u64;
        for (place, entry) in self.places() {
            place.validate(object)?;
            let blobs_len: u64 = entry.blobs.iter().map(|(_, length)| u64::from(*length)).sum();
            let blobs_fit = entry.blobs.iter().all(|(_, length)| (1..=BLOB_MAX).contains(length));
            // Behind nodes stand hints.
            let fits = match entry.kind {
                BlockKind::Data => blobs_len == u64::from(entry.plain_len),
                BlockKind::Nodes => blobs_len < u64::from(entry.plain_len),
            };
            if !fits || !blobs_fit {
                return Err(Error::corrupt(object, "the lengths of a block's blobs don't add up"));
            }
            end = place.range().end;
        }
        if end == footer_start {
            Ok(())
        } else {
            Err(Error::corrupt(object, "its blocks don't end where its footer begins"))
        }
    }

    /// The footer's message for a pack whose blocks end at `start`, padded but not yet sealed.
    pub(super) fn message(&self, start: usize) -> Vec<u8> {
        let mut message = codec::encode(self);
        let length = start + message.len() + TAG_LEN + TRAILER_LEN;
        if length < PADDED_BELOW {
            object::pad(&mut message, length);
        }
        message
    }
}

/// Where a pack's footer message lies, and how many blocks it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FooterRange {
    pub(crate) range: Range<u64>,
    blocks: u32,
    pack_length: u64,
}

/// The plaintext of the trailer of a pack with so many blocks and so long a footer message.
pub(crate) fn trailer(footer_len: u32, blocks: u32) -> Vec<u8> {
    [footer_len.to_le_bytes(), blocks.to_le_bytes()].concat()
}

/// Finds the footer from a pack's length and its trailer as stored.
pub(crate) fn footer_range(
    length: u64,
    trailer: &[u8; TRAILER_LEN],
    opener: &Opener,
    object: &str,
) -> Result<FooterRange> {
    let mut message = trailer.to_vec();
    opener.open(0, Part::Trailer, "", &mut message, object)?;
    let (footer_len, blocks) = message.split_first_chunk::<4>().ok_or_else(|| object::too_short(object))?;
    let blocks = u32::from_le_bytes(*blocks.first_chunk().ok_or_else(|| object::too_short(object))?);
    let message_len = u64::from(u32::from_le_bytes(*footer_len));
    let end = length.checked_sub(TRAILER_LEN as u64);
    let start = end.and_then(|end| end.checked_sub(message_len));
    match (start, end) {
        (Some(start), Some(end))
            if start >= BLOCKS_START as u64
                && (TAG_LEN as u64 + 1..=FOOTER_MAX).contains(&message_len)
                && length <= PACK_MAX =>
        {
            Ok(FooterRange { range: start..end, blocks, pack_length: length })
        }
        _ => Err(Error::corrupt(object, "its footer can't be where it says")),
    }
}

/// Reads a pack's header and the registration that made it.
pub(crate) fn parse_header(bytes: &[u8], object: &str) -> Result<(Header, WriterId)> {
    let (header, rest) = Header::read(bytes, Kind::Pack, object)?;
    let writer = rest.first_chunk::<{ WriterId::LEN }>().ok_or_else(|| object::too_short(object))?;
    Ok((header, WriterId::new(*writer)))
}

/// Opens and checks a pack's footer from its message as stored.
pub(crate) fn parse_footer(
    at: &FooterRange,
    mut message: Vec<u8>,
    opener: &Opener,
    writer: &WriterId,
    object: &str,
) -> Result<Footer> {
    let number = message_number(at.blocks, object)?;
    opener.open(number, Part::Footer, &writer.to_string(), &mut message, object)?;
    let (footer, padding) = codec::decode_prefix::<Footer>(&message, object)?;
    #[expect(clippy::cast_possible_truncation, reason = "at most PACK_MAX")]
    let pack_length = at.pack_length as usize;
    if pack_length - padding.len() < PADDED_BELOW {
        object::check_padding(padding, pack_length, object)?;
    } else if !padding.is_empty() {
        return Err(Error::corrupt(object, "its padding is wrong"));
    }
    if footer.blocks.len() as u64 != u64::from(at.blocks) {
        return Err(Error::corrupt(object, "it has another number of blocks than it says"));
    }
    footer.validate(at.range.start, object)?;
    Ok(footer)
}

/// Reads header and footer of a pack that is wholly in memory.
pub(crate) fn parse_pack(pack: &[u8], keyring: &Keyring, object: &str) -> Result<(Opener, WriterId, Footer)> {
    let (header, writer) = parse_header(pack, object)?;
    let opener = header.opener(keyring, object)?;
    let trailer = pack.last_chunk::<TRAILER_LEN>().ok_or_else(|| object::too_short(object))?;
    let at = footer_range(pack.len() as u64, trailer, &opener, object)?;
    #[expect(clippy::cast_possible_truncation, reason = "footer_range checked it against the length of the slice")]
    let message = pack[at.range.start as usize..at.range.end as usize].to_vec();
    let footer = parse_footer(&at, message, &opener, &writer, object)?;
    Ok((opener, writer, footer))
}
