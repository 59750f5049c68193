//! The store as the protocol sees it: names that are taken or free, and what stands under them.
//!
//! Also what the world outside knows and no client may use: what was acknowledged, what was forgotten on purpose.

/// A set of blobs, one bit each.
pub(crate) type Blobs = u8;
/// A set of packs, one bit each.
pub(crate) type Packs = u8;
/// A set of numbers in a series; number `n` is bit `n`.
pub(crate) type Numbers = u8;
/// A set of registrations, one bit each.
pub(crate) type Registrations = u8;

pub(crate) const SERIES: usize = 2;
/// Numbers are 1 to 7.
pub(crate) const NUMBERS: u8 = 8;
pub(crate) const PACKS: u8 = 8;
pub(crate) const REGISTRATIONS: u8 = 8;

/// Who made the records that a run starts with.
pub(crate) const LONG_AGO: u8 = 9;

pub(crate) fn bit(index: u8) -> u8 {
    1 << index
}

pub(crate) fn has(set: u8, index: u8) -> bool {
    set & bit(index) != 0
}

/// The members of a set, lowest first.
pub(crate) fn members(set: u8) -> impl Iterator<Item = u8> {
    (0..8).filter(move |index| has(set, *index))
}

/// What stands under `snapshots/<series>/<n>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Free,
    Tombstone,
    /// The blobs that the snapshot needs, and its nonce: who wrote it.
    Commit(Blobs, u8),
}

/// The highest `kept/<series>/<k>`: of the numbers through `through` those in `set` count, and all above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Kept {
    pub(crate) k: u8,
    pub(crate) through: u8,
    pub(crate) set: Numbers,
}

impl Kept {
    pub(crate) fn counts(self, number: u8) -> bool {
        number > self.through || has(self.set, number)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Series {
    pub(crate) records: [Record; NUMBERS as usize],
    pub(crate) kept: Kept,
    /// Forgotten so long ago that undeleting isn't promised any more.
    pub(crate) expired: Numbers,
    /// Known outside: commits that their writers were told of.
    pub(crate) acknowledged: Numbers,
    /// Known outside: records that somebody forgot after having seen them.
    pub(crate) forgotten: Numbers,
}

impl Series {
    pub(crate) fn tip(&self) -> u8 {
        (1..NUMBERS).rev().find(|number| self.taken(*number)).unwrap_or(0)
    }

    pub(crate) fn taken(&self, number: u8) -> bool {
        self.records[usize::from(number)] != Record::Free
    }

    /// The blobs that a number's record needs: none where there is no commit.
    pub(crate) fn root(&self, number: u8) -> Blobs {
        match self.records[usize::from(number)] {
            Record::Commit(root, _) => root,
            Record::Free | Record::Tombstone => 0,
        }
    }

    pub(crate) fn is_commit(&self, number: u8) -> bool {
        matches!(self.records[usize::from(number)], Record::Commit(..))
    }

    /// Whether the snapshot of that number counts.
    pub(crate) fn counts(&self, number: u8) -> bool {
        self.is_commit(number) && self.kept.counts(number)
    }

    /// Whether it was forgotten and can still be undeleted.
    pub(crate) fn is_kept_back(&self, number: u8) -> bool {
        self.is_commit(number) && !self.kept.counts(number) && !has(self.expired, number)
    }

    /// The newest snapshot that counts below `number`; 0 if there is none.
    pub(crate) fn newest_below(&self, number: u8) -> u8 {
        (1..number).rev().find(|number| self.counts(*number)).unwrap_or(0)
    }

    /// The numbers of which `condition` holds.
    pub(crate) fn numbers(&self, condition: impl Fn(u8) -> bool) -> Numbers {
        (1..NUMBERS).filter(|number| condition(*number)).fold(0, |set, number| set | bit(number))
    }

    /// The blobs of all commits of which `condition` holds.
    pub(crate) fn needed(&self, condition: impl Fn(u8) -> bool) -> Blobs {
        (1..NUMBERS).filter(|number| condition(*number)).fold(0, |blobs, number| blobs | self.root(number))
    }

    /// Puts a record under a name and starts what is known of it anew. Until when a number can be undeleted was said
    /// once and for all when it was forgotten.
    pub(crate) fn put(&mut self, number: u8, record: Record) {
        self.records[usize::from(number)] = record;
        for known in [&mut self.acknowledged, &mut self.forgotten] {
            *known &= !bit(number);
        }
    }
}

/// The highest `gc/<n>` and, once it is there, `gc/<n>-ended`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gc {
    pub(crate) n: u8,
    pub(crate) plan: Plan,
    pub(crate) ended: bool,
    /// Numbers on which registrations were fenced: never freed.
    pub(crate) pins: [Numbers; SERIES],
    /// The registrations that the ended collection fenced.
    pub(crate) fenced: Registrations,
}

/// What the record `gc/<n>` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Plan {
    pub(crate) condemned: Packs,
    /// Per series the highest number that the first mark saw.
    pub(crate) through: [u8; SERIES],
    /// Records that the first mark found forgotten and expired.
    pub(crate) delete: [Numbers; SERIES],
    /// Whether it is a merge: each blob of its packs is told elsewhere, so that nobody is waited for.
    pub(crate) merge: bool,
}

