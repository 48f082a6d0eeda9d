//! One scenario under load: what was sent, what came of it, what serves now, and whether that is right.

use super::world::{SERVICE, World};
use crate::conductor::View;
use anyhow::Context;
use cutover_core::{Act, Report, Resolution, RunId, Status};
use cutover_testkit::load::{self, Entry, Load, LoadPlan, SocketPlan};
use serde::Serialize;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

/// Requests per second.
const RATE: u32 = 100;
/// WebSocket clients beside the requests.
const SOCKETS: usize = 4;
/// Load before and after what a scenario does.
const CALM: Duration = Duration::from_millis(700);
/// Above the service's own stop and start a request may wait so much longer.
const SLACK: Duration = Duration::from_secs(1);

/// A scenario as it ran.
pub(super) struct Story {
    pub name: &'static str,
    /// The run that it is about.
    pub report: Report,
    /// What can be seen at its end.
    pub view: View,
    /// The load, from before to after.
    pub load: load::Report,
    /// A figure worth showing beside the row.
    pub note: String,
    /// What was not as it should be.
    pub wrong: Vec<String>,
}

/// A story as `xtask measure` reads it: one JSON line.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line<'a> {
    pub scenario: &'a str,
    pub status: Option<Status>,
    pub resolution: Resolution,
    pub serves: Option<&'a str>,
    pub sent: u64,
    pub failed: u64,
    pub cut: u64,
    pub longest_wait_ms: u64,
    pub restart_ms: u64,
    pub note: &'a str,
    pub wrong: &'a [String],
}

impl<'a> Line<'a> {
    pub(super) fn of(scenario: &'a str, story: &'a Story) -> Self {
        Self {
            scenario,
            status: story.report.status,
            resolution: story.report.resolution,
            serves: story.view.report.serving.version.as_deref(),
            sent: story.load.sent,
            failed: story.load.failed,
            cut: story.load.cut,
            longest_wait_ms: story.load.longest_wait_us / 1000,
            restart_ms: u64::try_from(restart_of(&story.report).as_millis()).unwrap_or(u64::MAX),
            note: &story.note,
            wrong: &story.wrong,
        }
    }
}

impl Story {
    /// The story of `run`: that is the one which the report must be about, and the last that the daemon tells of.
    pub(super) fn new(
        name: &'static str,
        run: &RunId,
        report: Report,
        view: View,
        load: load::Report,
    ) -> Self {
        let told = [report.run_id.clone(), view.report.run_id.clone()];
        let mut story = Self { name, report, view, load, note: String::new(), wrong: Vec::new() };
        for of in told {
            story.expect(&format!("told of {of:?} instead of {run}"), (of.as_ref() == Some(run)).into());
        }
        story
    }

    /// Notes what is wrong unless `right` holds.
    pub(super) fn expect(&mut self, what: &str, right: Truth) {
        if right == Truth::No {
            self.wrong.push(what.to_owned());
        }
    }

    pub(super) fn told(&mut self, status: Status, resolution: Resolution) {
        let (is, was) = (self.report.status, self.report.resolution);
        self.expect(&format!("told {is:?}, {was:?}"), (is == Some(status) && was == resolution).into());
    }

    pub(super) fn serves(&mut self, version: &str) {
        let serving = self.view.report.serving.version.clone();
        self.expect(
            &format!("serves {serving:?} instead of {version}"),
            (serving.as_deref() == Some(version)).into(),
        );
    }

    /// Another process serves than before, and it is the one that was proven.
    pub(super) fn replaced(&mut self, before: &View) {
        let (old, new) = (before.process.clone(), self.view.process.clone());
        let is_another = old.as_ref().zip(new.as_ref()).is_some_and(|(old, new)| old.pid != new.pid);
        let proven = self.view.report.serving.instance.clone();
        let is_proven = proven.is_some() && proven == new;
        self.expect(&format!("{old:?} was not replaced: {new:?}"), is_another.into());
        self.expect(&format!("{new:?} runs and {proven:?} was proven"), is_proven.into());
    }

    /// There was traffic, no request failed, no WebSocket was refused, and nobody waited longer than the service itself took.
    pub(super) fn nobody_noticed(&mut self) {
        let load = &self.load;
        let failed = format!("{} of {} requests failed: {:?}", load.failed, load.sent, load.failed_by);
        let refused = format!("{} WebSocket connections were refused", load.sockets.refused);
        let abnormal = format!(
            "{} WebSockets were closed without 1012: {:?}",
            load.sockets.closed_abnormal, load.sockets.closed_by
        );
        let answered = load.sockets.answered;
        let used = format!("{} requests were sent and {answered} WebSocket pings answered", load.sent);
        let is_used = load.sent > 0 && answered > 0;
        let (none, first_try, farewell) =
            (load.failed == 0, load.sockets.refused == 0, load.sockets.closed_abnormal == 0);
        let (waited, bound) = (Duration::from_micros(load.longest_wait_us), self.bound());
        self.expect(&used, is_used.into());
        self.expect(&failed, none.into());
        self.expect(&refused, first_try.into());
        self.expect(&abnormal, farewell.into());
        self.expect(&format!("a request waited {waited:?}, more than {bound:?}"), (waited <= bound).into());
    }

    /// 1.05 times what the run itself took from the first stop to its last proof, and a second.
    fn bound(&self) -> Duration {
        restart_of(&self.report).mul_f64(1.05) + SLACK
    }
}

/// From the first Stop (or Signal) of a run to the end of its last proof.
pub(super) fn restart_of(report: &Report) -> Duration {
    let began = report
        .steps
        .iter()
        .find(|step| matches!(step.name, Act::Stop | Act::Signal))
        .map(|step| step.started);
    let ready = report.steps.iter().rev().find(|step| step.name == Act::Prove).and_then(|step| step.ended);
    let span = began.zip(ready).map_or(0, |(began, ready)| ready.saturating_sub(began));
    Duration::from_millis(span)
}

/// Whether something is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Truth {
    Yes,
    No,
}

impl From<bool> for Truth {
    fn from(truth: bool) -> Self {
        if truth { Self::Yes } else { Self::No }
    }
}

/// Load on a world's front.
pub(super) fn load(world: &World, log: Option<PathBuf>) -> anyhow::Result<Load> {
    let plan = LoadPlan {
        rate: RATE,
        mix: vec![
            Entry::Get { path: "/".into() },
            Entry::Get { path: "/chunk/{n}".into() },
            Entry::Echo { path: "/echo?ms=30".into(), bytes: 4000 },
            Entry::Stream { path: "/slow?ms=100&pieces=5&size=100".into(), bytes: 500 },
        ],
        sockets: Some(SocketPlan::pings(SOCKETS, "/ws")),
        log,
        ..LoadPlan::new(world.address)
    };
    Load::start(plan).context("starting the load")
}

/// A little ordinary traffic.
pub(super) async fn calm() {
    tokio::time::sleep(CALM).await;
}

/// Updates as a person does, and reads the printed report.
pub(super) async fn update(world: &World, version: &str) -> anyhow::Result<(Report, i32)> {
    reported(world.cutover(&["update", SERVICE, "--to", version, "--json"]).await?)
}

/// A report that a command printed, and its exit code.
pub(super) fn reported(output: Output) -> anyhow::Result<(Report, i32)> {
    let code = output.status.code().context("the command was killed")?;
    let report = serde_json::from_slice(&output.stdout).with_context(|| {
        format!("the command printed no report: {}", String::from_utf8_lossy(&output.stderr))
    })?;
    Ok((report, code))
}
