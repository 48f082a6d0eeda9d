//! Every reachable state of the shipping `step`, and every event on each of them. What differs only in names, in the
//! words of old faults or in the count of rounds is one state; that `step` does not read those is proven here too.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a proof reads its bounds and measures itself; the core may not"
)]

#[path = "../cast/mod.rs"]
mod cast;

mod alphabet;
mod drawing;
mod gate;
mod promises;

use cast::{Name, PLAIN, Rules};
use cutover_core::{
    ApprovalRule, DataClass, Event, Intake, Phase, ReleaseRule, RestoreAfterRelease, Retreat, RollbackRule,
    Settings, State, Strategy, Transition, step,
};
use drawing::Drawing;
use promises::Taken;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How many different names a state may have to be looked behind. States beyond are judged all the same.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    generations: usize,
    runs: usize,
    pids: usize,
}

/// Names by order of appearance: states that differ only in names become equal. With it, how many names there are.
fn canonical(mut state: State) -> (State, Bounds) {
    cast::trim(&mut state);
    count_interruptions_roughly(&mut state);
    let (mut runs, mut pids) = (Vec::new(), Vec::new());
    let (mut generations, mut releases) = (Vec::new(), Vec::new());
    cast::visit(&mut state, &mut |name| match name {
        Name::Run(run) => *run = cast::run_id(index(&mut runs, cast::run_number(run))),
        Name::Instance(live) => live.pid = index(&mut pids, live.pid),
        Name::Generation(generation) => generation.0 = index(&mut generations, generation.0),
        Name::Release(release) => rename(&mut releases, release),
        Name::Installed(installed) => {
            installed.generation.0 = index(&mut generations, installed.generation.0);
            rename(&mut releases, &mut installed.release);
        }
    });
    (state, Bounds { generations: generations.len(), runs: runs.len(), pids: pids.len() })
}

/// How often a run was interrupted matters at the limit only (five, `INTERRUPTIONS_MAX` of the core).
fn count_interruptions_roughly(state: &mut State) {
    let phase = match &mut state.phase {
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => Some(cut),
        _ => None,
    };
    for cut in phase.into_iter().chain(&mut state.parked) {
        cut.interruptions = cut.interruptions.max(INTERRUPTIONS_BUT_ONE);
    }
}

const INTERRUPTIONS_BUT_ONE: u8 = 4;

fn index(seen: &mut Vec<u32>, number: u32) -> u32 {
    let at = seen.iter().position(|known| *known == number).unwrap_or_else(|| {
        seen.push(number);
        seen.len() - 1
    });
    u32::try_from(at + 1).expect("a state has few names")
}

fn rename(seen: &mut Vec<u32>, release: &mut cutover_core::Release) {
    let number = cast::release_number(release);
    let index = index(seen, number);
    if index != number {
        *release = cast::release(index);
    }
}

/// How a promise was broken first.
struct Breach {
    promise: &'static str,
    story: String,
}

/// Everything that is known after an exploration.
#[derive(Default)]
struct Explored {
    states: usize,
    transitions: usize,
    refusals: usize,
    breaches: Vec<Breach>,
    drawing: Drawing,
}

impl Explored {
    fn breach(&mut self, promise: &'static str, story: impl FnOnce() -> String) {
        if self.breaches.iter().all(|breach| breach.promise != promise) {
            self.breaches.push(Breach { promise, story: story() });
        }
    }
}

/// The known states and how each was first reached.
struct Known {
    ids: HashMap<State, usize>,
    parents: Vec<Option<(usize, Event)>>,
}

impl Known {
    /// The events that lead to `id`, one a line.
    fn trace(&self, id: usize) -> String {
        let mut lines = Vec::new();
        let mut at = id;
        while let Some((from, event)) = &self.parents[at] {
            lines.push(format!("    {}\n", cast::words::event(event)));
            at = *from;
        }
        lines.into_iter().rev().collect()
    }
}

