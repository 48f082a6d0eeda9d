//! The end of a take-over: what follows from the record of who served before and from what became of the run. Begun again by
//! every daemon until the record says that it is over. The record is its journal.

use super::acts::{self, Executor, fault, stop_limits};
use super::front_link::FrontLink;
use super::inbox::{Input, Reporter};
use super::ledger::wall_ms;
use super::site::Site;
use super::{Chronicle, Conductor, Task};
use crate::predecessor::{Record, Step};
use crate::supervisor;
use cutover_core::{Act, Fault, Phase, Refusal, State};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Where the service's addresses are when a daemon begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody else is to have them.
    Ours,
    /// Whoever served before has them.
    Awaiting,
}

/// Reads who has the service's addresses. A return that was begun is gone on with.
///
/// # Errors
/// The service is not to be begun: it was given back, or would run twice.
pub(super) async fn standing(site: &Arc<Site>, state: &State) -> anyhow::Result<Standing> {
    let name = &site.settings.name;
    let Some(record) = Record::read(&site.directory())? else { return Ok(Standing::Ours) };
    match record.step() {
        Step::Returned { .. } => anyhow::bail!(
            "service.{name} was given back to what served before it: take it out of the configuration, or `cutover adopt` again"
        ),
        Step::Returning { why } => {
            let why = why.clone();
            let front = FrontLink::none(site).await?;
            let (inbox, _) = mpsc::channel(1);
            let executor = Executor::new(Arc::clone(site), front, Reporter { inbox });
            tokio::spawn(settle(executor, Settlement::GiveBack { why: why.clone() }));
            anyhow::bail!(
                "service.{name} is being given back to what served before it ({why}); `cutover adopt openclaw --undo` tells when that \
                 is done"
            )
        }
        Step::Found { .. } | Step::Imported { .. } if state.current.is_some() => anyhow::bail!(
            "service.{name} has a version of its own and is to succeed somebody: two would run; adopt under another --name"
        ),
        Step::Found { .. } | Step::Imported { .. } | Step::Ending | Step::Revived { .. } => {
            Ok(Standing::Awaiting)
        }
        Step::Gone | Step::Taken { .. } => Ok(Standing::Ours),
    }
}

/// Whether who served before has come back since its end: with its machine, by its unit, or by whoever started it again. It
/// has the addresses then, if it was quicker.
pub(super) async fn came_back(site: &Site) -> anyhow::Result<bool> {
    let Some(mut record) = Record::read(&site.directory())? else { return Ok(false) };
    match record.stays_gone().await {
        Err(error) if !record.is_revived() => Err(error.into()),
        _ => Ok(record.is_revived() || record.is_in_charge()),
    }
}

/// What is still to be done about a take-over.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Settlement {
    /// What took the predecessor's place has proven itself.
    Take { gap_ms: u64 },
    /// It has not: the address goes back.
    GiveBack { why: String },
}

impl Settlement {
    /// What follows from a record and from what became of the run, at a wall-clock time; `None`: nothing, or not yet.
    fn of(record: &Record, chronicle: &Chronicle, now_ms: u64) -> Option<Self> {
        let state = &chronicle.state;
        if state.open_run().is_some() {
            return None;
        }
        match record.step() {
            Step::Taken { .. } | Step::Returned { .. } => None,
            Step::Returning { why } => Some(Self::GiveBack { why: why.clone() }),
            Step::Found { .. } | Step::Imported { .. } | Step::Ending | Step::Gone | Step::Revived { .. } => {
                match (&state.phase, &state.current) {
                    // Only what was proven, or accepted by a person, stays current while no run is under way.
                    (Phase::Idle | Phase::Watching(_), Some(_)) if record.was_ended() => {
                        let gap_ms = gap(record, chronicle, now_ms);
                        Some(Self::Take { gap_ms })
                    }
                    // A person decides: the pointer may name what was not proven.
                    (_, Some(_)) => None,
                    (_, None) => failure(record, chronicle).map(|why| Self::GiveBack { why }),
                }
            }
        }
    }
}

/// Why the take-over failed: its run has ended. The newest run from before the record began was another take-over's.
fn failure(record: &Record, chronicle: &Chronicle) -> Option<String> {
    let is_its_own = |run: &&cutover_core::Record| record.terms.after.as_ref() != Some(&run.run);
    let run = chronicle.latest().filter(is_its_own).filter(|run| run.ended.is_some())?;
    let state = &chronicle.state;
    let causes = cutover_core::report("", state, Some(run)).causes;
    let told: Vec<String> = causes.iter().map(|cause| cause.fault.detail.clone()).collect();
    Some(if told.is_empty() { "its run was given up".to_owned() } else { told.join("; ") })
}

