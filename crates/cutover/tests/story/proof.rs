//! What counts as verified beyond health: a user's path, and how clients fare.

use crate::stage::{
    assert_told, change_a_file, eventually, executable, get, post, serving, told, unserved, update, view,
    with_policy, world,
};
use anyhow::Context;
use cutover::conductor::View;
use cutover::demo::{Plan, World};
use cutover_core::{FactName, Generation, Level, Reading, Report, Resolution, RunId, Status};
use sample_gateway::Knobs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

fn good() -> Knobs {
    Knobs::default()
}

/// A world whose configuration is changed before its first daemon reads it.
async fn configured(
    service: &str,
    releases: &[(&str, Knobs)],
    change: impl FnOnce(String) -> String,
) -> anyhow::Result<World> {
    let plan = Plan { service: service.to_owned(), ..Plan::new(executable()) };
    let mut world = unserved(plan, releases)?;
    std::fs::write(world.config(), change(std::fs::read_to_string(world.config())?))?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

/// A world that serves.
async fn serving_world(service: &str, releases: &[(&str, Knobs)]) -> anyhow::Result<World> {
    let world = world(service, releases).await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

fn fact(report: &Report, name: FactName) -> &cutover_core::Fact {
    report.facts.iter().find(|fact| fact.name == name).expect("every verdict lists every fact")
}

const GREETED: &str =
    "probe = { websocket = { path = \"/ws\", pointer = \"/event\", equals = \"connect.challenge\" },";

#[tokio::test(flavor = "multi_thread")]
async fn a_version_whose_websocket_greets_otherwise_is_taken_back() -> anyhow::Result<()> {
    let rude = Knobs { greeting: Some("go.away".into()), ..good() };
    let releases = [("1.0.0", good()), ("2.0.0", good()), ("3.0.0", rude)];
    let service = with_policy("", &[("start_deadline", "\"2s\"")]);
    let world = configured(&service, &releases, |text| text.replace("probe = {", GREETED)).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let path = fact(&ended.0, FactName::UserPath);
    assert_eq!(path.reading, Reading::Holds);
    let public = format!("WebSocket /ws at {}", world.address);
    assert!(path.source.contains(&public), "in the soak it is asked as clients ask: {}", path.source);
    let ended = update(&world, "3.0.0").await?;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    let cause = &ended.0.causes[0].fault;
    assert!(cause.detail.contains("UserPath: expected works, observed no"), "{cause:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_loopbacks_are_served_and_proven() -> anyhow::Result<()> {
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    let mut six = None;
    let world = configured(&with_policy("", &[]), &releases, |text| {
        let line = text.lines().find(|line| line.starts_with("listen = \"127")).expect("a front");
        let address: SocketAddr =
            line.trim_start_matches("listen = \"").trim_end_matches('"').parse().unwrap();
        six = Some(SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, address.port())));
        text.replace(line, &format!("listen = [\"{address}\", \"{}\"]", six.unwrap()))
    })
    .await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let mut world = world;
    assert_eq!(get(&world, "/version").await?.json()["version"], "2.0.0");
    world.address = six.context("the configuration was read")?;
    assert_eq!(get(&world, "/version").await?.json()["version"], "2.0.0");
    Ok(())
}

/// Clients that call `/echo` until they are told to stop.
struct Callers {
    go_on: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Callers {
    fn start(world: &Arc<World>) -> Self {
        Self::so_many(4, Duration::ZERO, world)
    }

    /// One that leaves time between its calls, so that ours weigh something beside them.
    fn start_one(world: &Arc<World>) -> Self {
        Self::so_many(1, Duration::from_millis(60), world)
    }

    fn so_many(count: usize, pause: Duration, world: &Arc<World>) -> Self {
        let go_on = Arc::new(AtomicBool::new(true));
        let call = || {
            let (world, go_on) = (Arc::clone(world), Arc::clone(&go_on));
            tokio::spawn(async move {
                while go_on.load(Ordering::Relaxed) {
                    // What becomes of one call is what the front counts.
                    let _ = post(&world, "/echo", "hello").await;
                    tokio::time::sleep(pause).await;
                }
            })
        };
        Self { tasks: (0..count).map(|_| call()).collect(), go_on }
    }

    async fn stop(self) {
        self.go_on.store(false, Ordering::Relaxed);
        for task in self.tasks {
            let _ = task.await;
        }
    }
}

/// Waits until the front has counted enough with what serves.
async fn enough(world: &World, more: u64) -> anyhow::Result<()> {
    let count = |view: &cutover::conductor::View| view.front.as_ref().map_or(0, |front| front.served_total);
    let before = count(&view(world).await?);
    world.until("enough exchanges", |view| count(view) >= before + more).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_who_fare_worse_are_told_of_and_cannot_roll_a_healthy_version_back() -> anyhow::Result<()> {
    let bad = Knobs { bad_echo_every: Some(2), ..good() };
    let service = with_policy("", &[("soak", "\"1500ms\"")]);
    let world = Arc::new(serving_world(&service, &[("1.0.0", good()), ("2.0.0", bad)]).await?);
    let callers = Callers::start(&world);
    enough(&world, 300).await?;
    let ended = update(&world, "2.0.0").await?;
    callers.stop().await;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let traffic = fact(&ended.0, FactName::Traffic);
    assert_eq!(traffic.reading, Reading::Warns, "{traffic:?}");
    let warning = ended.0.findings.iter().find(|finding| finding.kind == "traffic");
    let warning = warning.context("a person is told")?;
    assert_eq!(warning.level, Level::Warn);
    let run = ended.0.run_id.clone().unwrap();
    let shown = told(&world.cutover(&["show", &run.0]).await?);
    assert!(shown.contains("WARNS") && shown.contains("clients fare worse than before"), "{shown}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_who_fare_worse_with_a_version_that_is_not_ready_take_it_back_at_once() -> anyhow::Result<()>
{
    let sick = Knobs { bad_echo_every: Some(2), ready_then_unready_after_ms: Some(4000), ..good() };
    let service = with_policy("", &[("soak", "\"8s\""), ("start_deadline", "\"60s\"")]);
    let world = Arc::new(serving_world(&service, &[("1.0.0", good()), ("2.0.0", sick)]).await?);
    let callers = Callers::start(&world);
    enough(&world, 300).await?;
    let ended = update(&world, "2.0.0").await?;
    callers.stop().await;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    assert_eq!(ended.0.causes[0].fault.code, "worse_traffic", "{:?}", ended.0.causes);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_of_our_own_that_fail_are_no_clients_who_fare_worse() -> anyhow::Result<()> {
    let sick = Knobs { ready_then_unready_after_ms: Some(2000), ..good() };
    let service = with_policy("", &[("soak", "\"4s\""), ("start_deadline", "\"2s\"")]);
    let world = Arc::new(serving_world(&service, &[("1.0.0", good()), ("2.0.0", sick)]).await?);
    let callers = Callers::start_one(&world);
    enough(&world, 100).await?;
    let ended = update(&world, "2.0.0").await?;
    callers.stop().await;
    assert_told(&ended, Status::RestartFailed, Resolution::OldVerified, 4);
    let cause = &ended.0.causes[0].fault;
    assert_eq!(cause.code, "timeout", "not being ready is given its time: {cause:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn few_exchanges_say_nothing_and_are_said_to() -> anyhow::Result<()> {
    let releases = [("1.0.0", good()), ("2.0.0", good())];
    let world = serving_world(&with_policy("", &[]), &releases).await?;
    let ended = update(&world, "2.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let traffic = fact(&ended.0, FactName::Traffic);
    assert_eq!(traffic.reading, Reading::NotApplicable, "{traffic:?}");
    Ok(())
}

/// A world in which an update is in its soak, and its run.
async fn soaking(rules: &[(&str, &str)], knobs: Knobs) -> anyhow::Result<(World, RunId)> {
    let rules = with_policy("", &[&[("soak", "\"3s\"")], rules].concat());
    let world = serving_world(&rules, &[("1.0.0", Knobs::default()), ("2.0.0", knobs)]).await?;
    let run = world.update("2.0.0").await?;
    world.until("the soak", |view| view.report.phase == "cutting over: soak").await?;
    Ok((world, run))
}

/// What becomes of an update whose new tree meets this in its soak.
async fn soaked(meet: impl FnOnce(&World) -> anyhow::Result<()>) -> anyhow::Result<Report> {
    let (world, run) = soaking(&[], Knobs::default()).await?;
    meet(&world)?;
    let report = world.end_of(&run).await?;
    assert_eq!(report.status, Some(Status::RestartFailed), "{report:#?}");
    assert_eq!(report.resolution, Resolution::OldVerified, "{report:#?}");
    Ok(report)
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_tree_that_is_changed_in_the_soak_is_taken_back_and_never_verified() -> anyhow::Result<()> {
    let report = soaked(|world| change_a_file(world, 2).map(drop)).await?;
    assert_eq!(report.causes[0].fault.code, "tree_changed");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_tree_that_cannot_be_compared_after_the_soak_is_taken_back_and_never_verified()
-> anyhow::Result<()> {
    let report = soaked(|world| Ok(std::fs::remove_file(world.generation(2).join("manifest"))?)).await?;
    assert_eq!(report.causes[0].fault.code, "tree_unreadable");
    Ok(())
}

/// How an update ends whose new tree cannot be compared at the first look after its soak, and can at a later one; `meanwhile`
/// is what happens in between.
async fn compared_later(
    knobs: Knobs,
    meanwhile: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Report> {
    let (world, run) = soaking(&[("start_deadline", "\"60s\"")], knobs).await?;
    let (manifest, away) = (world.generation(2).join("manifest"), world.state().join("manifest.away"));
    std::fs::rename(&manifest, &away)?;
    let is_looked_at = async || {
        std::fs::read_to_string(world.daemon_log()).is_ok_and(|log| log.contains("whether its tree is as it"))
    };
    eventually("the first look", is_looked_at).await?;
    meanwhile()?;
    std::fs::rename(&away, &manifest)?;
    world.end_of(&run).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_tree_that_can_be_compared_at_a_later_look_is_proven_anew_and_verified() -> anyhow::Result<()> {
    let report = compared_later(good(), || Ok(())).await?;
    assert_eq!((report.status, report.resolution), (Some(Status::RestartVerified), Resolution::None));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_a_service_that_begins_anew_while_its_tree_is_looked_at_again_has_not_soaked()
-> anyhow::Result<()> {
    let area = tempfile::tempdir()?;
    let file = area.path().join("boot-id");
    let knobs = Knobs { boot_id_in: Some(file.clone()), ..good() };
    let report = compared_later(knobs, || Ok(std::fs::write(&file, "another")?)).await?;
    assert_eq!((report.status, report.resolution), (Some(Status::RestartFailed), Resolution::OldVerified));
    let cause = &report.causes[0].fault;
    assert_eq!(
        (cause.code.as_str(), cause.detail.as_str()),
        ("timeout", "the service began anew after its soak")
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_cannot_be_compared_while_it_serves_is_told_and_had_anew_by_an_update()
-> anyhow::Result<()> {
    let world = serving_world(&with_policy("", &[]), &[("1.0.0", good())]).await?;
    std::fs::remove_file(world.generation(1).join("manifest"))?;
    let troubled = |view: &View| view.trouble.as_ref().is_some_and(|told| told.contains("tree_unreadable"));
    world.until("that it is told", troubled).await?;
    let ended = update(&world, "1.0.0").await?;
    assert_told(&ended, Status::RestartVerified, Resolution::None, 0);
    let now = world.until("that all is well", |view| view.trouble.is_none()).await?;
    assert_eq!(now.current.unwrap().generation, Generation(2));
    Ok(())
}
