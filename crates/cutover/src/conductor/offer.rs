//! What the followed channel offers: looked at from time to time, shown, never journaled. Nothing is begun by it.

use super::acts;
use super::inbox::Handle;
use super::ledger::wall_ms;
use super::view::View;
use crate::store;
use cutover_core::{Fault, Generation, Release, State, Wanted};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::sync::watch;

/// The first look is taken within this part of the time between two.
const FIRST_LOOK: u32 = 120;
/// Looks of many machines are spread over this part of the time between two.
const SPREAD: u32 = 10;

/// A release that an update would install now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Available {
    /// Its version.
    pub version: String,
    /// The channel that names it.
    pub channel: String,
    /// When it was seen (ms of Unix time).
    pub seen_at: u64,
    /// When it was published, RFC 3339, where the source tells.
    #[serde(default)]
    pub published: Option<String>,
    /// Where it says what it is, where the source tells.
    #[serde(default)]
    pub homepage: Option<String>,
    /// What it says is new in it, as far as its files are here.
    #[serde(default)]
    pub notes: Option<String>,
}

/// What a channel named when it was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Offer {
    release: Release,
    channel: String,
    seen_at: u64,
    published: Option<String>,
    homepage: Option<String>,
    notes: Option<String>,
    /// What was current then.
    current: Option<Generation>,
}

impl Offer {
    /// What of it is available in `state`: not what is installed, nor what was reverted here, nor what was offered to
    /// another version than the current one, which may be younger.
    pub(super) fn available(&self, state: &State) -> Option<Available> {
        let is_current = state.current.as_ref().is_some_and(|current| current.release == self.release);
        let is_to_it = self.current == state.current_generation();
        let is_news = is_to_it && !is_current && !state.skipped.contains(&self.release);
        is_news.then(|| Available {
            version: self.release.version.clone(),
            channel: self.channel.clone(),
            seen_at: self.seen_at,
            published: self.published.clone(),
            homepage: self.homepage.clone(),
            notes: self.notes.clone(),
        })
    }
}

/// Looks at the channel from time to time, and when another version has become current, until the conductor is gone.
pub(super) fn watch_for(handle: &Handle) {
    let Some(every) = handle.executor.site.settings.check_every else { return };
    let handle = handle.clone();
    tokio::spawn(async move {
        let mut views = handle.watch();
        let mut pause = share(every / FIRST_LOOK);
        let mut from = views.borrow().state().current_generation();
        loop {
            let moved = |view: &View| view.state().current_generation() != from;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                other = views.wait_for(moved) => if other.is_err() { return },
            }
            // A run asks the source itself.
            let Ok(current) = at_rest(&mut views).await else { return };
            from = current;
            tokio::select! {
                biased;
                () = begun(views.clone()) => {}
                looked = look(&handle) => {
                    if let Err(fault) = looked {
                        acts::warn(&handle.executor, "what the channel names is not known", &fault);
                    }
                }
            }
            pause = every - every / SPREAD + share(every / SPREAD * 2);
        }
    });
}

/// Waits until no run is under way, and tells what is current then.
async fn at_rest(views: &mut watch::Receiver<View>) -> Result<Option<Generation>, watch::error::RecvError> {
    let view = views.wait_for(|view| view.state().open_run().is_none()).await?;
    Ok(view.state().current_generation())
}

/// Waits until a run is under way.
async fn begun(mut views: watch::Receiver<View>) {
    // A conductor that is gone begins none.
    let _ = views.wait_for(|view| view.state().open_run().is_some()).await;
}

/// Asks the source, and tells what the conductor shows from then on.
async fn look(handle: &Handle) -> Result<Option<Available>, Fault> {
    let executor = &handle.executor;
    let channel = executor.site.settings.channel().to_owned();
    let current = handle.view().state().current_generation();
    let resolved = executor.resolved(&Wanted::Channel(channel.clone())).await?;
    let offer = match executor.follows(&channel, &resolved, &[]) {
        Ok(()) => {
            let store::Resolved { release, published, homepage, notes, .. } = resolved;
            Some(Offer { release, channel, seen_at: wall_ms(), published, homepage, notes, current })
        }
        Err(fault) => {
            tracing::debug!(service = handle.service, detail = fault.detail, "nothing to update to");
            None
        }
    };
    executor.reporter.offered(offer).await.map_err(|refusal| acts::fault("not_now", refusal))
}

impl Handle {
    /// Asks the source now what the followed channel offers; `None`: nothing that an update would take.
    ///
    /// # Errors
    /// The source does not tell, or a run is under way, which asks it itself.
    pub async fn available(&self) -> Result<Option<Available>, Fault> {
        if let Some(run) = self.view().state().open_run() {
            let status = self.status_line();
            let detail = format!("run {run} is under way and asks the source itself: `{status}` shows it");
            return Err(acts::fault("already_running", detail));
        }
        look(self).await
    }
}

/// Some part of `whole`.
fn share(whole: Duration) -> Duration {
    let part = uuid::Uuid::new_v4().as_u64_pair().0 % 1000;
    whole.mul_f64(f64::from(u32::try_from(part).expect("below a thousand")) / 1000.0)
}
