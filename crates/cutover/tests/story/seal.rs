//! Once a day every byte of what is served is read, whoever was restarted meanwhile.

use crate::stage::{change_a_file, eventually, executable, serving, signal, unserved, with_policy};
use cutover::conductor::wall_ms;
use cutover::demo::{Plan, SERVICE, World};
use rustix::process::Signal;
use sample_gateway::Knobs;
use std::path::PathBuf;

const HOUR_MS: u64 = 3600 * 1000;

/// Where it is noted when the first generation was read.
fn note(world: &World) -> PathBuf {
    world.state().join("services").join(SERVICE).join("looked/0001")
}

fn read_at(world: &World) -> u64 {
    std::fs::read_to_string(note(world)).unwrap().parse().unwrap()
}

async fn served() -> anyhow::Result<World> {
    let plan = Plan { service: with_policy("", &[]), ..Plan::new(executable()) };
    let mut world = unserved(plan, &[("1.0.0", Knobs::default())])?;
    world.start_daemon().await?;
    world.install("1.0.0").await?;
    serving(&world, "1.0.0").await?;
    Ok(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_what_was_read_a_day_ago_is_read_again_although_daemon_and_service_were_restarted_since()
-> anyhow::Result<()> {
    let begun = wall_ms();
    let mut world = served().await?;
    assert!(read_at(&world) >= begun, "it was read before it was switched to");
    for _ in 0..2 {
        world.kill_daemon()?;
        let yesterday = wall_ms() - 25 * HOUR_MS;
        std::fs::write(note(&world), yesterday.to_string())?;
        world.start_daemon().await?;
        let before = serving(&world, "1.0.0").await?.process;
        eventually("a whole look", async || read_at(&world) > yesterday).await?;
        signal(before.as_ref().unwrap().pid, Signal::KILL)?;
        world.until("another process", |view| view.process.is_some() && view.process != before).await?;
        serving(&world, "1.0.0").await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_read_lately_is_not_read_again_because_something_was_restarted() -> anyhow::Result<()> {
    let mut world = served().await?;
    let lately = wall_ms() - HOUR_MS;
    world.kill_daemon()?;
    std::fs::write(note(&world), lately.to_string())?;
    world.start_daemon().await?;
    serving(&world, "1.0.0").await?;
    // A look at the bytes would have gone before the one that finds this.
    let changed = change_a_file(&world, 1)?;
    world.until("the changed file", |view| view.report.origin.is_some()).await?;
    assert_eq!(read_at(&world), lately, "{} was found by reading all", changed.display());
    Ok(())
}
