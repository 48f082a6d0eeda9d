//! A small world of its own: releases, a configuration, a daemon process; everything below one temporary directory, and
//! nothing of it left when it is dropped. The demonstration plays in it, and so do the tests of the whole product.

use crate::cli::Client;
use crate::conductor::{View, free_port};
use crate::config::Layout;
use crate::shell;
use anyhow::{Context, bail};
use cutover_core::{Report, RunId};
use rustix::process::{Pid, Signal, kill_process};
use sample_gateway::Knobs;
use sample_gateway::release::{self, Release};
use serde_json::{Value, json};
use std::fs::OpenOptions;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The sample service's name.
pub const SERVICE: &str = "web";
/// How long anything in the demonstration is waited for.
const LIMIT: Duration = Duration::from_secs(90);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);

/// How clients reach the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Through a front.
    Front,
    /// At its own port: there is no front.
    Direct,
}

/// What a world is made of.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The program that daemon, front, keeper, command line and service are.
    pub executable: PathBuf,
    /// What every program of it is started through, for another account; usually nothing.
    pub through: Vec<String>,
    /// How clients reach the service.
    pub reach: Reach,
    /// Further lines of `[service.web]`; `{world}` is the world's directory.
    pub service: String,
    /// Where the world's directory is made; the system's place for such things, if none is named.
    pub place: Option<PathBuf>,
}

impl Plan {
    /// A front, this account, no further lines.
    #[must_use]
    pub fn new(executable: PathBuf) -> Self {
        Self { executable, through: Vec::new(), reach: Reach::Front, service: String::new(), place: None }
    }
}

/// A world with one service, `web`: the sample gateway.
#[derive(Debug)]
pub struct World {
    directory: tempfile::TempDir,
    executable: PathBuf,
    through: Vec<String>,
    daemon: Option<Child>,
    /// Where clients reach the service.
    pub address: SocketAddr,
}

impl World {
    /// A world with a configuration and no release yet. `service` are further lines of `[service.web]`.
    ///
    /// # Errors
    /// What could not be made.
    pub fn new(service: &str) -> anyhow::Result<Self> {
        let executable = std::env::current_exe().context("finding this program")?;
        Self::of(Plan { service: service.to_owned(), ..Plan::new(executable) })
    }

