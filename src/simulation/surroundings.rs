//! Clocks that are wrong, and randomness that isn't.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use crate::clock::{Clock, Entropy, Surroundings, Timestamp};
use crate::testing::{NOW, Random};

/// How far a clock may be wrong, in seconds: two of them never lie a day apart.
const SKEW: u64 = 10 * 60 * 60;

/// The surroundings of one process.
pub(super) fn seeded(random: &mut Random, begun: Instant) -> Surroundings {
    let mut own = || Mutex::new(Random::new(random.next()));
    let clock = Wrong { begun, random: own(), skew: Mutex::new(0) };
    clock.jump();
    Surroundings { clock: Arc::new(clock), entropy: Arc::new(Seeded(own())) }
}

/// A clock that goes wrong by hours, and jumps now and then, back as well as forth.
#[derive(Debug)]
struct Wrong {
    begun: Instant,
    random: Mutex<Random>,
    /// In seconds.
    skew: Mutex<i64>,
}

impl Wrong {
    fn jump(&self) {
        let random = &mut *lock(&self.random);
        *lock(&self.skew) = if random.chance(0.5) { 0 } else { random.below(2 * SKEW) as i64 - SKEW as i64 };
    }
}

impl Clock for Wrong {
    fn now(&self) -> Timestamp {
        if lock(&self.random).chance(0.1) {
            self.jump();
        }
        let since = self.begun.elapsed().as_nanos() as i64;
        Timestamp::from_nanos(NOW.as_nanos() + since + *lock(&self.skew) * 1_000_000_000)
    }
}

struct Seeded(Mutex<Random>);

impl fmt::Debug for Seeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeded")
    }
}

impl Entropy for Seeded {
    fn fill(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&lock(&self.0).bytes(buffer.len()));
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
