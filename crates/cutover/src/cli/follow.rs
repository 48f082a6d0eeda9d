//! Following a run to its end, with a progress bar on a terminal and plain lines otherwise.

use super::client::Client;
use super::exit::Failed;
use super::outlet;
use crate::conductor::View;
use anyhow::anyhow;
use cutover_core::{Report, RunId};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// How long a daemon that went away in the middle of a run is waited for.
const ABSENCE: Duration = Duration::from_secs(60);
/// A view comes with each change. One that does not change is looked at again so often, since how long it lasts may
/// decide.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two tries to reach it again.
const RETRY: Duration = Duration::from_millis(200);

/// Waits for the end of `run`. `None`: the limit passed, and the run goes on.
pub(super) async fn to_the_end(
    client: &Client,
    service: &str,
    run: &RunId,
    limit: Option<Duration>,
    show: Show,
) -> anyhow::Result<Option<Report>> {
    let mut display = Display::new(show);
    let ended = until(client, service, limit, async |view| {
        display.show(view, run);
        finished(client, view, run).await
    })
    .await;
    display.clear();
    ended
}

/// Looks at every view of a service until `seen` has its answer. `None`: the limit passed. A daemon that goes away is
/// waited for; one that answers and does not have the service any more is not.
pub(super) async fn until<T>(
    client: &Client,
    service: &str,
    limit: Option<Duration>,
    mut seen: impl AsyncFnMut(&View) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    let followed = follow(client, service, &mut seen);
    match limit {
        Some(limit) => {
            tokio::time::timeout(limit, followed).await.map_or(Ok(None), |answer| answer.map(Some))
        }
        None => followed.await.map(Some),
    }
}

async fn follow<T>(
    client: &Client,
    service: &str,
    seen: &mut impl AsyncFnMut(&View) -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let (mut absent_since, mut last) = (None, None);
    loop {
        let trouble = match client.views(Some(service)).await {
            Ok(mut views) => {
                let mut present: Option<View> = None;
                loop {
                    let view = match (tokio::time::timeout(AGAIN, views.recv()).await, &present) {
                        (Ok(None), _) => break None,
                        (Ok(Some(Err(error))), _) => break Some(error),
                        (Ok(Some(Ok(view))), _) => view,
                        (Err(_), Some(view)) => view.clone(),
                        (Err(_), None) => continue,
                    };
                    match seen(&view).await {
                        Err(error) => break Some(error),
                        Ok(Some(answer)) => return Ok(answer),
                        // The same view again and again is one of a service that nothing moves any more.
                        Ok(None) if last.replace(view.seq) != Some(view.seq) => absent_since = None,
                        Ok(None) => {}
                    }
                    present = Some(view);
                }
            }
            Err(error) => Some(error),
        };
        let since = *absent_since.get_or_insert_with(Instant::now);
        let is_final = trouble.as_ref().is_some_and(|error| error.downcast_ref::<Failed>().is_some());
        if is_final || since.elapsed() > ABSENCE {
            return Err(trouble.unwrap_or_else(|| anyhow!("the daemon tells nothing of {service} any more")));
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// The run's report, if it has ended. A run that waits for a person has no end to wait for.
async fn finished(client: &Client, view: &View, run: &RunId) -> anyhow::Result<Option<Report>> {
    let about_it = view.report.run_id.as_ref() == Some(run);
    let for_a_person = view.report.phase == "parked" || view.report.awaits_a_person();
    if about_it && view.report.phase != "finished" && !for_a_person {
        return Ok(None);
    }
    if about_it {
        return Ok(Some(view.report.clone()));
    }
    // Another run followed at once; this one's report is still to be had.
    let report = client.call("update.runs.get", serde_json::json!({ "runId": run })).await?;
    let report: Report = serde_json::from_value(report)?;
    Ok(report.ended.is_some().then_some(report))
}

/// Whether progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    Progress,
    Nothing,
}

struct Display {
    bar: Option<ProgressBar>,
    show: Show,
    last: String,
}

impl Display {
    fn new(show: Show) -> Self {
        let bar = (show == Show::Progress && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            let style = ProgressStyle::with_template("{spinner} {elapsed} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar, show, last: String::new() }
    }

    fn show(&mut self, view: &View, run: &RunId) {
        if self.show == Show::Nothing || view.report.run_id.as_ref() != Some(run) {
            return;
        }
        let phase = view.report.phase.clone();
        if let Some(bar) = &self.bar {
            let detail = view.progress.as_ref().map(|progress| match progress.total {
                Some(total) => format!(" · {} {}/{total}", progress.doing, progress.done),
                None if progress.done > 0 => format!(" · {} {}", progress.doing, progress.done),
                None => format!(" · {}", progress.doing),
            });
            bar.set_message(format!("{phase}{}", detail.unwrap_or_default()));
        } else if phase != self.last {
            outlet::aside(&phase);
        }
        self.last = phase;
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
