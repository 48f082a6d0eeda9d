//! The end of a take-over: what follows from the record of who served before and from what became of the run. Begun again by
//! every daemon until the record says that it is over. The record is its journal.

use super::acts::{self, Executor, fault, stop_limits};
use super::alarm::{REVIVED, Succession, UNSETTLED};
use super::front_link::FrontLink;
use super::inbox::Input;
use super::ledger::wall_ms;
use super::site::Site;
use super::{Chronicle, Conductor, Task};
use crate::predecessor::{Record, Rival, Step};
use crate::supervisor;
use cutover_core::{Act, Fault, Order, Phase, Refusal, State};
use std::time::{Duration, Instant};

/// How long the predecessor's address may take to be ours once it is proven that ours serves.
const ADDRESS: Duration = Duration::from_secs(2);
/// Between two looks for whoever starts the predecessor again.
const LOOK: Duration = Duration::from_secs(5);

/// Where the service's addresses are when a daemon begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody else is to have them.
    Ours,
    /// Whoever served before has them.
    Awaiting,
    /// They go back to whoever served before: a return was begun, and is gone on with.
    Leaving,
}

/// Reads who has the service's addresses.
///
/// # Errors
/// The service is not to be begun: it was given back, or would run twice.
pub(super) fn standing(site: &Site, state: &State) -> anyhow::Result<Standing> {
    let name = &site.settings.name;
    let Some(record) = Record::read(&site.directory())? else { return Ok(Standing::Ours) };
    match record.step() {
        Step::Returned { .. } => anyhow::bail!("{}", returned(name, &record)),
        Step::Returning { .. } => Ok(Standing::Leaving),
        Step::Found { .. } | Step::Imported { .. } if state.current.is_some() => anyhow::bail!(
            "service.{name} has a version of its own and is to succeed somebody: two would run; adopt under another --name"
        ),
        // What is ours may serve there, whoever lives beside it: it is not given up before that is decided.
        Step::Ending | Step::Revived { .. } if state.current.is_some() => Ok(Standing::Ours),
        Step::Found { .. } | Step::Imported { .. } | Step::Ending | Step::Revived { .. } => {
            Ok(Standing::Awaiting)
        }
        Step::Gone | Step::Taken { .. } => Ok(Standing::Ours),
    }
}

fn returned(name: &str, record: &Record) -> String {
    let command = &record.terms.command;
    format!(
        "{name} was given back to what served before it: take it out of the configuration, or type `{command} --apply`, which takes it \
         over again"
    )
}

/// Whether who served before has come back since its end: with its machine, by its unit, or by whoever started it again. It
/// has the addresses then, if it was quicker.
pub(super) async fn came_back(site: &Site) -> anyhow::Result<bool> {
    let Some(mut record) = Record::read(&site.directory())? else { return Ok(false) };
    // Nobody ends it any more: it has the addresses until it ends by itself.
    if matches!(record.step(), Step::Taken { .. }) {
        return Ok(record.rival()?.is_some());
    }
    match record.stays_gone().await {
        Err(error) if !record.is_revived() => Err(error.into()),
        _ => Ok(record.is_revived() || record.is_in_charge()),
    }
}

/// What is still to be done about a take-over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Settlement {
    /// What took the predecessor's place has proven itself: it keeps the address, whoever starts the old one again.
    Take { gap_ms: u64 },
    /// It has not: the address goes back.
    GiveBack { why: String },
    /// Nothing, but that whoever starts the predecessor again is told.
    Guard,
}

impl Settlement {
    /// What follows from a record and from what became of the run, at a wall-clock time; `None`: nothing, or not yet.
    fn of(record: &Record, chronicle: &Chronicle, now_ms: u64) -> Option<Self> {
        let state = &chronicle.state;
        match record.step() {
            Step::Taken { .. } => Some(Self::Guard),
            Step::Returned { .. } => None,
            _ if state.open_run().is_some() => None,
            Step::Returning { why } => Some(Self::GiveBack { why: why.clone() }),
            Step::Found { .. } | Step::Imported { .. } | Step::Ending | Step::Gone | Step::Revived { .. } => {
                match (&state.phase, &state.current) {
                    // Only what was proven, or accepted by a person, stays current while no run is under way.
                    (Phase::Idle | Phase::Watching(_), Some(_)) if record.was_ended() => {
                        let gap_ms = gap(record, chronicle, now_ms);
                        Some(Self::Take { gap_ms })
                    }
                    // A person decides: the pointer may name what was not proven.
                    (_, Some(_)) => record.is_revived().then_some(Self::Guard),
                    (_, None) => failure(record, chronicle).map(|why| Self::GiveBack { why }),
                }
            }
        }
    }

