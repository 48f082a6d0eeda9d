//! `adopt --apply`: each step finds out whether it is done already, so a take-over that was killed goes on where it was.

use super::super::arguments::Output;
use super::super::client::Client;
use super::super::exit::ExitStatus;
use super::super::follow::{self, Show};
use super::super::outlet;
use super::environment::carried;
use super::takeover::{Takeover, import};
use super::{Desk, daemon, plugins, undo};
use crate::conductor::View;
use crate::predecessor::{self, Record, Step, Terms, Written};
use anyhow::{Context, bail};
use cutover_core::{Installed, Report, RunId};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a take-over is gone on with whose run nobody brings to its end.
const TRIES: u32 = 3;
/// How long the daemon may take to settle it, beside the old service's start and who else starts that again.
const SETTLING: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// Whether a take-over can begin. Nothing is written yet.
///
/// # Errors
/// What speaks against it.
pub(super) async fn may_begin(desk: &Desk, takeover: &Takeover) -> anyhow::Result<()> {
    let old = &takeover.predecessor;
    if let Some(why) = &takeover.obstacle {
        bail!(
            "pid {} runs from {}, which is {}, and {why}: restart it, so that it runs what lies there, then adopt it",
            old.instance.pid,
            old.package.root.display(),
            old.package.version
        );
    }
    if daemon::answers(desk).await? {
        bail!(
            "a daemon runs in {}, and its configuration had no {} when it began: end it (its services go on) and type this again, which \
             starts it with both",
            desk.scene.layout.state.display(),
            desk.name
        );
    }
    if desk.has_a_story()? {
        bail!(
            "the journal tells of a service {} that had a version of its own: choose another --name, so that what is known of that \
             one is not taken for this one's",
            desk.name
        );
    }
    for file in &takeover.files {
        if file.path.exists() {
            bail!(
                "{} is there already and is not overwritten: move it away, or choose another --name",
                file.path.display()
            );
        }
    }
    Ok(())
}

/// Begins a take-over.
pub(super) async fn begin(desk: &Desk, takeover: Takeover) -> anyhow::Result<ExitStatus> {
    crate::conductor::private_directory(&desk.scene.layout.state)?;
    let after = desk.chronicle()?.and_then(|told| told.latest().map(|run| run.run.clone()));
    for (plugin, why) in &takeover.plugins.left {
        desk.say(&plugins::stays(plugin, why));
    }
    for note in takeover.notes() {
        desk.say(&format!("note: {note}"));
    }
    let (along, whereabouts) = (takeover.import.plugins, takeover.whereabouts);
    let terms = Terms {
        files: takeover.files,
        after,
        along,
        told: whereabouts.told,
        state: Some(whereabouts.state),
        command: desk.adopting(),
    };
    let record = Record::begin(&desk.service(), takeover.predecessor, terms)?;
    go_on(desk, record).await
}

/// Goes on with a take-over, from wherever it is. The daemon settles it, either way; this follows.
pub(super) async fn go_on(desk: &Desk, mut record: Record) -> anyhow::Result<ExitStatus> {
    for _ in 0..TRIES {
        let error = match taken(desk, &mut record).await {
            Ok(Ended::Taken(told)) => {
                desk.print(&record, &told);
                return Ok(ExitStatus::Done);
            }
            Ok(Ended::GivenBack { why, took }) => {
                daemon::end_or_restart(desk).await?;
                undo::print(desk, &record, &why, took, &undo::left(&record));
                return Ok(ExitStatus::UpdateFailed);
            }
            Err(error) => error,
        };
        // The daemon may have written to it.
        record = Record::read(&desk.service())?.unwrap_or(record);
        let why = format!("{error:#}");
        if desk.open_run()?.is_none() {
            if let Some(now) = desk.current()? {
                bail!("{}", unsettled(desk, &record, &now, &why));
            }
            // No daemon does it.
            desk.say(&format!("the take-over failed: {why}\ngiving back what was taken"));
            undo::give_back(desk, record, &why).await?;
            return Ok(ExitStatus::UpdateFailed);
        }
        // A run that is under way is not taken the ground from under its feet.
        desk.say(&format!("{why}; the run is under way, so it is gone on with"));
    }
    bail!(
        "the daemon does not stay to end the run that is under way (its words are in {}): it is gone on with as soon as one is \
         started, `{} --apply` does that",
        daemon::log(desk).display(),
        desk.adopting()
    )
}

