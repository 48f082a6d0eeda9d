//! Commands that ask a daemon, or the journal where that is enough.

use super::arguments::{Command, Data, Output, Service, Wait, Wanted, Way};
use super::client::{Client, NoDaemon};
use super::exit::{self, ExitStatus, Failed};
use super::follow::{self, Show};
use super::{Scene, offline, outlet, print};
use crate::conductor::{Plan, View};
use anyhow::Context as _;
use cutover_core::RunId;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Seek, SeekFrom};
use std::time::{Duration, Instant};

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(250);
/// How long trouble may last before an order about the process counts as failed.
const TROUBLE: Duration = Duration::from_secs(30);

/// How long a daemon that was started just before the command may take until it answers.
const BEGINNING: Duration = Duration::from_secs(3);

pub(super) async fn command(scene: &Scene, command: Command) -> anyhow::Result<ExitStatus> {
    let desk = Desk { client: Client::new(&scene.layout), scene };
    if !is_told_without_a_daemon(&command) {
        desk.client.awaited(BEGINNING).await;
    }
    match command {
        Command::Plan { wanted, explain } => desk.plan(&wanted, explain).await,
        Command::Update { wanted, dry_run: true, .. } => desk.plan(&wanted, false).await,
        Command::Update { wanted, hold, wait, .. } => {
            let params = json!({
                "service": wanted.service, "version": wanted.to, "channel": wanted.channel, "hold": hold,
            });
            desk.run("update.run", params, &wait).await
        }
        Command::Rollback { service, to, data, wait } => {
            let data = match data {
                Data::Keep => "keep",
                Data::Restore => "restore",
            };
            let params = json!({ "service": service.service, "generation": to, "data": data });
            desk.run("update.rollback", params, &wait).await
        }
        Command::Recover { service, way, wait } => {
            let params = json!({ "service": service, "recover": way_word(&way) });
            desk.run("update.recover", params, &wait).await
        }
        Command::Start { service, wait } => desk.rest("service.start", &service, &wait).await,
        Command::Stop { service, wait } => desk.rest("service.stop", &service, &wait).await,
        Command::Restart { service, wait } => desk.rest("service.restart", &service, &wait).await,
        Command::Cancel { service } => desk.cancel(&service).await,
        Command::Hold { service } => desk.hold(&service).await,
        Command::Approve { service, plan, wait } => {
            let params = json!({ "service": service.service, "plan": plan });
            desk.run("update.approve", params, &wait).await
        }
        Command::Status { service, watch } => desk.status(service.as_deref(), watch).await,
        Command::History { service, limit } => desk.history(service.as_deref(), limit),
        Command::Show { run } => desk.show(&RunId(run)).await,
        Command::Logs { service, lines, follow } => desk.logs(&service, lines, follow).await,
        Command::Generations { service } => {
            let value = desk.client.call("generations.list", service_params(&service)).await?;
            desk.print(&value, print::generations);
            Ok(ExitStatus::Done)
        }
        Command::Open => desk.open().await,
        Command::Demo(_)
        | Command::Serve { .. }
        | Command::Config { .. }
        | Command::Check(_)
        | Command::Adopt(_) => unreachable!("BUG: dispatched before"),
    }
}

/// Whether the journal is asked where no daemon answers.
fn is_told_without_a_daemon(command: &Command) -> bool {
    matches!(
        command,
        Command::Status { .. } | Command::History { .. } | Command::Show { .. } | Command::Logs { .. }
    )
}

fn service_params(service: &Service) -> Value {
    json!({ "service": service.service })
}

/// What an order about the process alone asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// Another process than before serves, proven.
    Served,
    /// No process is left.
    Stopped,
}

impl Rest {
    /// How it ended, if it did. Proof is a process that serves; a service that cannot come up by itself is no success.
    fn ended(self, before: &View, now: &View) -> Option<ExitStatus> {
        let serving = &now.report.serving;
        match self {
            Self::Stopped => now.stopped.then_some(ExitStatus::Done),
            Self::Served if serving.posture == "serve" && serving.instance.is_some() => {
                let is_another = serving.instance != before.report.serving.instance;
                let generation = before.current.as_ref().map(|current| current.generation);
                let is_the_same_version = serving.generation == generation;
                is_another.then_some(match is_the_same_version {
                    true => ExitStatus::Done,
                    false => ExitStatus::RestartFailed,
                })
            }
            Self::Served => {
                // A run out of maintenance that is being prepared goes on by itself, unless it waits to be let.
                let goes_on = now.report.phase.starts_with("preparing") && now.report.awaits.is_none();
                let needs_a_person = !now.report.recovery.is_empty() && !goes_on;
                needs_a_person.then_some(ExitStatus::RestartFailed)
            }
        }
    }
}

