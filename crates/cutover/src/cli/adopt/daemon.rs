//! The daemon of a take-over: started where none runs, ended where its service is given back.

use super::super::client::{Client, NoDaemon};
use super::Desk;
use crate::supervisor::{self, StopBudget, process};
use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

/// How long a daemon may take to answer, or to end.
const LIMIT: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);
/// How often one that dies during the take-over is started again.
const LIVES: u32 = 3;

/// Whether a daemon answers.
pub(super) async fn answers(desk: &Desk) -> anyhow::Result<bool> {
    match Client::new(&desk.scene.layout).call("health", Value::Null).await {
        Ok(_) => Ok(true),
        Err(error) if error.downcast_ref::<NoDaemon>().is_some() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the daemon's words go.
pub(super) fn log(desk: &Desk) -> PathBuf {
    desk.scene.layout.state.join("daemon.log")
}

fn last_words(desk: &Desk) -> String {
    let path = log(desk);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    format!("{} (from {})", text.lines().last().unwrap_or("it said nothing"), path.display())
}

fn spawn(desk: &Desk) -> anyhow::Result<Child> {
    let path = log(desk);
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
    let log = log.with_context(|| format!("opening {}", path.display()))?;
    let executable = std::env::current_exe().context("finding this program")?;
    let mut command = Command::new(executable);
    command.args(&desk.flags).arg("serve").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    // A group of its own: what ends this command does not end it.
    command.process_group(0).spawn().context("starting the daemon")
}

/// A daemon that is there for the length of a take-over: one that dies is started again. It outlives this value.
pub(super) struct Attended {
    watch: Option<tokio::task::JoinHandle<()>>,
}

impl Drop for Attended {
    fn drop(&mut self) {
        if let Some(watch) = &self.watch {
            watch.abort();
        }
    }
}

/// Has a daemon answer: the one that runs, or a new one.
pub(super) async fn attend(desk: &Desk) -> anyhow::Result<Attended> {
    if answers(desk).await? {
        return Ok(Attended { watch: None });
    }
    crate::conductor::private_directory(&desk.scene.layout.state)?;
    let mut child = spawn(desk)?;
    let begun = Instant::now();
    while !answers(desk).await? {
        if let Some(status) = child.try_wait()? {
            bail!("the daemon ended ({status}): {}", last_words(desk));
        }
        if begun.elapsed() > LIMIT {
            bail!("the daemon does not answer after {LIMIT:?}: {}", last_words(desk));
        }
        tokio::time::sleep(LOOK).await;
    }
    let again = desk.clone();
    let watch = tokio::spawn(async move {
        for _ in 0..LIVES {
            let _ = child.wait().await;
            match spawn(&again) {
                Ok(next) => child = next,
                // Whoever follows the run says that there is none.
                Err(_) => return,
            }
        }
    });
    Ok(Attended { watch: Some(watch) })
}

/// Ends the daemon, if one runs; its services and fronts go on. Answers whether one did.
pub(super) async fn end(desk: &Desk) -> anyhow::Result<bool> {
    let path = desk.scene.layout.control();
    let Ok(stream) = UnixStream::connect(&path).await else { return Ok(false) };
    let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let pid = peer
        .and_then(|pid| u32::try_from(pid).ok())
        .context("whose the daemon's socket is cannot be told")?;
    drop(stream);
    let Some(daemon) = process::identify(pid)? else { return Ok(false) };
    // Only itself: what it started is to go on.
    supervisor::end_alone(&daemon, StopBudget { grace: LIMIT, kill_wait: Duration::from_secs(5) }).await?;
    Ok(true)
}

/// Ends a daemon whose service was given back, and starts one again that has its other services, if there are any.
pub(super) async fn end_or_restart(desk: &Desk) -> anyhow::Result<()> {
    if end(desk).await? {
        leave_one_for_others(desk)?;
    }
    Ok(())
}

/// Starts a daemon and leaves it to itself, if there are other services.
pub(super) fn leave_one_for_others(desk: &Desk) -> anyhow::Result<()> {
    let others = desk.config.exists()
        && crate::config::load(&desk.config)
            .is_ok_and(|settings| settings.services.keys().any(|name| *name != desk.name));
    if others {
        spawn(desk)?;
    }
    Ok(())
}
