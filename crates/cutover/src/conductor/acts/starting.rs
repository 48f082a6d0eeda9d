//! Two-phase start: who will run is journaled before anything runs.

use super::{Executor, Reported, chain, fault};
use crate::conductor::inbox::Input;
use crate::store::snapshot::Comparison;
use crate::supervisor::{self, Live};
use cutover_core::{Done, Event, Fault, Installed, Policy, RunId, Settings, Ticket};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// From the word to a keeper until it is ready, and until the program is executed.
const KEEPER: Duration = Duration::from_secs(10);
/// Longest pause while a foreigner holds the port.
const PORT_PAUSE_MAX: Duration = Duration::from_secs(2);

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
        if let Some(run) = compare.filter(|_| !self.site.settings.state.is_empty()) {
            match self.still_equal(run).await? {
                Comparison::Equal => {}
                Comparison::Changed { .. } => {
                    return Ok(Reported::Event(Event::SnapshotStale { ticket: ticket.clone() }));
                }
                other => {
                    return Err(fault(
                        "data_changed",
                        format!("before the first start the state was {other:?}"),
                    ));
                }
            }
        }
        let starting = Starting { installed, policy: &settings.policy };
        let live = self.spawn(&starting).await?;
        Ok(Reported::Done(Done::Started { instance: live.instance().clone() }))
    }

    /// A live process of this generation is adopted; any other is ended first.
    async fn already(&self, installed: &Installed, policy: &Policy) -> Result<Option<Arc<Live>>, Fault> {
        for live in self.running().await? {
            if live.record.generation == installed.generation {
                let live = Arc::new(live);
                self.reporter.send(Input::Born(Arc::clone(&live))).await;
                return Ok(Some(live));
            }
        }
        self.stop_all(policy).await?;
        Ok(None)
    }

    /// Starts a generation whose tree is what was sealed, on a port that nobody else holds.
    pub(in super::super) async fn spawn(&self, starting: &Starting<'_>) -> Result<Arc<Live>, Fault> {
        let generation = starting.installed.generation;
        self.sealed(generation).await?;
        self.port_free(starting.policy.hard_cap).await?;
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
        crate::crash_point!("start_before_go");
        let live = match prepared.go(KEEPER).await {
            Ok(live) => live,
            Err(supervisor::Error::Undecided { .. }) => self.decided(&directory).await?,
            Err(error) => return Err(chain("exec_failed")(error)),
        };
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
