//! The acts that prove: before the release, on the way back, and through the soak.

use super::{Enough, Executor, Outcome, Proof, Prover, fault};
use crate::conductor::ledger::wall_ms;
use crate::predecessor::{Record, Step};
use crate::probe::{Address, TripwireScanner, places};
use cutover_core::{
    Done, Exchanges, Fault, Generation, Installed, Instance, Policy, ReleaseRule, Settings, Ticket,
};
use std::time::{Duration, Instant};

/// Between two questions where a process's files lie.
const PLACES_PAUSE: Duration = Duration::from_millis(300);

/// Without progress, after a soak whose tree had to be looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// Lines of a log that are told with a process's end.
const LAST_WORDS_MAX: usize = 3;

impl Executor {
    pub(super) async fn prove(
        &self,
        ticket: &Ticket,
        installed: &Installed,
        instance: Option<&Instance>,
        settings: &Settings,
        proof: Proof,
        before: Option<Exchanges>,
    ) -> Outcome {
        let running = self.running().await?;
        let Some(live) = running.into_iter().find(|live| Some(live.instance()) == instance) else {
            return Err(self.gone(installed, instance).await);
        };
        let policy = &settings.policy;
        let released = settings.policy.release == ReleaseRule::AfterProve;
        if proof == Proof::Soak
            && self.site.has_front()
            && released
            && !self.front.serves_within(policy.hold).await
        {
            return Err(fault("front_closed", "the front did not confirm that it serves"));
        }
        let mut prover = Prover::new(self, live, installed, proof).await?;
        if proof == Proof::Soak && self.site.has_front() && released {
            prover.go_public(before).await;
        }
        let (enough, deadline) = match proof {
            Proof::Soak => {
                let soak = self.soak(policy, released);
                (Enough::time(soak, policy), policy.start_deadline + soak)
            }
            Proof::Prove | Proof::Return | Proof::Ready => {
                (Enough::rounds(policy.streak, policy), policy.start_deadline)
            }
        };
        let mut observations = prover.until_proven(&enough, deadline, Some(ticket)).await?;
        // The act has as much time as a start may take, beside the soak; clients who wait have less.
        let late = if released { policy.start_deadline / 2 } else { policy.hold / 8 };
        if proof == Proof::Soak && self.stays_sealed(installed, late).await? {
            // What was seen is old by now. A probe may be lost; another instance, or one that was not well for long, has not soaked.
            let soaked = prover.expectation.service_instance.clone();
            let enough = Enough::rounds(policy.streak, policy);
            observations = prover.until_proven(&enough, late.min(AGAIN), Some(ticket)).await?;
            if prover.expectation.service_instance != soaked {
                return Err(fault("timeout", "the service began anew after its soak"));
            }
        }
        if matches!(proof, Proof::Prove | Proof::Return) {
            self.has_the_place_of_the_predecessor(policy).await?;
        }
        Ok(Done::Observed { expectation: prover.expectation, observations })
    }

    /// What was proven must still be what was sealed. A tree that cannot be compared is looked at again, and is no evidence in
    /// the end. Answers whether it had to be looked at again.
    async fn stays_sealed(&self, installed: &Installed, limit: Duration) -> Result<bool, Fault> {
        let looked = self.sealed_within(installed.generation, limit).await;
        if let Err(fault) = &looked
            && fault.code == super::TREE_CHANGED
        {
            self.tree_changed(installed, fault.clone()).await;
        }
        Ok(looked? > 1)
    }

    /// Where somebody else served before, they must be gone, and what took their place must be on their files.
    async fn has_the_place_of_the_predecessor(&self, policy: &Policy) -> Result<(), Fault> {
        let Some(record) = self.predecessor_gone().await? else { return Ok(()) };
        if record.is_in_charge() {
            return Err(fault("predecessor", "the old service runs again, by its unit"));
        }
        // Once it is taken, where its files lie is the configuration's to say.
        match record.step() {
            Step::Gone => self.works_on_the_same(&record, policy.start_deadline / 2).await,
            _ => Ok(()),
        }
    }

    /// What takes a predecessor's place must work on its files: the right version on other state is no take-over. One that cannot be
    /// asked is asked again.
    async fn works_on_the_same(&self, record: &Record, limit: Duration) -> Result<(), Fault> {
        if record.terms.told.are_untold() {
            return Ok(());
        }
        let settings = self.site.probe().map_err(|error| fault("probe", format!("{error:#}")))?;
        let begun = Instant::now();
        loop {
            let error = match places(&settings, &Address::Tcp(self.site.address())).await {
                Ok(None) => {
                    let why =
                        "where the copy's files lie cannot be asked: `probe.version` is no longer `openclaw`";
                    return Err(fault("predecessor", why));
                }
                Ok(Some(now)) => {
                    return record.moved(&now).map_or(Ok(()), |why| Err(fault("predecessor", why)));
                }
                Err(error) => error,
            };
            if begun.elapsed() > limit {
                let why = super::told(&error);
                return Err(fault(
                    "predecessor",
                    format!("where the copy's files lie is not to be had: {why}"),
                ));
            }
            tokio::time::sleep(PLACES_PAUSE).await;
        }
    }

    /// A soak before the release lasts while clients wait: it leaves them half of their patience.
    pub(super) fn soak(&self, policy: &Policy, released: bool) -> Duration {
        if released || !self.site.has_front() { policy.soak } else { policy.soak.min(policy.hold / 2) }
    }

    /// The process ended before anybody looked at it.
    async fn gone(&self, installed: &Installed, instance: Option<&Instance>) -> Fault {
        let exit = match instance {
            Some(instance) => self.exit_of(instance).await,
            None => None,
        };
        let Some(exit) = exit else {
            return fault("gone", "the process that this run started does not live any more");
        };
        let youngest = self.site.instance_directories().into_iter().next().unwrap_or_default();
        let mark = youngest.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = self.last_words(&mark, installed.generation).await;
        fault("exited", format!("the process ended: {exit:?}{said}"))
    }

    /// What the log of an ended process says of missing code, as the end of a sentence; empty if it says nothing.
    pub(in super::super) async fn last_words(&self, mark: &str, generation: Generation) -> String {
        let Ok(root) = self.site.store.tree(generation) else { return String::new() };
        let mut scanner = TripwireScanner::whole(self.site.log(mark), &root);
        let looked = tokio::task::spawn_blocking(move || scanner.look(wall_ms())).await;
        let looked = looked.expect("BUG: looking at a log panicked");
        let lines = looked.value().map(Vec::as_slice).unwrap_or_default();
        match &lines[..lines.len().min(LAST_WORDS_MAX)] {
            [] => String::new(),
            lines => format!("; its log says: {}", lines.join(" | ")),
        }
    }
}