/// What is ours serves, or a person decides: nothing is given back unasked.
fn unsettled(desk: &Desk, record: &Record, now: &Installed, why: &str) -> String {
    let unit = record.predecessor.unit.as_ref().filter(|unit| unit.is_enabled);
    let unit = unit.map_or_else(String::new, |unit| {
        format!("; {} is disabled as soon as that is settled, which the daemon goes on trying", unit.name)
    });
    format!(
        "{why}\n{0} {1} was installed here since, so the old service is not brought back unasked: `{2}` tells what serves, `{3} \
         --undo` gives it back{unit}",
        desk.name,
        now.release.version,
        desk.line(&format!("status {}", desk.name)),
        desk.adopting()
    )
}

/// A take-over that is done.
struct Told {
    gap_ms: u64,
    stop_ms: Option<u64>,
    run: Option<RunId>,
}

/// How a take-over ended.
enum Ended {
    Taken(Told),
    GivenBack { why: String, took: Duration },
}

async fn taken(desk: &Desk, record: &mut Record) -> anyhow::Result<Ended> {
    for file in &record.terms.files {
        write(file)?;
        crate::crash_point!("adopt: file written");
    }
    if matches!(record.step(), Step::Found { .. }) {
        let import = import(&record.predecessor, record.terms.along.clone());
        desk.say(&format!("copying {}", import.root.display()));
        let generation = desk.store().import(&import, record.lines[0].at, |_| ()).await?;
        record.add(Step::Imported { generation })?;
    }
    let attended = daemon::attend(desk).await?;
    let report = run(desk, record).await?;
    if !report.ok {
        let causes: Vec<&str> = report.causes.iter().map(|cause| cause.fault.detail.as_str()).collect();
        let why = format!("{}: {}", report.sentence, causes.join("; "));
        // Whether anything is given back is the daemon's to say.
        desk.say(&format!("the last run failed: {why}"));
    }
    settled(desk, record).await?;
    drop(attended);
    match record.step() {
        Step::Taken { gap_ms } => {
            let ending = record.when(|step| *step == Step::Ending);
            let gone = record.when(|step| *step == Step::Gone);
            let stop_ms = gone.zip(ending).map(|(gone, ending)| gone.saturating_sub(ending));
            Ok(Ended::Taken(Told { gap_ms: *gap_ms, stop_ms, run: report.run_id }))
        }
        Step::Returned { gap_ms } => {
            let why = record.lines.iter().rev().find_map(|line| match &line.step {
                Step::Returning { why } => Some(why.clone()),
                _ => None,
            });
            let took = Duration::from_millis(*gap_ms);
            Ok(Ended::GivenBack { why: why.unwrap_or(report.sentence), took })
        }
        _ => bail!("{}", report.sentence),
    }
}