/// Trouble is tried again by itself; one that lasts is told as a failure, and goes on being tried. What was known before
/// the order says nothing about it.
fn lasting(since: &mut Option<Instant>, before: &View, view: &View) -> Option<ExitStatus> {
    match view.trouble {
        None => *since = None,
        Some(_) if view.trouble == before.trouble => *since = None,
        Some(_) if since.get_or_insert_with(Instant::now).elapsed() > TROUBLE => {
            return Some(ExitStatus::RestartFailed);
        }
        Some(_) => {}
    }
    None
}

fn way_word(way: &Way) -> &'static str {
    match (way.retry, way.rollback) {
        (true, _) => "retry",
        (_, true) => "rollback",
        _ => "accept",
    }
}

struct Desk<'a> {
    client: Client,
    scene: &'a Scene,
}

impl Desk<'_> {
    fn print<T: Serialize>(&self, value: &T, text: impl Fn(&T) -> String) {
        match self.scene.json {
            Output::Json => outlet::result(format_args!(
                "{:#}",
                serde_json::to_value(value).expect("what is printed is plain data")
            )),
            Output::Text => outlet::result(text(value)),
        }
    }

    /// Prints where the page is. It starts no browser: its arguments, and with them the token, are read by everybody.
    async fn open(&self) -> anyhow::Result<ExitStatus> {
        let answer = self.client.call("page.open", Value::Null).await?;
        self.print(&answer, |answer| answer["address"].as_str().unwrap_or_default().to_owned());
        Ok(ExitStatus::Done)
    }

    async fn plan(&self, wanted: &Wanted, explain: bool) -> anyhow::Result<ExitStatus> {
        let params = json!({ "service": wanted.service, "version": wanted.to, "channel": wanted.channel });
        let plan: Plan = serde_json::from_value(self.client.call("update.plan", params).await?)?;
        self.print(&plan, |plan| plan_text(plan, explain));
        Ok(if plan.is_blocked() { ExitStatus::UpdateFailed } else { ExitStatus::Done })
    }

    /// Gives an order that begins a run and follows it.
    async fn run(&self, method: &str, params: Value, wait: &Wait) -> anyhow::Result<ExitStatus> {
        let answer = self.client.call(method, params).await?;
        let run: Option<RunId> = serde_json::from_value(answer["runId"].clone())?;
        let run = run.with_context(|| {
            format!("the daemon took the order and names no run: ask `{}`", self.line("status"))
        })?;
        self.follow(&answer, &run, wait).await
    }

    async fn follow(&self, answer: &Value, run: &RunId, wait: &Wait) -> anyhow::Result<ExitStatus> {
        let service = answer["service"].as_str().unwrap_or_default();
        let status = self.line(&format!("status {service}"));
        if wait.detach {
            self.print(answer, |_| format!("run {run} is under way; `{status}` shows it"));
            return Ok(ExitStatus::Scheduled);
        }
        let show = if self.scene.json == Output::Json { Show::Nothing } else { Show::Progress };
        match follow::to_the_end(&self.client, service, run, wait.limit(), show).await {
            Ok(Some(report)) => {
                self.print(&report, print::ending);
                Ok(exit::of_report(&report))
            }
            // The order was taken: whatever the daemon says of the service now, the run is not over.
            Err(error) if error.downcast_ref::<Failed>().is_some() => {
                outlet::aside(format_args!(
                    "{error:#}; run {run} goes on when the daemon has the service again"
                ));
                Ok(ExitStatus::Scheduled)
            }
            Err(error) => Err(error),
            Ok(None) => {
                self.print(answer, |_| format!("run {run} is still under way; `{status}` shows it"));
                Ok(ExitStatus::Scheduled)
            }
        }
    }

    /// Gives an order about the process alone and waits until what it asks for has come about. A parked run goes on
    /// with `start` and is followed.
    async fn rest(&self, method: &str, service: &Service, wait: &Wait) -> anyhow::Result<ExitStatus> {
        let before: View = self.client.view(service_params(service)).await?;
        let answer = self.client.call(method, service_params(service)).await?;
        let name = before.service.as_str();
        let run: Option<RunId> = serde_json::from_value(answer["runId"].clone())?;
        match (method, run) {
            ("service.start", Some(run)) => return self.follow(&answer, &run, wait).await,
            _ if wait.detach => {
                let status = self.line(&format!("status {name}"));
                self.print(&answer, |_| format!("{name}: accepted; `{status}` shows it"));
                return Ok(ExitStatus::Scheduled);
            }
            _ => {}
        }
        let wanted = match method {
            "service.stop" => Rest::Stopped,
            _ => Rest::Served,
        };
        let mut troubled = None;
        let ended = follow::until(&self.client, name, wait.limit(), async |view| {
            let ended = wanted.ended(&before, view).or_else(|| lasting(&mut troubled, &before, view));
            Ok(ended.map(|status| (status, view.clone())))
        });
        let (status, view) = match ended.await? {
            Some(ended) => ended,
            None => (ExitStatus::Scheduled, self.client.view(service_params(service)).await?),
        };
        self.print(&view, print::status);
        Ok(status)
    }

    /// Gives a run up. One that was parked has a way back to go, which is followed.
    async fn cancel(&self, service: &Service) -> anyhow::Result<ExitStatus> {
        let answer = self.client.call("update.cancel", service_params(service)).await?;
        if let Some(run) = serde_json::from_value::<Option<RunId>>(answer["runId"].clone())? {
            return self.follow(&answer, &run, &Wait { detach: false, timeout: None }).await;
        }
        let see = format!("see `{}`", self.line("status"));
        let word = |value: &Value| value.as_str().unwrap_or(&see).to_owned();
        self.print(&answer, |answer| {
            format!("{}: cancelled; {}", word(&answer["service"]), word(&answer["condition"]))
        });
        Ok(ExitStatus::Done)
    }

    async fn hold(&self, service: &Service) -> anyhow::Result<ExitStatus> {
        let answer = self.client.call("update.hold", service_params(service)).await?;
        let name = answer["service"].as_str().unwrap_or_default();
        let view: View = self.client.view(json!({ "service": name })).await?;
        self.print(&view, |view| format!("held before anything stops\n{}", print::status(view)));
        Ok(ExitStatus::Done)
    }

    async fn status(&self, service: Option<&str>, watch: bool) -> anyhow::Result<ExitStatus> {
        let params = service.map_or(Value::Null, |name| json!({ "service": name }));
        match self.client.call("status", params).await {
            Ok(answer) => {
                let broken: BTreeMap<String, String> =
                    serde_json::from_value(answer["broken"].clone()).unwrap_or_default();
                let views: Vec<View> = match service {
                    Some(_) => vec![serde_json::from_value(answer)?],
                    None => serde_json::from_value(answer["services"].clone())?,
                };
                self.print(&views, |views| texts(views, &broken));
                if self.scene.json == Output::Json {
                    not_begun(&broken).for_each(outlet::aside);
                }
                if watch {
                    tokio::select! {
                        ended = self.watch(service) => ended?,
                        () = outlet::unread() => {}
                    }
                }
                Ok(ExitStatus::Done)
            }
            Err(error) if error.downcast_ref::<NoDaemon>().is_some() => self.status_offline(service),
            Err(error) => Err(error),
        }
    }

    async fn watch(&self, service: Option<&str>) -> anyhow::Result<()> {
        let mut views = self.client.views(service).await?;
        let mut last = String::new();
        while let Some(view) = views.recv().await {
            let view = view?;
            let text = print::status(&view);
            if text != last {
                self.print(&view, print::status);
            }
            last = text;
        }
        Err(NoDaemon::at(&self.scene.layout).into())
    }

    /// What a person types to have this program do something in the same places.
    fn line(&self, words: &str) -> String {
        self.scene.layout.command(words)
    }

    fn status_offline(&self, service: Option<&str>) -> anyhow::Result<ExitStatus> {
        let reports = offline::standing(&self.scene.layout, service)?;
        outlet::aside(format_args!(
            "no daemon is running; this is what the journal says (start it with `{}`)",
            self.line("serve")
        ));
        self.print(&reports, |reports| reports.iter().map(print::ending).collect::<Vec<_>>().join("\n"));
        Ok(ExitStatus::Done)
    }

    fn history(&self, service: Option<&str>, limit: usize) -> anyhow::Result<ExitStatus> {
        let mut reports = offline::reports(&self.scene.layout, service)?;
        reports.truncate(limit);
        self.print(&reports, |reports| reports.iter().map(print::line).collect::<Vec<_>>().join("\n"));
        Ok(ExitStatus::Done)
    }

    async fn show(&self, run: &RunId) -> anyhow::Result<ExitStatus> {
        let Some(report) = offline::run(&self.scene.layout, run)? else {
            anyhow::bail!(exit::Failed(crate::api::Failure {
                code: "unknown_run".into(),
                message: format!("there is no run {run}; `{}` lists them", self.line("history")),
                refusal: None,
            }));
        };
        self.print(&report, print::run);
        Ok(ExitStatus::Done)
    }

    async fn logs(&self, service: &Service, lines: usize, follow: bool) -> anyhow::Result<ExitStatus> {
        let name = offline::named(&self.scene.layout, service.service.as_deref())?;
        let directory = self.scene.layout.service(&name);
        let tail = crate::api::tail(&directory, lines)?;
        self.print(&tail, |tail| tail.join("\n"));
        if follow {
            tokio::select! {
                ended = follow_log(&directory) => ended?,
                () = outlet::unread() => {}
            }
        }
        Ok(ExitStatus::Done)
    }
}

