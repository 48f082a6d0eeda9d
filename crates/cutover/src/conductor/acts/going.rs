//! Ending processes and moving the pointer.

use super::{Executor, Outcome, chain, fault};
use crate::predecessor::{Record, Step, StopLimits};
use crate::supervisor::{self, Live, Remains, StopBudget, Stopped};
use cutover_core::{Done, Fault, Installed, Policy, RunId, Settings};
use cutover_intent::Intent;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// From KILL to giving up.
const KILL_WAIT: Duration = Duration::from_secs(5);
/// How long an address that was just given free may take to be ours.
const ADDRESS: Duration = Duration::from_secs(10);
/// How many of the youngest ended instances are looked through for children that outlived them.
const ENDED_LOOKED_AT: usize = 3;

/// How long a predecessor's end may take.
pub(in super::super) fn stop_limits(policy: &Policy) -> StopLimits {
    let budget = StopBudget { grace: policy.stop_grace, kill_wait: KILL_WAIT };
    StopLimits { budget, unit: policy.hard_cap.mul_f64(0.5), address: KILL_WAIT }
}

impl Executor {
    /// Ends every process of the service while the front holds; what is in flight may finish within the drain limit.
    pub(super) async fn stop(&self, settings: &Settings) -> Outcome {
        let policy = &settings.policy;
        self.closed(policy.hold).await?;
        // Whoever was started again after its end stays, until it is given its address back.
        let before = if self.is_revived()? { String::new() } else { self.succeed(policy).await? };
        let (drained, stopped) = self.parting(policy.drain, self.stop_all(policy)).await;
        let (count, forced) = stopped?;
        let cut = drained.map_or_else(|| "no front".to_owned(), |cut| format!("{cut} exchanges cut"));
        let how = if forced { ", forced by KILL" } else { "" };
        Ok(Done::Done { note: format!("{before}{count} processes ended{how}; {cut}") })
    }

    /// Ends who served here before this service was ours, if it still does or does again, and takes its address over. Must be
    /// idempotent: whatever is about to touch the state or to start the service makes sure of it.
    pub(in super::super) async fn succeed(&self, policy: &Policy) -> Result<String, Fault> {
        let Some(mut record) = self.predecessor_gone().await? else { return Ok(String::new()) };
        // Also long after it was taken: one that was started again may have been quicker than this daemon.
        if !record.is_in_charge() {
            self.front.take_over(ADDRESS).await.map_err(|why| fault("address", why))?;
            return Ok(String::new());
        }
        let limits = stop_limits(policy);
        let longest = limits.unit + limits.budget.grace + ADDRESS;
        // It gives its address up before it is gone: from that moment on nobody is refused.
        let (ended, ()) =
            tokio::try_join!(async { record.end(limits).await.map_err(chain("predecessor")) }, async {
                self.front.take_over(longest).await.map_err(|why| fault("address", why))
            },)?;
        let how = if ended.forced { " by KILL" } else { "" };
        let note = format!("{} ended{how} after {:?}; ", record.predecessor.instance, ended.took);
        Ok(note)
    }

    /// The record of who served before, if there is one; whether it stays gone is on it.
    pub(super) async fn predecessor_gone(&self) -> Result<Option<Record>, Fault> {
        let Some(mut record) = Record::read(&self.site.directory()).map_err(chain("predecessor"))? else {
            return Ok(None);
        };
        if *record.step() == Step::Gone {
            record.stays_gone().await.map_err(chain("predecessor"))?;
        }
        if let Step::Revived { by } = record.step() {
            return Err(fault(
                "predecessor",
                format!("{by} started the old service again after it was ended"),
            ));
        }
        Ok(Some(record))
    }

    pub(super) fn is_revived(&self) -> Result<bool, Fault> {
        let record = Record::read(&self.site.directory()).map_err(chain("predecessor"))?;
        Ok(record.is_some_and(|record| record.is_revived()))
    }

    /// Ends the process once it owes nobody an answer over a WebSocket: at its farewell such a call would be lost, whereas
    /// requests are finished by a process that was told to end. Both within `limit`, after which what is left is cut; a
    /// quarter of it is left to the latter, whoever never gets an answer.
    pub(in super::super) async fn parting<T>(
        &self,
        limit: Duration,
        ending: impl Future<Output = T>,
    ) -> (Option<u64>, T) {
        let begun = Instant::now();
        if let Some(owed @ 1..) = self.front.answers(limit * 3 / 4).await {
            tracing::warn!(service = self.site.settings.name, owed, "WebSockets are still owed an answer");
        }
        let left = limit.saturating_sub(begun.elapsed());
        let (ended, drained) = tokio::join!(ending, self.front.drain(left));
        (drained, ended)
    }

