//! Block compression: one zstd frame a block, or none where it wouldn't pay.
//!
//! Contexts are kept per thread: making one costs more than a small block.
//! A frame carries its content size and no checksum; the AEAD around it is one.

use std::borrow::Cow;
use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::error::{Error, Result};

/// zstd levels that callers may ask for.
pub(crate) const LEVELS: std::ops::RangeInclusive<i32> = -7..=19;

/// Refuses a level that callers may not ask for.
pub(crate) fn check_level(level: i32) -> Result<()> {
    if LEVELS.contains(&level) {
        return Ok(());
    }
    let reason = format!("it must be from {} to {}", LEVELS.start(), LEVELS.end());
    Err(Error::invalid(format!("compression level {level}"), reason))
}

/// The first look at a chunk samples this much of it, the second this much more.
const GLANCE_LEN: usize = 2 << 10;
const PROBE_LEN: usize = 16 << 10;

/// Order-0 entropy, in bits a byte, from which data might be compressed or encrypted already.
///
/// Photos and archives lie above 7.9; text, code and databases below 6.5. A uniform
/// sample of 16 KiB measures 7.989.
const SUSPICIOUS_ENTROPY: f64 = 7.6;

/// What a zstd frame begins with.
const FRAME_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// No frame needs a larger window, in bytes: what RFC 8878 asks of decoders.
const WINDOW_MAX: u64 = 8 << 20;

/// A compressor, the level it is set to, and room for the longest frame so far.
struct Compression {
    level: i32,
    compressor: Compressor<'static>,
    frame: Vec<u8>,
}

thread_local! {
    static COMPRESSION: RefCell<Option<Compression>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// Compresses `plain` at `level` to one zstd frame, with room for `spare` more bytes after it.
///
/// The frame takes up what it needs: many wait in memory for their pack.
pub(crate) fn compress(plain: &[u8], level: i32, spare: usize) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::worker(format!("zstd failed to compress a block: {error}"));
    COMPRESSION.with_borrow_mut(|slot| {
        let Compression { level: current, compressor, frame } = match slot {
            Some(compression) => compression,
            None => slot.insert(Compression {
                level,
                compressor: Compressor::new(level).map_err(failed)?,
                frame: Vec::new(),
            }),
        };
        if *current != level {
            compressor.set_compression_level(level).map_err(failed)?;
            *current = level;
        }
        let bound = zstd::zstd_safe::compress_bound(plain.len());
        if frame.len() < bound {
            frame.resize(bound, 0);
        }
        let length = compressor.compress_to_buffer(plain, frame.as_mut_slice()).map_err(failed)?;
        let mut exact = Vec::with_capacity(length + spare);
        exact.extend_from_slice(&frame[..length]);
        Ok(exact)
    })
}

/// Decompresses one zstd frame to exactly `plain_len` bytes; never allocates more.
///
/// The caller has checked `plain_len` against the largest block there can be.
pub(crate) fn decompress(frame: &[u8], plain_len: usize, object: &str) -> Result<Vec<u8>> {
    expect_one_frame(frame, object)?;
    let plain = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().map_err(|error| Error::worker(format!("zstd: {error}")))?),
        };
        decompressor
            .decompress(frame, plain_len)
            .map_err(|error| Error::corrupt(object, format!("a block can't be decompressed ({error})")))
    })?;
    if plain.len() != plain_len {
        return Err(Error::corrupt(object, format!("a block holds {} bytes instead of {plain_len}", plain.len())));
    }
    Ok(plain)
}

/// Refuses what isn't one zstd frame (RFC 8878), wholly, that any decoder would take: of a bounded window, without a
/// dictionary.
///
/// The library underneath would take several frames, skippable ones, and any window.
fn expect_one_frame(frame: &[u8], object: &str) -> Result<()> {
    let wrong = || Error::corrupt(object, "a block isn't one zstd frame of a window up to 8 MiB");
    let (descriptor, rest) = frame.strip_prefix(&FRAME_MAGIC).and_then(<[u8]>::split_first).ok_or_else(wrong)?;
    let (is_single_segment, dictionary) = (descriptor & 0x20 != 0, descriptor & 3);
    if !is_single_segment {
        let window = u64::from(*rest.first().ok_or_else(wrong)?);
        let base = 1u64 << (10 + (window >> 3));
        if base + base / 8 * (window & 7) > WINDOW_MAX {
            return Err(wrong());
        }
    }
    let length = zstd::zstd_safe::find_frame_compressed_size(frame).map_err(|_| wrong())?;
    if dictionary != 0 || length != frame.len() {
        return Err(wrong());
    }
    Ok(())
}

