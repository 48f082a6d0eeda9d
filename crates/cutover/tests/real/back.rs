//! The ways back that nobody has to take to see the incident: a plugin that the older gateway lacks a name for, one that the
//! gateway goes on without, the button pressed for a build that is older, one that dies soon after it was ready, and a
//! downgrade that somebody asks for.
//!
//! `CUTOVER_TEST=real-back cargo test -p cutover --test real back -- --nocapture`

use super::disk::Disk;
use super::figures::Figures;
use super::ground::Ground;
use super::traffic::{self, Traffic};
use super::world::{CALL, RUN, TOKEN, World};
use super::{
    Kept, another_daemon, explained, hold, living, own_address, page, refused, taken_back_by_itself,
    was_asked_as_users_ask, was_not_isolated, whole,
};
use cutover_core::{FactName, Generation, Instance, Report, Status};
use cutover_testkit::openclaw::{
    self, Client, Defect, LATER_NAME, NEW, OLD, PROGRESS_LINES, PROGRESS_LINES_ID, SHARED_NAME,
};
use cutover_testkit::registry::Registry;
use cutover_testkit::slow;
use serde_json::json;
use std::path::Path;
use std::time::Instant;

/// A build that a real release could have been.
const SHORT: &str = "2026.5.4-broken.3";
/// What a proof says that waits for the plugin in vain.
const NOT_TOLD: &str = ": Plugins: expected progress-lines";
/// How long a proof that comes no further may wait: all of it is waited for here, three times, and most of it by clients.
const STUCK: &str = "60s";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_notices_that_the_real_gateway_is_not_taken_where_it_cannot_work_and_goes_back_when_asked() {
    if !slow::is_asked_for("real-back", "the real gateway goes back, with the plugin that fits") {
        return;
    }
    let ground = Ground::alone().await;
    let registry = &ground.registry;
    registry.publish(&openclaw::progress_lines("1.0.0", SHARED_NAME));
    registry.publish(&openclaw::progress_lines("2.0.0", LATER_NAME));
    registry.tag(PROGRESS_LINES, "latest", "2.0.0");
    let mut world = ground.world().with_lines();
    let mut figures = Figures::named("back");
    let begun = Instant::now();

    world.start_daemon(&[]).await;
    let (report, code) = world.update(NEW).await;
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    let direct = own_address(&world).await;
    whole(direct, &page(direct).await, "first process", &mut figures).await;
    another_daemon(&mut world, &[("start_deadline", STUCK)]).await;
    a_plugin_that_does_not_fit_is_refused(&world, &mut figures).await;
    registry.publish(&openclaw::progress_lines_that_throw("3.0.0", LATER_NAME));
    registry.tag(PROGRESS_LINES, "latest", "3.0.0");
    a_plugin_that_is_not_told_is_refused(&world, &mut figures).await;
    another_daemon(&mut world, &[("rehearse", "never")]).await;
    a_plugin_that_is_not_told_is_taken_back(&world, &mut figures).await;
    registry.tag(PROGRESS_LINES, "latest", "2.0.0");
    dies_after_a_moment(&world, registry, &mut figures).await;
    // The registry knows the gateway by now, and only what of it was published there.
    let old = ground.gateway(OLD).await;
    registry.publish_directory(&old).unwrap();
    registry.tag(PROGRESS_LINES, "latest", "1.0.0");
    went_down_on_purpose(&world, &old, &mut figures).await;
    figures.took("all of it", begun.elapsed());
    figures.keep();
    world.end().await;
}

/// It was ready, and is gone: what served before it is taken up again.
async fn dies_after_a_moment(world: &World, registry: &Registry, figures: &mut Figures) {
    registry.publish(&openclaw::broken(&world.root(1), SHORT, Defect::EndsAfter(1500)).unwrap());
    registry.tag("openclaw", "latest", SHORT);
    pressed_in_vain(world).await;
    let load = Traffic::on_gateway(world, "/favicon.ico", "short").await;
    let before = Kept::seen(world).await;
    let direct = own_address(world).await;
    let report = refused(world, SHORT, "Code(7)", figures).await;
    taken_back_by_itself(world, &report, Generation(1), direct).await;
    before.is_there(world).await;
    load.nobody_noticed(world, 1, figures).await;
}

/// The gateway's own way to update it, as its page and its tools call it. The channel names a build that is older than what
/// runs, and it is followed forwards only: the answer is the daemon's and says so.
async fn pressed_in_vain(world: &World) {
    let mut client = Client::connect(world.front[0], TOKEN, CALL).await.unwrap();
    let answer = client.call("update.run", &json!({}), RUN).await.unwrap();
    let openclaw::Answer::Given(told) = answer else { panic!("{answer:?}") };
    assert_eq!((&told["ok"], &told["result"]["status"]), (&json!(false), &json!("error")), "{told:#}");
    assert_eq!((&told["result"]["reason"], &told["result"]["after"]), (&json!("downgrade"), &json!(null)));
}

