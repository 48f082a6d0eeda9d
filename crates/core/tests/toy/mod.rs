//! A toy world for the shipping `step`: one process, one pointer, data with a version, a front. Everything the machine
//! wants is done by the readings alone (`wants`, `posture`), one small change at a time; a crash may fall between any two.
//! Knows what an effect does to the world; must not know why the machine wants it.
#![allow(dead_code, reason = "every proof uses its own part of the world")]

mod acts;
mod disturbances;
pub(crate) mod explore;
mod promises;

use crate::cast::{self, Rules};
use cutover_core::{
    Act, DataClass, Event, Exit, Generation, Installed, Instance, Intake, Phase, Posture, Preparation,
    Process, Release, Retreat, RunId, Serving, State, Strategy, Transition, Tree, Wish, posture, step, wants,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(crate) use promises::Promise;

/// The service's character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) rules: Rules,
    pub(crate) new: New,
    pub(crate) old: Old,
    pub(crate) boot: AfterBoot,
    pub(crate) first: First,
}

/// How the new release (2.0) behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum New {
    Healthy,
    FailsItsProof,
    DiesInTheSoak,
    DiesInTheWatch,
}

/// How the old release (1.0) behaves once it is started again, and when it is asked to end itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Old {
    Healthy,
    Sick,
    /// Healthy, but a signal does not end it.
    Deaf,
}

/// Who holds the port after a reboot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AfterBoot {
    Nobody,
    /// An old start script runs the old version, and leaves after a while.
    Stranger,
}

/// What is installed at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// 1.0, proven and serving.
    Serving,
    /// 1.0, kept stopped.
    Stopped,
    /// Nothing.
    Nothing,
}

impl Service {
    fn migrates(&self) -> bool {
        self.rules.class == DataClass::Migrated
    }

    fn is_direct(&self) -> bool {
        self.rules.intake == Intake::Direct
    }

    pub(crate) fn is_healthy(&self, release: &Release) -> bool {
        match cast::release_number(release) {
            1 => self.old != Old::Sick,
            2 => self.new != New::FailsItsProof,
            _ => true,
        }
    }
}

/// What may still go wrong from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// The daemon is killed, or the machine reboots.
    pub(crate) crashes: u8,
    /// Somebody orders something.
    pub(crate) orders: u8,
    /// An act on the way forward faults.
    pub(crate) faults: u8,
    /// An act on the way back faults.
    pub(crate) back_faults: u8,
    /// The process is killed, the front dies, or a tree is changed.
    pub(crate) hits: u8,
}

/// What is really so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) process: Option<Live>,
    pub(crate) pointer: Option<Installed>,
    pub(crate) content: Content,
    pub(crate) snapshots: BTreeMap<RunId, Copied>,
    /// The run whose snapshot equals the stopped state.
    pub(crate) still: Option<RunId>,
    pub(crate) front: Front,
    pub(crate) damaged: BTreeSet<Generation>,
    /// Acknowledged writes were given up and not yet told.
    pub(crate) lost: bool,
}

/// A process on the service's port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Live {
    pub(crate) instance: Instance,
    pub(crate) installed: Installed,
    pub(crate) owner: Owner,
    /// It answered a whole proof.
    pub(crate) proven: bool,
    /// A person let it serve without.
    pub(crate) waived: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    Keeper,
    /// Ours, and asked to end.
    Ending,
    Stranger,
}

/// The declared state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Content {
    /// As the release with this number wrote it; 0 before any ran.
    Of(u32),
    /// Half laid down.
    Torn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Copied {
    pub(crate) content: Content,
    /// Writes were acknowledged that this copy lacks.
    pub(crate) outdated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Front {
    /// Booted, holding, has not heard from the daemon.
    Closed,
    Shows(Posture),
    /// There is none.
    Absent,
}

/// A state of machine and world together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Toy {
    pub(crate) state: State,
    pub(crate) world: World,
    pub(crate) budget: Budget,
    /// The promise that was broken on the way here: nothing is looked for behind it.
    pub(crate) broken: Option<Promise>,
}

/// What happened, for a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label(pub(crate) &'static str, pub(crate) Option<Act>);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(act) => write!(f, "{} {act:?}", self.0),
            None => f.write_str(self.0),
        }
    }
}

/// Whether a change brings the system on, or only disturbs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    On,
    Disturbed,
}

/// One thing that may happen next.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Next {
    pub(crate) label: Label,
    pub(crate) way: Way,
    pub(crate) toy: Toy,
}

