//! What stands in the journal: entries, checkpoints and the spans of runs.

use cutover_core::{BootId, RunId};

/// Position of an entry. Grows by one per entry over all services; [`Seq::START`] stands before the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub i64);

impl Seq {
    /// Before the first entry.
    pub const START: Self = Self(0);
}

/// When something was appended, by both clocks: wall time for people, boot time for durations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: i64,
    /// The boot in which `boot_ms` means anything.
    pub boot_id: BootId,
    /// Milliseconds since boot, suspended time included (`CLOCK_BOOTTIME`).
    pub boot_ms: u64,
}

/// An entry to append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The service that the event is about.
    pub service: String,
    /// The run that it belongs to, where there is one.
    pub run: Option<RunId>,
    /// When.
    pub at: Stamp,
    /// The event as JSON; text that is not JSON is refused.
    pub event: String,
    /// Version of the function that turned the event into a state.
    pub step_version: u32,
    /// Hash of the state after the event.
    pub state_hash: String,
}

/// An entry as it was appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub seq: Seq,
    /// The service that the event is about.
    pub service: String,
    /// The run that it belongs to, where there is one.
    pub run: Option<RunId>,
    /// When.
    pub at: Stamp,
    /// The event as JSON.
    pub event: String,
    /// Version of the function that turned the event into a state.
    pub step_version: u32,
    /// Hash of the state after the event.
    pub state_hash: String,
}

/// A service's state after one entry; replay begins behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The service.
    pub service: String,
    /// The last entry contained in the state.
    pub seq: Seq,
    /// The state as JSON.
    pub state: String,
    /// Version of the function that made the state.
    pub step_version: u32,
    /// Hash of the state.
    pub state_hash: String,
}

/// Where one run begins and ends in the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSpan {
    /// The run.
    pub run: RunId,
    /// Its first entry.
    pub first: Seq,
    /// Its last entry so far.
    pub last: Seq,
    /// Wall time of the first entry, ms since 1970-01-01 UTC.
    pub first_wall_ms: i64,
    /// Wall time of the last entry so far, ms since 1970-01-01 UTC.
    pub last_wall_ms: i64,
}
