//! What may go when a run has ended: generations and snapshots that neither the state nor a live process needs.

use super::Conductor;
use super::acts;
use super::inbox::Handle;
use super::view::View;
use cutover_core::{Base, Cut, DataOrder, Generation, Phase, Run, RunId, State};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How long is waited for a sweep at most by who only looks.
const PATIENCE: Duration = Duration::from_secs(10);

impl Conductor {
    /// Sweeps, unless an earlier sweep still goes on; then the next look does.
    pub(super) fn sweep_if_due(&mut self) {
        if !self.sweep_is_due || self.chronicle.state.open_run().is_some() {
            return;
        }
        let Ok(broom) = Arc::clone(&self.executor.broom).try_lock_owned() else { return };
        self.sweep_is_due = false;
        let executor = self.executor.clone();
        let mut needed: BTreeSet<Generation> = self.chronicle.state.needed().into_iter().collect();
        needed.extend(self.live.as_ref().map(|live| live.record.generation));
        let snapshots = snapshots(&self.chronicle.state);
        let ended = self.chronicle.latest().map(|record| record.run.clone());
        tokio::spawn(async move {
            let _broom = broom;
            if let Err(fault) = executor.sweep(needed, &snapshots).await {
                acts::warn(&executor, "old generations stay", &fault);
            }
            executor.swept.send_replace(ended);
        });
    }
}

impl Handle {
    /// Waits for the sweep that the end of the last run calls for, so that nothing is shown as kept that is about to go.
    pub(super) async fn after_sweeping(&self) {
        let is_over = |view: &View| view.state().open_run().is_none() && view.report.ended.is_some();
        let view = self.view();
        if !is_over(&view) {
            return;
        }
        let (mut swept, mut views) = (self.executor.swept.subscribe(), self.view.clone());
        let wait = async {
            tokio::select! {
                _ = swept.wait_for(|run| *run == view.report.run_id) => {}
                // Another run sweeps when it ends.
                _ = views.wait_for(|view| !is_over(view)) => {}
            }
        };
        // Who only looks is answered in any case.
        let _ = tokio::time::timeout(PATIENCE, wait).await;
    }
}

/// The snapshots that a state may still need.
fn snapshots(state: &State) -> BTreeSet<RunId> {
    let mut needed: BTreeSet<RunId> = state.previous.iter().map(|kept| kept.snapshot.clone()).collect();
    let mut cut = |cut: &Cut| {
        of_run(&mut needed, &cut.run);
        of_base(&mut needed, &cut.base);
    };
    state.parked.iter().for_each(&mut cut);
    match &state.phase {
        Phase::Idle | Phase::Watching(_) => {}
        Phase::CuttingOver(going) => cut(going),
        Phase::RollingBack(retreat) => cut(&retreat.cut),
        Phase::Preparing(preparation) => {
            of_run(&mut needed, &preparation.run);
            of_base(&mut needed, &preparation.base);
        }
        Phase::Maintenance(maintenance) => of_run(&mut needed, &maintenance.run),
    }
    needed
}

fn of_run(needed: &mut BTreeSet<RunId>, run: &Run) {
    needed.extend([run.id.clone(), run.snapshot.clone()]);
    if let DataOrder::Restore { snapshot } = &run.data {
        needed.insert(snapshot.clone());
    }
}

fn of_base(needed: &mut BTreeSet<RunId>, base: &Base) {
    if let Base::Maintenance(maintenance) = base {
        of_run(needed, &maintenance.run);
    }
}