/// The plugin of now imports a name that the old gateway does not have. At run time nobody would tell: the name would be
/// `undefined` and everything green.
async fn a_plugin_that_does_not_fit_is_refused(world: &World, figures: &mut Figures) {
    let load = Traffic::on_gateway(world, "/favicon.ico", "does-not-fit").await;
    let before = living(world).await;
    let missing = format!("does not provide an export named '{LATER_NAME}'");
    let attempt = attempted(world, OLD, "with the newer plugin", &missing, figures).await;
    assert!(attempt.0.causes[0].fault.detail.contains("index.js:1"), "{:#?}", attempt.0.causes);
    nothing_was_stopped(world, attempt, &before).await;
    load.nobody_noticed(world, 0, figures).await;
}

/// All that it imports is there, and the gateway is well without it.
async fn a_plugin_that_is_not_told_is_refused(world: &World, figures: &mut Figures) {
    let load = Traffic::on_gateway(world, "/favicon.ico", "not-told-rehearsed").await;
    let before = living(world).await;
    let attempt = attempted(world, NEW, "with a plugin that throws, rehearsed", NOT_TOLD, figures).await;
    nothing_else_is_missing(&attempt.0);
    let is_seen_later = was_not_isolated(&attempt.0, "a plugin that throws", figures);
    if !is_seen_later {
        nothing_was_stopped(world, attempt, &before).await;
    }
    load.nobody_noticed(world, usize::from(is_seen_later), figures).await;
}

/// Without a rehearsal it is seen after the cut, and nowhere but in the gateway's own list.
async fn a_plugin_that_is_not_told_is_taken_back(world: &World, figures: &mut Figures) {
    let load = Traffic::on_gateway(world, "/favicon.ico", "not-told").await;
    let (kept, direct) = (Kept::seen(world).await, own_address(world).await);
    let (report, code) = attempted(world, NEW, "with a plugin that throws", NOT_TOLD, figures).await;
    assert_eq!(code, 4, "{report:#?}");
    nothing_else_is_missing(&report);
    taken_back_by_itself(world, &report, Generation(1), direct).await;
    hold(&report, &[FactName::Plugins]);
    assert!(world.hello(direct).await.plugins.contains(&PROGRESS_LINES_ID.to_owned()));
    kept.is_there(world).await;
    load.nobody_noticed(world, 1, figures).await;
}

/// An update that fails with this cause, and what it took.
async fn attempted(
    world: &World,
    version: &str,
    how: &str,
    cause: &str,
    figures: &mut Figures,
) -> (Report, i32) {
    let disk = Disk::watched(world);
    let (report, code) = world.update(version).await;
    explained(&report, &format!("{NEW} -> {version} {how}"), cause, figures);
    figures.disk(&disk.end());
    (report, code)
}

async fn nothing_was_stopped(world: &World, (report, code): (Report, i32), before: &Instance) {
    assert_eq!(
        (code, report.status, report.downtime_ms),
        (3, Some(Status::UpdateFailed), None),
        "{report:#?}"
    );
    assert_eq!(living(world).await, *before);
}

/// Of the facts: the gateway was alive, ready and of its version.
fn nothing_else_is_missing(report: &Report) {
    let said = &report.causes[0].fault.detail;
    assert_eq!(said.matches(": expected ").count(), 1, "{said}");
}

/// Older than what runs, by name: a channel would not go there. With the plugin that fits it, core and plugin go together.
async fn went_down_on_purpose(world: &World, old: &Path, figures: &mut Figures) {
    let file = traffic::shared_file([old, &world.root(1)]);
    let load = Traffic::on_gateway(world, &file, "downgrade").await;
    let disk = Disk::watched(world);
    let (report, code) = world.update(OLD).await;
    figures.run(&format!("{NEW} -> {OLD}, asked for by name"), &report);
    figures.disk(&disk.end());
    assert_eq!((code, report.status), (0, Some(Status::RestartVerified)), "{report:#?}");
    hold(&report, &[FactName::Version, FactName::Plugins, FactName::OldGone]);
    was_asked_as_users_ask(&report);
    figures.verdict(&report);
    assert_eq!(report.target.unwrap().release.plugins[0].version, "1.0.0");
    for address in world.front {
        assert_eq!(world.hello(address).await.version, OLD);
    }
    load.nobody_noticed(world, 1, figures).await;
}
