//! Each clause left out on its own, in a world where that loses something, and what is lost.

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model};

use crate::model::{ACKNOWLEDGED, COUNTED, DELAYED, Protocol, READ};
use crate::rules::Clause;
use crate::worlds;

/// Checks that without a clause some run of a world breaks `property`.
fn assert_loses(without: &'static [Clause], world: Protocol, property: &'static str) {
    let protocol = Protocol { without, ..world };
    let wanted = HasDiscoveries::AnyOf(BTreeSet::from([property]));
    let checker = protocol.checker().finish_when(wanted).spawn_bfs().join();
    println!("{} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let path = checker.discovery(property).unwrap_or_else(|| panic!("nothing is lost without {without:?}"));
    for action in path.into_actions() {
        println!("    {action:?}");
    }
}

macro_rules! losses {
    ($($test:ident: $($clause:ident)and+ in $world:ident breaks $property:ident;)*) => {
        $(#[test]
        fn $test() {
            assert_loses(&[$(Clause::$clause),+], worlds::$world(), $property);
        })*
    };
}

losses! {
    // Rule 1.
    registers: Registers in collection breaks COUNTED;
    register_before_gc: RegisterBeforeGc in collection breaks COUNTED;
    register_before_parent: RegisterBeforeParent in forgotten_parent breaks COUNTED;
    parent_counts: ParentCounts in forgotten_parent breaks COUNTED;
    number_is_above_tip: NumberIsAboveTip in freed_numbers breaks ACKNOWLEDGED;
    one_winner: OneWinner in contention breaks ACKNOWLEDGED;
    // Rule 2.
    hit_is_seen: HitIsSeen in collection breaks COUNTED;
    seen_after_registering: SeenAfterRegistering in collection breaks COUNTED;
    seen_after_gc: SeenAfterGc in collection breaks COUNTED;
    hit_is_not_condemned: HitIsNotCondemned in collection breaks COUNTED;
    checked_again: CheckedAgain in collection breaks COUNTED;
    checked_again_by_a_feed: CheckedAgain in feed breaks COUNTED;
    parent_again: ParentAgain in forgotten_parent breaks COUNTED;
    // Rule 3.
    giving_up_leaves: GivingUpLeaves in collection breaks COUNTED;
    decided_is_fenced: DecidedIsFenced in fenced_numbers breaks ACKNOWLEDGED;
    // Rule 4.
    unknown_is_not_success: UnknownIsNotSuccess in contention breaks ACKNOWLEDGED;
    unknown_is_not_failure: UnknownIsNotFailure in lost_answers breaks COUNTED;
    exists_is_not_success: ExistsIsNotSuccess in contention breaks ACKNOWLEDGED;
    tombstone_read_back: TombstoneReadBack in lost_answers breaks COUNTED;
    gc_read_back: GcReadBack in duplicates breaks COUNTED;
    // Rule 5.
    forget_only_publishes: ForgetOnlyPublishes in freed_numbers breaks ACKNOWLEDGED;
    forgotten_at_first_mark: ForgottenAtFirstMark in freed_numbers breaks ACKNOWLEDGED;
    records_deleted_last: RecordsDeletedLast in freed_numbers breaks ACKNOWLEDGED;
    highest_number_stays: HighestNumberStays in freed_numbers breaks ACKNOWLEDGED;
    highest_kept_stays: HighestKeptStays in two_forget breaks COUNTED;
    highest_gc_stays: HighestGcStays in duplicates breaks COUNTED;
    fenced_numbers_stay: FencedNumbersStay in fenced_numbers breaks ACKNOWLEDGED;
    pins_are_carried: PinsAreCarried in fenced_numbers breaks ACKNOWLEDGED;
    only_named_are_removed: OnlyNamedAreRemoved in fenced_by_two breaks ACKNOWLEDGED;
    stops_where_ended: StopsWhereEnded in fenced_by_two breaks ACKNOWLEDGED;
    // Rule 6.
    planned_after_previous: PlannedAfterPrevious in duplicates breaks COUNTED;
    loser_plans_anew: LoserPlansAnew in duplicates breaks COUNTED;
    only_highest_is_acted_on: OnlyHighestIsActedOn and StopsWhereEnded in duplicates breaks COUNTED;
    live_resolves_to_kept: LiveResolvesToKept in duplicates breaks COUNTED;
    live_resolves_to_existing: LiveResolvesToExisting in duplicates breaks COUNTED;
    delay_is_honoured: DelayIsHonoured in forgotten_parent breaks DELAYED;
    writers_listed_after_publishing: WritersListedAfterPublishing in collection breaks COUNTED;
    writers_are_waited_for: WritersAreWaitedFor in collection breaks COUNTED;
    fence_is_a_tombstone: FenceIsATombstone in collection breaks COUNTED;
    fence_until_it_lands: FenceUntilItLands in fenced_feed breaks COUNTED;
    second_mark: SecondMark in collection breaks COUNTED;
    second_mark_covers_forgotten: SecondMarkCoversForgotten in forgotten_since breaks COUNTED;
    second_mark_covers_delayed: SecondMarkCoversForgotten in forgotten_since breaks DELAYED;
    second_mark_covers_new_series: SecondMarkCoversNewSeries in new_series breaks COUNTED;
    condemnation_is_final: CondemnationIsFinal in taken_over breaks COUNTED;
    take_over_marks_in_full: TakeOverMarksInFull in collection breaks COUNTED;
    // Rule 7. Either look is enough; see below.
    merger_only_copies: MergerOnlyCopies in merging breaks COUNTED;
    merged_is_elsewhere: MergedIsElsewhere and MergeVerifiedAgain in merging breaks COUNTED;
    // Rule 8.
    undelete_commits_anew: UndeleteCommitsAnew in undelete breaks COUNTED;
    undelete_registers: UndeleteRegisters in undelete breaks COUNTED;
    undelete_checks: UndeleteChecks in undelete breaks COUNTED;
    // Rule 9.
    kept_is_authenticated: KeptIsAuthenticated in collection breaks ACKNOWLEDGED;
    gc_is_authenticated: GcIsAuthenticated in collection breaks COUNTED;
    // Rule 10.
    one_kept: OneKept in two_forget breaks COUNTED;
    one_gc: OneGc in duplicates breaks COUNTED;
    // Rule 11.
    every_location: EveryLocation in reading breaks READ;
    refresh: Refresh in reading breaks READ;
    refresh_again: RefreshAgain in reading breaks READ;
}

/// Checks that nothing is lost without a clause.
fn assert_loses_nothing(without: &'static [Clause], world: Protocol) {
    crate::assert_holds(Protocol { without, ..world });
}

macro_rules! no_losses {
    ($($test:ident: $clause:ident in $($world:ident)+;)*) => {
        $(#[test]
        fn $test() {
            $(assert_loses_nothing(&[Clause::$clause], worlds::$world());)+
        })*
    };
}

// What isn't needed for safety, as far as these worlds can tell.
no_losses! {
    // All is checked again under the new registration; what is gone by then is uploaded again.
    old_ends_last: OldEndsLast in feed fenced_feed collection forgotten_parent;
    // A commit is made twice.
    exists_is_not_failure: ExistsIsNotFailure in contention lost_answers;
    // The numbers that matter are pinned.
    tombstones_stay: TombstonesStay in fenced_numbers fenced_by_two freed_numbers;
    // Whoever goes on with a lower one finds out once it has waited.
    only_highest_is_published_on: OnlyHighestIsActedOn in duplicates;
    // Each of a merge's two looks makes up for the other.
    merged_is_elsewhere_when_planned: MergedIsElsewhere in merging;
    merged_is_elsewhere_when_deleted: MergeVerifiedAgain in merging;
}
