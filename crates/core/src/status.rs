//! The four words, and what is told with them. Everything a person, a script or a page reads derives from here.

use crate::{Act, Installed, RunId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The four outcomes of a package update. Only the last is a complete success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Status {
    /// Nothing was switched: the version that served before is still the installed one.
    #[serde(rename = "package_update_failed")]
    UpdateFailed,
    /// The pointer moved; the new process has not proven itself yet.
    #[serde(rename = "package_updated_restart_scheduled")]
    RestartScheduled,
    /// The package was updated, its restart was not verified.
    #[serde(rename = "package_updated_restart_failed")]
    RestartFailed,
    /// The live process has proven to be the target.
    #[serde(rename = "package_updated_restart_verified")]
    RestartVerified,
}

impl Status {
    /// Whether this is complete success. The only source of every boolean, colour and exit code.
    #[must_use]
    pub fn is_verified(self) -> bool {
        self == Self::RestartVerified
    }

    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UpdateFailed => "package_update_failed",
            Self::RestartScheduled => "package_updated_restart_scheduled",
            Self::RestartFailed => "package_updated_restart_failed",
            Self::RestartVerified => "package_updated_restart_verified",
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How a run that did not verify its target was resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Nothing had to be resolved.
    None,
    /// The old version serves and has proven itself.
    OldVerified,
    /// The old version is meant to serve; it has not proven itself.
    OldUnverified,
    /// A person accepted a process whose proof is incomplete.
    AcceptedUnverified,
    /// The service is in declared maintenance.
    Maintenance,
}

/// What started a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An order to install another release.
    Update,
    /// An order to go back.
    Rollback,
    /// The watched version failed.
    AutoRevert,
    /// The running tree was changed by a foreign hand: seal it again.
    TreeChanged,
    /// A person accepts what the pointer names.
    Accept,
}

/// Why an act could not be completed: the world's trouble, journaled.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// A stable word (`crashed`, `wrong_version`, `timeout`, `no_space`, `cancelled` …).
    pub code: String,
    /// The whole story in words, cause chain included.
    pub detail: String,
}

/// A fault and where it happened.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// The act under way.
    pub act: Act,
    /// What went wrong.
    pub fault: Fault,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// The run.
    pub run: RunId,
    /// What had started it.
    pub kind: Kind,
    /// What it meant to install, as far as it was known.
    pub target: Option<Installed>,
    /// One of the four words; `None` if the target was already current.
    pub status: Option<Status>,
    /// How it was resolved.
    pub resolution: Resolution,
    /// All faults, first to last.
    pub causes: Vec<Cause>,
    /// Whether writes that clients were told to be safe had to be given up.
    pub writes: Writes,
}

/// What became of writes that clients had been told to be safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Writes {
    /// All are there.
    Kept,
    /// Those since the snapshot were given up: it was laid down, and what it replaced is kept beside it.
    GivenUp,
}