    /// Ends all running processes and what they and the youngest ended ones left behind. Answers how many, and whether one
    /// had to be killed.
    pub(in super::super) async fn stop_all(&self, policy: &Policy) -> Result<(usize, bool), Fault> {
        let (mut count, mut forced) = (0, false);
        for live in self.running().await? {
            let stopped = self.end_one(&live, policy).await?;
            count += 1 + stopped.descendants;
            forced |= stopped.forced;
        }
        count += supervisor::end_remains(self.youngest()?, KILL_WAIT).await.map_err(chain("stop"))?;
        Ok((count, forced))
    }

    /// Ends one process and its family.
    pub(in super::super) async fn end_one(&self, live: &Live, policy: &Policy) -> Result<Stopped, Fault> {
        self.withdraw(live)?;
        // A full disk must not keep it from being ended.
        let _ = std::fs::write(self.asked_to_end(live), "");
        let budget = StopBudget { grace: policy.stop_grace, kill_wait: KILL_WAIT };
        live.stop(budget, &[]).await.map_err(chain("stop"))
    }

    /// Whether a process was asked to end, whoever stopped waiting for that since.
    pub(in super::super) fn was_asked_to_end(&self, live: &Live) -> bool {
        self.asked_to_end(live).exists()
    }

    /// What lies beside one that was.
    fn asked_to_end(&self, live: &Live) -> PathBuf {
        self.site.instances().join(&live.record.nonce).join("asked-to-end")
    }

    /// What may be left of the youngest instances: children that outlived one bear its mark, or have its keeper for a parent.
    fn youngest(&self) -> Result<Vec<Remains>, Fault> {
        let youngest = self.site.instance_directories().into_iter().take(ENDED_LOOKED_AT);
        let remains = youngest.map(|directory| {
            let nonce = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let kept = supervisor::kept(&directory).map_err(chain("stop"))?;
            Ok(Remains { nonce, keeper: kept.map(|kept| kept.keeper) })
        });
        remains.collect()
    }

    /// An intent that names the process must not turn its TERM into a restart, nor must a request in its own state.
    fn withdraw(&self, live: &Live) -> Result<(), Fault> {
        let path = self.site.layout.intent(&self.site.settings.name);
        cutover_intent::withdraw(&path, live.instance()).map_err(chain("intent"))?;
        let Some(state) = self.site.gateway_state() else { return Ok(()) };
        match supervisor::withdraw_request(&state, live.instance()) {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(service = self.site.settings.name, "a restart it was asked for is its end")
            }
            // If it restarts then, it is killed in the end.
            Err(error) => {
                super::warn(self, "a request to restart stays", &fault("intent", error.to_string()))
            }
        }
        Ok(())
    }

    /// Moves the pointer, or removes it where there was none before.
    pub(super) async fn switch(&self, to: Option<&Installed>) -> Outcome {
        let store = self.site.store.clone();
        match to {
            Some(installed) => {
                let generation = installed.generation;
                self.with_hands("switch", move || store.switch(generation)).await?;
                Ok(Done::Done { note: format!("current is generation {generation}") })
            }
            None => {
                self.with_hands("switch", move || store.unlink()).await?;
                // Nothing of ours is started any more.
                self.vacate_seats().await;
                Ok(Done::Done { note: "there is no current generation".into() })
            }
        }
    }

    /// Asks the old process by a one-shot intent and SIGUSR1 to end itself. One that does not is a fault: no KILL here.
    pub(super) async fn signal(&self, run: &RunId, settings: &Settings) -> Outcome {
        let policy = &settings.policy;
        self.closed(policy.hold).await?;
        let Some(live) = self.running().await?.into_iter().next() else {
            return Ok(Done::Done { note: "no process to ask".into() });
        };
        let budget = policy.stop_grace;
        let (_, gone) = self.parting(policy.drain.min(budget), self.ask_to_end(run, &live, budget)).await;
        if !gone? {
            self.withdraw(&live)?;
            return Err(fault(
                "restart_ignored",
                format!("{} did not end within {budget:?} of SIGUSR1 with a valid intent", live.instance()),
            ));
        }
        let left = live.stop(StopBudget { grace: Duration::ZERO, kill_wait: KILL_WAIT }, &[]).await;
        let left = left.map_err(chain("stop"))?.descendants;
        Ok(Done::Done { note: format!("{} ended itself; {left} others ended", live.instance()) })
    }

    /// Issues the intent, sends the signal that it is for, and answers whether the process is gone within `limit`.
    async fn ask_to_end(&self, run: &RunId, live: &Live, limit: Duration) -> Result<bool, Fault> {
        let name = self.site.settings.name.clone();
        let intent = Intent::from_now(run.clone(), live.record.nonce.clone(), name, live.instance().clone());
        let path = self.site.layout.intent(&self.site.settings.name);
        let owner = self.site.intent_owner();
        if let Some(directory) = path.parent() {
            cutover_intent::prepare_directory(directory, owner).map_err(chain("intent"))?;
        }
        cutover_intent::issue(&path, &intent, owner).map_err(chain("intent"))?;
        live.signal_restart().map_err(chain("signal"))?;
        live.wait_gone(limit).await.map_err(chain("signal"))
    }
}
