//! A small world of its own: releases, a configuration, a daemon process; everything below one temporary directory.

use crate::cli::Client;
use crate::conductor::View;
use anyhow::{Context, bail};
use cutover_core::{Report, RunId};
use rustix::process::{Pid, Signal, kill_process};
use sample_gateway::Knobs;
use sample_gateway::release::{self, Release};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The sample service's name.
pub(super) const SERVICE: &str = "web";
/// How long anything in the demonstration is waited for.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

pub(super) struct World {
    directory: tempfile::TempDir,
    executable: PathBuf,
    daemon: Option<Child>,
    /// Where clients reach the service.
    pub address: SocketAddr,
}

impl World {
    /// A world with a configuration and no release yet. `service` are further lines of `[service.web]`.
    pub(super) fn new(service: &str) -> anyhow::Result<Self> {
        let directory =
            tempfile::Builder::new().prefix("cutover-demo-").tempdir().context("making a directory")?;
        let executable = std::env::current_exe().context("finding this program")?;
        let address = free_address()?;
        let world = Self { directory, executable, daemon: None, address };
        std::fs::create_dir(world.releases())?;
        let config = format!(
            r#"[daemon]
listen = "off"
state = "{state}"

[service.{SERVICE}]
source = {{ directory = "{releases}" }}
command = ["{{root}}/bin/gateway", "sample-gateway", "--port", "{{port}}"]
listen = "{address}"
probe = {{ live = "/healthz", ready = "/readyz", version = {{ http = "/version", pointer = "/version", instance = "/bootId" }} }}
{service}
"#,
            state = world.state().display(),
            releases = world.releases().display(),
        );
        std::fs::write(world.config(), config)?;
        Ok(world)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn config(&self) -> PathBuf {
        self.path().join("cutover.toml")
    }

    pub(super) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    fn releases(&self) -> PathBuf {
        self.path().join("releases")
    }

    /// Where the daemon writes its log.
    pub(super) fn daemon_log(&self) -> PathBuf {
        self.path().join("daemon.log")
    }

    /// Publishes a release: a real copy of this program with other files and knobs beside it.
    pub(super) fn publish(&self, version: &str, knobs: Knobs) -> anyhow::Result<()> {
        let release = Release::new(version).with_knobs(knobs);
        release::write(&self.releases().join(version), &self.executable, &release)?;
        Ok(())
    }

    /// Lets the channel `latest` name a version.
    pub(super) fn name_latest(&self, version: &str) -> anyhow::Result<()> {
        let (link, new) = (self.releases().join("latest"), self.releases().join(".latest"));
        std::os::unix::fs::symlink(version, &new)?;
        std::fs::rename(new, link)?;
        Ok(())
    }

    /// The directory of a sealed generation.
    pub(super) fn generation(&self, number: u32) -> PathBuf {
        self.state().join("services").join(SERVICE).join("generations").join(format!("{number:04}"))
    }

    /// Starts the daemon as a process of its own and waits until it answers.
    pub(super) async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.daemon_log())?;
        let child = Command::new(&self.executable)
            .arg("--config")
            .arg(self.config())
            .args(["serve", "--stop-services"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the daemon")?;
        self.daemon = Some(child);
        let begun = Instant::now();
        loop {
            if self.client().call("health", Value::Null).await.is_ok() {
                return Ok(());
            }
            if let Some(status) = self.daemon.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("the daemon ended ({status}): {}", self.tail_of_daemon_log());
            }
            if begun.elapsed() > LIMIT {
                bail!("the daemon does not answer: {}", self.tail_of_daemon_log());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn tail_of_daemon_log(&self) -> String {
        let text = std::fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Kills the daemon, and nothing else, with SIGKILL.
    pub(super) fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut child = self.daemon.take().context("there is no daemon to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    pub(super) fn client(&self) -> Client {
        Client::new(&self.state().join("run/control.sock"))
    }

    /// Runs the command line as a person does.
    pub(super) async fn cutover(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::new(&self.executable);
        command.arg("--config").arg(self.config()).args(words).stdin(Stdio::null());
        let output =
            tokio::time::timeout(LIMIT, command.output()).await.context("the command does not end")?;
        output.context("running the command line")
    }

    /// Begins an update and returns its run.
    pub(super) async fn update(&self, version: &str) -> anyhow::Result<RunId> {
        let answer =
            self.client().call("update.run", json!({ "service": SERVICE, "version": version })).await?;
        let run: Option<RunId> = serde_json::from_value(answer["runId"].clone())?;
        run.context("the order began no run")
    }

    /// The end of a run, also across the daemon's death.
    pub(super) async fn end_of(&self, run: &RunId) -> anyhow::Result<Report> {
        let begun = Instant::now();
        loop {
            let answer = self.client().call("update.runs.get", json!({ "runId": run })).await;
            if let Ok(report) = answer.and_then(|value| Ok(serde_json::from_value::<Report>(value)?))
                && report.ended.is_some()
            {
                return Ok(report);
            }
            if begun.elapsed() > LIMIT {
                bail!("run {run} does not end: {}", self.tail_of_daemon_log());
            }
            tokio::time::sleep(LOOK * 4).await;
        }
    }

    /// Waits until the service's view is as wanted.
    pub(super) async fn until(&self, what: &str, wanted: impl Fn(&View) -> bool) -> anyhow::Result<View> {
        let begun = Instant::now();
        loop {
            let answer = self.client().call("status", json!({ "service": SERVICE })).await;
            if let Ok(view) = answer.and_then(|value| Ok(serde_json::from_value::<View>(value)?))
                && wanted(&view)
            {
                return Ok(view);
            }
            if begun.elapsed() > LIMIT {
                bail!("{what} does not come about: {}", self.tail_of_daemon_log());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Installs a first version and waits until it serves.
    pub(super) async fn install(&self, version: &str) -> anyhow::Result<Report> {
        let report = self.end_of(&self.update(version).await?).await?;
        if !report.ok {
            bail!("the first installation failed: {}", report.sentence);
        }
        Ok(report)
    }

    /// Ends everything that this world started.
    pub(super) async fn end(mut self) -> anyhow::Result<()> {
        if self.daemon.is_none() {
            self.start_daemon().await?;
        }
        self.terminate();
        Ok(())
    }

    fn terminate(&mut self) {
        let Some(mut child) = self.daemon.take() else { return };
        if let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            // A daemon that is gone needs no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
        let begun = Instant::now();
        while begun.elapsed() < LIMIT && matches!(child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.terminate();
        // Sealed trees are read-only: without their owner's write permission they could not be removed.
        for entry in walkdir::WalkDir::new(self.path())
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_dir())
        {
            use std::os::unix::fs::PermissionsExt;
            let _ = std::fs::set_permissions(entry.path(), std::fs::Permissions::from_mode(0o700));
        }
    }
}

/// An address on loopback that nobody uses.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    listener.local_addr().context("looking for a free port")
}
