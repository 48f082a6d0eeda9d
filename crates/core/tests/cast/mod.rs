//! The cast that all proofs share: releases, processes, rules and proofs, by small numbers. Knows the core's public
//! types; must not know what the core decides.
#![allow(dead_code, reason = "every proof uses its own part of the cast")]

pub(crate) mod words;

use cutover_core::{
    Act, Aim, ApprovalRule, Base, Boot, BootId, Cause, Clearance, Code, Compared, Cut, DataClass, DataOrder,
    Day, Ending, Event, Exchanges, Exit, Expectation, Fact, FactName, Fault, FileIdentity, Generation,
    Installed, Instance, Intake, Kept, Kind, Listener, Maintenance, Observations, OldProcess, Opening, Order,
    Owner, Phase, PluginsTold, Policy, Preparation, Release, ReleaseRule, Resolution, RestoreAfterRelease,
    Retreat, RollbackRule, Run, RunId, Seen, Serving, Settings, Setup, State, Status, Strategy, Verdict,
    Watch, Window, Writes, judge,
};
use std::collections::BTreeSet;

/// Whether the full bounds are asked for (`CUTOVER_TEST=faults`).
#[allow(clippy::disallowed_methods, reason = "a proof reads its bounds; the core reads no environment")]
pub(crate) fn is_full() -> bool {
    std::env::var("CUTOVER_TEST").is_ok_and(|kinds| kinds.split(',').any(|kind| kind == "faults"))
}

pub(crate) fn run_id(number: u32) -> RunId {
    RunId(format!("r{number}"))
}

pub(crate) fn instance(pid: u32) -> Instance {
    Instance { pid, start_time: 7, boot_id: BootId("b".into()) }
}

pub(crate) fn release(number: u32) -> Release {
    Release {
        package: "web".into(),
        version: format!("{number}.0"),
        digest: String::new(),
        plugins: Vec::new(),
    }
}

/// The number that [`release`] was made of.
pub(crate) fn release_number(release: &Release) -> u32 {
    release.version.trim_end_matches(".0").parse().expect("the cast's versions are N.0")
}

pub(crate) fn installed(generation: u32, release_number: u32) -> Installed {
    Installed { generation: Generation(generation), release: release(release_number) }
}

/// Rules of a service, by the choices that the machine branches on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) strategy: Strategy,
    pub(crate) class: DataClass,
    pub(crate) intake: Intake,
    pub(crate) release: ReleaseRule,
    pub(crate) restore: RestoreAfterRelease,
    pub(crate) rollback: RollbackRule,
    pub(crate) approve: ApprovalRule,
    pub(crate) hours: Hours,
}

/// When an update may stop what serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hours {
    Any,
    Nightly,
}

/// Stop-start, neutral data, everything through the front, released after the proof, rolled back by itself.
pub(crate) const PLAIN: Rules = Rules {
    strategy: Strategy::StopStart,
    class: DataClass::Neutral,
    intake: Intake::Front,
    release: ReleaseRule::AfterProve,
    restore: RestoreAfterRelease::Refused,
    rollback: RollbackRule::Auto,
    approve: ApprovalRule::Never,
    hours: Hours::Any,
};

impl Rules {
    pub(crate) fn settings(self) -> Settings {
        let policy = Policy {
            release: self.release,
            restore_after_release: self.restore,
            rollback: self.rollback,
            streak: 3,
            clearance: Clearance { approve: self.approve, windows: self.windows(), ..Clearance::default() },
            ..Policy::default()
        };
        Settings { strategy: self.strategy, class: self.class, intake: self.intake, policy }
    }

    fn windows(self) -> Vec<Window> {
        let nightly = Window { days: Day::ALL.to_vec(), from: 3600, to: 7200, zone: "UTC".into() };
        if self.hours == Hours::Nightly { vec![nightly] } else { Vec::new() }
    }
}

/// The facts that the cast's services can all be asked for.
pub(crate) const REQUIRED: [FactName; 12] = [
    FactName::Identity,
    FactName::Code,
    FactName::Port,
    FactName::Version,
    FactName::Build,
    FactName::Instance,
    FactName::Liveness,
    FactName::Readiness,
    FactName::Plugins,
    FactName::UserPath,
    FactName::Tripwires,
    FactName::OldGone,
];