    /// A world by plan, with no release yet.
    ///
    /// # Errors
    /// What could not be made.
    pub fn of(plan: Plan) -> anyhow::Result<Self> {
        let mut builder = tempfile::Builder::new();
        let builder = builder.prefix("cutover-world-");
        let directory = match &plan.place {
            Some(place) => builder.tempdir_in(place),
            None => builder.tempdir(),
        };
        let directory = directory.context("making a directory")?;
        let address = free_address()?;
        let world =
            Self { directory, executable: plan.executable, through: plan.through, daemon: None, address };
        std::fs::create_dir(world.releases())?;
        let reach = match plan.reach {
            Reach::Front => format!("listen = \"{address}\""),
            Reach::Direct => format!("port = {}", address.port()),
        };
        let config = format!(
            r#"[daemon]
listen = "off"
state = "{state}"

[service.{SERVICE}]
source = {{ directory = "{releases}" }}
command = ["{{root}}/bin/gateway", "sample-gateway", "--port", "{{port}}"]
{reach}
probe = {{ live = "/healthz", ready = "/readyz", version = {{ http = "/version", pointer = "/version", instance = "/bootId" }} }}
{service}
"#,
            state = world.state().display(),
            releases = world.releases().display(),
            service = plan.service.replace("{world}", &world.path().display().to_string()),
        );
        std::fs::write(world.config(), config)?;
        Ok(world)
    }

    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.path().join("cutover.toml")
    }

    /// The daemon's state directory.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// The directory of releases.
    #[must_use]
    pub fn releases(&self) -> PathBuf {
        self.path().join("releases")
    }

    /// Where the daemon writes its log.
    #[must_use]
    pub fn daemon_log(&self) -> PathBuf {
        self.path().join("daemon.log")
    }

    /// Publishes a release: a real copy of this program with other files and knobs beside it.
    ///
    /// # Errors
    /// What could not be written.
    pub fn publish(&self, version: &str, knobs: Knobs) -> anyhow::Result<()> {
        let release = Release::new(version).with_knobs(knobs);
        release::write(&self.releases().join(version), &self.executable, &release)?;
        Ok(())
    }

    /// Lets the channel `latest` name a version.
    ///
    /// # Errors
    /// What could not be written.
    pub fn name_latest(&self, version: &str) -> anyhow::Result<()> {
        let (link, new) = (self.releases().join("latest"), self.releases().join(".latest"));
        std::os::unix::fs::symlink(version, &new)?;
        std::fs::rename(new, link)?;
        Ok(())
    }

    /// The directory of a sealed generation.
    #[must_use]
    pub fn generation(&self, number: u32) -> PathBuf {
        self.state().join("services").join(SERVICE).join("generations").join(format!("{number:04}"))
    }

    /// Starts the daemon as a process of its own and waits until it answers.
    ///
    /// # Errors
    /// It ends, or does not answer in time; its last lines are told.
    pub async fn start_daemon(&mut self) -> anyhow::Result<()> {
        self.start_daemon_with(&[]).await
    }

    /// Starts the daemon with further variables in its environment and waits until it answers.
    ///
    /// # Errors
    /// As [`World::start_daemon`].
    pub async fn start_daemon_with(&mut self, env: &[(&str, &str)]) -> anyhow::Result<()> {
        let log = OpenOptions::new().create(true).append(true).open(self.daemon_log())?;
        let mut command = self.program();
        command
            .arg("--config")
            .arg(self.config())
            .args(["serve", "--stop-services"])
            .envs(env.iter().copied());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
        self.daemon = Some(child.context("starting the daemon")?);
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

    fn program(&self) -> Command {
        let mut words =
            self.through.iter().map(std::ffi::OsString::from).chain([self.executable.clone().into()]);
        let mut command = Command::new(words.next().expect("the program itself is one"));
        command.args(words);
        command
    }

    /// The daemon's process.
    #[must_use]
    pub fn daemon_mut(&mut self) -> Option<&mut Child> {
        self.daemon.as_mut()
    }

    /// The last lines of the daemon's log.
    #[must_use]
    pub fn tail_of_daemon_log(&self) -> String {
        let text = std::fs::read_to_string(self.daemon_log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }

    /// Kills the daemon, and nothing else, with SIGKILL.
    ///
    /// # Errors
    /// If there is none.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let mut child = self.daemon.take().context("there is no daemon to kill")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The daemon, asked over its socket.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&Layout::at(self.state(), self.state().join("run")))
    }

    /// Types a command as it was told, and `more` behind it.
    ///
    /// # Errors
    /// It is none of ours, or does not end in time.
    pub async fn type_in(&self, told: &str, more: &str) -> anyhow::Result<Output> {
        let words =
            told.strip_prefix("cutover ").with_context(|| format!("`{told}` is no command of ours"))?;
        let ours = self.program();
        let program = std::iter::once(ours.get_program()).chain(ours.get_args());
        let program: Vec<String> = program.map(|word| shell::quoted(&word.to_string_lossy())).collect();
        let mut shell = tokio::process::Command::new("/bin/sh");
        shell
            .arg("-c")
            .arg(format!("exec {} {words} {more}", program.join(" ")))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(LIMIT, shell.output()).await.context("the command does not end")?;
        output.context("running the told command")
    }

    /// What a person types for `cutover WORDS` in this world, as its daemon tells it.
    #[must_use]
    pub fn typed(&self, words: &str) -> String {
        format!("cutover --config {} {words}", shell::quoted(&self.config().to_string_lossy()))
    }

    /// Runs the command line as a person does.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn cutover(&self, words: &[&str]) -> anyhow::Result<Output> {
        let mut command = tokio::process::Command::from(self.program());
        command.arg("--config").arg(self.config()).args(words).stdin(Stdio::null());
        let output =
            tokio::time::timeout(LIMIT, command.output()).await.context("the command does not end")?;
        output.context("running the command line")
    }

    /// Begins an update and returns its run.
    ///
    /// # Errors
    /// The daemon's refusal.
    pub async fn update(&self, version: &str) -> anyhow::Result<RunId> {
        let answer =
            self.client().call("update.run", json!({ "service": SERVICE, "version": version })).await?;
        let run: Option<RunId> = serde_json::from_value(answer["runId"].clone())?;
        run.context("the order began no run")
    }

    /// The end of a run, also across the daemon's death.
    ///
    /// # Errors
    /// If it does not end in time.
    pub async fn end_of(&self, run: &RunId) -> anyhow::Result<Report> {
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
    ///
    /// # Errors
    /// If it does not come about in time.
    pub async fn until(&self, what: &str, wanted: impl Fn(&View) -> bool) -> anyhow::Result<View> {
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
    ///
    /// # Errors
    /// If it is not verified.
    pub async fn install(&self, version: &str) -> anyhow::Result<Report> {
        let report = self.end_of(&self.update(version).await?).await?;
        if !report.ok {
            bail!("the first installation failed: {} {:?}", report.sentence, report.causes);
        }
        Ok(report)
    }

    /// Ends everything that this world started.
    ///
    /// # Errors
    /// If the daemon that is to end it cannot be started.
    pub async fn end(mut self) -> anyhow::Result<()> {
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

    /// Ends what a killed daemon left running: every process of this program that names this world's directory, of a release in
    /// it, or that a keeper of it has started, whatever its program is.
    fn end_leftovers(&self) {
        let begun = Instant::now();
        while begun.elapsed() < LIMIT {
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            for pid in left {
                // One that has ended in the meantime needs no signal.
                let _ = kill_process(pid, Signal::KILL);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn leftovers(&self) -> Vec<Pid> {
        let directory = self.path().as_os_str().as_encoded_bytes();
        let intent = [cutover_intent::FILE_VARIABLE.as_bytes(), b"=", directory].concat();
        let has = |path: PathBuf, text: &[u8]| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text)
        };
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let own = i32::try_from(std::process::id()).ok();
        pids.filter(|pid| Some(*pid) != own)
            .filter(|pid| {
                let of = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
                // A zombie has no program any more: it needs its parent, not a signal.
                let program = std::fs::read_link(of("exe")).unwrap_or_default();
                let names_it = || ["cmdline", "environ"].iter().any(|file| has(of(file), directory));
                let is_ours = program == self.executable && names_it();
                is_ours || program.starts_with(self.path()) || has(of("environ"), &intent)
            })
            .filter_map(Pid::from_raw)
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.terminate();
        self.end_leftovers();
        cutover_testkit::sealed::open_up(self.path());
    }
}

/// An address on loopback that nobody uses and that the system gives to nobody by itself: it is bound later, and left for
/// a moment at each restart of a service without a front.
///
/// # Errors
/// There is no such port.
pub fn free_address() -> anyhow::Result<SocketAddr> {
    Ok((Ipv4Addr::LOCALHOST, free_port()?).into())
}