/// What stands under `writers/<id>`; number 0 where nothing does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Registration {
    pub(crate) series: u8,
    pub(crate) number: u8,
    /// The highest collection that its writer had read before it registered.
    pub(crate) seen: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Store {
    pub(crate) series: [Series; SERIES],
    /// What each pack holds, as segments and footers tell it; a segment can outlive its pack.
    pub(crate) told: [Blobs; PACKS as usize],
    /// The packs that exist.
    pub(crate) packs: Packs,
    pub(crate) gc: Gc,
    pub(crate) registrations: [Registration; REGISTRATIONS as usize],
}

impl Store {
    pub(crate) fn new() -> Self {
        let series = Series {
            records: [Record::Free; NUMBERS as usize],
            kept: Kept { k: 0, through: 0, set: 0 },
            expired: 0,
            acknowledged: 0,
            forgotten: 0,
        };
        Self {
            series: [series.clone(), series],
            told: [0; PACKS as usize],
            packs: 0,
            gc: Gc { n: 0, plan: Plan::default(), ended: true, pins: [0; SERIES], fenced: 0 },
            registrations: [Registration::default(); REGISTRATIONS as usize],
        }
    }

    /// With a commit of `series` made long ago.
    pub(crate) fn commit(mut self, series: u8, root: Blobs) -> Self {
        let series = &mut self.series[usize::from(series)];
        let number = series.tip() + 1;
        series.put(number, Record::Commit(root, LONG_AGO));
        series.acknowledged |= bit(number);
        self
    }

    /// With a pack of these blobs.
    pub(crate) fn pack(mut self, blobs: Blobs) -> Self {
        self.upload(blobs);
        self
    }

    /// With a number forgotten, and past undeleting if `expired`.
    pub(crate) fn forget(mut self, series: u8, number: u8, expired: bool) -> Self {
        let series = &mut self.series[usize::from(series)];
        let set = series.numbers(|each| series.counts(each)) & !bit(number);
        series.kept = Kept { k: series.kept.k + 1, through: series.tip(), set };
        series.forgotten |= bit(number);
        if expired {
            series.expired |= bit(number);
        }
        self
    }

    /// Stores a new pack.
    pub(crate) fn upload(&mut self, blobs: Blobs) -> u8 {
        let pack = (0..PACKS).find(|pack| self.told[usize::from(*pack)] == 0).expect("more packs than the model has");
        self.told[usize::from(pack)] = blobs;
        self.packs |= bit(pack);
        pack
    }

    /// The blobs in these packs, as they are told, whether the packs exist or not.
    pub(crate) fn blobs(&self, packs: Packs) -> Blobs {
        members(packs).fold(0, |blobs, pack| blobs | self.told[usize::from(pack)])
    }

    /// The blobs that the snapshots which count need.
    pub(crate) fn counted(&self) -> Blobs {
        self.series.iter().fold(0, |blobs, series| blobs | series.needed(|number| series.counts(number)))
    }

    /// All packs that ever were.
    pub(crate) fn told_packs(&self) -> Packs {
        (0..PACKS).filter(|pack| self.told[usize::from(*pack)] != 0).fold(0, |packs, pack| packs | bit(pack))
    }

    /// The packs that the unfinished collection condemned.
    pub(crate) fn condemned(&self) -> Packs {
        if self.gc.ended { 0 } else { self.gc.plan.condemned }
    }

    /// The registrations of which `condition` holds.
    pub(crate) fn registered(&self, condition: impl Fn(Registration) -> bool) -> Registrations {
        (0..REGISTRATIONS)
            .filter(|id| self.registrations[usize::from(*id)].number != 0)
            .filter(|id| condition(self.registrations[usize::from(*id)]))
            .fold(0, |set, id| set | bit(id))
    }

    pub(crate) fn unregister(&mut self, ids: Registrations) {
        for id in members(ids) {
            self.registrations[usize::from(id)] = Registration::default();
        }
    }
}
