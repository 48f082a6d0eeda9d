//! Declared state: copied before a new version first starts, laid back when the run turns round.

use super::{Executor, Outcome, blocking, fault};
use crate::store::snapshot::{self, StatePath};
use cutover_core::{DataClass, Done, Fault, RunId, Settings, Strategy};
use std::path::Path;

/// What a preflight finds about declared state: paths that cannot be restored and space that is not there are faults.
pub(super) fn look(paths: &[StatePath], snapshots: &Path) -> Result<Vec<String>, snapshot::Error> {
    let findings = snapshot::check(paths);
    if !findings.is_empty() {
        return Err(snapshot::Error::Refused(findings));
    }
    let size = snapshot::estimate(paths)?;
    snapshot::check_space(paths, snapshots)?;
    Ok(vec![format!("declared state: {} files, {} bytes, copied before the new version first starts", size.files, size.bytes)])
}

impl Executor {
    fn snapshot_directory(&self, run: &RunId) -> std::path::PathBuf {
        self.site.snapshots().join(&run.0)
    }

    pub(super) async fn warm_copy(&self, run: &RunId) -> Outcome {
        let (paths, directory) = (self.site.state_paths(), self.snapshot_directory(run));
        blocking("snapshot", move || snapshot::warm(&paths, &directory)).await?;
        Ok(Done::Done { note: "state copied while the old version ran".into() })
    }

    /// The delta, with the old process proven gone.
    pub(super) async fn snapshot(&self, run: &RunId, settings: &Settings) -> Outcome {
        if settings.class == DataClass::None {
            return Ok(Done::Skipped { why: "no state is declared".into() });
        }
        if settings.strategy == Strategy::StopStart {
            self.nobody_runs().await?;
        }
        let (paths, directory) = (self.site.state_paths(), self.snapshot_directory(run));
        let taken = blocking("snapshot", move || snapshot::take(&paths, &directory)).await?;
        Ok(Done::Done { note: format!("{} bytes, of which {} while stopped", taken.bytes(), taken.bytes_while_stopped()) })
    }

    /// A restore or a snapshot under a running process would copy torn data.
    async fn nobody_runs(&self) -> Result<(), Fault> {
        match self.running().await?.first() {
            Some(live) => Err(fault("still_running", format!("{} still runs", live.instance()))),
            None => Ok(()),
        }
    }

    pub(super) async fn place(&self, snapshot_of: &RunId, run: &RunId) -> Outcome {
        self.restore(snapshot_of, run).await
    }

    /// Lays a snapshot down; what it replaces is kept beside it, named.
    pub(super) async fn restore(&self, snapshot_of: &RunId, run: &RunId) -> Outcome {
        if self.site.settings.state.is_empty() {
            return Ok(Done::Skipped { why: "no state is declared".into() });
        }
        self.stop_all(&self.site.settings.policy.clone()).await?;
        self.nobody_runs().await?;
        let (directory, suffix) = (self.snapshot_directory(snapshot_of), run.0.clone());
        let restored = blocking("restore", move || {
            let snapshot = snapshot::open(&directory)?;
            snapshot::restore(&snapshot, &suffix)
        })
        .await?;
        let kept: Vec<String> = restored.replaced.iter().map(|path| path.display().to_string()).collect();
        Ok(Done::Done {
            note: format!("{} files, {} bytes restored; what they replaced is kept: {}", restored.files, restored.bytes, kept.join(", ")),
        })
    }

    /// Before the target's first start: the stopped state must still be what the snapshot holds. Then it is frozen.
    pub(super) async fn still_equal(&self, run: &RunId) -> Result<snapshot::Comparison, Fault> {
        let directory = self.snapshot_directory(run);
        blocking("snapshot", move || {
            let snapshot = snapshot::open(&directory)?;
            let comparison = snapshot::compare(&snapshot)?;
            if comparison == snapshot::Comparison::Equal {
                snapshot::freeze(&directory)?;
            }
            Ok::<_, snapshot::Error>(comparison)
        })
        .await
    }

    /// Forgets snapshots that nothing names any more.
    pub(in super::super) async fn discard_snapshots(&self, needed: Vec<RunId>) {
        let directory = self.site.snapshots();
        let Ok(entries) = std::fs::read_dir(&directory) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !needed.contains(&RunId(name))
                && let Err(error) = blocking("prune", move || snapshot::discard(&path)).await.map_err(|fault| fault.detail)
            {
                tracing::warn!(error, "a snapshot that is no longer needed stays");
            }
        }
    }
}