/// From the old one's end to the first release of what took its place; where that is not on record, until now. By wall clocks:
/// one that was set in between makes a wrong figure, and nothing is decided by it.
fn gap(record: &Record, chronicle: &Chronicle, now_ms: u64) -> u64 {
    let ending = record.when(|step| *step == Step::Ending).unwrap_or(now_ms);
    let steps = chronicle.records.iter().flat_map(|run| &run.steps);
    let releases = steps.filter(|step| step.name == Act::Release).filter_map(|step| step.ended);
    releases.filter(|released| *released >= ending).min().unwrap_or(now_ms).saturating_sub(ending)
}

impl Conductor {
    /// Brings a take-over to its end where a run has ended, or a daemon has begun, since it was looked at.
    pub(super) fn settle_if_due(&mut self) {
        if !std::mem::take(&mut self.succession_is_due) {
            return;
        }
        let record = match Record::read(&self.executor.site.directory()) {
            Ok(record) => record,
            Err(error) => {
                self.succession_trouble = Some(acts::told(&error));
                return;
            }
        };
        let settlement = record.and_then(|record| Settlement::of(&record, &self.chronicle, wall_ms()));
        // One that is under way ends here; a run that has begun since decides anew.
        self.settling =
            settlement.map(|settlement| Task(tokio::spawn(settle(self.executor.clone(), settlement))));
    }

    /// Refuses orders where the service is whoever's who served before.
    pub(super) fn is_still_ours(&self) -> Result<(), Refusal> {
        let why = match Record::read(&self.executor.site.directory()) {
            Ok(Some(record)) if record.is_given_back() || record.is_revived() => format!(
                "{} is given back to what served before it; `cutover adopt openclaw --apply` takes it over again once that is done",
                self.executor.site.settings.name
            ),
            Ok(_) => return Ok(()),
            Err(error) => acts::told(&error),
        };
        Err(Refusal::NotNow { why })
    }
}

/// Does it, and tries again after a back-off until it is done and on record.
async fn settle(executor: Executor, settlement: Settlement) {
    let policy = executor.site.settings.policy.clone();
    let mut failures = 0;
    loop {
        let done = match &settlement {
            Settlement::Take { gap_ms } => executor.take(*gap_ms).await,
            Settlement::GiveBack { why } => executor.give_back(why).await,
        };
        let Err(fault) = done else {
            executor.reporter.send(Input::Unsettled(None)).await;
            return;
        };
        failures = u32::saturating_add(failures, 1);
        acts::warn(&executor, "the take-over is not at its end", &fault);
        executor.reporter.send(Input::Unsettled(Some(fault.detail))).await;
        tokio::time::sleep(supervisor::backoff(failures, policy.backoff_first, policy.backoff_cap)).await;
    }
}

impl Executor {
    fn record(&self) -> Result<Record, Fault> {
        let record = Record::read(&self.site.directory()).map_err(acts::chain("predecessor"))?;
        record.ok_or_else(|| fault("predecessor", "the record of the take-over is gone"))
    }

    async fn take(&self, gap_ms: u64) -> Result<(), Fault> {
        // One that came back with its machine while ours was not looked after.
        self.succeed(&self.site.settings.policy).await?;
        let mut record = self.record()?;
        record
            .settle(gap_ms, stop_limits(&self.site.settings.policy))
            .await
            .map_err(acts::chain("predecessor"))?;
        tracing::info!(
            service = self.site.settings.name,
            gap_ms,
            "taken over: what served before is not started any more"
        );
        Ok(())
    }

