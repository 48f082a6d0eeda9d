//! The daemon is killed in every state of an update of the real gateway, under load. Each run ends by itself, with a verdict
//! about a process that lives.
//!
//! `CUTOVER_TEST=real-kill cargo test -p cutover --test real killed -- --nocapture`

use super::figures::Figures;
use super::ground::Ground;
use super::traffic::{Traffic, shared_file};
use super::world::{RUN, World};
use super::{hold, was_asked_as_users_ask};
use cutover::demo::{Hunt, PHASES, interrupted};
use cutover_core::{FactName, Report, Resolution, Status};
use cutover_testkit::openclaw::{NEW, OLD};
use cutover_testkit::slow;

/// Some phases last for a millisecond: a kill that comes too late is repeated.
const RUNS_MAX: usize = 2 * PHASES.len();
/// What has been fetched is only looked for on the way up; the way down begins with what is known.
const STAGE: &str = PHASES[0];

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
    let mut world = ground.world();
    world.rehearse("never");
    let mut figures = Figures::named("killed");
    world.start_daemon(&[]).await;
    for version in [OLD, NEW] {
        let (report, code) = world.update(version).await;
        assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    }
    let file = shared_file([&world.root(1), &world.root(2)]);
    let load = Traffic::on_gateway(&world, &file, "killed").await;
    let (mut open, mut runs, mut way) = (PHASES.to_vec(), 0, Way::Down);
    while !open.is_empty() {
        assert!(runs < RUNS_MAX, "not met in {runs} runs: {open:?}");
        let phase = open.iter().copied().find(|phase| way == Way::Up || *phase != STAGE);
        let report = went(&mut world, way, phase, &mut figures).await;
        let met = interrupted(&report);
        open.retain(|name| Some(*name) != phase || !met.iter().any(|act| name.ends_with(act)));
        (runs, way) = (runs + 1, way.other());
    }
    load.nobody_noticed(&world, runs, &mut figures).await;
    figures.keep();
    world.end().await;
}

/// A run whose daemon is killed in the phase, if one is named, and what became of it.
async fn went(world: &mut World, way: Way, phase: Option<&str>, figures: &mut Figures) -> Report {
    let words: &[&str] = match way {
        Way::Up => &["update", world.name(), "--to", NEW],
        Way::Down => &["rollback", world.name(), "--data", "restore"],
    };
    let run = world.ordered(words).await;
    if let Some(phase) = phase {
        let (daemon, service) = (world.daemon(), world.name().to_owned());
        let journal = world.state().join("journal.sqlite");
        let hunt = Hunt { daemon, journal, service, run: run.clone(), limit: RUN };
        hunt.caught_in(phase).await.unwrap();
        world.kill_daemon();
        world.start_daemon(&[]).await;
    }
    let report = world.end_of(&run).await;
    let met = interrupted(&report);
    figures.run(&format!("killed in {phase:?}, met {met:?}: to {}", way.version()), &report);
    assert_eq!(
        (report.status, report.resolution),
        (Some(Status::RestartVerified), Resolution::None),
        "{report:#?}"
    );
    hold(&report, &[FactName::Identity, FactName::Code, FactName::Version, FactName::OldGone]);
    was_asked_as_users_ask(&report);
    let view = world.until("a served gateway", |view| view.report.serving.posture == "serve").await;
    let process = view.process.unwrap();
    assert_eq!(report.serving.instance.as_ref(), Some(&process));
    assert!(std::path::Path::new(&format!("/proc/{}", process.pid)).exists());
    for address in world.front {
        assert_eq!(world.hello(address).await.version, way.version());
    }
    report
}
