//! What a probe saw of one process at one instant. Plain records: nothing here says what would be right.

use crate::{Generation, Instance};
use serde::{Deserialize, Serialize};

/// One thing that was looked for: seen, not to be had, or not a property of this service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "seen")]
pub enum Seen<T> {
    /// It was observed.
    #[serde(rename_all = "camelCase")]
    Yes {
        /// What was observed.
        value: T,
        /// When, in milliseconds of Unix time.
        at_ms: u64,
        /// Where it was read (`/proc/41/stat`, `GET /version`).
        source: String,
    },
    /// It was looked for and not to be had: no evidence, which is never a pass.
    #[serde(rename_all = "camelCase")]
    Missing {
        /// Why, in words for a person.
        why: String,
        /// When, in milliseconds of Unix time.
        at_ms: u64,
        /// Where it was looked for.
        source: String,
    },
    /// This service has no such thing; the reason is shown beside the fact.
    #[serde(rename_all = "camelCase")]
    NotApplicable {
        /// Why the fact does not apply.
        why: String,
    },
}

impl<T> Seen<T> {
    /// The observed value, if there was one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Yes { value, .. } => Some(value),
            Self::Missing { .. } | Self::NotApplicable { .. } => None,
        }
    }
}

/// Identity of a file's bytes: where they lie and what they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileIdentity {
    /// Device number (`st_dev`).
    pub device: u64,
    /// Inode number (`st_ino`).
    pub inode: u64,
    /// SHA-256 of the content, lower-case hex.
    pub sha256: String,
}

/// Which code a process runs: the entry file as recorded at exec, and the live `/proc` links.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Code {
    /// The generation whose directory holds the entry file.
    pub generation: Generation,
    /// The entry file (the script for an interpreter, else the program).
    pub entry: FileIdentity,
    /// Target of `/proc/PID/exe`.
    pub exe: String,
    /// Target of `/proc/PID/cwd`.
    pub cwd: String,
}

/// One listening socket and whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// `address:port`, IPv6 in brackets.
    pub address: String,
    /// Who holds it.
    pub owner: Owner,
}

/// The holder of a listening socket, seen from the instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "owner")]
pub enum Owner {
    /// The instance itself.
    Instance,
    /// A descendant of the instance.
    Descendant {
        /// Its pid.
        pid: u32,
    },
    /// Somebody else: named, never killed. `pid` is absent where the kernel does not tell us.
    Foreign {
        /// Its pid, where it can be read.
        pid: Option<u32>,
        /// Its command name, where it can be read.
        command: Option<String>,
    },
}

/// What is left of the process that ran before.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldProcess {
    /// Pids of the old instance and its descendants that still live. Empty: gone.
    pub alive: Vec<u32>,
}

/// What the front counted of clients' exchanges with one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exchanges {
    /// Answers that came from it, whatever their status.
    pub answered: u64,
    /// Of these, the ones with status 500 and above.
    pub bad: u64,
    /// WebSockets that it left without a farewell.
    pub abnormal: u64,
}

impl Exchanges {
    /// What was counted since `earlier`; `None` if that was counted by another front.
    #[must_use]
    pub fn since(self, earlier: Self) -> Option<Self> {
        Some(Self {
            answered: self.answered.checked_sub(earlier.answered)?,
            bad: self.bad.checked_sub(earlier.bad)?,
            abnormal: self.abnormal.checked_sub(earlier.abnormal)?,
        })
    }
}

/// Clients' exchanges with the process that served before, in the last moments before its stop, and with this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compared {
    /// With the one before.
    pub before: Exchanges,
    /// With this one, so far.
    pub now: Exchanges,
}

/// Everything that one round of probing saw of one process (facts V1 to V11 of docs/verified.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Observations {
    /// V1: the live process (pid + start time + boot id).
    pub identity: Seen<Instance>,
    /// V2: the code it runs.
    pub code: Seen<Code>,
    /// V3: all listeners on the service's port, both address families.
    pub listeners: Seen<Vec<Listener>>,
    /// V4: the service's own answer for its version.
    pub version: Seen<String>,
    /// V4: its build id, where it has one.
    pub build: Seen<String>,
    /// V5: the service's own instance or boot id, where it has one.
    pub service_instance: Seen<String>,
    /// V6: liveness endpoint.
    pub live: Seen<bool>,
    /// V6: readiness endpoint.
    pub ready: Seen<bool>,
    /// V7: running plugins as `name@version`, sorted.
    pub plugins: Seen<Vec<String>>,
    /// V8: a user's path through page and WebSocket works.
    pub user_path: Seen<bool>,
    /// V9: traffic before and now.
    pub traffic: Seen<Compared>,
    /// V10: tripwire lines of the log since this process started.
    pub tripwires: Seen<Vec<String>>,
    /// V11: what is left of the old process.
    pub old: Seen<OldProcess>,
    /// How many rounds in a row, this one included, passed for one and the same process.
    pub streak: u32,
}
