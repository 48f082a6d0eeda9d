//! From a journal back to a state, through the very function that made it.

use crate::{Event, STEP_VERSION, State, Transition, step};
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use thiserror::Error;

/// One journaled event with what was known when it was appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Position in the journal.
    pub seq: u64,
    /// When it was appended (ms of Unix time; for people, never for durations).
    pub wall_ms: u64,
    /// When it was appended (ms of the boot-time clock).
    pub boot_ms: u64,
    /// What happened.
    pub event: Event,
    /// How the state looked after it.
    pub recorded: Recorded,
}

/// What an entry says about the state that followed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Version of the rules.
    pub step_version: u32,
    /// Fingerprint of the state.
    pub state: String,
}

impl Recorded {
    /// What is recorded beside an event that led to `state`.
    #[must_use]
    pub fn of(state: &State) -> Self {
        Self { step_version: STEP_VERSION, state: fingerprint(state) }
    }
}

/// The journal does not replay to what it says: touch nothing, declare it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// The event is refused by today's rules.
    #[error("entry {seq} does not apply: {refusal}")]
    Refused {
        /// Its position.
        seq: u64,
        /// Why.
        refusal: crate::Refusal,
    },
    /// It leads to another state than it did.
    #[error("entry {seq} led to another state when it was written (rules {written}, now {now})")]
    Differs {
        /// Its position.
        seq: u64,
        /// Version of the rules then.
        written: u32,
        /// Version of the rules now.
        now: u32,
    },
}

/// Replays one entry: what it led to then, it must lead to now.
///
/// # Errors
/// A [`Mismatch`].
pub fn replay_entry(state: &State, entry: &Entry) -> Result<Transition, Mismatch> {
    let seq = entry.seq;
    let transition = step(state, &entry.event).map_err(|refusal| Mismatch::Refused { seq, refusal })?;
    if fingerprint(&transition.state) == entry.recorded.state {
        return Ok(transition);
    }
    Err(Mismatch::Differs { seq, written: entry.recorded.step_version, now: STEP_VERSION })
}

/// Replays `entries` on top of a checkpoint.
///
/// # Errors
/// A [`Mismatch`] at the first entry that does not lead where it says.
pub fn replay(checkpoint: &State, entries: &[Entry]) -> Result<State, Mismatch> {
    entries.iter().try_fold(checkpoint.clone(), |state, entry| Ok(replay_entry(&state, entry)?.state))
}

/// A fingerprint of a state: FNV-1a over its derived hash, stable across processes of one build and one architecture
/// width. It finds drift between rules, not malice.
#[must_use]
pub fn fingerprint(state: &State) -> String {
    fnv(state)
}

pub(crate) fn fnv(value: &impl Hash) -> String {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