/// Where everything begins.
pub(crate) fn beginning(service: &Service, budget: Budget) -> Toy {
    let old = cast::installed(1, 1);
    let mut state = State::new();
    let mut world = World {
        process: None,
        pointer: None,
        content: Content::Of(0),
        snapshots: BTreeMap::new(),
        still: None,
        front: if service.is_direct() { Front::Absent } else { Front::Closed },
        damaged: BTreeSet::new(),
        lost: false,
    };
    if service.first != First::Nothing {
        state.current = Some(old.clone());
        world.pointer = Some(old.clone());
        world.content = Content::Of(1);
    }
    match service.first {
        First::Serving => {
            let instance = cast::instance(1);
            state.serving = Serving::Proven(instance.clone());
            world.process =
                Some(Live { instance, installed: old, owner: Owner::Keeper, proven: true, waived: false });
        }
        First::Stopped => state.wish = Wish::Stopped,
        First::Nothing => {}
    }
    Toy { state, world, budget, broken: None }
}

/// Everything that may happen next.
pub(crate) fn successors(service: &Service, toy: &Toy) -> Vec<Next> {
    if toy.broken.is_some() {
        return Vec::new();
    }
    let mut options = Options { service, toy, next: Vec::new() };
    options.front();
    options.endings();
    let wants = wants(&toy.state);
    options.process(&wants.process);
    options.trees();
    options.watch();
    if let Some((ticket, effect)) = wants.act {
        options.act(&ticket, effect);
    }
    options.crashes();
    options.orders();
    options.hits();
    options.next
}

/// The possible next states of one state.
struct Options<'a> {
    service: &'a Service,
    toy: &'a Toy,
    next: Vec<Next>,
}

