//! `adopt --undo`: the address goes back to who had it. Also what a take-over that fails does.

use super::super::arguments::Output;
use super::super::exit::ExitStatus;
use super::super::outlet;
use super::apply::write;
use super::takeover::{as_asked, probe, variables_in};
use super::{Desk, daemon};
use crate::predecessor::{Record, Step};
use crate::store::snapshot;
use anyhow::{Context, bail};
use serde_json::json;
use std::path::PathBuf;
use std::time::Duration;

/// Undoes a take-over, from wherever it is.
pub(super) async fn command(desk: &Desk, record: Record) -> anyhow::Result<ExitStatus> {
    give_back(desk, record, "a person asked for it").await?;
    Ok(ExitStatus::Done)
}

/// The record of a take-over that can be undone.
///
/// # Errors
/// What has to be done before, in words.
pub(super) fn allowed(desk: &Desk, record: Option<Record>) -> anyhow::Result<Record> {
    let Some(record) = record else {
        bail!("{} was never taken over: there is nothing to undo", desk.name);
    };
    if matches!(record.step(), Step::Returned { .. }) {
        bail!("{} has been given back already", desk.name);
    }
    if let Some(run) = desk.open_run()? {
        bail!(
            "run {run} is under way: `{} --apply` goes on to its end, `{}` gives it up while nothing has stopped",
            desk.adopting(),
            desk.line(&format!("cancel {}", desk.name))
        );
    }
    let old = &record.predecessor.package.version;
    if let Some(now) = desk.current()?.filter(|now| now.release.version != *old && !record.is_given_back()) {
        let name = &desk.name;
        let back = match desk.store().imported_as(old)? {
            Some(found) => {
                format!("`{}`", desk.line(&format!("rollback {name} --to {found} --data restore")))
            }
            None => format!("to one that `{}` lists", desk.line(&format!("generations {name}"))),
        };
        bail!(
            "{name} is at {} now, and the old service is {old}: its state may not be readable any more. Go back first, {back}, then \
             give it back",
            now.release.version
        );
    }
    Ok(record)
}

/// Gives the address back and proves that the old service answers there. Must be idempotent: it may run again after a crash,
/// of a daemon that did it too.
pub(super) async fn give_back(desk: &Desk, mut record: Record, why: &str) -> anyhow::Result<()> {
    let settings = desk.settings(&record)?;
    let variables = variables_in(&record)?;
    let asked = probe(&as_asked(settings.clone(), &variables), &variables)?;
    let limit = settings.policy.start_deadline;
    for file in record.terms.files.iter().filter(|file| !file.path.exists() && !is_returned(&record)) {
        // Ending what is ours takes its configuration, which a return that was killed may have removed.
        write(file)?;
    }
    let had_a_daemon = daemon::end(desk).await?;
    crate::crash_point!("adopt: daemon ended");
    let (took, left) = {
        // Held until the old one answers: no daemon begins in between.
        let _lock = super::super::serve::lock(&desk.scene.layout)?;
        // The daemon may have been at it, or have done it.
        record = Record::read(&desk.service())?.unwrap_or(record);
        if let Step::Returned { gap_ms } = record.step() {
            (Duration::from_millis(*gap_ms), left(&record))
        } else {
            if !matches!(record.step(), Step::Returning { .. }) {
                record.add(Step::Returning { why: why.to_owned() })?;
            }
            desk.say("ending what is ours");
            let executable = std::env::current_exe().context("finding this program")?;
            let inherited: Vec<_> = std::env::vars_os().collect();
            crate::conductor::vacate(settings, desk.scene.layout.clone(), executable, &inherited).await?;
            desk.say("bringing the old service back");
            let took = record.bring_back(&desk.service(), &asked, limit).await?;
            let left = record.remove_files();
            record.add(Step::Returned { gap_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) })?;
            (took, left)
        }
    };
    if had_a_daemon {
        daemon::leave_one_for_others(desk)?;
    }
    print(desk, &record, why, took, &left);
    Ok(())
}

fn is_returned(record: &Record) -> bool {
    matches!(record.step(), Step::Returned { .. })
}

/// The files of a take-over that were left because somebody changed them.
pub(super) fn left(record: &Record) -> Vec<PathBuf> {
    record.terms.files.iter().map(|file| file.path.clone()).filter(|path| path.exists()).collect()
}

/// Links to our copies of plugins that nobody could take away: what serves again runs with them, or without the plugin.
fn seated(desk: &Desk) -> Vec<PathBuf> {
    let generations = desk.store().real_generations_dir();
    let seats = snapshot::seats(&desk.service()).unwrap_or_default().into_iter();
    seats.filter(|seat| seat.is_given(&generations)).map(|seat| seat.link()).collect()
}

pub(super) fn print(desk: &Desk, record: &Record, why: &str, took: Duration, left: &[PathBuf]) {
    let (old, seated) = (&record.predecessor, seated(desk));
    if desk.scene.json == Output::Json {
        let told = json!({
            "service": desk.name, "version": old.package.version, "returnedMs": took.as_millis(), "left": left, "seated": seated,
            "why": why,
        });
        outlet::result(format_args!("{told:#}"));
        return;
    }
    outlet::result(format_args!(
        "{}: {} {} answers on {} again, verified after {took:.1?}.",
        desk.name, old.package.name, old.package.version, old.addresses[0]
    ));
    for path in left {
        outlet::result(format_args!(
            "{} was changed since it was written: take {} out of it yourself.",
            path.display(),
            desk.name
        ));
    }
    for link in seated {
        outlet::result(format_args!(
            "{} leads to our copy of a plugin still: end the service, remove that link, give what lies beside it as .*.cutover-aside \
             its name, and start the service.",
            link.display()
        ));
    }
}