pub(crate) fn expectation(installed: &Installed, instance: &Instance) -> Expectation {
    Expectation {
        generation: installed.generation,
        version: installed.release.version.clone(),
        build: Some("build".into()),
        instance: instance.clone(),
        service_instance: Some("boot-1".into()),
        plugins: vec!["chat@1".into()],
        wanted: Vec::new(),
        plugins_told: PluginsTold::Versions,
        code: code(installed.generation),
        streak: 3,
        required: REQUIRED.into(),
    }
}

fn code(generation: Generation) -> Code {
    let entry = FileIdentity { device: 1, inode: 2, sha256: "aa".into() };
    Code { generation, entry, exe: "/bin/web".into(), cwd: "/srv".into() }
}

fn yes<T>(value: T) -> Seen<T> {
    Seen::Yes { value, at_ms: 1, source: "p".into() }
}

/// What a probe sees of a process that is everything that is expected.
pub(crate) fn as_expected(expectation: &Expectation) -> Observations {
    Observations {
        identity: yes(expectation.instance.clone()),
        code: yes(expectation.code.clone()),
        listeners: yes(vec![Listener { address: "127.0.0.1:80".into(), owner: Owner::Instance }]),
        version: yes(expectation.version.clone()),
        build: yes("build".into()),
        service_instance: yes("boot-1".into()),
        live: yes(true),
        ready: yes(true),
        plugins: yes(expectation.plugins.clone()),
        user_path: yes(true),
        traffic: Seen::NotApplicable { why: "3 exchanges".into() },
        tripwires: yes(Vec::new()),
        old: yes(OldProcess { alive: Vec::new() }),
        streak: expectation.streak,
    }
}

/// How a single fact is spoilt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// Observed, and not what is required.
    Wrong,
    /// Looked for and not to be had.
    Missing,
    /// Said not to be a property of this service, although it is required.
    NotApplicable,
}

fn spoil<T>(seen: &mut Seen<T>, flaw: Flaw, wrong: T) {
    *seen = match flaw {
        Flaw::Wrong => yes(wrong),
        Flaw::Missing => Seen::Missing { why: "no answer".into(), at_ms: 1, source: "p".into() },
        Flaw::NotApplicable => Seen::NotApplicable { why: "says the probe".into() },
    };
}

/// Everything that clients can do to V9.
pub(crate) const WORST: Compared = Compared {
    before: Exchanges { answered: 1000, bad: 0, abnormal: 0 },
    now: Exchanges { answered: 1000, bad: 1000, abnormal: 1000 },
};

/// [`as_expected`], spoilt in one fact.
pub(crate) fn flawed(expectation: &Expectation, fact: FactName, flaw: Flaw) -> Observations {
    let mut seen = as_expected(expectation);
    match fact {
        FactName::Identity => spoil(&mut seen.identity, flaw, instance(99)),
        FactName::Code => spoil(&mut seen.code, flaw, code(Generation(99))),
        FactName::Port => {
            let owner = Owner::Foreign { pid: Some(98), command: None };
            spoil(&mut seen.listeners, flaw, vec![Listener { address: "[::1]:80".into(), owner }]);
        }
        FactName::Version => spoil(&mut seen.version, flaw, "0.9".into()),
        FactName::Build => spoil(&mut seen.build, flaw, "other".into()),
        FactName::Instance => spoil(&mut seen.service_instance, flaw, "boot-2".into()),
        FactName::Liveness => spoil(&mut seen.live, flaw, false),
        FactName::Readiness => spoil(&mut seen.ready, flaw, false),
        FactName::Plugins => spoil(&mut seen.plugins, flaw, Vec::new()),
        FactName::UserPath => spoil(&mut seen.user_path, flaw, false),
        FactName::Traffic => spoil(&mut seen.traffic, flaw, WORST),
        FactName::Tripwires => spoil(&mut seen.tripwires, flaw, vec!["Error: no export".into()]),
        FactName::OldGone => spoil(&mut seen.old, flaw, OldProcess { alive: vec![41] }),
    }
    seen
}

/// The facts of a verdict, by name.
pub(crate) fn fact(verdict: &Verdict, name: FactName) -> &Fact {
    verdict.facts().iter().find(|fact| fact.name == name).expect("every verdict lists every fact")
}

