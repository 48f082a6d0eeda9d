//! Two-phase start: who will run is journaled before anything runs.

use super::{EXEC_FAILED, Executor, PORT_TAKEN, Reported, chain, fault};
use crate::conductor::inbox::Input;
use crate::store::snapshot::{Comparison, Content, Mended};
use crate::supervisor::{self, Live};
use cutover_core::{
    DataClass, Done, Event, Fault, Generation, Installed, Policy, RunId, Settings, Setup, Ticket,
};
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the word to a keeper until it is ready, and until the program is executed.
const KEEPER: Duration = Duration::from_secs(10);
/// Longest pause while a foreigner holds the port.
const PORT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// So often a snapshot is taken again because the stopped state went on changing; then somebody else writes to it.
const STALE_MAX: u8 = 5;

/// What a run that starts something knows of how it came there.
pub(super) struct Origin<'a> {
    /// The run whose snapshot the stopped state must still equal, unless what is started has run before.
    pub compare: Option<&'a RunId>,
    /// What the settings must still say.
    pub approved: &'a Setup,
}

/// What is started, and under which rules.
pub(in super::super) struct Starting<'a> {
    pub installed: &'a Installed,
    pub policy: &'a Policy,
    /// What of live state is given its mended content before anything is executed.
    pub mended: Vec<Mended>,
}

impl Executor {
    /// Starts what the run names, or adopts it where it lives already.
    pub(super) async fn start(
        &self,
        ticket: &Ticket,
        installed: &Installed,
        origin: &Origin<'_>,
        settings: &Settings,
    ) -> Result<Reported, Fault> {
        self.closed(settings.policy.hold).await?;
        if let Some(live) = self.already(installed, &settings.policy).await? {
            return Ok(Reported::Done(Done::Started { instance: live.instance().clone() }));
        }
        // A machine that went down since may have come up with who served before: at its end it may write.
        self.succeed(&settings.policy).await?;
        self.still_approved(origin.approved)?;
        let compare = origin.compare.filter(|_| settings.class != DataClass::None);
        // What a run began, its retries go on with: all of one chain have one snapshot.
        let chain = origin.compare.unwrap_or(&ticket.run);
        let mut mended = Vec::new();
        if let Some(run) = compare
            && !has_run(&self.site.instance_directories(), installed.generation, chain)?
        {
            mended = self.mended(run).await?;
            // What was laid down for a start that did not come about is no change that anybody made.
            self.exchange_back(&mended).await?;
            match self.still_equal(run).await? {
                Comparison::Equal => {}
                Comparison::Changed { .. } if ticket.round < STALE_MAX => {
                    return Ok(Reported::Event(Event::SnapshotStale { ticket: ticket.clone() }));
                }
                other => {
                    return Err(fault(
                        "data_changed",
                        format!("before the first start the state was not what was copied: {other:?}"),
                    ));
                }
            }
            self.still_mendable(mended.clone()).await?;
        }
        let starting = Starting { installed, policy: &settings.policy, mended };
        let live = self.spawn_for(&starting, Some(chain)).await?;
        Ok(Reported::Done(Done::Started { instance: live.instance().clone() }))
    }

    /// A live process of this generation is adopted, the youngest if there are several, unless it was asked to end: that it
    /// lives still says nothing. All others, and what ended ones left behind, are ended first.
    pub(in super::super) async fn already(
        &self,
        installed: &Installed,
        policy: &Policy,
    ) -> Result<Option<Arc<Live>>, Fault> {
        let mut running = self.running().await?;
        let stays =
            |live: &Live| live.record.generation == installed.generation && !self.was_asked_to_end(live);
        let at = running.iter().position(stays);
        let Some(at) = at else {
            self.stop_all(policy).await?;
            return Ok(None);
        };
        let live = Arc::new(running.remove(at));
        for other in running {
            self.end_one(&other, policy).await?;
        }
        self.reporter.send(Input::Born(Arc::clone(&live))).await;
        Ok(Some(live))
    }

    /// Starts a generation of a service at rest.
    pub(in super::super) async fn spawn(&self, starting: &Starting<'_>) -> Result<Arc<Live>, Fault> {
        self.spawn_for(starting, None).await
    }

