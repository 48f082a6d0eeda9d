//! What somebody may ask for.

use crate::{Hold, Installed, PlanId, RunId};
use serde::{Deserialize, Serialize};

/// Which release an update wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    /// What the source's channel names now.
    Channel(String),
    /// Exactly this version.
    Version(String),
}

/// What an operator's rollback does with data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataWish {
    /// The data stays as it is.
    Keep,
    /// The snapshot that belongs to the older version is laid down; later writes are given up.
    Restore,
}

/// What a run does with data between Snapshot and Switch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataOrder {
    /// The data stays.
    Keep,
    /// This run's snapshot is laid down.
    Restore {
        /// The run that took the snapshot.
        snapshot: RunId,
    },
}

/// What somebody asks of a service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Install and prove another release.
    Update {
        /// Which.
        wanted: Wanted,
        /// Whether it shall wait for a person's word in any case. Journals from before could not ask for that.
        #[serde(default)]
        hold: Hold,
    },
    /// Go back to an older sealed generation.
    Rollback {
        /// Which.
        to: Installed,
        /// What becomes of the data.
        data: DataWish,
    },
    /// The service shall run (durable).
    Start,
    /// The service shall not run (durable).
    Stop,
    /// End the live process and start the same generation again.
    Restart,
    /// Give up a run that has not passed the cut, or a parked one.
    Cancel,
    /// The run that is being prepared shall wait for a person's word before anything stops; one that was given counts no more.
    Hold,
    /// What is prepared may be switched to.
    Approve {
        /// Exactly this.
        plan: PlanId,
    },
    /// Leave Maintenance: try the target again.
    Retry,
    /// Leave Maintenance: back to the source.
    RecoverRollback,
    /// Leave Maintenance: start what the pointer names and serve it even if its proof stays incomplete.
    Accept,
}