/// Prints what is appended to the youngest log, and goes on with the next instance's.
async fn follow_log(directory: &std::path::Path) -> anyhow::Result<()> {
    let mut path = crate::api::youngest(directory)?;
    let mut at = std::fs::metadata(&path)?.len();
    loop {
        tokio::time::sleep(LOOK).await;
        let now = crate::api::youngest(directory)?;
        let mut file = std::fs::File::open(&path)?;
        if file.metadata()?.len() < at {
            at = 0;
        }
        file.seek(SeekFrom::Start(at))?;
        let mut bytes = Vec::new();
        at += u64::try_from(file.read_to_end(&mut bytes)?).unwrap_or_default();
        outlet::raw(String::from_utf8_lossy(&bytes));
        if now != path {
            (path, at) = (now, 0);
        }
    }
}

fn texts(views: &[View], broken: &BTreeMap<String, String>) -> String {
    if views.is_empty() && broken.is_empty() {
        return "no service is configured; see `cutover config schema`".into();
    }
    views.iter().map(print::status).chain(not_begun(broken)).collect::<Vec<_>>().join("\n")
}

fn not_begun(broken: &BTreeMap<String, String>) -> impl Iterator<Item = String> {
    broken.iter().map(|(name, why)| format!("{name}: not begun: {why}"))
}

