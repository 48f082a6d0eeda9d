//! What becomes of a configuration that the target refuses and can mend by itself: tried on a copy before anything stops,
//! rehearsed, and laid down after the stop, where the snapshot holds what it was.

use super::house::Purpose;
use super::{Executor, chain, fault};
use crate::config::RepairSettings;
use crate::preflight::{self, Mend, Mending, Stop};
use crate::store::snapshot::{self, Content, Mended};
use crate::supervisor::Launch;
use cutover_core::{DataClass, Fault, Finding, Installed, Level, Policy, RepairRule, RunId};
use std::time::Duration;

const KIND: &str = "configuration";

/// Longest time that mending a copy may take. OpenClaw's doctor took 29 s to 72 s on two busy cores.
const MENDING: Duration = Duration::from_secs(240);

/// The run whose look it is.
#[derive(Clone, Copy)]
pub(in super::super) struct Visit<'a> {
    pub run: &'a RunId,
    /// How the target failed in its rehearsal, where its own repair may help.
    pub mendable: Option<&'a Fault>,
}

/// Whose preflight it is.
pub(super) struct Patient<'a> {
    pub target: &'a Installed,
    pub source: Option<&'a Installed>,
    pub launch: &'a Launch,
    /// The run that may change something; a plan may not.
    pub visit: Option<Visit<'a>>,
    /// The rules that it is under.
    pub policy: &'a Policy,
}

impl Patient<'_> {
    /// How the target failed in its rehearsal, if it is looked at for that.
    fn mendable(&self) -> Option<&Fault> {
        self.visit.and_then(|visit| visit.mendable)
    }

    /// What its own repair comes to, where nothing is laid down. After an end in a rehearsal that is part of the run's cause:
    /// the validator has refused nothing.
    fn told(&self, text: &str) -> Finding {
        let level = if self.mendable().is_some() { Level::Block } else { Level::Note };
        Finding::new(level, KIND, format!("{}'s own repair {text}", self.target.release.version))
    }
}

impl Executor {
    /// Findings of the validator, with what the target's own repair would come to. If it is kept for the run, what the
    /// target refuses is no block any more, and the run's data counts as migrated: to go back means to take it back.
    pub(super) async fn mended_findings(
        &self,
        patient: &Patient<'_>,
        findings: Vec<Finding>,
    ) -> Result<(Vec<Finding>, Option<DataClass>), Fault> {
        if let Some(Visit { run, .. }) = patient.visit {
            self.keep(run, Vec::new()).await?;
        }
        let found = patient.mendable().map(|fault| {
            let text = format!("with the configuration as it is, {}", fault.detail);
            Finding::new(Level::Block, KIND, text)
        });
        let findings: Vec<Finding> = findings.into_iter().chain(found).collect();
        let is_refused = Finding::any_blocks(&findings);
        let Some(repair) = self.repair(patient.policy).filter(|_| is_refused) else {
            return Ok((findings, None));
        };
        let (files, how) = match self.prescribed(patient, repair).await? {
            Mend::Mended { files, how } => (files, how),
            Mend::Not { why } => {
                return Ok((findings.into_iter().chain([patient.told(&why)]).collect(), None));
            }
        };
        if let Some(Visit { run, .. }) = patient.visit {
            self.keep(run, files).await?;
        }
        let version = &patient.target.release.version;
        let text = format!(
            "{version}'s own repair of it is rehearsed, and laid down after the stop (`policy.repair`): {how}; a rollback \
             restores what it was"
        );
        let lowered = findings.into_iter().map(|finding| match finding.level {
            Level::Block => Finding { level: Level::Warn, ..finding },
            Level::Warn | Level::Note => finding,
        });
        let findings = lowered.chain([Finding::new(Level::Warn, KIND, text).changing(how)]).collect();
        Ok((findings, Some(DataClass::Migrated)))
    }

    /// A target's own repair, where it is tried.
    pub(super) fn repair(&self, policy: &Policy) -> Option<&RepairSettings> {
        self.site.settings.repair.as_ref().filter(|_| policy.repair != RepairRule::Never)
    }