pub(crate) fn is_verified(expectation: &Expectation, observations: &Observations) -> bool {
    matches!(judge(expectation, observations), Verdict::Verified(_))
}

pub(crate) fn fault(code: &str) -> Fault {
    Fault { code: code.into(), detail: String::new() }
}

pub(crate) fn ordered(run: RunId, order: Order, settings: &Settings) -> Event {
    Event::Ordered { run, order, actor: "cli".into(), settings: settings.clone() }
}

/// What the settings say of what is started, in the wording of that number.
pub(crate) fn setup(number: u32) -> Setup {
    Setup([("command".to_owned(), number.to_string())].into())
}

/// The exit code after which the cast's services are not started again by themselves.
pub(crate) const LAST_EXIT: i32 = 78;

/// The exit code by which the cast's services ask to be started again.
pub(crate) const AGAIN_EXIT: i32 = 0;

pub(crate) fn exited(instance: Instance, exit: Exit) -> Event {
    let (prevent, force) = (vec![LAST_EXIT], vec![AGAIN_EXIT]);
    Event::Exited { instance, exit, restart_prevent_exit_status: prevent, restart_force_exit_status: force }
}

pub(crate) fn recovered(boot: Boot, live: Option<Instance>) -> Event {
    Event::Recovered { boot, boot_id: BootId("b".into()), live }
}