/// Every so many states one is tried with a long past as well.
const AGED_EVERY: usize = 8;

fn explore(settings: &[Settings], bounds: Bounds) -> Explored {
    let (first, _) = canonical(State::new());
    let mut known = Known { ids: HashMap::from([(first.clone(), 0)]), parents: vec![None] };
    let mut queue = VecDeque::from([(0, first)]);
    let mut explored = Explored::default();
    while let Some((id, state)) = queue.pop_front().filter(|_| explored.breaches.is_empty()) {
        stands(&mut explored, &known, id, &state);
        explored.drawing.see(&state);
        if id % AGED_EVERY == 0 && !forgets_its_past(&state, settings) {
            let now = cast::words::state(&state);
            explored.breach("the past is not read", || format!("\n{}    = {now}", known.trace(id)));
        }
        for case in alphabet::events(&state, settings) {
            let result = step(&state, &case.event);
            explored.transitions += 1;
            judge(&mut explored, &known, id, &Taken { before: &state, case: &case, result: &result });
            let Ok(Transition { state: after, .. }) = result else {
                explored.refusals += 1;
                continue;
            };
            explored.drawing.go(&state, &case.event, &after);
            let (after, names) = canonical(after);
            if names.generations > bounds.generations || names.runs > bounds.runs || names.pids > bounds.pids
            {
                stands(&mut explored, &known, id, &after);
                continue;
            }
            let next = known.parents.len();
            if let Entry::Vacant(vacant) = known.ids.entry(after) {
                queue.push_back((next, vacant.key().clone()));
                vacant.insert(next);
                known.parents.push(Some((id, case.event)));
            }
        }
    }
    explored.states = known.parents.len();
    explored
}

fn stands(explored: &mut Explored, known: &Known, id: usize, state: &State) {
    for (promise, holds) in promises::PLACES {
        if let Err(why) = holds(state) {
            let now = cast::words::state(state);
            explored.breach(promise, || format!("{why}\n{}    = {now}", known.trace(id)));
        }
    }
}

/// What is trimmed away must not be read: a state with a long past goes the way of its canonical twin, and no ticket
/// comes round again.
fn forgets_its_past(state: &State, settings: &[Settings]) -> bool {
    let mut aged = state.clone();
    cast::age(&mut aged, u8::MAX);
    let ticket = alphabet::ticket(&aged);
    alphabet::events(&aged, settings).iter().zip(alphabet::events(state, settings)).all(|(late, early)| {
        let now = step(&aged, &late.event).map(|transition| transition.state);
        let then = step(state, &early.event).map(|transition| transition.state);
        let again = matches!((&late.event, &now), (Event::Recovered { .. }, Ok(now))
            if ticket.is_some() && alphabet::ticket(now) == ticket && !matches!(now.phase, Phase::Preparing(_)));
        now.map(|now| canonical(now).0).ok() == then.map(|then| canonical(then).0).ok() && !again
    })
}

fn judge(explored: &mut Explored, known: &Known, id: usize, taken: &Taken<'_>) {
    for (promise, holds) in promises::MOVES {
        let Err(why) = holds(taken) else { continue };
        explored.breach(promise, || {
            let then = match taken.result {
                Ok(transition) => cast::words::state(&transition.state),
                Err(refusal) => format!("refused: {refusal}"),
            };
            let event = cast::words::event(&taken.case.event);
            let before = cast::words::state(taken.before);
            format!(
                "{why}\n{}    = {before}\n    then {event} ({:?})\n    = {then}",
                known.trace(id),
                taken.case.nature
            )
        });
    }
}

const MIGRATING: Rules = Rules { class: DataClass::Migrated, ..PLAIN };