    /// Whether what is under way is to end for what follows now. The same knows all that it needs, and a return goes on to its
    /// end whatever else is so by then: half of one is neither theirs nor ours.
    fn gives_way(&self, next: Option<&Self>) -> bool {
        let is_same = next.is_some_and(|next| std::mem::discriminant(self) == std::mem::discriminant(next));
        !is_same && !matches!(self, Self::GiveBack { .. })
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
    pub(super) async fn settle_if_due(&mut self) {
        if !std::mem::take(&mut self.succession_is_due) {
            return;
        }
        let record = match Record::read(&self.executor.site.directory()) {
            Ok(record) => record,
            Err(error) => {
                self.succession = Succession::Troubled(fault(UNSETTLED, acts::told(&error)));
                // With the next thing that happens.
                self.succession_is_due = true;
                return;
            }
        };
        let settlement = record.and_then(|record| Settlement::of(&record, &self.chronicle, wall_ms()));
        if self.settling.as_ref().is_some_and(|(now, _)| !now.gives_way(settlement.as_ref())) {
            return;
        }
        if let Some((_, task)) = self.settling.take() {
            task.end().await;
        }
        self.settling = settlement.map(|settlement| {
            let task = Task(tokio::spawn(settle(self.executor.clone(), settlement.clone())));
            (settlement, task)
        });
    }

    /// Whether the address goes, or went, back to whoever served before: nothing else is done by this daemon from then on.
    pub(super) fn is_leaving(&self) -> bool {
        matches!(self.settling, Some((Settlement::GiveBack { .. }, _)))
    }

    /// What a person should know of a take-over.
    pub(super) fn succession_note(&self) -> Option<String> {
        let name = &self.executor.site.settings.name;
        match (&self.settling, &self.succession) {
            (Some((Settlement::GiveBack { .. }, _)), Succession::Settled) => {
                let record = Record::read(&self.executor.site.directory()).ok().flatten();
                record.map(|record| returned(name, &record))
            }
            (Some((Settlement::GiveBack { why }, _)), trouble) => {
                let last = trouble.trouble().map_or_else(String::new, |fault| {
                    format!("; that is tried again and again, the last time: {}", fault.detail)
                });
                Some(format!("{name} is being given back to what served before it ({why}){last}"))
            }
            (_, trouble) => trouble.trouble().map(|fault| fault.detail.clone()),
        }
    }

    /// Refuses an order that would be about what is, or is about to be, whoever's who served before.
    pub(super) fn heeds(&self, order: &Order) -> Result<(), Refusal> {
        let site = &self.executor.site;
        let read = || -> Result<(), String> {
            let told = |error| acts::told(&error);
            let Some(mut record) = Record::read(&site.directory()).map_err(told)? else { return Ok(()) };
            let obstacle = obstacle(&site.settings.name, &record, &self.chronicle, order);
            match obstacle {
                None => Ok(()),
                Some(Obstacle::Return(why)) => Err(why),
                Some(Obstacle::Rival(settled)) => match (record.rival().map_err(told)?, settled) {
                    (Some(rival), _) => Err(contested(&record, &rival, "")),
                    (None, Settled::ByTheDaemon) => {
                        Err("nobody runs the old service any more; ask again in a moment".into())
                    }
                    // A person has taken it out of where it was started.
                    (None, Settled::ByAPerson) => record.add(Step::Gone).map_err(told),
                },
            }
        };
        read().map_err(|why| Refusal::NotNow { why })
    }
}

/// What keeps an order from being taken.
#[derive(Debug, PartialEq, Eq)]
enum Obstacle {
    /// The address goes, or went, back. In words.
    Return(String),
    /// Whoever started the predecessor again, if it still lives.
    Rival(Settled),
}

/// Who says that a predecessor that was started again is gone.
#[derive(Debug, PartialEq, Eq)]
enum Settled {
    /// It waits for the address.
    ByTheDaemon,
    /// By an order, after maintenance.
    ByAPerson,
}

/// What a record, and what became of the run, have against an order.
fn obstacle(name: &str, record: &Record, chronicle: &Chronicle, order: &Order) -> Option<Obstacle> {
    let command = &record.terms.command;
    if matches!(record.step(), Step::Returned { .. }) {
        return Some(Obstacle::Return(returned(name, record)));
    }
    // From the end of its run on, also before that is on record.
    if let Some(Settlement::GiveBack { why }) = Settlement::of(record, chronicle, wall_ms()) {
        return Some(Obstacle::Return(format!(
            "{name} is being given back to what served before it ({why}), and its status tells how far that is: `{command} --undo` \
             does it too; `{command} --apply` takes it over again after that"
        )));
    }
    // What a run under way takes, it says itself.
    if !record.is_revived() || chronicle.state.open_run().is_some() {
        return None;
    }
    match (order, &chronicle.state.phase) {
        // These start nothing, or lead to where the address goes back.
        (Order::Stop | Order::Cancel | Order::Hold | Order::RecoverRollback, _) => None,
        (_, Phase::Maintenance(_)) => Some(Obstacle::Rival(Settled::ByAPerson)),
        _ => Some(Obstacle::Rival(Settled::ByTheDaemon)),
    }
}

/// That somebody started the old service again, with both ways out.
fn contested(record: &Record, rival: &Rival, meanwhile: &str) -> String {
    let (how, command) = (&rival.how, &record.terms.command);
    format!("{rival}{meanwhile}: {how}; or give the address back to it: `{command} --undo`")
}

/// Does it, and tries again after a back-off until it is done and on record.
async fn settle(executor: Executor, settlement: Settlement) {
    let policy = executor.site.settings.policy.clone();
    let mut failures = 0;
    loop {
        let done = match &settlement {
            Settlement::Take { gap_ms } => executor.take(*gap_ms).await,
            Settlement::GiveBack { why } => executor.give_back(why).await,
            Settlement::Guard => Ok(()),
        };
        let Err(fault) = done else { break };
        failures = u32::saturating_add(failures, 1);
        acts::warn(&executor, "the take-over is not at its end", &fault);
        // Who waits for a person to end something sees soon that it is ended.
        let (code, cap) = match fault.code == REVIVED {
            true => (REVIVED, LOOK),
            false => (UNSETTLED, policy.backoff_cap),
        };
        let told = Fault { code: code.to_owned(), detail: fault.detail };
        executor.reporter.send(Input::Unsettled(Some(told))).await;
        tokio::time::sleep(supervisor::backoff(failures, policy.backoff_first, cap)).await;
    }
    match settlement {
        Settlement::Take { .. } | Settlement::Guard => executor.guard().await,
        Settlement::GiveBack { .. } => executor.reporter.send(Input::Unsettled(None)).await,
    }
}

impl Executor {
    fn record(&self) -> Result<Record, Fault> {
        let record = Record::read(&self.site.directory()).map_err(acts::chain("predecessor"))?;
        record.ok_or_else(|| fault("predecessor", "the record of the take-over is gone"))
    }

