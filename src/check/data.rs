//! Reads packs whole: which ones, and what is verified of their bytes.

use std::collections::HashSet;

use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::check::findings::Trouble;
use crate::check::packs::{Description, Seen};
use crate::crypto::Keyring;
use crate::error::Result;
use crate::id::ObjectId;
use crate::index::PackRow;
use crate::layout::Name;
use crate::object;
use crate::pack::{parse_header, parse_pack, verify_block};

/// Chooses packs at random until they come to `percent` of the length of all.
pub(super) fn choose(packs: &[(ObjectId, u64)], percent: f64, seed: &[u8; 32]) -> HashSet<ObjectId> {
    let total: u64 = packs.iter().map(|(_, length)| length).sum();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
    let wanted = if percent >= 100.0 { u64::MAX } else { (total as f64 * percent / 100.0).ceil() as u64 };
    // The order of keyed hashes is a random permutation.
    let mut order: Vec<_> =
        packs.iter().map(|(id, length)| (*blake3::keyed_hash(seed, id.as_bytes()).as_bytes(), *id, *length)).collect();
    order.sort_unstable();
    let (mut chosen, mut length) = (HashSet::new(), 0u64);
    for (_, id, more) in order {
        if length >= wanted {
            break;
        }
        length = length.saturating_add(more);
        chosen.insert(id);
    }
    chosen
}

/// Verifies a pack that is wholly in memory: its name, its footer, each block and each blob.
pub(super) fn verify_pack(id: ObjectId, bytes: &[u8], keyring: &Keyring) -> Result<Seen> {
    let name = Name::Pack(id).to_string();
    let mut seen = Seen::new(id, bytes.len() as u64);
    if let Err(error) = object::verify_id(bytes, &id, &name) {
        seen.troubles.push(Trouble::of(error)?);
    }
    let parsed = parse_header(bytes, &name).and_then(|(header, _)| {
        let row = PackRow { id, generation: header.generation, salt: header.salt };
        parse_pack(bytes, keyring, &name).map(|(opener, _, footer)| (opener, row, footer))
    });
    let (opener, row, footer) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            seen.describe(Err(object::if_whole(error, bytes, &id, &name)))?;
            return Ok(seen);
        }
    };
    let places: Vec<_> = footer.places().collect();
    let failures: Vec<_> = places
        .into_par_iter()
        .filter_map(|(place, entry)| Some((entry, verify_block(bytes, &place, entry, &opener, keyring, &name).err()?)))
        .collect();
    for (entry, error) in failures {
        seen.troubles.push(Trouble::of(error)?);
        seen.bad.extend(entry.blobs.iter().map(|(id, _)| *id));
    }
    seen.describe(Ok(Description { row, footer }))?;
    Ok(seen)
}
