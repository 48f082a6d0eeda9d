//! Every event worth trying on a state: the right ones, and each kind of wrong one. Built from the state's own names, so
//! that it stays finite. Must not know what `step` makes of them; what is known for certain is said by [`Nature`].

use super::cast;
use cutover_core::{
    Act, Aim, AlarmId, Base, Boot, Checked, Cut, DataClass, DataWish, Done, Event, Exchanges, Exit,
    Expectation, FactName, Finding, Generation, Hold, Installed, Instance, Level, NotificationId, Order,
    Outcome, Phase, PlanId, Preparation, Release, Retreat, RunId, Settings, State, TargetId, Ticket, Wanted,
};

/// What is known of an event before `step` sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Nothing special.
    Plain,
    /// An answer under a ticket that is not the current one.
    Stale,
    /// Carries observations that prove exactly what they say they are about.
    Proof,
    /// Carries observations with one flaw.
    Flawed,
}

/// An event to try.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) event: Event,
    pub(crate) nature: Nature,
}

/// Names that events are built from.
struct Pool {
    run: RunId,
    instances: Vec<Instance>,
    generations: Vec<Generation>,
    stranger: Instance,
    generation: Generation,
    release: Release,
}

impl Pool {
    fn of(state: &State) -> Self {
        let names = cast::names(state);
        let stranger = cast::instance(cast::free(&names.pids));
        let generation = Generation(cast::free(&names.generations));
        let mut instances: Vec<_> = names.pids.iter().map(|pid| cast::instance(*pid)).collect();
        instances.push(stranger.clone());
        let mut generations: Vec<_> = names.generations.iter().copied().map(Generation).collect();
        generations.push(generation);
        Self {
            run: cast::run_id(cast::free(&names.runs)),
            instances,
            generations,
            stranger,
            generation,
            release: cast::release(cast::free(&names.releases)),
        }
    }
}

/// All events to try on `state`; orders come with each of `settings`.
pub(crate) fn events(state: &State, settings: &[Settings]) -> Vec<Case> {
    let pool = Pool::of(state);
    let mut cases = Vec::with_capacity(128);
    for settings in settings {
        orders(state, &pool, settings, &mut cases);
        trees(&pool, settings, &mut cases);
    }
    answers(state, &pool, &mut cases);
    stale(state, &pool, &mut cases);
    processes(&pool, &mut cases);
    readiness(state, &pool, &mut cases);
    watch(state, &pool, &mut cases);
    telling(&mut cases);
    cases
}

fn plain(event: Event) -> Case {
    Case { event, nature: Nature::Plain }
}

fn orders(state: &State, pool: &Pool, settings: &Settings, cases: &mut Vec<Case>) {
    let update = |hold| Order::Update { wanted: Wanted::Channel("latest".into()), hold };
    let mut orders = vec![
        update(Hold::AsRuled),
        update(Hold::Asked),
        Order::Hold,
        Order::Approve { plan: PlanId("of something else".into()) },
        Order::Start,
        Order::Stop,
        Order::Restart,
        Order::Cancel,
        Order::Retry,
        Order::RecoverRollback,
        Order::Accept,
    ];
    if let Phase::Preparing(preparation) = &state.phase {
        orders.extend(preparation.plan().map(|plan| Order::Approve { plan }));
    }
    let stranger = Installed { generation: pool.generation, release: pool.release.clone() };
    let older = state.previous.as_ref().map(|kept| kept.installed.clone());
    for to in [older, state.current.clone(), Some(stranger)].into_iter().flatten() {
        orders.push(Order::Rollback { to: to.clone(), data: DataWish::Keep });
        orders.push(Order::Rollback { to, data: DataWish::Restore });
    }
    cases.extend(orders.into_iter().map(|order| plain(cast::ordered(pool.run.clone(), order, settings))));
}

fn trees(pool: &Pool, settings: &Settings, cases: &mut Vec<Case>) {
    for generation in &pool.generations {
        cases.push(plain(Event::TreeChanged {
            run: pool.run.clone(),
            generation: *generation,
            fault: cast::fault("tree_changed"),
            settings: settings.clone(),
        }));
    }
}