    /// Puts on record that ours has the predecessor's place. Must be idempotent: it may run again after a crash.
    async fn take(&self, gap_ms: u64) -> Result<(), Fault> {
        let policy = &self.site.settings.policy;
        // One that came back with its machine while ours was not looked after is ended again.
        let succeeded = self.succeed(policy).await;
        let mut record = self.record()?;
        match (succeeded, record.is_revived()) {
            (Err(fault), false) => return Err(fault),
            (_, true) => self.outlast(&record).await?,
            (Ok(_), false) => {}
        }
        record.settle(gap_ms, stop_limits(policy)).await.map_err(acts::chain("predecessor"))?;
        tracing::info!(
            service = self.site.settings.name,
            gap_ms,
            "taken over: what served before is not started any more"
        );
        Ok(())
    }

    /// Somebody started the predecessor again, and ending it leads nowhere. Ours has the address, or has it as soon as that is free.
    async fn outlast(&self, record: &Record) -> Result<(), Fault> {
        let Err(why) = self.front.take_over(ADDRESS).await else { return Ok(()) };
        match record.rival().map_err(acts::chain("predecessor"))? {
            Some(rival) => {
                let meanwhile = format!(
                    ", and it has the address, which {} waits for and takes as soon as it is free",
                    self.site.settings.name
                );
                Err(fault(REVIVED, contested(record, &rival, &meanwhile)))
            }
            None => Err(fault("address", why)),
        }
    }

