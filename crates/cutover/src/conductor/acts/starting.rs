//! Two-phase start: who will run is journaled before anything runs.

use super::{Executor, Reported, chain, fault};
use crate::conductor::inbox::Input;
use crate::store::snapshot::Comparison;
use crate::supervisor::{self, Live};
use cutover_core::{DataClass, Done, Event, Fault, Installed, Policy, RunId, Settings, Ticket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the word to a keeper until it is ready, and until the program is executed.
const KEEPER: Duration = Duration::from_secs(10);
/// Longest pause while a foreigner holds the port.
const PORT_PAUSE_MAX: Duration = Duration::from_secs(2);

/// So often a snapshot is taken again because the stopped state went on changing; then somebody else writes to it.
const STALE_MAX: u8 = 5;

/// What is started, and under which rules.
pub(in super::super) struct Starting<'a> {
    pub installed: &'a Installed,
    pub policy: &'a Policy,
}

impl Executor {
    /// Starts what the run names, or adopts it where it lives already.
    pub(super) async fn start(
        &self,
        ticket: &Ticket,
        installed: &Installed,
        compare: Option<&RunId>,
        settings: &Settings,
    ) -> Result<Reported, Fault> {
        self.closed(settings.policy.hold).await?;
        if let Some(live) = self.already(installed, &settings.policy).await? {
            return Ok(Reported::Done(Done::Started { instance: live.instance().clone() }));
        }
        let compare = compare.filter(|_| settings.class != DataClass::None);
        if let Some(run) = compare
            && !self.has_run(installed, &ticket.run)?
        {
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
        }
        let starting = Starting { installed, policy: &settings.policy };
        let live = self.spawn(&starting).await?;
        Ok(Reported::Done(Done::Started { instance: live.instance().clone() }))
    }

    /// Whether a process of the target was executed since `run` began: then the state may be its own, and is no longer what
    /// the snapshot of the source holds.
    fn has_run(&self, target: &Installed, run: &RunId) -> Result<bool, Fault> {
        // Both are sortable by time of birth.
        let begun = run.0.replace('-', "");
        for directory in self.site.instance_directories() {
            let mark = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let executed = supervisor::executed(&directory).map_err(chain("supervisor"))?;
            if mark > begun && executed.is_some_and(|record| record.generation == target.generation) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A live process of this generation is adopted, the youngest if there are several; all others, and what ended ones
    /// left behind, are ended first.
    pub(in super::super) async fn already(
        &self,
        installed: &Installed,
        policy: &Policy,
    ) -> Result<Option<Arc<Live>>, Fault> {
        let mut running = self.running().await?;
        let at = running.iter().position(|live| live.record.generation == installed.generation);
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

    /// Starts a generation whose tree is what was sealed, on a port that nobody else holds.
    pub(in super::super) async fn spawn(&self, starting: &Starting<'_>) -> Result<Arc<Live>, Fault> {
        let generation = starting.installed.generation;
        self.sealed(generation).await?;
        // A little less than the act itself may take, so that the holder is named.
        self.port_free(starting.policy.hard_cap.mul_f64(0.9)).await?;
        let nonce = uuid::Uuid::now_v7().simple().to_string();
        let directory = self.site.instances().join(&nonce);
        let launch =
            self.site.launch(generation, nonce).map_err(|error| fault("launch", format!("{error:#}")))?;
        let prepared = supervisor::prepare(&self.site.executable, &directory, &launch, KEEPER)
            .await
            .map_err(chain("keeper"))?;
        let keeper = prepared.keeper.clone();
        let spawned = Event::Spawned { generation, keeper };
        self.reporter.fact(spawned).await.map_err(chain("stale"))?;
        crate::crash_point!("start: before go");
        let live = match prepared.go(KEEPER).await {
            Ok(live) => live,
            Err(supervisor::Error::Undecided { .. }) => self.decided(&directory).await?,
            Err(error) => return Err(chain("exec_failed")(error)),
        };
        crate::crash_point!("start: gone");
        let live = Arc::new(live);
        self.reporter.send(Input::Born(Arc::clone(&live))).await;
        self.site.forget_old_instances();
        Ok(live)
    }

    async fn decided(&self, directory: &std::path::Path) -> Result<Live, Fault> {
        match supervisor::adopt(directory, KEEPER).await.map_err(chain("keeper"))? {
            supervisor::Adopted::Running(live) => Ok(live),
            other => Err(fault("exec_failed", format!("the keeper did not start it: {other:?}"))),
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
                let who = holder.command.clone().unwrap_or_else(|| "somebody".into());
                return Err(fault(
                    "port_taken",
                    format!("{} is held by {who} ({:?})", holder.address, holder.instance),
                ));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PORT_PAUSE_MAX);
        }
    }
}