/// Guesses cheaply whether compressing `data` would save anything worth having.
///
/// A glance at 2 KiB settles text, code and databases. What looks uniform is tried on
/// zstd's fastest usual level before it is given up, since bytes can be uniform and repeat.
pub(crate) fn is_compressible(data: &[u8]) -> bool {
    let glance = sample(data, GLANCE_LEN);
    if glance.len() < 64 || entropy(&glance) < SUSPICIOUS_ENTROPY - small_sample_bias(glance.len()) {
        return true;
    }
    let probe = sample(data, PROBE_LEN);
    match compress(&probe, 1, 0) {
        Ok(frame) => frame.len() < probe.len() - probe.len() / 32,
        Err(_) => true,
    }
}

/// At most `len` bytes of `data`: its beginning, middle and end.
fn sample(data: &[u8], len: usize) -> Cow<'_, [u8]> {
    if data.len() <= len {
        return Cow::Borrowed(data);
    }
    let third = len / 3;
    let middle = (data.len() - third) / 2;
    let parts = [&data[..third], &data[middle..middle + third], &data[data.len() - third..]];
    Cow::Owned(parts.concat())
}

/// Order-0 entropy of `sample` in bits a byte.
fn entropy(sample: &[u8]) -> f64 {
    let mut counts = [0u32; 256];
    for byte in sample {
        counts[usize::from(*byte)] += 1;
    }
    let total = sample.len() as f64;
    counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * share.log2()
        })
        .sum()
}

/// How far below 8 bits the measured entropy of `len` uniform bytes lies: about 255 / (2 len ln 2) (Miller 1955).
fn small_sample_bias(len: usize) -> f64 {
    255.0 / (2.0 * len as f64 * std::f64::consts::LN_2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Entropy, SystemEntropy};

    fn noise(len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        SystemEntropy.fill(&mut bytes);
        bytes
    }

    #[test]
    fn frames_round_trip_at_every_level() {
        let text = b"the quick brown fox ".repeat(500);
        for level in LEVELS {
            let frame = compress(&text, level, 0).unwrap();
            assert!(frame.len() < text.len() / 2);
            assert_eq!(decompress(&frame, text.len(), "it").unwrap(), text);
        }
    }

    #[test]
    fn a_lying_length_or_a_damaged_frame_is_corrupt() {
        let text = b"the quick brown fox ".repeat(500);
        let frame = compress(&text, 3, 0).unwrap();
        for wrong in [0, text.len() - 1, text.len() + 1] {
            assert!(decompress(&frame, wrong, "it").unwrap_err().is_corrupt(), "{wrong}");
        }
        assert!(decompress(&frame[..frame.len() - 1], text.len(), "it").unwrap_err().is_corrupt());
        assert!(decompress(b"", 10, "it").unwrap_err().is_corrupt());
    }

    #[test]
    fn anything_but_one_plain_frame_is_refused() {
        // Runs of the letter a: a frame with its content's size, and such with a window instead.
        let sized = [&[0x28, 0xb5, 0x2f, 0xfd, 0x20, 100][..], &[0x23, 0x03, 0x00, b'a']].concat();
        let windowed = |window: u8| [&[0x28, 0xb5, 0x2f, 0xfd, 0x00, window][..], &[0x23, 0x03, 0x00, b'a']].concat();
        let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3];
        // 2^(10 + 13) bytes is 8 MiB, and with an eighth more too much.
        for sound in [&sized, &windowed(0), &windowed(13 << 3)] {
            assert_eq!(decompress(sound, 100, "it").unwrap(), [b'a'; 100], "{sound:?}");
        }
        let empty = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 0x01, 0x00, 0x00];
        for (what, wrong, length) in [
            ("two frames", [&sized[..], &sized].concat(), 200),
            ("an empty one after it", [&sized[..], &empty].concat(), 100),
            ("a skippable one before it", [&skippable[..], &sized].concat(), 100),
            ("a skippable one after it", [&sized[..], &skippable].concat(), 100),
            ("a byte after it", [&sized[..], &[0]].concat(), 100),
            ("a large window", windowed((13 << 3) + 1), 100),
            ("the largest window", windowed(0xff), 100),
            ("a dictionary", [&[0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 100][..], &[0x23, 0x03, 0x00, b'a']].concat(), 100),
            ("no frame", vec![b'a'; 100], 100),
            ("a beginning", sized[..5].to_vec(), 100),
        ] {
            assert!(decompress(&wrong, length, "it").unwrap_err().is_corrupt(), "{what}");
        }
    }

    #[test]
    fn the_probe_tells_noise_from_text() {
        for len in [256, 1000, 5000, 20_000, 300_000] {
            assert!(!is_compressible(&noise(len)), "{len} bytes of noise");
            assert!(is_compressible(&b"int main(void) { return 0; }\n".repeat(len / 20)), "{len} bytes of text");
        }
        let noise = noise(4000);
        assert!(is_compressible(&noise.repeat(3)), "noise that repeats");
    }
}
