//! The conductor's pen: the only place where the journal is appended to.

use super::chronicle::Chronicle;
use crate::journal::{self, Journal, NewEntry, Stamp};
use cutover_core::{Entry, Event, Recorded, RunId, State, Transition};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// One journal, shared by the conductors of all services; one of them writes at a time.
#[derive(Clone)]
pub struct Ledger {
    journal: Arc<Mutex<Journal>>,
    boot_id: cutover_core::BootId,
}

impl Ledger {
    /// Takes the open journal.
    #[must_use]
    pub fn new(journal: Journal, boot_id: cutover_core::BootId) -> Self {
        Self { journal: Arc::new(Mutex::new(journal)), boot_id }
    }

    /// The boot that this daemon runs in.
    #[must_use]
    pub fn boot_id(&self) -> &cutover_core::BootId {
        &self.boot_id
    }

    /// Reads a service's story.
    ///
    /// # Errors
    /// See [`Chronicle::read`].
    pub fn read(&self, service: &str) -> Result<Chronicle, super::chronicle::Error> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        Chronicle::read(journal.read(), service)
    }

    /// Whether an act may begin: there is room to append its end and that of a rollback.
    #[must_use]
    pub fn has_room(&self) -> bool {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.has_room() || journal.reserve().is_ok()
    }

    /// Appends an event durably, with a checkpoint if it ended a run, and returns it as an entry.
    ///
    /// # Errors
    /// [`journal::Error`]: nothing was appended; the state must stay as it was.
    pub async fn append(
        &self,
        service: &str,
        event: Event,
        transition: &Transition,
        chronicle: &Chronicle,
    ) -> Result<Entry, journal::Error> {
        let new = NewEntry {
            service: service.to_owned(),
            run: run_of(&chronicle.state, &transition.state),
            at: self.now(),
            event: serde_json::to_string(&event).expect("an event is plain data"),
            step_version: cutover_core::STEP_VERSION,
            state_hash: Recorded::of(&transition.state).state,
        };
        let entry = Entry {
            seq: 0,
            wall_ms: u64::try_from(new.at.wall_ms).unwrap_or_default(),
            boot_ms: new.at.boot_ms,
            event,
            recorded: Recorded::of(&transition.state),
        };
        let checkpoint = transition.ended.as_ref().map(|_| {
            let mut after = chronicle.clone();
            after.apply(&entry, transition.clone());
            after.boot = Some(self.boot_id.clone());
            serde_json::to_string(&after).expect("a chronicle is plain data")
        });
        let journal = Arc::clone(&self.journal);
        let seq = tokio::task::spawn_blocking(move || {
            let mut journal = journal.lock().unwrap_or_else(PoisonError::into_inner);
            match checkpoint {
                Some(state) => journal.append_with_checkpoint(&new, &state),
                None => journal.append(&new),
            }
        })
        .await
        .expect("BUG: the journal panicked")?;
        Ok(Entry { seq: u64::try_from(seq.0).unwrap_or_default(), ..entry })
    }

    fn now(&self) -> Stamp {
        Stamp {
            wall_ms: i64::try_from(wall_ms()).unwrap_or(i64::MAX),
            boot_id: self.boot_id.clone(),
            boot_ms: cutover_intent::boot_time_ms(),
        }
    }
}

/// The run that an event belongs to: the one open before it, else the one that it begins.
fn run_of(before: &State, after: &State) -> Option<RunId> {
    before.open_run().or_else(|| after.open_run()).cloned()
}

/// The id of a run that is about to begin, sortable by time of birth.
#[must_use]
pub(super) fn fresh_run() -> RunId {
    RunId(uuid::Uuid::now_v7().to_string())
}

/// Now, as a snapshot wants it: the boot, and wall time read before the work begins.
#[must_use]
pub(super) fn moment() -> crate::store::snapshot::Moment {
    let boot_id = cutover_intent::identity::boot_id().unwrap_or_else(|_| cutover_core::BootId(String::new()));
    crate::store::snapshot::Moment { boot_id, at: jiff::Timestamp::now() }
}

/// Wall time in ms since 1970-01-01 UTC: for people, never for durations.
#[must_use]
pub fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
