//! The drain act: the last thing before the cut. What can be copied while the service runs is copied, and work that the
//! service has under way may come to its end while clients are served, so that the stop does not have to wait for it, or
//! to break it off.

use super::super::window;
use super::{Executor, Outcome, chain, told};
use crate::config::{IdleAskSettings, IdleSettings};
use crate::probe::{self, Address, Hello, HttpCheck, IdleAsk, IdleQuestion, Pointer, Token};
use cutover_core::{DataClass, Done, Fault, Settings, Ticket, Until, Window};
use jiff::Timestamp;
use std::path::Path;
use std::time::{Duration, Instant};

/// Of the act's own limit: until when idleness is waited for, so that what was copied is not lost.
const WAITED: f64 = 0.5;
/// Between two questions, in intervals of the proof: an answer costs some services a fifth of a second.
const PAUSE: u32 = 10;
/// So long before its window closes a stop is not put off any longer.
const LAST: Duration = Duration::from_secs(5);

impl Executor {
    /// The bulk of the snapshot, while the old version runs; then the service's own word that it has nothing under way, as
    /// far as there is one. No answer keeps an update from going on.
    pub(super) async fn drain(
        &self,
        ticket: &Ticket,
        until: Until,
        windows: &[Window],
        settings: &Settings,
    ) -> Outcome {
        let copied = match settings.class {
            DataClass::None => None,
            DataClass::Neutral | DataClass::Migrated => {
                self.progress(ticket, "copying state while the old version runs", 0, None);
                Some(self.warm_copy(&ticket.run).await?)
            }
        };
        let idle = match (until, &self.site.settings.idle) {
            (Until::Idle, Some(idle)) => self.idleness(ticket, idle, windows, settings).await?,
            (Until::Now, _) | (Until::Idle, None) => None,
        };
        let words: Vec<String> = copied.into_iter().chain(idle).collect();
        if words.is_empty() {
            return Ok(Done::Skipped { why: "the service tells no idleness; no state to copy".into() });
        }
        Ok(Done::Done { note: words.join("; ") })
    }

    /// Waits until the running service says that it has nothing under way; what came of it, in words.
    async fn idleness(
        &self,
        ticket: &Ticket,
        idle: &IdleSettings,
        windows: &[Window],
        settings: &Settings,
    ) -> Result<Option<String>, Fault> {
        let (policy, site) = (&settings.policy, &self.site);
        if idle.wait.is_zero() || self.running().await?.is_empty() {
            return Ok(None);
        }
        let question = self.idle_question(idle).map_err(chain("probe"))?;
        let address = Address::Tcp(site.address());
        let (begun, wait) = (Instant::now(), idle.wait.min(policy.hard_cap.mul_f64(WAITED)));
        loop {
            match probe::is_idle(&question, &address, site.settings.probe_timeout).await {
                Ok(true) => return Ok(Some(format!("nothing under way after {:.1?}", begun.elapsed()))),
                Ok(false) => {}
                // A version that does not know the question, or one that cannot answer: then it is stopped as it is.
                Err(error) => {
                    return Ok(Some(format!("whether work is under way is not known: {}", told(&error))));
                }
            }
            let left = wait.saturating_sub(begun.elapsed());
            if left.is_zero() {
                return Ok(Some(format!(
                    "work is still under way after {wait:?}: it is not waited for any longer"
                )));
            }
            let pause = pause(policy.probe_interval).min(left);
            // The last moment at which the stop still is in time.
            if !still_open(windows, pause + LAST)? {
                return Ok(Some(
                    "work is still under way, and is not waited for: the window is about to close".into(),
                ));
            }
            self.progress(ticket, "waiting for work under way, clients are served", 0, None);
            tokio::time::sleep(pause).await;
        }
    }

    fn idle_question(&self, idle: &IdleSettings) -> Result<IdleQuestion, probe::Error> {
        let filled = |value: &str| self.site.filled(value, Path::new(""));
        let headers: Vec<(String, String)> = self
            .site
            .settings
            .probe_headers
            .iter()
            .map(|(name, value)| (name.clone(), filled(value)))
            .collect();
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let ask = match &idle.ask {
            IdleAskSettings::Http { path } => IdleAsk::Http(HttpCheck::new(path, headers)?),
            IdleAskSettings::OpenClaw { token, method } => IdleAsk::OpenClaw {
                hello: Hello::new("/", Some(Token::new(filled(token))))?,
                method: method.clone(),
            },
        };
        Ok(IdleQuestion { ask, pointer: Pointer::new(&idle.pointer)? })
    }
}

/// Whether a window is open now and will be after this time; without any, a stop is always in time.
fn still_open(windows: &[Window], time: Duration) -> Result<bool, Fault> {
    let then = Timestamp::now().checked_add(time).map_err(chain("window"))?;
    Ok(windows.is_empty() || window::is_open(windows, then).map_err(chain("window"))?)
}

fn pause(interval: Duration) -> Duration {
    interval * PAUSE
}
