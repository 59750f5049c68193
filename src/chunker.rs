//! Content-defined cut points: FastCDC, keyed.
//!
//! FastCDC with normalised chunking, level 1 (Xia et al., "The Design of Fast
//! Content-Defined Chunking for Data Deduplication Based Storage Systems", IEEE
//! TPDS 2020; the two-bytes-a-step variant of the `fastcdc` crate's `v2020`). The
//! gear table is derived from the repository's key, so that boundaries alone
//! don't tell which known file was stored. That hides them from whoever only
//! looks; it doesn't withstand someone who can have plaintext of his choice
//! backed up (see docs/format.md, "Limits of confidentiality").

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

use crate::codec::{Decode, Encode};
use crate::error::{Error, Result};

/// The chunk sizes of a repository, in bytes; fixed when it is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ChunkerParameters {
    /// No chunk but the last of a file is shorter.
    pub min: u32,
    /// What the chunks come to on average, roughly; a power of two.
    pub mean: u32,
    /// No chunk is longer.
    pub max: u32,
}

/// 32 KiB: on a 330 MB SQLite file with 2,000 of 1.2 million rows changed, means of 16, 32, 64, 128 and 256 KiB stored
/// 17, 28, 44, 65 and 79 MiB for the second backup, at the same speed and size for the first. Below 32 KiB the
/// index, at 49 bytes a chunk, begins to weigh.
impl Default for ChunkerParameters {
    fn default() -> Self {
        Self { min: 8 << 10, mean: 32 << 10, max: 128 << 10 }
    }
}

impl ChunkerParameters {
    /// The largest chunk that any repository may have, in bytes.
    pub const MAX: u32 = 1 << 20;

    /// Checks the bounds that the algorithm needs; `what` names the parameters in the error.
    pub(crate) fn validate(&self, what: &str) -> Result<()> {
        let Self { min, mean, max } = *self;
        let even = min % 2 == 0 && max % 2 == 0;
        if min >= 64 && even && min < mean && mean.is_power_of_two() && mean >= 256 && mean < max && max <= Self::MAX {
            Ok(())
        } else {
            Err(Error::invalid(
                what,
                format!(
                    "chunk sizes {min}/{mean}/{max}: min must be even and at least 64, mean a power of two between min and max, max even and at most 1 MiB"
                ),
            ))
        }
    }
}

/// Finds where chunks end.
#[derive(Clone, Debug)]
pub(crate) struct Chunker {
    parameters: ChunkerParameters,
    mask_small: u64,
    mask_large: u64,
    gear: Box<[u64; 256]>,
    gear_shifted: Box<[u64; 256]>,
}

impl Chunker {
    /// A chunker over a keyed table; the parameters have been validated.
    pub(crate) fn new(parameters: ChunkerParameters, gear: Box<[u64; 256]>) -> Self {
        let (mask_small, mask_large) = select_masks(parameters.mean as usize, Normalization::Level1);
        let gear_shifted = Box::new(gear.map(|entry| entry << 1));
        Self { parameters, mask_small, mask_large, gear, gear_shifted }
    }

    /// The length of the first chunk of `data`, or nothing when more bytes are needed to tell.
    ///
    /// With `end`, `data` is all there is, and only an empty slice has no chunk.
    pub(crate) fn cut(&self, data: &[u8], end: bool) -> Option<usize> {
        if data.is_empty() {
            return None;
        }
        let ChunkerParameters { min, mean, max } = self.parameters;
        let (_, length) = cut_gear(
            data,
            min as usize,
            mean as usize,
            max as usize,
            self.mask_small,
            self.mask_large,
            self.mask_small << 1,
            self.mask_large << 1,
            self.gear.as_slice(),
            self.gear_shifted.as_slice(),
        );
        // A cut at the very end of the slice may only mean that the slice ended.
        let certain = end || length < data.len() || length == max as usize;
        certain.then_some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chunker() -> Chunker {
        let mut state = 1u64;
        let gear = std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state ^ state >> 29
        });
        Chunker::new(ChunkerParameters { min: 256, mean: 1024, max: 4096 }, Box::new(gear))
    }

    fn noise(len: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; len];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts_of_whole(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut cuts = Vec::new();
        while let Some(length) = chunker.cut(data, true) {
            cuts.push(length);
            data = &data[length..];
        }
        cuts
    }

    #[test]
    fn known_data_has_known_cuts() {
        let cuts = cuts_of_whole(&chunker(), &noise(20_000, 1));
        assert_eq!(cuts.iter().sum::<usize>(), 20_000);
        assert_eq!(cuts, GOLDEN, "the chunker cuts elsewhere: existing repositories would no longer deduplicate");
    }

    const GOLDEN: &[usize] =
        &[1214, 1052, 824, 968, 998, 1348, 1258, 2201, 994, 1502, 1981, 632, 549, 797, 1219, 1080, 533, 850];

    #[test]
    fn impossible_sizes_are_refused() {
        let sizes = |min, mean, max| ChunkerParameters { min, mean, max }.validate("sizes");
        assert!(ChunkerParameters::default().validate("sizes").is_ok());
        for wrong in [
            (0, 1024, 4096),
            (255, 1024, 4096),
            (256, 1000, 4096),
            (256, 1024, 1024),
            (2048, 1024, 4096),
            (256, 1024, 2 << 20),
        ] {
            assert!(sizes(wrong.0, wrong.1, wrong.2).is_err(), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_stream_cut_in_pieces_has_the_cuts_of_the_whole(len in 0usize..30_000, step in 1usize..5000, seed: u64) {
            let (chunker, data) = (chunker(), noise(len, seed));
            let (mut start, mut end, mut cuts) = (0, 0, Vec::new());
            loop {
                match chunker.cut(&data[start..end], end == data.len()) {
                    Some(length) => { cuts.push(length); start += length; }
                    None if end == data.len() => break,
                    None => end = data.len().min(end + step),
                }
            }
            prop_assert_eq!(start, data.len());
            prop_assert_eq!(cuts, cuts_of_whole(&chunker, &data));
        }
    }
}