impl Options<'_> {
    fn budget(&self) -> Budget {
        self.toy.budget
    }

    /// The world changes, nothing is journaled.
    fn world(&mut self, label: Label, way: Way, world: World, budget: Budget) {
        self.broken_world(label, way, world, budget, None);
    }

    fn broken_world(
        &mut self,
        label: Label,
        way: Way,
        world: World,
        budget: Budget,
        broken: Option<Promise>,
    ) {
        let toy = Toy { state: self.toy.state.clone(), world, budget, broken };
        self.push(label, way, toy);
    }

    /// The world changes of itself or because the machine wants it.
    fn on(&mut self, label: Label, world: World) {
        self.world(label, Way::On, world, self.budget());
    }

    /// A fact is journaled; the world is as it was.
    fn fact(&mut self, label: Label, event: &Event) {
        self.event(label, Way::On, event, self.toy.world.clone(), self.budget());
    }

    /// A fact about `world` is journaled. What the machine refuses does not happen.
    fn event(&mut self, label: Label, way: Way, event: &Event, world: World, budget: Budget) {
        let Ok(Transition { mut state, ended }) = step(&self.toy.state, event) else { return };
        let moved = promises::Moved {
            service: self.service,
            before: self.toy,
            event,
            after: &state,
            ended: ended.as_ref(),
            world: &world,
        };
        let broken = promises::broken_by(&moved);
        let mut world = world;
        if is_resting(&state) {
            world.lost = false;
        }
        cast::trim(&mut state);
        self.push(label, way, Toy { state, world, budget, broken });
    }

    fn push(&mut self, label: Label, way: Way, mut toy: Toy) {
        toy.world.settle(self.service, &toy.state);
        toy.broken = toy.broken.or_else(|| promises::broken_in(&toy));
        self.next.push(Next { label, way, toy });
    }

    fn named(&self) -> cast::Names {
        let mut names = cast::names(&self.toy.state);
        let world = &self.toy.world;
        names.pids.extend(world.process.iter().map(|live| live.instance.pid));
        names.generations.extend(world.process.iter().map(|live| live.installed.generation.0));
        names.generations.extend(world.pointer.iter().map(|installed| installed.generation.0));
        names.generations.extend(world.damaged.iter().map(|generation| generation.0));
        names.runs.extend(world.snapshots.keys().map(cast::run_number));
        names
    }

    fn fresh_run(&self) -> RunId {
        cast::run_id(cast::free(&self.named().runs))
    }

    fn fresh_instance(&self) -> Instance {
        cast::instance(cast::free(&self.named().pids))
    }

    fn is_held(&self) -> bool {
        self.toy.world.front != Front::Shows(Posture::Serve)
    }

    fn front(&mut self) {
        let front = self.toy.world.front;
        let shown = posture(&self.toy.state);
        if front == Front::Absent || front == Front::Shows(shown) {
            return;
        }
        if front == Front::Closed && shown == Posture::Hold {
            return;
        }
        let word = match shown {
            Posture::Serve => "front serves",
            Posture::Hold => "front holds",
            Posture::Maintain => "front maintains",
        };
        self.on(Label(word, None), World { front: Front::Shows(shown), ..self.toy.world.clone() });
    }

    /// Processes that were asked to end do so, strangers leave, and every exit is told.
    fn endings(&mut self) {
        let world = &self.toy.world;
        let gone = World { process: None, ..world.clone() };
        match world.process.as_ref().map(|live| live.owner) {
            Some(Owner::Ending) => self.on(Label("exits", None), gone),
            Some(Owner::Stranger) => self.on(Label("stranger leaves", None), gone),
            Some(Owner::Keeper) | None => {}
        }
        if let Some(instance) = self.counted_on() {
            self.exit_of(instance);
        }
    }

    fn exit_of(&mut self, instance: Instance) {
        let state = &self.toy.state;
        let new = state.current.as_ref().is_some_and(|current| cast::release_number(&current.release) == 2);
        let watched = match &state.phase {
            Phase::Watching(_) => true,
            Phase::Preparing(Preparation { base, .. }) => matches!(base, cutover_core::Base::Watching(_)),
            _ => false,
        };
        if new && watched && self.service.new == New::DiesInTheWatch && state.serving != Serving::Unproven {
            let event = Event::Degraded { run: self.fresh_run(), fault: cast::fault("crash_limit") };
            let reverts = |next: &State| matches!(next.phase, Phase::Preparing(_));
            if step(state, &event).is_ok_and(|next| reverts(&next.state)) {
                self.fact(Label("crash limit", None), &event);
                return;
            }
        }
        self.fact(Label("exit told", None), &cast::exited(instance, Exit::Code(1)));
    }

    /// A process that the state counts on and that does not live.
    fn counted_on(&self) -> Option<Instance> {
        let state = &self.toy.state;
        let live = self.toy.world.process.as_ref().map(|live| &live.instance);
        let served = match &state.serving {
            Serving::Proven(instance) | Serving::Waived(Some(instance)) => Some(instance),
            Serving::Unproven | Serving::Waived(None) => None,
        };
        let proving = match &state.phase {
            Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => cut.live.as_ref(),
            _ => None,
        };
        let mut named = [served, state.leaving.as_ref(), proving].into_iter().flatten();
        named.find(|instance| live != Some(*instance)).cloned()
    }

    /// What a supervisor does about the process of a resting service.
    fn process(&mut self, wanted: &Process) {
        let live = self.toy.world.process.clone();
        let ours = live.as_ref().filter(|live| live.owner == Owner::Keeper);
        match wanted {
            Process::LeaveAlone => {}
            Process::Stopped => {
                if ours.is_some() {
                    self.term();
                }
            }
            Process::Replace(leaving, _) => {
                if ours.is_some_and(|live| live.instance == *leaving) {
                    self.term();
                }
            }
            Process::Run(installed) => match &live {
                None if self.counted_on().is_none() => {
                    if self.is_held() && !self.toy.world.damaged.contains(&installed.generation) {
                        self.exec(installed, None);
                    }
                }
                Some(live) if live.owner == Owner::Keeper && live.installed != *installed => self.term(),
                Some(live) if live.owner == Owner::Keeper => self.readies(live),
                Some(_) | None => {}
            },
        }
    }

    fn readies(&mut self, live: &Live) {
        let waived = matches!(self.toy.state.serving, Serving::Waived(None));
        let unproven = self.toy.state.serving == Serving::Unproven;
        if waived || (unproven && self.service.is_healthy(&live.installed.release)) {
            let expectation = cast::expectation(&live.installed, &live.instance);
            let observations = cast::as_expected(&expectation);
            let event = Event::Ready { expectation, observations };
            let world = self.toy.world.proven();
            self.event(Label("ready", None), Way::On, &event, world, self.budget());
        }
    }

    fn term(&mut self) {
        let mut world = self.toy.world.clone();
        if let Some(live) = &mut world.process {
            live.owner = Owner::Ending;
        }
        self.on(Label("TERM", None), world);
    }

    /// A keeper of ours execs a generation.
    fn exec(&mut self, installed: &Installed, snapshot: Option<&RunId>) {
        let mut world = self.toy.world.clone();
        let broken = world.run(self.service, installed, self.fresh_instance(), snapshot);
        let word = match cast::release_number(&installed.release) {
            1 => "start 1.0",
            2 => "start 2.0",
            _ => "start 3.0",
        };
        self.broken_world(Label(word, None), Way::On, world, self.budget(), broken);
    }

    fn trees(&mut self) {
        let state = &self.toy.state;
        let is_damaged = |installed: &Installed| self.toy.world.damaged.contains(&installed.generation);
        let found = match &state.phase {
            Phase::Idle | Phase::Watching(_) => state.current.as_ref().filter(|_| state.tree == Tree::Sealed),
            Phase::Preparing(preparation) if preparation.run.kind != cutover_core::Kind::TreeChanged => {
                state.current.as_ref()
            }
            Phase::CuttingOver(cut) => {
                let late = matches!(cut.act, Act::Start | Act::Prove | Act::Release | Act::Soak);
                let target = Some(&cut.target).filter(|target| late && is_damaged(target));
                target.or(cut.run.source.as_ref().filter(|_| cut.source_tree == Tree::Sealed))
            }
            _ => None,
        };
        if let Some(found) = found.filter(|found| is_damaged(found)) {
            let event = Event::TreeChanged {
                run: self.fresh_run(),
                generation: found.generation,
                fault: cast::fault("tree_changed"),
                settings: self.service.rules.settings(),
            };
            self.fact(Label("tree change told", None), &event);
        }
    }

    fn watch(&mut self) {
        let Phase::Watching(watch) = &self.toy.state.phase else { return };
        let Serving::Proven(instance) = &self.toy.state.serving else { return };
        let Some(live) = &self.toy.world.process else { return };
        if live.instance != *instance || live.owner != Owner::Keeper {
            return;
        }
        let new = cast::release_number(&live.installed.release) == 2;
        if new && self.service.new == New::DiesInTheWatch {
            self.on(Label("dies in the watch", None), World { process: None, ..self.toy.world.clone() });
        } else {
            self.fact(Label("watch ends", None), &Event::WatchEnded { run: watch.run.clone() });
        }
    }
}

