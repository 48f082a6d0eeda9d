//! A service's state and the records of its runs, folded from journal entries. The daemon and the offline CLI read the
//! journal through this one fold.

use crate::journal;
use cutover_core::{
    Base, Boot, BootId, Ending, Entry, Event, Kind, Mismatch, Notifications, Phase, Preparation, Record,
    Recorded, Refusal, Report, Run, RunId, State, Transition, fingerprint, replay_entry, report, step,
};
use serde::{Deserialize, Serialize};

/// Records kept in a checkpoint, newest last.
const RECORDS_MAX: usize = 100;

/// A service's state and story.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chronicle {
    /// Where it stands.
    pub state: State,
    /// Its runs, oldest first.
    pub records: Vec<Record>,
    /// The boot of the last entry.
    pub boot: Option<BootId>,
    /// Who was told what, and who is still to be.
    #[serde(default)]
    pub notifications: Notifications,
}

/// The journal cannot be read as a story: nothing may be touched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal itself.
    #[error("reading the journal")]
    Journal(#[from] journal::Error),
    /// A checkpoint or an event is not what it was.
    #[error("entry {seq} of the journal cannot be read")]
    Parse {
        /// Its position.
        seq: i64,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// It leads elsewhere than it did.
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

impl Chronicle {
    /// Reads a service's whole story: from its checkpoint through all later entries.
    ///
    /// # Errors
    /// [`Error`]: what was written does not replay. Touch nothing, declare it.
    pub fn read(reader: &journal::Reader, service: &str) -> Result<Self, Error> {
        let (mut chronicle, after) = match reader.checkpoint(service)? {
            Some(checkpoint) => {
                let seq = checkpoint.seq.0;
                let chronicle: Self =
                    serde_json::from_str(&checkpoint.state).map_err(|source| Error::Parse { seq, source })?;
                let (written, now) = (checkpoint.step_version, cutover_core::STEP_VERSION);
                // Other rules may shape a state otherwise; under the same rules it is what it was, or it is damaged.
                if written == now && fingerprint(&chronicle.state) != checkpoint.state_hash {
                    let seq = u64::try_from(seq).unwrap_or_default();
                    return Err(Mismatch::Differs { seq, written, now }.into());
                }
                (chronicle, checkpoint.seq)
            }
            None => (Self::default(), journal::Seq::START),
        };
        for row in reader.entries(service, after)? {
            let entry = entry(&row)?;
            let transition = replay_entry(&chronicle.state, &entry)?;
            chronicle.apply(&entry, transition);
            chronicle.boot = Some(row.at.boot_id);
        }
        Ok(chronicle)
    }

    /// What an event would lead to.
    ///
    /// # Errors
    /// The refusal; nothing happened.
    pub fn foresee(&self, event: &Event) -> Result<Transition, Refusal> {
        step(&self.state, event)
    }

    /// Takes a durable entry in.
    pub fn apply(&mut self, entry: &Entry, transition: Transition) -> Option<Ending> {
        let Transition { state: after, ended } = transition;
        let before = std::mem::replace(&mut self.state, after);
        if let Some(run) = before.open_run().cloned()
            && let Some(record) = self.records.iter_mut().find(|record| record.run == run)
        {
            record.add(entry, &before, &self.state, ended.as_ref());
        }
        if let Some(ended) = &ended {
            self.stays(&ended.run);
            // Whoever goes on with a revert that ended in maintenance bears the name of its snapshot.
            if let Some(run) = going_on(&before) {
                self.stays(&run.snapshot);
            }
        }
        let begun = Record::begun(entry, &before, &self.state);
        self.notifications.add(entry, begun.as_ref(), ended.as_ref());
        self.notifications.follow(entry, &before, &self.state);
        if let Some(record) = begun {
            self.reverts(&record, &before);
            self.records.push(record);
            let surplus = self.records.len().saturating_sub(RECORDS_MAX);
            self.records.drain(..surplus);
        }
        ended
    }

    /// A watched run that a revert begins to undo learns of it.
    fn reverts(&mut self, revert: &Record, before: &State) {
        let watched = match &before.phase {
            Phase::Watching(watch) | Phase::Preparing(Preparation { base: Base::Watching(watch), .. }) => {
                Some(&watch.run)
            }
            _ => None,
        };
        if revert.kind == Kind::AutoRevert
            && let Some(record) = self.records.iter_mut().find(|record| Some(&record.run) == watched)
        {
            record.reverted_by = Some(revert.run.clone());
        }
    }

    /// A revert that has ended where it began has undone nothing.
    fn stays(&mut self, revert: &RunId) {
        // A person may still have it go on.
        if matches!(self.state.phase, Phase::Maintenance(_)) {
            return;
        }
        let current = self.state.current.as_ref();
        let reverted = self.records.iter_mut().find(|record| record.reverted_by.as_ref() == Some(revert));
        if let Some(record) = reverted
            && record.ending.as_ref().is_some_and(|ending| ending.target.as_ref() == current)
        {
            record.reverted_by = None;
        }
    }

    /// What everybody reads about a run, or about the service alone, with commands that carry `flags`.
    #[must_use]
    pub fn report(&self, service: &str, record: Option<&Record>, flags: &str) -> Report {
        report(service, &self.state, record).told(&self.notifications).typed(flags)
    }

    /// One run's record.
    #[must_use]
    pub fn record(&self, run: &RunId) -> Option<&Record> {
        self.records.iter().find(|record| record.run == *run)
    }

    /// The run under way, else the last one.
    #[must_use]
    pub fn latest(&self) -> Option<&Record> {
        match self.state.open_run() {
            Some(run) => self.record(run),
            None => self.records.last(),
        }
    }

    /// Whether `boot` is another one than that of the last entry.
    #[must_use]
    pub fn boot(&self, boot: &BootId) -> Boot {
        match &self.boot {
            Some(last) if last != boot => Boot::New,
            Some(_) | None => Boot::Same,
        }
    }
}

/// The run past its cut.
fn going_on(state: &State) -> Option<&Run> {
    match &state.phase {
        Phase::CuttingOver(cut) => Some(&cut.run),
        Phase::RollingBack(retreat) => Some(&retreat.cut.run),
        Phase::Preparing(_) | Phase::Idle | Phase::Watching(_) | Phase::Maintenance(_) => None,
    }
}

fn entry(row: &journal::Entry) -> Result<Entry, Error> {
    let seq = row.seq.0;
    let event = serde_json::from_str(&row.event).map_err(|source| Error::Parse { seq, source })?;
    Ok(Entry {
        seq: u64::try_from(seq).unwrap_or_default(),
        wall_ms: u64::try_from(row.at.wall_ms).unwrap_or_default(),
        boot_ms: row.at.boot_ms,
        event,
        recorded: Recorded { step_version: row.step_version, state: row.state_hash.clone() },
    })
}
