//! The daemon is killed in every state of an update of the real gateway, rehearsed or not, and of the way back from a build
//! that does not prove itself, under load. Each run ends by itself, with the verdict that it would have had, about a process
//! that lives.
//!
//! `CUTOVER_TEST=real-kill cargo test -p cutover --test real killed -- --nocapture`

use super::figures::Figures;
use super::ground::Ground;
use super::traffic::Traffic;
use super::world::{RUN, World};
use super::{
    BROKEN, Kept, explained, hold, own_address, shared_file, taken_back_by_itself, was_asked_as_users_ask,
    was_rehearsed,
};
use cutover::demo::{Hunt, PHASES, Phase, interrupted};
use cutover_core::{Act, FactName, Generation, ROLLING_BACK, Report, Resolution, RunId, Status};
use cutover_testkit::openclaw::{self, NEW, OLD};
use cutover_testkit::slow;

/// What an update that is rehearsed goes through beside those of [`PHASES`].
const REHEARSED: [Phase; 2] = [REHEARSE, Phase::forward(Act::Drain)];
const REHEARSE: Phase = Phase::forward(Act::Rehearse);
/// What has been fetched is only looked for on the way up, and what has proven itself is not rehearsed.
const UPWARDS: [Phase; 2] = [Phase::forward(Act::Stage), REHEARSE];

/// Which way a run leads: between two generations that are there already, so that no time is spent on anything else.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

impl Way {
    fn version(self) -> &'static str {
        match self {
            Self::Up => NEW,
            Self::Down => OLD,
        }
    }

    fn other(self) -> Way {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }

    fn passes(self, phase: Phase) -> bool {
        self == Self::Up || !UPWARDS.contains(&phase)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_any_state_of_an_update_of_the_real_gateway_costs_nobody_anything() {
    if !slow::is_asked_for(
        "real-kill",
        "the daemon is killed in every state of an update of the real gateway",
    ) {
        return;
    }
    let ground = Ground::alone().await;
    let mut world = with_both(&ground).await;
    let mut figures = Figures::named("killed");
    let load = Traffic::on_gateway(&world, &shared_file(&world), "killed").await;
    let runs = to_and_fro(&mut world, &PHASES, &mut figures).await;
    load.nobody_noticed(&world, runs, &mut figures).await;
    figures.line("runs", runs);
    figures.keep();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_rehearsal_or_the_drain_of_the_real_gateway_costs_nobody_anything() {
    if !slow::is_asked_for("real-kill", "the daemon is killed in a rehearsal of the real gateway") {
        return;
    }
    let ground = Ground::alone().await;
    let mut world = with_both(&ground).await;
    // Another daemon: the gateway and its front go on meanwhile.
    world.end_daemon().await;
    world.rehearse("auto");
    world.start_daemon(&[]).await;
    let mut figures = Figures::named("killed-rehearsed");
    let load = Traffic::on_gateway(&world, &shared_file(&world), "killed-rehearsed").await;
    let runs = to_and_fro(&mut world, &REHEARSED, &mut figures).await;
    load.nobody_noticed(&world, runs, &mut figures).await;
    figures.line("runs", runs);
    figures.keep();
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_any_act_of_going_back_from_a_build_of_the_real_gateway_costs_nobody_anything() {
    if !slow::is_asked_for("real-kill", "the daemon is killed in every act of going back to the real gateway")
    {
        return;
    }
    let ground = Ground::alone().await;
    let mut world = with_both(&ground).await;
    let (build, defect, _) = BROKEN[1];
    ground.registry.publish(&openclaw::broken(&world.root(2), build, defect).unwrap());
    let mut figures = Figures::named("killed-back");
    let before = Kept::seen(&world).await;
    let load = Traffic::on_gateway(&world, &shared_file(&world), "killed-back").await;
    let (mut open, mut runs) = (ROLLING_BACK.map(Phase::back).to_vec(), 0);
    while let Some(phase) = open.first().copied() {
        assert!(runs < runs_max(&ROLLING_BACK), "not met in {runs} runs: {open:?}");
        let report = came_back(&mut world, phase, &mut figures).await;
        open.retain(|one| !interrupted(&report).contains(one));
        runs += 1;
    }
    before.is_there(&world).await;
    load.nobody_noticed(&world, runs, &mut figures).await;
    figures.line("runs", runs);
    figures.keep();
    world.end().await;
}

/// Some phases last for a millisecond: a kill that comes too late is repeated.
fn runs_max<T>(wanted: &[T]) -> usize {
    2 * wanted.len()
}

/// A world in which both versions have proven themselves, the newer one last.
async fn with_both(ground: &Ground) -> World {
    let mut world = ground.world();
    world.rehearse("never");
    world.start_daemon(&[]).await;
    for version in [OLD, NEW] {
        let (report, code) = world.update(version).await;
        assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    }
    world
}

/// Runs to and fro, each with a kill in a phase that no kill has met yet, and how many they were.
async fn to_and_fro(world: &mut World, course: &[Phase], figures: &mut Figures) -> usize {
    let (mut open, mut runs, mut way) = (course.to_vec(), 0, Way::Down);
    while !open.is_empty() {
        assert!(runs < runs_max(course), "not met in {runs} runs: {open:?}");
        let phase = open.iter().copied().find(|phase| way.passes(*phase));
        let report = went(world, way, course, phase, figures).await;
        let is_tried = way == Way::Up && course.contains(&REHEARSE);
        if is_tried && !was_rehearsed(world, &report, &[], figures) {
            open.retain(|one| *one != REHEARSE);
        }
        open.retain(|one| !interrupted(&report).contains(one));
        (runs, way) = (runs + 1, way.other());
    }
    runs
}

/// A run whose daemon is killed in the phase, if one is named, and what became of it.
async fn went(
    world: &mut World,
    way: Way,
    course: &[Phase],
    phase: Option<Phase>,
    figures: &mut Figures,
) -> Report {
    let words: &[&str] = match way {
        Way::Up => &["update", world.name(), "--to", NEW],
        Way::Down => &["rollback", world.name(), "--data", "restore"],
    };
    let run = world.ordered(words).await;
    if let Some(phase) = phase {
        killed_in(world, &run, course, phase).await;
    }
    let report = world.end_of(&run).await;
    let wanted = phase.map_or_else(|| "no phase".into(), |phase| phase.to_string());
    figures.run(&format!("killed in {wanted}, met {}: to {}", met(&report), way.version()), &report);
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartVerified), Resolution::None),
        "{report:#?}"
    );
    hold(&report, &[FactName::Identity, FactName::Code, FactName::Version, FactName::OldGone]);
    was_asked_as_users_ask(&report);
    is_served(world, &report).await;
    for address in world.front {
        assert_eq!(world.hello(address).await.version, way.version());
    }
    report
}

