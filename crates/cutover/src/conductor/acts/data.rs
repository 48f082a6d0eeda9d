//! Declared state: copied before a new version first starts, laid back when the run turns round.

use super::{Executor, Outcome, fault};
use crate::conductor::ledger::moment;
use crate::store::snapshot::{self, Comparison, Snapshot, StatePath};
use cutover_core::{DataClass, Done, Fault, Finding, LayDown, Level, RunId, Settings, Strategy};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a database that is written to may keep the copy waiting.
const BUSY: Duration = Duration::from_secs(10);

/// What a preflight finds about declared state: paths that cannot be restored are a fault.
pub(super) fn look(paths: &[StatePath], snapshots: &Path) -> Result<Vec<Finding>, Fault> {
    let findings = snapshot::check(paths, snapshots);
    if !findings.is_empty() {
        let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
        return Err(fault("state", told.join("; ")));
    }
    let size = snapshot::estimate(paths).map_err(super::chain("state"))?;
    let text = format!(
        "declared state: {} files, {} bytes, copied before the new version first starts",
        size.files, size.bytes
    );
    Ok(vec![Finding::new(Level::Note, "data", text)])
}

/// Whether old code can go on with what was written since, in words; if not, why not. Of files that are no databases nobody
/// can tell, unless the target itself said that it leaves the data `Neutral`.
fn staying(comparison: &Comparison, class: DataClass) -> Result<String, String> {
    match comparison {
        Comparison::Equal => Ok("nothing was written since the snapshot".into()),
        Comparison::Changed(changes) if changes.files_count == 0 || class == DataClass::Neutral => {
            Ok(format!(
                "the writes stay: the schema of every database is as it was, {} have other rows, {} files are changed",
                changes.databases.len(),
                changes.files_count
            ))
        }
        Comparison::Changed(changes) => {
            Err(format!("{} files are changed, and nobody can tell who could read them", changes.files_count))
        }
        Comparison::Migrated(changes) => {
            let names: Vec<String> =
                changes.databases.iter().map(|change| change.path.display().to_string()).collect();
            Err(format!("old code cannot go on with the data: another schema in {}", names.join(", ")))
        }
        Comparison::Unknown { why } => Err(format!("what was written cannot be told: {why}")),
    }
}

/// A snapshot that must exist.
fn open(directory: &Path) -> Result<Snapshot, snapshot::Error> {
    Snapshot::open(directory)?.ok_or_else(|| snapshot::Error::Missing { dir: directory.to_owned() })
}

impl Executor {
    pub(super) fn snapshot_directory(&self, run: &RunId) -> PathBuf {
        self.site.snapshots().join(&run.0)
    }

    /// The bulk of the snapshot, while the old version runs; what was copied, in words.
    pub(super) async fn warm_copy(&self, run: &RunId) -> Result<String, Fault> {
        let (paths, directory) = (self.site.state_paths(), self.snapshot_directory(run));
        let warmed =
            self.with_hands("snapshot", move || snapshot::warm(&paths, &directory, &moment(), BUSY)).await?;
        self.tally.add(warmed.bytes);
        Ok(format!("{} files, {} bytes copied while the old version ran", warmed.files, warmed.bytes))
    }

    /// The delta, with the old process proven gone.
    pub(super) async fn snapshot(&self, run: &RunId, settings: &Settings) -> Outcome {
        if settings.class == DataClass::None {
            return Ok(Done::Skipped { why: "no state is declared".into() });
        }
        if settings.strategy == Strategy::StopStart {
            self.succeed(&settings.policy).await?;
            self.nobody_runs().await?;
        }
        let (paths, directory) = (self.site.state_paths(), self.snapshot_directory(run));
        let taken =
            self.with_hands("snapshot", move || snapshot::take(&paths, &directory, &moment())).await?;
        self.tally.add(taken.copied());
        let size = taken.size();
        Ok(Done::Done { note: format!("{} files, {} bytes", size.files, size.bytes) })
    }

    /// A restore or a snapshot under a running process would copy torn data.
    async fn nobody_runs(&self) -> Result<(), Fault> {
        match self.running().await?.first() {
            Some(live) => Err(fault("still_running", format!("{} still runs", live.instance()))),
            None => Ok(()),
        }
    }

    /// Undoes what a version may have done to the state, as far as `when` says. What is declared now is not asked: the
    /// snapshot knows what it holds, and one that is not there is a fault.
    pub(super) async fn lay_down_if(
        &self,
        when: LayDown,
        snapshot_of: &RunId,
        run: &RunId,
        class: DataClass,
    ) -> Outcome {
        self.stop_all(&self.site.settings.policy).await?;
        self.nobody_runs().await?;
        if self.is_revived()? {
            return Ok(Done::Skipped { why: "the service that was here before runs on it again".into() });
        }
        if when != LayDown::Always {
            let (directory, tag) = (self.snapshot_directory(snapshot_of), run.0.clone());
            let seats = self.seats_known();
            let looked = self
                .with_hands("restore", move || {
                    let snapshot = open(&directory)?;
                    // One that has begun to lay down is brought to its end: what lies there is the copy, or half of it.
                    let begun = snapshot::restore_has_begun(&snapshot, &tag)?;
                    Ok::<_, snapshot::Error>((!begun).then(|| snapshot::compare_without(&snapshot, &seats)))
                })
                .await?;
            match looked.map(|comparison| staying(&comparison, class)) {
                Some(Ok(why)) => return Ok(Done::Skipped { why }),
                Some(Err(why)) if when == LayDown::Never => {
                    let rule = "`restore_after_release` does not allow to give up what was written since";
                    return Err(fault("migrated", format!("{why}; {rule}")));
                }
                Some(Err(_)) | None => {}
            }
        }
        self.lay_down(snapshot_of, run).await
    }

    /// Lays a snapshot down; what it replaces is kept beside it, named.
    async fn lay_down(&self, snapshot_of: &RunId, run: &RunId) -> Outcome {
        let (directory, tag) = (self.snapshot_directory(snapshot_of), run.0.clone());
        let restored =
            self.with_hands("restore", move || snapshot::restore(&open(&directory)?, &tag)).await?;
        self.tally.add(restored.copied);
        let kept: Vec<String> = restored.replaced.iter().map(|path| path.display().to_string()).collect();
        Ok(Done::Done {
            note: format!(
                "{} files, {} bytes restored; what they replaced is kept: {}",
                restored.files,
                restored.bytes,
                kept.join(", ")
            ),
        })
    }

    /// Before the target's first start: the stopped state must still be what the snapshot holds. Then it is frozen.
    pub(super) async fn still_equal(&self, run: &RunId) -> Result<Comparison, Fault> {
        let (directory, seats) = (self.snapshot_directory(run), self.seats_known());
        self.with_hands("snapshot", move || {
            let snapshot = open(&directory)?;
            let comparison = snapshot::compare_without(&snapshot, &seats);
            if comparison == Comparison::Equal {
                snapshot::freeze(&snapshot)?;
            }
            Ok::<_, snapshot::Error>(comparison)
        })
        .await
    }
}