/// The ticket of the act under way, read from the state and not from `wants`.
pub(crate) fn ticket(state: &State) -> Option<Ticket> {
    match &state.phase {
        Phase::Preparing(Preparation { run, act, gate, .. }) => {
            Some(Ticket { run: run.id.clone(), act: *act, round: gate.round })
        }
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => {
            Some(Ticket { run: cut.run.id.clone(), act: cut.act, round: cut.round })
        }
        Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

/// Every answer under the right ticket, whether it fits the act or not.
fn answers(state: &State, pool: &Pool, cases: &mut Vec<Case>) {
    let Some(ticket) = ticket(state) else { return };
    let warning = Finding::new(Level::Warn, "import", "");
    let mut done = vec![
        Done::Resolved { release: pool.release.clone() },
        Done::AlreadyCurrent { release: pool.release.clone() },
        Done::Staged { installed: staged(state, pool) },
        Done::Staged { installed: Installed { generation: pool.generation, release: cast::release(77) } },
        Done::Checked(Checked::default()),
        Done::Checked(Checked { class: Some(DataClass::Neutral), ..Checked::default() }),
        Done::Checked(Checked { findings: vec![warning], ..Checked::default() }),
        Done::Checked(Checked { setup: cast::setup(2), ..Checked::default() }),
        Done::Missed { why: String::new() },
        Done::Skipped { why: String::new() },
        Done::Mendable { fault: cast::fault("rehearsal") },
        Done::Done { note: String::new() },
    ];
    if let Some(current) = &state.current {
        done.push(Done::AlreadyCurrent { release: current.release.clone() });
        done.push(Done::Resolved { release: current.release.clone() });
    }
    if ticket.act == Act::Start {
        done.extend(pool.instances.iter().map(|instance| Done::Started { instance: instance.clone() }));
    } else {
        done.push(Done::Started { instance: pool.stranger.clone() });
    }
    cases.extend(
        done.into_iter().map(|done| plain(Event::Finished { ticket: ticket.clone(), done, copied: None })),
    );
    for code in ["timeout", "crashed"] {
        cases.push(plain(Event::Faulted { ticket: ticket.clone(), fault: cast::fault(code), copied: None }));
    }
    cases.push(plain(Event::SnapshotStale { ticket: ticket.clone() }));
    cases.push(plain(Event::Released { ticket: ticket.clone() }));
    let observed = match state.phase {
        Phase::Preparing(_) => Vec::new(),
        _ => proofs(state, pool),
    };
    for (expectation, observations, nature) in observed {
        let done = Done::Observed { expectation, observations };
        cases.push(Case { event: Event::Finished { ticket: ticket.clone(), done, copied: None }, nature });
    }
}

fn staged(state: &State, pool: &Pool) -> Installed {
    let release = match &state.phase {
        Phase::Preparing(Preparation { aim: Aim::Resolved(release), .. }) => release.clone(),
        _ => pool.release.clone(),
    };
    Installed { generation: pool.generation, release }
}

/// What the proof of this state is about, and the process that it would be of.
fn subject<'a>(state: &'a State, pool: &'a Pool) -> Option<(&'a Installed, &'a Instance)> {
    let of = |cut: &'a Cut| cut.live.as_ref().unwrap_or(&pool.stranger);
    match &state.phase {
        Phase::CuttingOver(cut) => Some((&cut.target, of(cut))),
        Phase::RollingBack(Retreat { cut, .. }) => Some((cut.run.source.as_ref()?, of(cut))),
        _ => Some((state.current.as_ref()?, pool.instances.first()?)),
    }
}

type Observed = (Expectation, cutover_core::Observations, Nature);

/// Whether some event with observations may be taken here at all; elsewhere a sample of the flaws is enough.
fn is_judged(state: &State) -> bool {
    match &state.phase {
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => {
            matches!(cut.act, Act::Prove | Act::Soak)
        }
        Phase::Idle | Phase::Preparing(_) | Phase::Watching(_) | Phase::Maintenance(_) => true,
    }
}

/// Proofs of the right process, of every other process, of other things, and with every single flaw.
fn proofs(state: &State, pool: &Pool) -> Vec<Observed> {
    let Some((installed, instance)) = subject(state, pool) else { return Vec::new() };
    let mut proofs = Vec::new();
    for instance in &pool.instances {
        let expectation = cast::expectation(installed, instance);
        let seen = cast::as_expected(&expectation);
        proofs.push((expectation, seen, Nature::Proof));
    }
    let others = [
        Installed { generation: pool.generation, release: installed.release.clone() },
        Installed { generation: installed.generation, release: pool.release.clone() },
    ];
    for other in others {
        let expectation = cast::expectation(&other, instance);
        let seen = cast::as_expected(&expectation);
        proofs.push((expectation, seen, Nature::Proof));
    }
    let expectation = cast::expectation(installed, instance);
    let all: &[FactName] = if is_judged(state) { &cast::REQUIRED } else { &[FactName::Version] };
    for fact in all.iter().copied() {
        for flaw in [cast::Flaw::Wrong, cast::Flaw::Missing, cast::Flaw::NotApplicable] {
            let seen = cast::flawed(&expectation, fact, flaw);
            proofs.push((expectation.clone(), seen, Nature::Flawed));
        }
    }
    let seen = cast::flawed(&expectation, FactName::Traffic, cast::Flaw::Missing);
    proofs.push((expectation.clone(), seen, Nature::Flawed));
    let mut short = cast::as_expected(&expectation);
    short.streak -= 1;
    proofs.push((expectation, short, Nature::Flawed));
    proofs
}

/// Answers that come too late, or were never asked for.
fn stale(state: &State, pool: &Pool, cases: &mut Vec<Case>) {
    let right = ticket(state);
    let base = right.clone().unwrap_or(Ticket { run: pool.run.clone(), act: Act::Prove, round: 0 });
    let mut tickets = vec![
        Ticket { run: pool.run.clone(), ..base.clone() },
        Ticket { round: base.round.wrapping_add(1), ..base.clone() },
        Ticket { round: base.round.wrapping_sub(1), ..base.clone() },
        Ticket { act: if base.act == Act::Stop { Act::Start } else { Act::Stop }, ..base.clone() },
        Ticket { act: if base.act == Act::Prove { Act::Switch } else { Act::Prove }, ..base },
    ];
    tickets.retain(|ticket| Some(ticket) != right.as_ref());
    for ticket in tickets {
        let event = match (ticket.act, subject(state, pool)) {
            (Act::Prove | Act::Soak, Some((installed, instance))) => {
                let expectation = cast::expectation(installed, instance);
                let observations = cast::as_expected(&expectation);
                Event::Finished {
                    ticket: ticket.clone(),
                    done: Done::Observed { expectation, observations },
                    copied: None,
                }
            }
            (Act::Start, _) => {
                let instance = pool.stranger.clone();
                Event::Finished { ticket: ticket.clone(), done: Done::Started { instance }, copied: None }
            }
            (Act::Release, _) => Event::Released { ticket: ticket.clone() },
            _ => Event::Finished {
                ticket: ticket.clone(),
                done: Done::Done { note: String::new() },
                copied: None,
            },
        };
        let mut events = vec![
            event,
            Event::Faulted { ticket: ticket.clone(), fault: cast::fault("timeout"), copied: None },
        ];
        if ticket.act == Act::Start {
            events.push(Event::SnapshotStale { ticket });
        }
        cases.extend(events.into_iter().map(|event| Case { event, nature: Nature::Stale }));
    }
}

fn processes(pool: &Pool, cases: &mut Vec<Case>) {
    for generation in &pool.generations {
        cases.push(plain(Event::Spawned { generation: *generation, keeper: cast::instance(97) }));
    }
    for instance in &pool.instances {
        for exit in [Exit::Code(1), Exit::Code(cast::LAST_EXIT), Exit::Code(cast::AGAIN_EXIT)] {
            cases.push(plain(cast::exited(instance.clone(), exit)));
        }
        cases.push(plain(cast::recovered(Boot::Same, Some(instance.clone()))));
    }
    cases.push(plain(cast::recovered(Boot::Same, None)));
    cases.push(plain(cast::recovered(Boot::New, None)));
    cases.push(plain(Event::FrontLost));
}

fn readiness(state: &State, pool: &Pool, cases: &mut Vec<Case>) {
    let resting = !matches!(state.phase, Phase::CuttingOver(_) | Phase::RollingBack(_));
    let observed =
        proofs(state, pool).into_iter().filter(|(_, _, nature)| resting || *nature == Nature::Proof);
    for (expectation, observations, nature) in observed {
        cases.push(Case { event: Event::Ready { expectation, observations }, nature });
    }
}

fn watch(state: &State, pool: &Pool, cases: &mut Vec<Case>) {
    cases.push(plain(Event::Degraded { run: pool.run.clone(), fault: cast::fault("crash_limit") }));
    cases.push(plain(Event::WatchEnded { run: pool.run.clone() }));
    if let Phase::Watching(watch) | Phase::Preparing(Preparation { base: Base::Watching(watch), .. }) =
        &state.phase
    {
        cases.push(plain(Event::WatchEnded { run: watch.run.clone() }));
    }
}

fn telling(cases: &mut Vec<Case>) {
    let alarm = AlarmId("alarm".into());
    let outcome = Outcome::Delivered { tries: 1, answer: String::new() };
    let told = Event::Told {
        notification: NotificationId("alarm:raised".into()),
        target: TargetId("target".into()),
        outcome,
    };
    let fault = cast::fault("crash_looping");
    let events = [
        Event::Measured { run: cast::run_id(1), exchanges: Exchanges::default() },
        Event::Subscribed { targets: Vec::new() },
        Event::Alarmed { alarm: alarm.clone(), fault },
        Event::Calmed { alarm },
        told,
    ];
    cases.extend(events.map(plain));
}
