//! What unit tests share: surroundings that are the same in every run, golden bytes, and ways to damage an object.

#[path = "../tests/common/random.rs"]
mod random;
pub(crate) mod series;
#[path = "../tests/common/stores.rs"]
pub(crate) mod stores;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::clock::{Clock, Entropy, Surroundings, Timestamp};
use crate::crypto::Keyring;
use crate::index::RecentPack;
use crate::layout;
use crate::merge::lengths;
use crate::repository::Repository;

pub(crate) use random::Random;

/// The time on every clock of [`fixed`].
pub(crate) const NOW: Timestamp = Timestamp::from_nanos(1_600_000_000_123_456_789);

/// A clock that stands still, and randomness that is the same in every run: the `n`-th buffer that is filled, from
/// 0, gets the first bytes of BLAKE3 in its extended form over "entropy" and `n` as a little-endian u64.
pub(crate) fn fixed() -> Surroundings {
    Surroundings { clock: Arc::new(Still), entropy: Arc::new(Counted(AtomicU64::new(0))) }
}

/// All packs that are there.
pub(crate) async fn packs(repository: &Repository) -> Vec<Arc<RecentPack>> {
    let mut packs = Vec::new();
    for (id, length) in lengths(repository.store().list(layout::PACKS).await.unwrap(), layout::parse_pack) {
        packs.push(Arc::new(RecentPack::read(id, length, repository.store(), repository.keyring()).await.unwrap()));
    }
    packs
}

/// The keyring that [`fixed`] surroundings generate: its secrets are buffers 0 and 1.
pub(crate) fn keyring() -> Keyring {
    Keyring::generate(&fixed())
}

/// Another keyring.
pub(crate) fn stranger() -> Keyring {
    let surroundings = fixed();
    drop(Keyring::generate(&surroundings));
    Keyring::generate(&surroundings)
}

#[derive(Debug)]
struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        NOW
    }
}

#[derive(Debug)]
struct Counted(AtomicU64);

impl Entropy for Counted {
    fn fill(&self, buffer: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst);
        blake3::Hasher::new().update(b"entropy").update(&number.to_le_bytes()).finalize_xof().fill(buffer);
    }
}

/// Checks that `bytes` are those kept in `tests/golden`; with `BLESS_GOLDEN` in the environment they are kept.
#[track_caller]
pub(crate) fn assert_golden(name: &str, bytes: &[u8]) {
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let lines: String = hex.as_bytes().chunks(64).map(|line| format!("{}\n", line.escape_ascii())).collect();
    let path = golden_path(name);
    if std::env::var_os("BLESS_GOLDEN").is_some() {
        std::fs::write(&path, &lines).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == lines,
        "{name}: the format changed: update docs/format.md and these bytes in the same commit\nkept:\n{kept}\nnow:\n{lines}"
    );
}

/// Bytes that are kept in `tests/golden`.
pub(crate) fn read_golden(name: &str) -> Vec<u8> {
    let text = std::fs::read_to_string(golden_path(name)).unwrap();
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let pairs = digits.chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn golden_path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

/// Hands every truncation of `bytes`, a few extensions, and every flip of one bit to `check`, each with a name.
pub(crate) fn each_damage(bytes: &[u8], mut check: impl FnMut(&str, &[u8])) {
    for length in 0..bytes.len() {
        check(&format!("cut to {length} bytes"), &bytes[..length]);
    }
    for more in [&[0][..], &[1], &[0xff], &[0; 32], bytes] {
        check(&format!("{} bytes longer", more.len()), &[bytes, more].concat());
    }
    each_flip(bytes, check);
}

/// Hands every flip of one bit of `bytes` to `check`, each with a name.
pub(crate) fn each_flip(bytes: &[u8], mut check: impl FnMut(&str, &[u8])) {
    let mut damaged = bytes.to_vec();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            damaged[at] ^= 1 << bit;
            check(&format!("bit {bit} of byte {at} flipped"), &damaged);
            damaged[at] ^= 1 << bit;
        }
    }
}
