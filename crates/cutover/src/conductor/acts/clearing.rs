//! Between what is prepared and the cut: a person's word and a window of time. Nothing is held or stopped meanwhile.

use super::super::window;
use super::{Executor, Outcome, chain, unneeded};
use cutover_core::{Awaited, Done, Fault, Ticket, Window};
use jiff::Timestamp;
use std::time::Duration;

/// The wall clock may be set, and a machine may sleep: it is looked at again at least so often.
const LOOK: Duration = Duration::from_secs(20);

impl Executor {
    /// Waits for what the state waits for. The limit is the caller's; a person's word comes as an order, which ends this act.
    pub(super) async fn clear(&self, ticket: &Ticket, awaited: &Awaited) -> Outcome {
        let windows = match awaited {
            Awaited::Nothing => return unneeded("nothing is waited for"),
            Awaited::Approval => return std::future::pending().await,
            Awaited::Window(windows) => windows,
        };
        if is_open(windows)? {
            return unneeded("its window is open");
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

    /// What was done at the last moment before the stop, or that the window has closed by now.
    pub(super) fn in_time(&self, windows: &[Window], done: Done) -> Outcome {
        if windows.is_empty() || is_open(windows)? {
            return Ok(done);
        }
        Ok(Done::Missed {
            why: "its window closed before anything was stopped: the next is waited for".into(),
        })
    }
}

fn is_open(windows: &[Window]) -> Result<bool, Fault> {
    window::is_open(windows, Timestamp::now()).map_err(chain("window"))
}