/// Waits until the daemon has settled it. Its trouble with that, if it lasts, is an error.
async fn settled(desk: &Desk, record: &mut Record) -> anyhow::Result<()> {
    let client = Client::new(&desk.scene.layout);
    let begun = Instant::now();
    let limit = desk.settings(record)?.policy.start_deadline + predecessor::AGAIN_MAX + SETTLING;
    let mut is_return_told = false;
    loop {
        *record = Record::read(&desk.service())?.context("the record of the take-over is gone")?;
        if record.is_given_back() && !std::mem::replace(&mut is_return_told, true) {
            desk.say("the take-over failed: giving back what was taken");
        }
        if matches!(record.step(), Step::Taken { .. } | Step::Returned { .. }) {
            return Ok(());
        }
        // A person decides about maintenance; the daemon does not go on by itself.
        let view = client.view(json!({ "service": desk.name })).await;
        if let Ok(view) = &view
            && view.report.standing == "maintenance"
            && view.current.is_some()
        {
            bail!("{}", view.report.sentence);
        }
        // A person ends whoever has the address, or gives it to them.
        if let Ok(View { alarm: Some(alarm), current: Some(_), .. }) = &view
            && record.is_revived()
        {
            bail!("{}", alarm.fault.detail);
        }
        if begun.elapsed() > limit {
            let trouble = match view {
                Ok(view) => view.trouble.unwrap_or(view.report.sentence),
                Err(error) => format!("{error:#}"),
            };
            bail!("the daemon has not settled it after {limit:?}: {trouble}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// The run that takes over: the one under way, the one that has ended, or a new one.
async fn run(desk: &Desk, record: &Record) -> anyhow::Result<Report> {
    let client = Client::new(&desk.scene.layout);
    let name = desk.name.as_str();
    let view: View = serde_json::from_value(client.call("status", json!({ "service": name })).await?)?;
    let show = if desk.scene.json == Output::Json { Show::Nothing } else { Show::Progress };
    let open = view.report.run_id.clone().filter(|_| view.report.ended.is_none());
    let run = match (open, &view.current) {
        (Some(run), _) => run,
        // It has ended, and is what is told of the service.
        (None, Some(_)) => return Ok(view.report),
        (None, None) if !record.is_in_charge() => return Ok(view.report),
        (None, None) => {
            let version = &record.predecessor.package.version;
            let answer = client.call("update.run", json!({ "service": name, "version": version })).await?;
            let run: Option<RunId> = serde_json::from_value(answer["runId"].clone())?;
            run.context("the daemon took the order and names no run")?
        }
    };
    let ended = follow::to_the_end(&client, name, &run, None, show).await?;
    ended.context("the run has no end")
}

/// Writes a file that nobody else may have written. One of ours that is there whole is left; a torn one of a power cut is
/// not ours to tell from a stranger's, so it is written beside and moved.
pub(super) fn write(file: &Written) -> anyhow::Result<()> {
    let path = &file.path;
    match std::fs::read_to_string(path) {
        Ok(text) if text == file.text => return Ok(()),
        Ok(_) => bail!("{} is there with another content and is not overwritten", path.display()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    }
    let failed = || format!("writing {}", path.display());
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).with_context(failed)?;
    let name = path.file_name().with_context(failed)?.to_string_lossy();
    // What a killed command left; nobody else gives a file this name.
    let new = path.with_file_name(format!(".{name}.cutover-adopt"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).with_context(failed),
        _ => {}
    }
    let mut opened =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).with_context(failed)?;
    opened.write_all(file.text.as_bytes()).and_then(|()| opened.sync_all()).with_context(failed)?;
    // A link never replaces what is there.
    std::fs::hard_link(&new, path).with_context(failed)?;
    std::fs::remove_file(&new).with_context(failed)?;
    File::open(directory).and_then(|directory| directory.sync_all()).with_context(failed)
}

impl Desk {
    fn print(&self, record: &Record, told: &Told) {
        let old = &record.predecessor;
        let unwritable = carried(&old.env).unwritable;
        if self.scene.json == Output::Json {
            let done = json!({
                "service": self.name,
                "unwritable": unwritable,
                "version": old.package.version,
                "run": told.run,
                "gapMs": told.gap_ms,
                "stopMs": told.stop_ms,
            });
            outlet::result(format_args!("{done:#}"));
            return;
        }
        let unit = old.unit.as_ref().map_or_else(String::new, |unit| {
            format!("{} is stopped and starts no more by itself; its file is as it was.\n", unit.name)
        });
        outlet::result(format_args!(
            "{}: {} {} is taken over and verified.\nThe gap was {} ms: {} ms for the old process's end, the rest for the start and \
             the proof of the same version.\n{unit}The daemon runs; let it start by itself from now on: `{}`. `{} --undo` gives \
             everything back.",
            self.name,
            old.package.name,
            old.package.version,
            told.gap_ms,
            told.stop_ms.map_or_else(|| "?".to_owned(), |ms| ms.to_string()),
            self.line("serve"),
            self.adopting(),
        ));
        if !unwritable.is_empty() {
            outlet::result(format_args!(
                "NOT carried over, because a line of a file cannot hold them: {}. What needs them does not work until they are in \
                 `[service.{}.env]`.",
                unwritable.join(", "),
                self.name
            ));
        }
    }
}