fn plan_text(plan: &Plan, explain: bool) -> String {
    let version = |installed: &Option<cutover_core::Installed>| {
        installed.as_ref().map_or_else(
            || "nothing".to_owned(),
            |i| {
                let plugins = i.release.plugins.iter().map(|plugin| format!(" + {plugin}"));
                format!("{}{} (generation {})", i.release.version, plugins.collect::<String>(), i.generation)
            },
        )
    };
    if plan.already_current {
        return format!("{}: {} is already current", plan.service, version(&plan.target));
    }
    let acts = match plan.is_blocked() {
        true => "stop at preflight; nothing is changed".to_owned(),
        false => plan.acts.iter().map(|act| format!("{act:?}")).collect::<Vec<_>>().join(", "),
    };
    let mut text = format!(
        "{}: {} -> {}\nstrategy {:?}, data {:?}\nwould do: {}\nspace: {}\nproof: {}",
        plan.service,
        version(&plan.before),
        version(&plan.target),
        plan.strategy,
        plan.data,
        acts,
        plan.space,
        plan.profile
    );
    text.push('\n');
    text.push_str(&print::findings(&plan.findings, explain));
    if let (Some(notes), Some(target)) = (&plan.notes, &plan.target) {
        let _ = write!(text, "\nwhat {} says is new in it:", target.release.version);
        notes.lines().for_each(|line| text.push_str(format!("\n  {line}").trim_end()));
    }
    text
}
