//! What can be said without a daemon: the journal is read as it stands, and whether the process that it names is there.

use super::exit::{self, Failed};
use crate::conductor::Chronicle;
use crate::config::Layout;
use crate::journal::Reader;
use crate::supervisor::process;
use anyhow::{Context as _, bail};
use cutover_core::{Report, RunId, Serving};
use std::time::Duration;

/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// The stories of all services in the journal.
pub(super) fn chronicles(layout: &Layout) -> anyhow::Result<Vec<(String, Chronicle)>> {
    let path = layout.journal();
    if !path.exists() {
        return Err(super::client::NoDaemon::at(layout).into());
    }
    let reader = Reader::open(&path, BUSY)?;
    let mut found = Vec::new();
    for name in reader.services()? {
        let chronicle = Chronicle::read(&reader, &name).with_context(|| format!("the journal of {name}"))?;
        found.push((name, chronicle));
    }
    Ok(found)
}

/// The service that somebody named; without a name the only one. Of one that is there the journal is not read: its logs
/// are to be seen also beside a damaged one.
///
/// # Errors
/// If there is no such service, or several and none was named.
pub(super) fn named(layout: &Layout, service: Option<&str>) -> anyhow::Result<String> {
    if let Some(name) = service {
        return match is_known(layout, name) {
            true => Ok(name.to_owned()),
            false => Err(unknown(name, &chronicles(layout)?).into()),
        };
    }
    match chronicles(layout)?.as_slice() {
        [(name, _)] => Ok(name.clone()),
        all => Err(exit::one_of(names(all)).into()),
    }
}

/// One that has no story yet has a directory, which the daemon made when it began it.
fn is_known(layout: &Layout, name: &str) -> bool {
    layout.service(name).is_dir()
}

fn unknown(name: &str, chronicles: &[(String, Chronicle)]) -> Failed {
    exit::usage(format!("no service {name} is known here; {}", exit::choice(names(chronicles))))
}

fn names(chronicles: &[(String, Chronicle)]) -> impl Iterator<Item = &str> {
    chronicles.iter().map(|(name, _)| name.as_str())
}

/// How every service (or one) stands, as far as that can be seen.
pub(super) fn standing(layout: &Layout, service: Option<&str>) -> anyhow::Result<Vec<Report>> {
    let wanted = wanted(layout, service)?.into_iter();
    Ok(wanted.map(|(name, chronicle)| chronicle.report(&name, chronicle.latest(), &layout.flags)).collect())
}

/// The reports of all runs of a service (or of all services), newest first.
pub(super) fn reports(layout: &Layout, service: Option<&str>) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for (name, chronicle) in wanted(layout, service)? {
        reports.extend(
            chronicle.records.iter().map(|record| chronicle.report(&name, Some(record), &layout.flags)),
        );
    }
    reports.sort_by_key(|report| std::cmp::Reverse(report.started));
    Ok(reports)
}

/// The stories that somebody asked for. A process that is gone proves nothing any more, whatever the journal says of it.
fn wanted(layout: &Layout, service: Option<&str>) -> anyhow::Result<Vec<(String, Chronicle)>> {
    let mut chronicles = chronicles(layout)?;
    if let Some(name) = service
        && !is_known(layout, name)
    {
        bail!(unknown(name, &chronicles));
    }
    chronicles.retain(|(name, _)| service.is_none_or(|wanted| wanted == name));
    for (_, chronicle) in &mut chronicles {
        let serving = &mut chronicle.state.serving;
        if let Serving::Proven(instance) | Serving::Waived(Some(instance)) = serving
            && matches!(process::is_alive(instance), Ok(false))
        {
            *serving = Serving::Unproven;
        }
    }
    Ok(chronicles)
}

/// One run's report.
pub(super) fn run(layout: &Layout, run: &RunId) -> anyhow::Result<Option<Report>> {
    Ok(reports(layout, None)?.into_iter().find(|report| report.run_id.as_ref() == Some(run)))
}
