//! What each effect does to the toy world, and the fact that follows once it is done.

use super::{Content, Copied, Front, Label, New, Old, Options, Owner, Way, World, is_signal};
use crate::cast;
use cutover_core::{
    Act, Checked, Done, Effect, Event, Extent, Generation, Installed, LayDown, Phase, Posture, Release,
    RunId, Ticket,
};

fn done() -> Done {
    Done::Done { note: String::new() }
}

impl Options<'_> {
    pub(super) fn act(&mut self, ticket: &Ticket, effect: Effect) {
        match effect {
            Effect::Resolve(_) => {
                let release = self.newer();
                self.finish(ticket, Done::Resolved { release });
            }
            Effect::Stage(release) => {
                let generation = Generation(cast::free(&self.named().generations));
                self.finish(ticket, Done::Staged { installed: Installed { generation, release } });
            }
            Effect::Preflight { .. } => self.finish(ticket, Done::Checked(Checked::default())),
            Effect::Await { .. } => self.finish(ticket, Done::Skipped { why: String::new() }),
            Effect::Rehearse { .. } | Effect::Drain { .. } | Effect::Nothing(_) => {
                self.finish(ticket, done())
            }
            Effect::Stop => self.stop(ticket),
            Effect::Signal => self.signal(ticket),
            Effect::Snapshot(run) => self.snapshot(ticket, &run),
            Effect::Place { snapshot, when } | Effect::Restore { snapshot, when } => {
                self.lay_down(ticket, &snapshot, when);
            }
            Effect::Switch(installed) => self.point(ticket, Some(installed)),
            Effect::SwitchBack(installed) => self.point(ticket, installed),
            Effect::Start { installed, compare, .. } => self.start(ticket, &installed, compare.as_ref()),
            Effect::Prove { installed, .. } | Effect::ProveBack { installed, .. } => {
                self.prove(ticket, &installed);
            }
            Effect::Release if self.owner() == Some(Owner::Keeper) => {
                self.fact(Label("released", None), &Event::Released { ticket: ticket.clone() });
            }
            Effect::Release => {}
            Effect::Soak { installed, .. } => self.soak(ticket, &installed),
        }
    }

    fn finish(&mut self, ticket: &Ticket, done: Done) {
        self.finish_in(ticket, done, self.toy.world.clone());
    }

    fn finish_in(&mut self, ticket: &Ticket, done: Done, world: World) {
        let event = Event::Finished { ticket: ticket.clone(), done, copied: None };
        self.event(Label("done", Some(ticket.act)), Way::On, &event, world, self.budget());
    }

    fn fail(&mut self, ticket: &Ticket, code: &str) {
        let event = Event::Faulted { ticket: ticket.clone(), fault: cast::fault(code), copied: None };
        self.fact(Label("fault", Some(ticket.act)), &event);
    }

    fn newer(&self) -> Release {
        let current = self.toy.state.current.as_ref();
        cast::release(current.map_or(2, |current| cast::release_number(&current.release) + 1))
    }

    fn owner(&self) -> Option<Owner> {
        self.toy.world.process.as_ref().map(|live| live.owner)
    }

    fn stop(&mut self, ticket: &Ticket) {
        if !self.is_held() {
            return;
        }
        match self.owner() {
            None => self.finish(ticket, done()),
            Some(Owner::Keeper) => self.term(),
            Some(Owner::Ending) => {}
            Some(Owner::Stranger) => self.fail(ticket, "port_held"),
        }
    }

    fn signal(&mut self, ticket: &Ticket) {
        let deaf = self.service.old == Old::Deaf;
        if self.is_held() && deaf && self.owner() == Some(Owner::Keeper) {
            self.fail(ticket, "ignored");
        } else {
            self.stop(ticket);
        }
    }

    fn snapshot(&mut self, ticket: &Ticket, run: &RunId) {
        let world = &self.toy.world;
        if world.process.is_some() && !is_signal(self.service) {
            return self.fail(ticket, "process_lives");
        }
        let copied = Copied { content: world.content, outdated: false };
        let is_whole = world.snapshots.get(run).is_some_and(|known| known.content == copied.content);
        let stopped = world.process.is_none();
        if !self.service.migrates() || (is_whole && (world.still.as_ref() == Some(run) || !stopped)) {
            return self.finish(ticket, done());
        }
        let mut world = world.clone();
        world.snapshots.insert(run.clone(), copied);
        world.still = stopped.then(|| run.clone());
        self.on(Label("snapshot", None), world);
    }

    /// Puts a snapshot in the place of the data: half, then whole.
    fn lay_down(&mut self, ticket: &Ticket, run: &RunId, when: LayDown) {
        if !self.service.migrates() {
            // A comparison finds that old code can go on with it.
            return match when {
                LayDown::Always => self.finish(ticket, done()),
                LayDown::IfMigrated | LayDown::Never => {
                    self.finish(ticket, Done::Skipped { why: String::new() })
                }
            };
        }
        if when == LayDown::Never {
            return self.fail(ticket, "migrated");
        }
        let world = &self.toy.world;
        let Some(copied) = world.snapshots.get(run).copied().filter(|_| world.process.is_none()) else {
            return self.fail(ticket, "no_snapshot");
        };
        if world.content == copied.content && !copied.outdated {
            return self.finish(ticket, done());
        }
        if world.content != Content::Torn {
            return self.on(
                Label("half laid down", Some(ticket.act)),
                World { content: Content::Torn, ..world.clone() },
            );
        }
        let mut world = world.clone();
        world.content = copied.content;
        world.lost |= copied.outdated;
        world.still = None;
        let broken = super::promises::broken_by_laying_down(self.service, self.toy, copied.outdated);
        world.snapshots.insert(run.clone(), Copied { outdated: false, ..copied });
        self.broken_world(Label("laid down", Some(ticket.act)), Way::On, world, self.budget(), broken);
    }

    fn point(&mut self, ticket: &Ticket, installed: Option<Installed>) {
        if self.toy.world.pointer == installed {
            self.finish(ticket, done());
        } else {
            let world = World { pointer: installed, ..self.toy.world.clone() };
            self.on(Label("pointer moves", Some(ticket.act)), world);
        }
    }

    fn start(&mut self, ticket: &Ticket, installed: &Installed, compare: Option<&RunId>) {
        let world = &self.toy.world;
        if world.damaged.contains(&installed.generation) {
            return self.fail(ticket, "tree_changed");
        }
        match &world.process {
            Some(live) if live.owner == Owner::Stranger => return self.fail(ticket, "port_held"),
            Some(live) if live.owner == Owner::Ending && live.installed != *installed => return,
            Some(live) if live.owner == Owner::Keeper && live.installed != *installed => return self.term(),
            Some(live) => {
                let instance = live.instance.clone();
                return self.finish(ticket, Done::Started { instance });
            }
            None => {}
        }
        let moved_on = compare.is_some_and(|run| {
            self.service.migrates()
                && world.content < Content::Of(cast::release_number(&installed.release))
                && world.still.as_ref() != Some(run)
        });
        if moved_on {
            let event = Event::SnapshotStale { ticket: ticket.clone() };
            return self.fact(Label("snapshot stale", None), &event);
        }
        if !self.is_held() {
            return;
        }
        match &self.toy.state.phase {
            Phase::CuttingOver(cut) if cut.start == Extent::Never => {
                let keeper = self.fresh_instance();
                let event = Event::Spawned { generation: installed.generation, keeper };
                self.fact(Label("keeper journaled", None), &event);
            }
            Phase::CuttingOver(cut) => {
                let run = cut.run.snapshot.clone();
                self.exec(installed, Some(&run));
            }
            _ => self.exec(installed, None),
        }
    }

    fn prove(&mut self, ticket: &Ticket, installed: &Installed) {
        let Some(live) = self.toy.world.process.clone() else { return };
        if live.owner == Owner::Stranger {
            return self.fail(ticket, "port_held");
        }
        if live.installed == *installed && self.service.is_healthy(&installed.release) {
            if live.owner == Owner::Keeper || matches!(self.toy.state.phase, Phase::RollingBack(_)) {
                self.observe(ticket, installed);
            }
        } else {
            self.fail(ticket, "not_ready");
        }
    }

    fn observe(&mut self, ticket: &Ticket, installed: &Installed) {
        let Some(live) = self.toy.world.process.clone() else { return };
        let expectation = cast::expectation(installed, &live.instance);
        let observations = cast::as_expected(&expectation);
        self.finish_in(ticket, Done::Observed { expectation, observations }, self.toy.world.proven());
    }

    fn soak(&mut self, ticket: &Ticket, installed: &Installed) {
        let Some(live) = self.toy.world.process.clone() else { return };
        if live.owner == Owner::Stranger {
            return self.fail(ticket, "port_held");
        }
        let new = cast::release_number(&installed.release) == 2;
        if new && self.service.new == New::DiesInTheSoak {
            return self
                .on(Label("dies in the soak", None), World { process: None, ..self.toy.world.clone() });
        }
        let released = match &self.toy.state.phase {
            Phase::CuttingOver(cut) => cut.traffic == cutover_core::Traffic::Released,
            _ => false,
        };
        let front = self.toy.world.front;
        if !released || matches!(front, Front::Absent | Front::Shows(Posture::Serve)) {
            self.observe(ticket, installed);
        }
    }
}

/// The acts in which the front does not serve the old process any more. Under `signal` a parked run resumes at a Start
/// that no Stop came before: there the old process may be ending still.
pub(super) fn is_past_the_old(act: Act, signal: bool) -> bool {
    let stopped = matches!(act, Act::Snapshot | Act::Place | Act::Switch | Act::Start);
    matches!(act, Act::Prove | Act::Release | Act::Soak) || (stopped && !signal)
}