/// An update to a build that is taken back by itself, whose daemon is killed on the way back.
async fn came_back(world: &mut World, phase: Phase, figures: &mut Figures) -> Report {
    let (build, _, why) = BROKEN[1];
    let direct = own_address(world).await;
    let run = world.ordered(&["update", world.name(), "--to", build]).await;
    let course = [&[Phase::forward(Act::Prove)], &ROLLING_BACK.map(Phase::back)[..]].concat();
    killed_in(world, &run, &course, phase).await;
    let report = world.end_of(&run).await;
    figures.line("killed in", format_args!("{phase}, met {}", met(&report)));
    explained(&report, build, why, figures);
    taken_back_by_itself(world, &report, Generation(2), direct).await;
    is_served(world, &report).await;
    report
}

/// Kills the daemon in a phase of a run, and starts another.
async fn killed_in(world: &mut World, run: &RunId, course: &[Phase], phase: Phase) {
    let (daemon, service, course) = (world.daemon(), world.name().to_owned(), course.to_vec());
    let journal = world.state().join("journal.sqlite");
    let hunt = Hunt { daemon, journal, service, run: run.clone(), course, limit: RUN };
    hunt.caught_in(phase).await.unwrap();
    world.kill_daemon();
    world.start_daemon(&[]).await;
}

fn met(report: &Report) -> String {
    let met = interrupted(report);
    met.first().map_or_else(|| "none".into(), ToString::to_string)
}

/// The process that the report says serves is the one that does, and it lives.
async fn is_served(world: &World, report: &Report) {
    let view = world.until("a served gateway", |view| view.report.serving.posture == "serve").await;
    let process = view.process.unwrap();
    assert_eq!(report.serving.instance.as_ref(), Some(&process));
    assert!(std::path::Path::new(&format!("/proc/{}", process.pid)).exists());
}
