//! What must never happen in the toy world. The names are those of the reference: I1 to I9, N1, N2.

use super::acts::is_past_the_old;
use super::{Front, New, Owner, Service, Toy, World, is_resting};
use cutover_core::{
    Act, Base, Boot, Ending, Event, Extent, Kind, Phase, Posture, RestoreAfterRelease, State, Status,
    Strategy, Traffic, Writes,
};
use std::fmt;

/// A promise that can be broken on the way; those about ways that lead nowhere are in `explore`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Promise {
    /// I1.
    VerifiedIsTheLiveTarget,
    /// I2.
    OnlyProvenProcessesAreServed,
    /// I2.
    TheFrontIsClosedUntilReleased,
    /// I3.
    NoOldCodeOnMigratedData,
    /// I4.
    NoMigrationWithoutSnapshot,
    /// I5.
    LostWritesAreTold,
    /// I5.
    NoUnallowedRestore,
    /// I6c.
    MaintenanceKeepsItsWayBack,
    /// I8.
    AutoRevertIsNoSuccess,
    /// I9.
    UpdateFailedMeansUntouched,
    /// Nothing but the pointer's generation is started.
    OnlyThePointedStarts,
    /// N1.
    ADaemonKillCostsNoUpdate,
    /// N2.
    InterruptionsAloneStopNothing,
    /// Current is what the pointer names, wherever something may still be started from it.
    TheCurrentIsThePointer,
}

