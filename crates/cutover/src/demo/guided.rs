//! The demonstration for a person: an address to open and an update to watch.

use super::world::{SERVICE, World};
use crate::cli::{ExitStatus, outlet};
use anyhow::Context;
use sample_gateway::Knobs;
use std::io::IsTerminal;
use std::process::Stdio;
use std::time::Duration;

/// Without a terminal there is nobody to press Enter: each step waits so long.
const PAUSE: Duration = Duration::from_secs(3);

pub(super) async fn run() -> anyhow::Result<ExitStatus> {
    let mut world = World::new("policy = { soak = \"3s\", rehearse = \"never\" }")?;
    world.publish("1.0.0", Knobs { boot_delay_ms: 800, ..Knobs::default() })?;
    world.publish("1.1.0", Knobs { boot_delay_ms: 800, ..Knobs::default() })?;
    world.publish("1.2.0-broken", Knobs { report_version: Some("1.1.0".into()), ..Knobs::default() })?;
    world.start_daemon().await?;
    outlet::result("Installing 1.0.0 of the sample service …");
    let report = world.install("1.0.0").await?;
    outlet::result(format_args!(
        "{}\n\n  Open http://{}/ and keep it open.\n",
        report.sentence, world.address
    ));
    story(&world).await?;
    outlet::result("\nEnding everything …");
    world.end().await?;
    Ok(ExitStatus::Done)
}

async fn story(world: &World) -> anyhow::Result<()> {
    next("update it to 1.1.0 while it serves").await?;
    show(world, &["update", SERVICE, "--to", "1.1.0"]).await?;
    next("update it to 1.2.0-broken, which starts and answers with the wrong version").await?;
    show(world, &["update", SERVICE, "--to", "1.2.0-broken"]).await?;
    next("see the history").await?;
    show(world, &["history"]).await?;
    outlet::result(format_args!(
        "\nIt goes on serving at http://{}/. Try in another terminal:\n",
        world.address
    ));
    for words in ["status", "rollback", "logs -f"] {
        outlet::result(format_args!("  cutover --config {} {words}", world.config().display()));
    }
    if std::io::stdin().is_terminal() {
        outlet::result("\nCtrl-C ends and removes everything.");
        std::future::pending::<()>().await;
    }
    Ok(())
}

async fn next(step: &str) -> anyhow::Result<()> {
    if std::io::stdin().is_terminal() {
        outlet::result(format_args!("\nPress Enter to {step}."));
        // A thread of its own: nothing waits for a read that Ctrl-C left behind.
        let (pressed, enter) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = pressed.send(std::io::stdin().read_line(&mut line));
        });
        enter.await??;
    } else {
        outlet::result(format_args!("\nNow: {step}."));
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

async fn show(world: &World, words: &[&str]) -> anyhow::Result<()> {
    outlet::result(format_args!("$ cutover {}", words.join(" ")));
    let executable = std::env::current_exe().context("finding this program")?;
    let mut command = tokio::process::Command::new(executable);
    command.arg("--config").arg(world.config()).args(words).stdin(Stdio::null()).kill_on_drop(true);
    let status = command.status().await.context("running the command line")?;
    outlet::result(format_args!("(exit code {})", status.code().unwrap_or(-1)));
    Ok(())
}