    /// Looks for whoever starts the predecessor again, beside what has its place, for as long as the daemon runs: a machine's jobs
    /// may do so once a minute, or a week. One that ends at once, because the address is taken, is there for a moment only: it
    /// is over when none was seen for long.
    async fn guard(&self) {
        let quiet = self.site.settings.policy.crash_window * 2;
        let mut seen: Option<Instant> = None;
        loop {
            // One that was quicker than this daemon has it until it ends; nothing where it is ours.
            let _ = self.front.take_over(ADDRESS).await;
            match self.look_for_a_rival().await {
                Ok(Some(detail)) => {
                    seen = Some(Instant::now());
                    self.reporter.send(Input::Unsettled(Some(fault(REVIVED, detail)))).await;
                }
                Ok(None) if seen.is_none_or(|at| at.elapsed() >= quiet) => {
                    self.reporter.send(Input::Unsettled(None)).await;
                }
                Ok(None) => {}
                // That it cannot be told is no evidence either way.
                Err(fault) => acts::warn(self, "who runs the old service cannot be told", &fault),
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a person is to know of whoever runs the predecessor now; it is on record, once for each.
    async fn look_for_a_rival(&self) -> Result<Option<String>, Fault> {
        let directory = self.site.directory();
        let name = self.site.settings.name.clone();
        acts::blocking("predecessor", move || {
            let Some(mut record) = Record::read(&directory)? else { return Ok(None) };
            let Some(rival) = record.rival()? else { return Ok(None) };
            if matches!(record.step(), Step::Taken { .. }) && !record.knows(&rival) {
                record.add(Step::Revived { by: rival.by.clone() })?;
            }
            let meanwhile = format!(", beside {name} and on the same state");
            Ok::<_, crate::predecessor::Error>(Some(contested(&record, &rival, &meanwhile)))
        })
        .await
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
        self.front.quit().await.map_err(|why| fault("front", why))?;
        // Also one that an earlier daemon put up.
        FrontLink::end_standing(&self.site).await.map_err(|error| fault("front", format!("{error:#}")))?;
        self.stop_all(policy).await?;
        self.vacate_seats().await;
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
    use cutover_core::{
        Boot, BootId, DataClass, DataOrder, Extent, Intake, Kind, Maintenance, Policy, Run, RunId, Settings,
        Strategy, Tree, Writes,
    };
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
        let terms = Terms {
            files: Vec::new(),
            after: Some(RunId("before".into())),
            along: Vec::new(),
            told: crate::probe::Places::default(),
            state: None,
            command: "adopt".into(),
        };
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

    /// The same in maintenance.
    fn maintained() -> Chronicle {
        let mut chronicle = current();
        let id = RunId("r".into());
        let settings = Settings {
            strategy: Strategy::StopStart,
            class: DataClass::None,
            intake: Intake::Front,
            policy: Policy::default(),
        };
        let (kind, data, snapshot) = (Kind::Update, DataOrder::Keep, id.clone());
        chronicle.state.phase = Phase::Maintenance(Maintenance {
            run: Run { id, kind, source: None, data, snapshot, settings },
            target: chronicle.state.current.clone().unwrap(),
            coherent: None,
            place: Extent::Never,
            start: Extent::Never,
            writes: Writes::Kept,
            coherent_tree: Tree::Sealed,
            causes: Vec::new(),
        });
        chronicle
    }

    #[test]
    fn what_stays_current_has_taken_over_whoever_starts_the_old_one_again_and_only_from_one_whose_end_was_begun()
     {
        let ground = tempfile::tempdir().unwrap();
        let now = wall_ms() + 500;
        for step in [Step::Ending, Step::Gone, Step::Revived { by: "a loop".into() }] {
            let record = record(ground.path(), &[Step::Ending, step]);
            let taken = Settlement::of(&record, &current(), now);
            assert!(matches!(taken, Some(Settlement::Take { gap_ms }) if gap_ms <= 500), "{taken:?}");
        }
        assert_eq!(Settlement::of(&record(ground.path(), &[]), &current(), now), None);
        let taken = record(ground.path(), &[Step::Ending, Step::Gone, Step::Taken { gap_ms: 1 }]);
        assert_eq!(Settlement::of(&taken, &current(), now), Some(Settlement::Guard));
    }

    #[test]
    fn from_the_end_of_its_run_on_a_service_that_goes_back_takes_no_order_and_says_what_does() {
        let ground = tempfile::tempdir().unwrap();
        let due = record(ground.path(), &[Step::Ending, Step::Gone]);
        let (failed, open) = (failed("r", Some(2)), failed("r", None));
        for order in [Order::Stop, Order::Start, Order::Accept, Order::Cancel] {
            let Some(Obstacle::Return(why)) = obstacle("web", &due, &failed, &order) else {
                panic!("{order:?} is taken while the return is due");
            };
            assert!(why.contains("is being given back") && why.contains("`adopt --undo`"), "{why}");
            assert_eq!(obstacle("web", &due, &open, &order), None, "its run is under way");
            assert_eq!(obstacle("web", &due, &current(), &order), None, "it is ours");
        }
        let returned = record(ground.path(), &[Step::Returned { gap_ms: 1 }]);
        let told = obstacle("web", &returned, &Chronicle::default(), &Order::Start);
        assert!(matches!(told, Some(Obstacle::Return(why)) if why.contains("was given back")));
    }

    #[test]
    fn an_order_that_would_start_something_beside_the_old_service_waits_for_its_end_and_no_other() {
        let ground = tempfile::tempdir().unwrap();
        let by = || "a loop".to_owned();
        let revived = record(ground.path(), &[Step::Ending, Step::Revived { by: by() }]);
        let is_kept = |chronicle: &Chronicle, order: &Order| obstacle("web", &revived, chronicle, order);
        assert_eq!(is_kept(&current(), &Order::Restart), Some(Obstacle::Rival(Settled::ByTheDaemon)));
        assert_eq!(is_kept(&current(), &Order::Stop), None);
        let maintained = maintained();
        assert_eq!(is_kept(&maintained, &Order::Retry), Some(Obstacle::Rival(Settled::ByAPerson)));
        assert_eq!(
            is_kept(&maintained, &Order::RecoverRollback),
            None,
            "it leads to where the address goes back"
        );
        // A person decides, and is told who lives.
        assert_eq!(Settlement::of(&revived, &maintained, 1), Some(Settlement::Guard));
        let outlasted = [Step::Ending, Step::Gone, Step::Taken { gap_ms: 1 }, Step::Revived { by: by() }];
        let outlasted = record(ground.path(), &outlasted);
        assert_eq!(obstacle("web", &outlasted, &current(), &Order::Restart), None);
    }

    #[test]
    fn a_return_that_is_under_way_is_left_alone_and_so_is_what_would_follow_again() {
        let give_back = |why: &str| Settlement::GiveBack { why: why.into() };
        for next in [None, Some(&give_back("as it is on record")), Some(&Settlement::Guard)] {
            assert!(!give_back("its run failed").gives_way(next), "{next:?}");
        }
        assert!(!Settlement::Take { gap_ms: 1 }.gives_way(Some(&Settlement::Take { gap_ms: 2 })));
        assert!(Settlement::Take { gap_ms: 1 }.gives_way(Some(&Settlement::Guard)));
        assert!(Settlement::Guard.gives_way(None) && Settlement::Guard.gives_way(Some(&give_back("r"))));
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
