//! Between what is prepared and the cut: a person's word and a window of time. Nothing is held or stopped meanwhile.

use super::super::setup::PROOF;
use super::super::window;
use super::{Executor, Outcome, chain, fault, unneeded};
use cutover_core::{Awaited, Done, Fault, Opening, Setup, Ticket, Window};
use jiff::Timestamp;
use std::time::Duration;

/// The wall clock may be set, and a machine may sleep: it is looked at again at least so often.
const LOOK: Duration = Duration::from_secs(20);

impl Executor {
    /// Waits for what the state waits for. The limit is the caller's; a person's word comes as an order, which ends this act.
    pub(super) async fn clear(&self, ticket: &Ticket, awaited: &Awaited, opening: Opening) -> Outcome {
        let windows = match awaited {
            Awaited::Nothing => return unneeded("nothing is waited for"),
            Awaited::Approval => return std::future::pending().await,
            Awaited::Window(windows) => windows,
        };
        if is_open(windows)? {
            return unneeded("its window is open");
        }
        if opening == Opening::Seen {
            return Ok(missed());
        }
        self.progress(ticket, "waiting for its window", 0, None);
        while !is_open(windows)? {
            let now = Timestamp::now();
            let opens = window::opens(windows, now).map_err(chain("window"))?;
            let left = opens.and_then(|at| Duration::try_from(at.duration_since(now)).ok());
            tokio::time::sleep(left.unwrap_or(LOOK).min(LOOK)).await;
        }
        Ok(Done::Done { note: "its window opened".into() })
    }

    /// What was done at the last moment before the stop, or that the window has closed by now. A configuration that was
    /// mended must still be what it was mended from: found out later, that would be found out while nobody is served.
    pub(super) async fn as_looked_at(&self, ticket: &Ticket, windows: &[Window], done: Done) -> Outcome {
        self.still_mendable(self.mended(&ticket.run).await?).await?;
        if windows.is_empty() || is_open(windows)? {
            return Ok(done);
        }
        Ok(missed())
    }

    /// Whether what would be started still is what a person approved. A daemon that was away since may have come back with
    /// other settings.
    pub(super) fn still_approved(&self, approved: &Setup) -> Result<(), Fault> {
        still(approved, &self.site.setup())
    }

    /// Whether what runs would be proven by what a person approved. What else its start read is no part of that: the process
    /// has it as it was.
    pub(super) fn still_proven_by(&self, approved: &Setup) -> Result<(), Fault> {
        still(&approved.only(&PROOF), &self.site.setup().only(&PROOF))
    }
}

fn still(approved: &Setup, now: &Setup) -> Result<(), Fault> {
    let moved = approved.differing(now);
    if !approved.is_known() || moved.is_empty() {
        return Ok(());
    }
    let text = format!(
        "what was approved is not what the settings say now (they differ in: {}), so the run goes no further",
        moved.join(", ")
    );
    Err(fault("settings_changed", text))
}

fn missed() -> Done {
    Done::Missed { why: "its window closed before anything was stopped: the next is waited for".into() }
}

fn is_open(windows: &[Window]) -> Result<bool, Fault> {
    window::is_open(windows, Timestamp::now()).map_err(chain("window"))
}
