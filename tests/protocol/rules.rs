//! The rules of the protocol, one clause each, so that each can be left out on its own.

/// One clause. Its name says what holds; a model is checked with all of them, or without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clause {
    // Rule 1: registering and committing.
    /// A writer registers.
    Registers,
    /// A writer reads the highest `gc/` after it registered.
    RegisterBeforeGc,
    /// A writer chooses its parent after it registered.
    RegisterBeforeParent,
    /// The parent still counts.
    ParentCounts,
    /// Having registered, a writer lists its series again: a number at or above its own means that it has lost.
    NumberIsAboveTip,
    /// Creating a commit's record picks one winner.
    OneWinner,

    // Rule 2: look-ups.
    /// A hit counts only if its pack was seen to exist.
    HitIsSeen,
    /// Packs are seen to exist after registering.
    SeenAfterRegistering,
    /// Packs are seen to exist after the highest `gc/` was read.
    SeenAfterGc,
    /// A hit in a condemned pack doesn't count.
    HitIsNotCondemned,
    /// Whatever was relied on is checked again after a renewal.
    CheckedAgain,
    /// The parent is chosen again after a renewal.
    ParentAgain,
    /// A renewal ends the old registration last.
    OldEndsLast,

    // Rule 3: registrations of undecided numbers.
    /// A writer that gives up while its put is under way leaves its registration.
    GivingUpLeaves,
    /// A registration whose number is taken is fenced like any other, not just removed.
    DecidedIsFenced,

    // Rule 4: ambiguous answers.
    /// "Unknown" isn't success.
    UnknownIsNotSuccess,
    /// "Unknown" isn't failure.
    UnknownIsNotFailure,
    /// "Exists" isn't success: the body is read back.
    ExistsIsNotSuccess,
    /// "Exists" isn't failure: the body is read back.
    ExistsIsNotFailure,
    /// A tombstone of which the answer was lost is read back.
    TombstoneReadBack,
    /// Likewise `gc/<n>`.
    GcReadBack,

    // Rule 5: what may be deleted.
    /// `forget` deletes nothing.
    ForgetOnlyPublishes,
    /// Only records that the first mark found forgotten are deleted.
    ForgottenAtFirstMark,
    /// Records are deleted last.
    RecordsDeletedLast,
    /// The highest number of a series is never deleted.
    HighestNumberStays,
    /// The highest `kept/` is never deleted.
    HighestKeptStays,
    /// The highest `gc/` is never deleted.
    HighestGcStays,
    /// A number on which a registration was fenced is never deleted.
    FencedNumbersStay,
    /// Later collections respect that too.
    PinsAreCarried,
    /// Tombstones are never deleted.
    TombstonesStay,
    /// Only registrations that the ended record names are removed, with their numbers pinned by it.
    OnlyNamedAreRemoved,

    /// Having waited for the writers, a collector reads whether its collection has ended meanwhile, and stops if so.
    StopsWhereEnded,

    // Rule 6: collection.
    /// A collection is planned from listings begun after the one before finished.
    PlannedAfterPrevious,
    /// Who loses the creation of `gc/<n>` plans anew.
    LoserPlansAnew,
    /// Only the highest `gc/` is acted on.
    OnlyHighestIsActedOn,
    /// Packs are condemned only if every live blob resolves to a pack that is kept.
    LiveResolvesToKept,
    /// And that exists.
    LiveResolvesToExisting,
    /// Forgotten snapshots that can be undeleted are roots.
    DelayIsHonoured,
    /// Writers are listed after `gc/<n>` was published.
    WritersListedAfterPublishing,
    /// Writers registered before are waited for, or fenced.
    WritersAreWaitedFor,
    /// Fencing is filling the number, not just removing the registration.
    FenceIsATombstone,
    /// A tombstone that loses is tried at the next number.
    FenceUntilItLands,
    /// There is a second mark.
    SecondMark,
    /// It covers records that were forgotten since the first.
    SecondMarkCoversForgotten,
    /// It covers series that the first mark didn't know.
    SecondMarkCoversNewSeries,
    /// What is needed is copied out of condemned packs; they are deleted all the same.
    CondemnationIsFinal,
    /// Who takes over begins with listing writers and marks in full.
    TakeOverMarksInFull,

    // Rule 7: merging.
    /// Whoever merges only copies.
    MergerOnlyCopies,
    /// A merge's `gc/` is published only if each blob is told elsewhere, in packs that exist.
    MergedIsElsewhere,
    /// And that is verified again before deleting.
    MergeVerifiedAgain,

    // Rule 8: undelete.
    /// An undelete commits a new number; what was forgotten never counts again.
    UndeleteCommitsAnew,
    /// An undelete registers.
    UndeleteRegisters,
    /// An undelete checks every blob.
    UndeleteChecks,

    // Rule 9: administrators.
    /// A `kept/` record that isn't an administrator's is ignored.
    KeptIsAuthenticated,
    /// Likewise a `gc/` record.
    GcIsAuthenticated,

    // Rule 10: stores without create-if-absent. For commits see `OneWinner`.
    /// Creating `kept/<k>` picks one winner.
    OneKept,
    /// Creating `gc/<n>` picks one winner.
    OneGc,

    // Rule 11: readers.
    /// A reader tries every known location.
    EveryLocation,
    /// And reads the index anew before it gives up.
    Refresh,
    /// As long as that tells a location which it hasn't tried.
    RefreshAgain,
}