/// A name inside a state.
pub(crate) enum Name<'a> {
    Run(&'a mut RunId),
    Instance(&'a mut Instance),
    Installed(&'a mut Installed),
    Release(&'a mut Release),
    Generation(&'a mut Generation),
}

/// Visits every name in `state`, in an order that depends on the state alone.
pub(crate) fn visit(state: &mut State, see: &mut impl FnMut(Name<'_>)) {
    if let Some(current) = &mut state.current {
        see(Name::Installed(current));
    }
    match &mut state.serving {
        Serving::Proven(live) | Serving::Waived(Some(live)) => see(Name::Instance(live)),
        Serving::Unproven | Serving::Waived(None) => {}
    }
    if let Some(leaving) = &mut state.leaving {
        see(Name::Instance(leaving));
    }
    if let Some(Kept { installed, snapshot, .. }) = &mut state.previous {
        see(Name::Installed(installed));
        see(Name::Run(snapshot));
    }
    if let Some(cut) = &mut state.parked {
        visit_cut(cut, see);
    }
    match &mut state.phase {
        Phase::Idle => {}
        Phase::Preparing(Preparation { run, aim, base, .. }) => {
            visit_run(run, see);
            match aim {
                Aim::Wanted(_) => {}
                Aim::Resolved(release) => see(Name::Release(release)),
                Aim::Staged(installed) => see(Name::Installed(installed)),
            }
            visit_base(base, see);
        }
        Phase::CuttingOver(cut) | Phase::RollingBack(Retreat { cut, .. }) => visit_cut(cut, see),
        Phase::Watching(watch) => see(Name::Run(&mut watch.run)),
        Phase::Maintenance(maintenance) => visit_maintenance(maintenance, see),
    }
}

fn visit_run(run: &mut Run, see: &mut impl FnMut(Name<'_>)) {
    see(Name::Run(&mut run.id));
    if let Some(source) = &mut run.source {
        see(Name::Installed(source));
    }
    if let DataOrder::Restore { snapshot } = &mut run.data {
        see(Name::Run(snapshot));
    }
    see(Name::Run(&mut run.snapshot));
}

fn visit_cut(cut: &mut Cut, see: &mut impl FnMut(Name<'_>)) {
    visit_run(&mut cut.run, see);
    see(Name::Installed(&mut cut.target));
    if let Some(live) = &mut cut.live {
        see(Name::Instance(live));
    }
    visit_base(&mut cut.base, see);
}

fn visit_base(base: &mut Base, see: &mut impl FnMut(Name<'_>)) {
    match base {
        Base::Idle => {}
        Base::Watching(Watch { run, .. }) => see(Name::Run(run)),
        Base::Maintenance(maintenance) => visit_maintenance(maintenance, see),
    }
}

fn visit_maintenance(maintenance: &mut Maintenance, see: &mut impl FnMut(Name<'_>)) {
    visit_run(&mut maintenance.run, see);
    see(Name::Installed(&mut maintenance.target));
    if let Some(coherent) = &mut maintenance.coherent {
        see(Name::Generation(coherent));
    }
}

/// The numbers in use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) runs: BTreeSet<u32>,
    pub(crate) pids: BTreeSet<u32>,
    pub(crate) generations: BTreeSet<u32>,
    pub(crate) releases: BTreeSet<u32>,
}

pub(crate) fn run_number(run: &RunId) -> u32 {
    run.0.trim_start_matches('r').parse().expect("the cast's runs are rN")
}

/// All names in `state`.
pub(crate) fn names(state: &State) -> Names {
    let mut names = Names::default();
    visit(&mut state.clone(), &mut |name| match name {
        Name::Run(run) => drop(names.runs.insert(run_number(run))),
        Name::Instance(instance) => drop(names.pids.insert(instance.pid)),
        Name::Installed(installed) => {
            names.generations.insert(installed.generation.0);
            names.releases.insert(release_number(&installed.release));
        }
        Name::Release(release) => drop(names.releases.insert(release_number(release))),
        Name::Generation(generation) => drop(names.generations.insert(generation.0)),
    });
    names
}

/// The smallest number from 1 on that is not in use.
pub(crate) fn free(used: &BTreeSet<u32>) -> u32 {
    (1..).find(|number| !used.contains(number)).expect("numbers do not run out")
}

/// Takes out what the machine carries for people only (or, the round, for the freshness of tickets): it grows without
/// end and must not be read by `step`. That it is not is itself proven in `exhaustive`.
pub(crate) fn trim(state: &mut State) {
    state.last = None;
    state.skipped.clear();
    if let Some(cut) = &mut state.parked {
        trim_cut(cut);
    }
    match &mut state.phase {
        Phase::Idle | Phase::Watching(_) => {}
        Phase::Preparing(preparation) => {
            preparation.gate.round = 0;
            preparation.gate.moved.clear();
            preparation.gate.opening = Opening::Unseen;
            trim_base(&mut preparation.base);
        }
        Phase::CuttingOver(cut) => trim_cut(cut),
        Phase::RollingBack(retreat) => {
            retreat.causes.clear();
            trim_cut(&mut retreat.cut);
        }
        Phase::Maintenance(maintenance) => maintenance.causes.clear(),
    }
}

fn trim_cut(cut: &mut Cut) {
    cut.round = 0;
    cut.approved = Setup::default();
    trim_base(&mut cut.base);
}

fn trim_base(base: &mut Base) {
    if let Base::Maintenance(maintenance) = base {
        maintenance.causes.clear();
    }
}

/// The opposite of [`trim`]: a state with a long past.
pub(crate) fn age(state: &mut State, rounds: u8) {
    let cause = Cause { act: Act::Prove, fault: fault("older") };
    state.skipped.push(release(60));
    state.last = Some(Ending {
        run: run_id(60),
        kind: Kind::Update,
        target: None,
        status: Some(Status::RestartVerified),
        resolution: Resolution::None,
        causes: vec![cause.clone()],
        writes: Writes::Kept,
    });
    let age_base = |base: &mut Base| {
        if let Base::Maintenance(maintenance) = base {
            maintenance.causes.push(cause.clone());
        }
    };
    if let Some(cut) = &mut state.parked {
        cut.round = rounds;
        cut.approved = setup(60);
        age_base(&mut cut.base);
    }
    match &mut state.phase {
        Phase::Idle | Phase::Watching(_) => {}
        Phase::Preparing(preparation) => {
            preparation.gate.round = rounds;
            preparation.gate.moved.push("command".into());
            preparation.gate.opening = Opening::Missed;
            age_base(&mut preparation.base);
        }
        Phase::CuttingOver(cut) => {
            cut.round = rounds;
            cut.approved = setup(60);
            age_base(&mut cut.base);
        }
        Phase::RollingBack(retreat) => {
            retreat.cut.round = rounds;
            retreat.causes.push(cause.clone());
            age_base(&mut retreat.cut.base);
        }
        Phase::Maintenance(maintenance) => maintenance.causes.push(cause),
    }
}
