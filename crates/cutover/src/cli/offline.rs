//! What can be said without a daemon: the journal is read as it stands.

use crate::conductor::Chronicle;
use crate::config::Layout;
use crate::journal::Reader;
use anyhow::Context;
use cutover_core::{Report, RunId, report};
use std::time::Duration;

/// How long another process's lock on the journal is waited for.
const BUSY: Duration = Duration::from_secs(2);

/// The stories of all services in the journal.
pub(super) fn chronicles(layout: &Layout) -> anyhow::Result<Vec<(String, Chronicle)>> {
    let path = layout.journal();
    if !path.exists() {
        return Err(super::client::NoDaemon { path: layout.control() }.into());
    }
    let reader = Reader::open(&path, BUSY)?;
    let mut found = Vec::new();
    for name in reader.services()? {
        let chronicle = Chronicle::read(&reader, &name).with_context(|| format!("the journal of {name}"))?;
        found.push((name, chronicle));
    }
    Ok(found)
}

/// The reports of all runs of a service (or of all services), newest first.
pub(super) fn reports(layout: &Layout, service: Option<&str>) -> anyhow::Result<Vec<Report>> {
    let mut reports = Vec::new();
    for (name, chronicle) in chronicles(layout)? {
        if service.is_none_or(|wanted| wanted == name) {
            reports.extend(
                chronicle.records.iter().map(|record| {
                    report(&name, &chronicle.state, Some(record)).told(&chronicle.notifications)
                }),
            );
        }
    }
    reports.sort_by_key(|report| std::cmp::Reverse(report.started));
    Ok(reports)
}

/// One run's report.
pub(super) fn run(layout: &Layout, run: &RunId) -> anyhow::Result<Option<Report>> {
    Ok(reports(layout, None)?.into_iter().find(|report| report.run_id.as_ref() == Some(run)))
}