    /// Ends what is ours and brings back who served before. Must be idempotent: it may run again after a crash at any line.
    async fn give_back(&self, why: &str) -> Result<(), Fault> {
        let (site, policy) = (&self.site, &self.site.settings.policy);
        let failed = acts::chain("predecessor");
        let mut record = self.record()?;
        match record.step() {
            Step::Returned { .. } => return Ok(()),
            Step::Returning { .. } => {}
            _ => record.add(Step::Returning { why: why.to_owned() }).map_err(&failed)?,
        }
        self.front.quit().await;
        self.stop_all(policy).await?;
        let probe = site.probe().map_err(|error| fault("probe", format!("{error:#}")))?;
        let took =
            record.bring_back(&site.directory(), &probe, policy.start_deadline).await.map_err(&failed)?;
        let left = record.remove_files();
        crate::crash_point!("succession: files removed");
        let gap_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        record.add(Step::Returned { gap_ms }).map_err(&failed)?;
        tracing::info!(
            service = site.settings.name,
            why,
            ?left,
            "given back: what served before serves again"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predecessor::Terms;
    use cutover_core::{Boot, BootId, RunId};
    use serde_json::json;
    use std::path::Path;

    /// A record that began at some time and came as far as these steps.
    fn record(ground: &Path, steps: &[Step]) -> Record {
        let predecessor = serde_json::from_value(json!({
            "instance": { "pid": 1, "startTime": 2, "bootId": "b" }, "program": "/bin/node", "command": ["node", "x.js"],
            "cwd": "/", "env": {}, "account": { "uid": 1, "gid": 1, "groups": [] }, "output": [null, null],
            "addresses": ["127.0.0.1:1"], "entry": "/x.js",
            "package": { "name": "x", "version": "1.0.0", "root": "/" }, "unit": null, "parent": null,
        }));
        let terms = Terms { files: Vec::new(), after: Some(RunId("before".into())), command: "adopt".into() };
        let mut record = Record::begin(ground, predecessor.unwrap(), terms).unwrap();
        steps.iter().for_each(|step| record.add(step.clone()).unwrap());
        record
    }

    /// A story with one run that ended as told, and nothing current.
    fn failed(run: &str, ended: Option<u64>) -> Chronicle {
        let run = json!({
            "run": run, "kind": "update", "actor": "a", "origin": null, "before": null, "target": null, "version": "1.0.0",
            "started": 1, "ended": ended, "steps": [], "facts": [], "findings": [], "downtimeMs": null,
            "ending": null, "revertedBy": null, "closedBootMs": null,
        });
        Chronicle { records: vec![serde_json::from_value(run).unwrap()], ..Chronicle::default() }
    }

    /// The same with a version that stays.
    fn current() -> Chronicle {
        let mut chronicle = Chronicle::default();
        let installed = json!({ "generation": 1, "release": { "package": "x", "version": "1.0.0", "digest": "sha512-x" } });
        chronicle.state.current = Some(serde_json::from_value(installed).unwrap());
        assert_eq!(chronicle.boot(&BootId("b".into())), Boot::Same);
        chronicle
    }

    #[test]
    fn what_stays_current_has_taken_over_and_only_from_one_whose_end_was_begun() {
        let ground = tempfile::tempdir().unwrap();
        let now = wall_ms() + 500;
        for step in [Step::Ending, Step::Gone, Step::Revived { by: "a loop".into() }] {
            let record = record(ground.path(), &[Step::Ending, step]);
            let taken = Settlement::of(&record, &current(), now);
            assert!(matches!(taken, Some(Settlement::Take { gap_ms }) if gap_ms <= 500), "{taken:?}");
        }
        assert_eq!(Settlement::of(&record(ground.path(), &[]), &current(), now), None);
        let taken = record(ground.path(), &[Step::Ending, Step::Gone, Step::Taken { gap_ms: 1 }]);
        assert_eq!(Settlement::of(&taken, &current(), now), None);
    }

    #[test]
    fn a_run_that_ended_with_nothing_gives_back_and_one_of_an_earlier_take_over_says_nothing_whatever_the_clock_says()
     {
        let ground = tempfile::tempdir().unwrap();
        let now = wall_ms() + 500;
        for steps in [&[][..], &[Step::Ending], &[Step::Ending, Step::Gone]] {
            let record = record(ground.path(), steps);
            // Its clock says that it was long before the record.
            let given = Settlement::of(&record, &failed("r", Some(2)), now);
            assert!(matches!(given, Some(Settlement::GiveBack { .. })), "{steps:?}: {given:?}");
            assert_eq!(Settlement::of(&record, &failed("before", Some(now + 1)), now), None, "{steps:?}");
            assert_eq!(Settlement::of(&record, &failed("r", None), now), None, "{steps:?}");
            assert_eq!(Settlement::of(&record, &Chronicle::default(), now), None, "{steps:?}");
        }
        let returning = record(ground.path(), &[Step::Ending, Step::Returning { why: "asked".into() }]);
        let why = "asked".to_owned();
        assert_eq!(Settlement::of(&returning, &current(), now), Some(Settlement::GiveBack { why }));
        let returned = record(ground.path(), &[Step::Returned { gap_ms: 1 }]);
        assert_eq!(Settlement::of(&returned, &failed("r", Some(now)), now), None);
    }
}