    /// What the target's own repair makes of the files if that is to be laid down; otherwise what is told of it.
    async fn prescribed(&self, patient: &Patient<'_>, repair: &RepairSettings) -> Result<Mend, Fault> {
        let (files, how) = match self.mend(patient, repair).await? {
            Mend::Mended { files, how } => (files, how),
            Mend::Not { why } => {
                return Ok(Mend::Not { why: format!("(`preflight.repair`) does not help: {why}") });
            }
        };
        let (shown, doubt) = match patient.mendable() {
            None => ("would make it acceptable", ""),
            Some(_) => ("would change it", "; only another rehearsal shows whether that helps"),
        };
        if patient.policy.repair == RepairRule::Offer {
            let why = format!(
                "{shown}, as a copy has shown: {how}{doubt}; `policy.repair = \"apply\"` lets a run lay that down, otherwise \
                 change the configuration yourself"
            );
            return Ok(Mend::Not { why });
        }
        Ok(match self.unrehearsed(patient).await? {
            Some(why) => {
                Mend::Not { why: format!("{shown} ({how}), and is applied after a rehearsal only: {why}") }
            }
            None => Mend::Mended { files, how },
        })
    }

    async fn mend(&self, patient: &Patient<'_>, repair: &RepairSettings) -> Result<Mend, Fault> {
        let Patient { target, launch, .. } = *patient;
        let validate = ("preflight.validate", self.site.settings.validate.as_slice());
        let validator = self.validator(target, launch, validate)?;
        let command = self.validator(target, launch, ("preflight.repair.run", &repair.run))?;
        // Given up with this act, wherever that is: what is begun here ends with it.
        let (_interest, stop) = Stop::pair().map_err(chain("preflight"))?;
        let (scratch, right) = self.copies(Purpose::Validation).await?;
        let conditions = self.conditions(target, scratch, stop)?;
        let mending = Mending { command, limit: MENDING, files: repair.files.clone(), validator, conditions };
        let mended = tokio::task::spawn_blocking(move || {
            let _right = right;
            preflight::mend(&mending)
        });
        Ok(mended.await.expect("BUG: mending a configuration panicked"))
    }

    async fn keep(&self, run: &RunId, files: Vec<Mended>) -> Result<(), Fault> {
        let directory = self.snapshot_directory(run);
        self.with_hands("repair", move || snapshot::keep_mended(&directory, &files)).await
    }

    /// What is kept for a run.
    pub(super) async fn mended(&self, run: &RunId) -> Result<Vec<Mended>, Fault> {
        let directory = self.snapshot_directory(run);
        super::blocking("repair", move || snapshot::mended(&directory)).await
    }

    /// Whether what was mended still is what it was mended from, or is laid down already.
    pub(super) async fn still_mendable(&self, files: Vec<Mended>) -> Result<(), Fault> {
        let paths = self.site.state_paths();
        if files.is_empty() {
            return Ok(());
        }
        let moved = super::blocking("repair", move || {
            let roots = snapshot::at_home(&paths)?;
            for file in files {
                let found = snapshot::text_of(&file.path, &roots)?;
                if [&file.before, &file.after].into_iter().all(|known| found.as_ref() != Some(known)) {
                    return Ok(Some(file.path));
                }
            }
            Ok::<_, snapshot::Error>(None)
        });
        let Some(path) = moved.await? else { return Ok(()) };
        let path = path.display();
        let text = format!(
            "{path} was changed since it was mended on a copy: order the update again, and it is mended anew"
        );
        Err(fault("repair", text))
    }

    /// Takes back what was laid down and never started with. What has neither content is for the comparison to tell.
    pub(super) async fn exchange_back(&self, files: &[Mended]) -> Result<(), Fault> {
        let (files, paths) = (files.to_owned(), self.site.state_paths());
        if files.is_empty() {
            return Ok(());
        }
        self.with_hands("repair", move || {
            let roots = snapshot::at_home(&paths)?;
            for file in files {
                let found = snapshot::text_of(&file.path, &roots)?;
                if [&file.before, &file.after].into_iter().any(|known| found.as_ref() == Some(known)) {
                    snapshot::exchange(&[file], &roots, Content::Before)?;
                }
            }
            Ok::<_, snapshot::Error>(())
        })
        .await
    }

    /// Gives live state the wanted contents of what was mended. Must be called only while nothing runs.
    pub(super) async fn exchange(&self, files: Vec<Mended>, wanted: Content) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        let paths = self.site.state_paths();
        self.with_hands("repair", move || snapshot::exchange(&files, &snapshot::at_home(&paths)?, wanted))
            .await
    }
}

/// A repair is laid down after a rehearsal that has shown that it helps, and never without.
pub(super) fn unshown(why: &str) -> Fault {
    fault(
        "repair",
        format!("the configuration was mended on a copy, and no rehearsal has shown that this helps: {why}"),
    )
}