    /// Starts a generation whose tree is what was sealed, on a port that nobody else holds.
    async fn spawn_for(&self, starting: &Starting<'_>, run: Option<&RunId>) -> Result<Arc<Live>, Fault> {
        let generation = starting.installed.generation;
        self.sealed(generation).await?;
        self.succeed(starting.policy).await?;
        // A little less than the act itself may take, so that the holder is named. At rest a start may take no longer than any.
        let act = starting.policy.hard_cap.mul_f64(0.9);
        let limit = if run.is_some() { act } else { act.min(starting.policy.start_deadline) };
        self.port_free(limit).await?;
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let directory = self.site.instances().join(&nonce);
        let launch =
            self.site.launch(generation, nonce).map_err(|error| fault("launch", format!("{error:#}")))?;
        let prepared = supervisor::prepare(&self.site.executable, &directory, &launch, KEEPER)
            .await
            .map_err(chain("keeper"))?;
        if let Some(run) = run {
            note_run(&directory, run).map_err(chain("started_by"))?;
        }
        let keeper = prepared.keeper.clone();
        let spawned = Event::Spawned { generation, keeper };
        self.reporter.fact(spawned).await.map_err(chain("stale"))?;
        // From this fact on a rollback takes the state back.
        self.exchange(starting.mended.clone(), Content::After).await?;
        self.seat(starting.installed).await;
        crate::crash_point!("start: before go");
        let live = match prepared.go(KEEPER).await {
            Ok(live) => live,
            Err(supervisor::Error::Undecided { .. }) => self.decided(&directory).await?,
            Err(error) => return Err(chain(EXEC_FAILED)(error)),
        };
        crate::crash_point!("start: gone");
        let live = Arc::new(live);
        self.reporter.send(Input::Born(Arc::clone(&live))).await;
        self.site.forget_old_instances();
        Ok(live)
    }

    async fn decided(&self, directory: &Path) -> Result<Live, Fault> {
        match supervisor::adopt(directory, KEEPER).await.map_err(chain("keeper"))? {
            supervisor::Adopted::Running(live) => Ok(live),
            other => Err(fault(EXEC_FAILED, format!("the keeper did not start it: {other:?}"))),
        }
    }

    /// A foreigner on the port is waited for, named and never killed: it is no evidence against anybody.
    async fn port_free(&self, limit: Duration) -> Result<(), Fault> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let holding = supervisor::holding(self.site.port, &[]).map_err(chain("port"))?;
            let Some(holder) = holding.foreign.first() else { return Ok(()) };
            if begun.elapsed() + pause > limit {
                return Err(fault(PORT_TAKEN, format!("{} is held by {holder}", holder.address)));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PORT_PAUSE_MAX);
        }
    }
}

/// Names the run that starts an instance, or the one that it is a retry of. Its id and the instance's mark are made from
/// wall time, which may be set back in between, so neither tells which was first.
const STARTED_BY: &str = "started-by";

/// Whether a process of the generation was executed by `run`: then the state may be its own, and is no longer what the
/// snapshot of the source holds.
fn has_run(instances: &[PathBuf], generation: Generation, run: &RunId) -> Result<bool, Fault> {
    for directory in instances {
        if !started_by(directory, run).map_err(chain("started_by"))? {
            continue;
        }
        let executed = supervisor::executed(directory).map_err(chain("supervisor"))?;
        if executed.is_some_and(|record| record.generation == generation) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Durable on return: what the process does to the state is from then on this run's.
fn note_run(directory: &Path, run: &RunId) -> io::Result<()> {
    let mut file = File::create(directory.join(STARTED_BY))?;
    file.write_all(run.0.as_bytes())?;
    file.sync_all()?;
    File::open(directory)?.sync_all()
}

fn started_by(directory: &Path, run: &RunId) -> io::Result<bool> {
    match std::fs::read(directory.join(STARTED_BY)) {
        Ok(noted) => Ok(noted == run.0.as_bytes()),
        // At rest, or by a daemon that did not note it: then the state is compared, which errs on the safe side.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{ExecRecord, Moment};

    #[test]
    fn a_target_has_run_if_this_run_executed_it_whatever_the_clock_said() {
        let ground = tempfile::tempdir().unwrap();
        // The run was ordered before the clock was set back, so its id looks younger than what it started.
        let (run, other) = (RunId("9".into()), RunId("0".into()));
        let instance = supervisor::process::own().unwrap();
        let directory = ground.path().join("1");
        std::fs::create_dir(&directory).unwrap();
        let has =
            |generation, run| has_run(std::slice::from_ref(&directory), Generation(generation), run).unwrap();
        note_run(&directory, &run).unwrap();
        assert!(!has(2, &run), "started, and not executed yet");
        let program = std::env::current_exe().unwrap();
        let record = ExecRecord {
            instance,
            argv: Vec::new(),
            cwd: ground.path().to_owned(),
            entry_file: supervisor::identify(&program).unwrap(),
            entry: program,
            generation: Generation(2),
            nonce: "1".into(),
            at: Moment { wall: jiff::Timestamp::UNIX_EPOCH, boot_ms: 0 },
        };
        std::fs::write(directory.join("instance.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        assert!(has(2, &run));
        assert!(!has(1, &run) && !has(2, &other), "another generation, another run");
    }
}