pub(crate) fn is_resting(state: &State) -> bool {
    matches!(state.phase, Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_))
}

impl World {
    fn proven(&self) -> Self {
        let mut world = self.clone();
        if let Some(live) = &mut world.process {
            live.proven = true;
        }
        world
    }

    /// What follows from the rest without anybody's doing.
    fn settle(&mut self, service: &Service, state: &State) {
        let ours = self.process.as_ref().is_some_and(|live| live.owner != Owner::Stranger);
        if let (Some(live), Serving::Waived(Some(waived))) = (&mut self.process, &state.serving) {
            live.waived |= live.instance == *waived;
        }
        let open = self.front == Front::Shows(Posture::Serve) || service.rules.intake != Intake::Front;
        if ours && open {
            for copied in self.snapshots.values_mut() {
                copied.outdated = true;
            }
        }
        if is_resting(state) {
            let named = cast::names(state).runs;
            self.snapshots.retain(|run, _| named.contains(&cast::run_number(run)));
            self.still = self.still.take().filter(|run| self.snapshots.contains_key(run));
        }
        if !self.damaged.is_empty() {
            let named = cast::names(state).generations;
            self.damaged.retain(|generation| named.contains(&generation.0));
        }
    }

    fn rebooted(mut self, service: &Service) -> Self {
        self.process = None;
        if self.front != Front::Absent {
            self.front = Front::Closed;
        }
        if service.boot == AfterBoot::Stranger {
            self.still = None;
            self.process = Some(Live {
                instance: cast::instance(90),
                installed: cast::installed(1, 1),
                owner: Owner::Stranger,
                proven: false,
                waived: false,
            });
        }
        self
    }

    /// Runs a generation; says which promise that breaks.
    fn run(
        &mut self,
        service: &Service,
        installed: &Installed,
        instance: Instance,
        snapshot: Option<&RunId>,
    ) -> Option<Promise> {
        let mut broken = None;
        let release = Content::Of(cast::release_number(&installed.release));
        if service.migrates() {
            if self.content > release {
                broken = Some(Promise::NoOldCodeOnMigratedData);
            }
            if self.content < release {
                let copied = snapshot.and_then(|run| self.snapshots.get(run));
                let whole = copied.is_some_and(|copied| copied.content == self.content);
                if !(whole && snapshot == self.still.as_ref()) {
                    broken = Some(Promise::NoMigrationWithoutSnapshot);
                }
                self.content = release;
            }
        }
        if self.pointer.as_ref() != Some(installed) {
            broken = Some(Promise::OnlyThePointedStarts);
        }
        let owner = Owner::Keeper;
        self.process =
            Some(Live { instance, installed: installed.clone(), owner, proven: false, waived: false });
        self.still = None;
        broken
    }
}

/// Whether the strategy has the old process end by a signal.
fn is_signal(service: &Service) -> bool {
    service.rules.strategy == Strategy::Signal
}