/// The services that are explored, by what the machine branches on.
fn services() -> Vec<(&'static str, Vec<Settings>)> {
    let own = Rules { intake: Intake::Own, ..MIGRATING };
    let direct = Rules { intake: Intake::Direct, ..MIGRATING };
    let late = Rules { release: ReleaseRule::AfterSoak, ..MIGRATING };
    let restoring = Rules { restore: RestoreAfterRelease::Allowed, ..MIGRATING };
    let never = Rules { rollback: RollbackRule::Never, ..PLAIN };
    let signal = Rules { strategy: Strategy::Signal, ..PLAIN };
    let cleared = Rules { approve: ApprovalRule::Always, hours: cast::Hours::Nightly, ..MIGRATING };
    let deaf = Rules { rollback: RollbackRule::Never, ..Rules { strategy: Strategy::Signal, ..MIGRATING } };
    let mut services: Vec<_> = [
        ("neutral data", PLAIN),
        ("migrated data", MIGRATING),
        ("migrated, own intake", own),
        ("migrated, released after the soak", late),
        ("migrated, restore allowed", restoring),
        ("neutral, rollback never", never),
        ("neutral, signal", signal),
        ("migrated, signal, rollback never", deaf),
        ("migrated, approved, in a window", cleared),
    ]
    .into_iter()
    .map(|(name, rules)| (name, vec![rules.settings()]))
    .collect();
    if cast::is_full() {
        services.push(("migrated, direct", vec![direct.settings()]));
        services.push(("rules that change from run to run", vec![PLAIN.settings(), restoring.settings()]));
    }
    services
}

struct Service {
    name: &'static str,
    explored: Explored,
    took: Duration,
}

/// All services explored, once for all tests of this file, up to the first breach.
fn explored() -> &'static [Service] {
    static EXPLORED: OnceLock<Vec<Service>> = OnceLock::new();
    EXPLORED.get_or_init(|| {
        let services = services();
        let generations = if cast::is_full() { 3 } else { 2 };
        let pids = if cast::is_full() { 2 } else { 1 };
        let bounds = Bounds { generations, runs: 2, pids };
        let next = AtomicUsize::new(0);
        let work = || {
            let mut done = Vec::new();
            while let Some((name, settings)) = services.get(next.fetch_add(1, Ordering::Relaxed)) {
                let began = Instant::now();
                let explored = explore(settings, bounds);
                if !explored.breaches.is_empty() {
                    next.store(services.len(), Ordering::Relaxed);
                }
                done.push(Service { name, explored, took: began.elapsed() });
            }
            done
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(work);
            let mut done = work();
            done.extend(other.join().expect("an exploration does not panic"));
            done
        })
    })
}

#[test]
fn every_promise_holds_in_every_reachable_state() {
    let mut broken = 0;
    for Service { name, explored, took } in explored() {
        println!(
            "{name}: {} states, {} transitions, {} of them refused, {took:.1?}",
            explored.states, explored.transitions, explored.refusals
        );
        for Breach { promise, story } in &explored.breaches {
            println!("BROKEN {promise}: {story}");
            broken += 1;
        }
    }
    let sum = |figure: fn(&Explored) -> usize| -> usize {
        explored().iter().map(|service| figure(&service.explored)).sum()
    };
    println!("in all {} states, {} transitions", sum(|e| e.states), sum(|e| e.transitions));
    assert_eq!(broken, 0, "promises broken; the shortest way to each stands above");
}

/// `UPDATE=1` writes it anew.
#[test]
fn the_drawn_machine_is_the_machine() {
    let mut drawing = Drawing::default();
    for Service { explored, .. } in explored() {
        drawing.add(&explored.drawing);
    }
    let document = drawing.document();
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/states.md");
    if std::env::var("UPDATE").is_ok() {
        std::fs::write(path, &document).expect("docs/ can be written");
    }
    let drawn = std::fs::read_to_string(path).expect("docs/states.md is there; UPDATE=1 writes it");
    assert!(drawn == document, "docs/states.md is not what was explored: UPDATE=1 writes it anew");
}