impl Promise {
    pub(crate) const ALL: [Self; 14] = [
        Self::VerifiedIsTheLiveTarget,
        Self::OnlyProvenProcessesAreServed,
        Self::TheFrontIsClosedUntilReleased,
        Self::NoOldCodeOnMigratedData,
        Self::NoMigrationWithoutSnapshot,
        Self::LostWritesAreTold,
        Self::NoUnallowedRestore,
        Self::MaintenanceKeepsItsWayBack,
        Self::AutoRevertIsNoSuccess,
        Self::UpdateFailedMeansUntouched,
        Self::OnlyThePointedStarts,
        Self::ADaemonKillCostsNoUpdate,
        Self::InterruptionsAloneStopNothing,
        Self::TheCurrentIsThePointer,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::VerifiedIsTheLiveTarget => "I1 verified is told of the live, proven target only",
            Self::OnlyProvenProcessesAreServed => "I2 the front serves proven processes only",
            Self::TheFrontIsClosedUntilReleased => {
                "I2 the front does not serve in the cut before the release"
            }
            Self::NoOldCodeOnMigratedData => "I3 old code never starts on migrated or half restored data",
            Self::NoMigrationWithoutSnapshot => {
                "I4 no migrating start without a snapshot of this stopped state"
            }
            Self::LostWritesAreTold => "I5 acknowledged writes that are lost are told",
            Self::NoUnallowedRestore => "I5 no automatic restore over acknowledged writes unless allowed",
            Self::MaintenanceKeepsItsWayBack => "I6c a run out of maintenance leaves its way back as it was",
            Self::AutoRevertIsNoSuccess => "I8 an automatic revert is never told as a success",
            Self::UpdateFailedMeansUntouched => {
                "I9 update failed is told only while the pointer is at the source"
            }
            Self::OnlyThePointedStarts => "only what the pointer names is started",
            Self::ADaemonKillCostsNoUpdate => "N1 killing the daemon alone costs no update",
            Self::InterruptionsAloneStopNothing => {
                "N2 interruptions alone never stop a healthy target for good"
            }
            Self::TheCurrentIsThePointer => {
                "a machine that knows where it stands names what the pointer names"
            }
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// One event on its way.
pub(super) struct Moved<'a> {
    pub(super) service: &'a Service,
    pub(super) before: &'a Toy,
    pub(super) event: &'a Event,
    pub(super) after: &'a State,
    pub(super) ended: Option<&'a Ending>,
    pub(super) world: &'a World,
}

type Check = (Promise, fn(&Moved<'_>) -> bool);

/// The promise that a transition breaks.
pub(super) fn broken_by(moved: &Moved<'_>) -> Option<Promise> {
    let checks: [Check; 7] = [
        (Promise::VerifiedIsTheLiveTarget, tells_a_false_success),
        (Promise::AutoRevertIsNoSuccess, tells_a_revert_as_success),
        (Promise::LostWritesAreTold, hides_lost_writes),
        (Promise::UpdateFailedMeansUntouched, tells_a_moved_pointer_as_untouched),
        (Promise::MaintenanceKeepsItsWayBack, loses_its_way_back),
        (Promise::ADaemonKillCostsNoUpdate, loses_an_update_to_a_killed_daemon),
        (Promise::InterruptionsAloneStopNothing, is_stopped_by_interruptions),
    ];
    checks.into_iter().find(|(_, breaks)| breaks(moved)).map(|(promise, _)| promise)
}

fn tells_a_false_success(moved: &Moved<'_>) -> bool {
    let Some(ended) = moved.ended.filter(|ended| ended.status == Some(Status::RestartVerified)) else {
        return false;
    };
    let live = moved.world.process.as_ref();
    let proven = live.is_some_and(|live| {
        live.owner == Owner::Keeper && live.proven && Some(&live.installed) == ended.target.as_ref()
    });
    let meant = match &moved.before.state.phase {
        Phase::CuttingOver(cut) => match &cut.base {
            Base::Maintenance(base) if cut.run.kind == Kind::Accept => base.target == cut.target,
            _ => true,
        },
        _ => false,
    };
    !(proven && meant && moved.world.pointer == ended.target)
}

fn tells_a_revert_as_success(moved: &Moved<'_>) -> bool {
    moved
        .ended
        .is_some_and(|ended| ended.kind == Kind::AutoRevert && ended.status == Some(Status::RestartVerified))
}

fn hides_lost_writes(moved: &Moved<'_>) -> bool {
    if !(moved.world.lost && is_resting(moved.after)) {
        return false;
    }
    let told = moved.ended.or(moved.after.last.as_ref());
    told.is_none_or(|ending| ending.writes != Writes::GivenUp)
}

fn tells_a_moved_pointer_as_untouched(moved: &Moved<'_>) -> bool {
    if let Phase::RollingBack(retreat) = &moved.after.phase
        && retreat.cut.switch == Extent::Never
        && moved.world.pointer != retreat.cut.run.source
    {
        return true;
    }
    let source = match &moved.before.state.phase {
        Phase::CuttingOver(cut) => &cut.run.source,
        Phase::RollingBack(retreat) => &retreat.cut.run.source,
        _ => return false,
    };
    moved.ended.is_some_and(|ended| ended.status == Some(Status::UpdateFailed))
        && moved.world.pointer != *source
}

fn loses_its_way_back(moved: &Moved<'_>) -> bool {
    let base = match &moved.before.state.phase {
        Phase::Preparing(preparation) if preparation.run.kind == Kind::TreeChanged => return false,
        Phase::Preparing(preparation) => &preparation.base,
        Phase::RollingBack(retreat) => &retreat.cut.base,
        _ => return false,
    };
    let (Base::Maintenance(base), Phase::Maintenance(now)) = (base, &moved.after.phase) else { return false };
    base.run != now.run || base.target != now.target
}

fn loses_an_update_to_a_killed_daemon(moved: &Moved<'_>) -> bool {
    let (Phase::CuttingOver(cut), Event::Recovered { boot: Boot::Same, live, .. }) =
        (&moved.before.state.phase, moved.event)
    else {
        return false;
    };
    let proving = matches!(cut.act, Act::Prove | Act::Release | Act::Soak);
    let turned = matches!(moved.after.phase, Phase::RollingBack(_) | Phase::Maintenance(_));
    turned && cut.run.kind != Kind::Accept && (live.is_some() || !proving)
}

fn is_stopped_by_interruptions(moved: &Moved<'_>) -> bool {
    let (Phase::CuttingOver(cut), Event::Recovered { .. }, Phase::Maintenance(_)) =
        (&moved.before.state.phase, moved.event, &moved.after.phase)
    else {
        return false;
    };
    let fine = matches!(moved.service.new, New::Healthy | New::DiesInTheWatch);
    cut.run.kind == Kind::Update && fine && moved.service.is_healthy(&cut.target.release)
}

/// The promise that laying a snapshot down breaks.
pub(super) fn broken_by_laying_down(service: &Service, toy: &Toy, outdated: bool) -> Option<Promise> {
    let Phase::RollingBack(retreat) = &toy.state.phase else { return None };
    let asked = retreat.cut.run.kind == Kind::Rollback;
    let allowed = service.rules.restore == RestoreAfterRelease::Allowed;
    (outdated && !asked && !allowed).then_some(Promise::NoUnallowedRestore)
}

/// The promise that a state breaks.
pub(super) fn broken_in(toy: &Toy) -> Option<Promise> {
    let Toy { state, world, .. } = toy;
    let known = match &state.phase {
        Phase::Idle | Phase::Watching(_) => true,
        Phase::Maintenance(maintenance) => maintenance.coherent.is_some(),
        Phase::Preparing(_) | Phase::CuttingOver(_) | Phase::RollingBack(_) => false,
    };
    if known && world.pointer != state.current {
        return Some(Promise::TheCurrentIsThePointer);
    }
    if world.front != Front::Shows(Posture::Serve) {
        return None;
    }
    if let Some(live) = &world.process
        && !(live.proven || live.waived)
    {
        return Some(Promise::OnlyProvenProcessesAreServed);
    }
    match &state.phase {
        Phase::CuttingOver(cut)
            if cut.run.kind != Kind::Accept
                && cut.traffic == Traffic::Held
                && is_past_the_old(cut.act, cut.run.settings.strategy == Strategy::Signal) =>
        {
            Some(Promise::TheFrontIsClosedUntilReleased)
        }
        _ => None,
    }
}
