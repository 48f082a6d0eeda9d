//! What an operator may decide about an update. Frozen into the run when it is ordered.

use crate::Clearance;
use serde::{Deserialize, Serialize};
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// How the live process is made to belong to another generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// The old process is stopped, the new one started by us.
    StopStart,
    /// The service ends itself on SIGUSR1 with a one-shot intent; we start the new one.
    Signal,
}

/// What happens to declared data between two versions. Unknown counts as migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DataClass {
    /// No declared state.
    None,
    /// The target leaves the fingerprint unchanged: code-only rollback keeps the writes.
    Neutral,
    /// The target changes the data, or nobody knows.
    Migrated,
}

/// Whether a fault after the switch is answered by going back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RollbackRule {
    /// Back to the old version, proven, where the data allows it.
    Auto,
    /// Declared maintenance; a person decides.
    Never,
}

/// When held traffic is let through to the new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReleaseRule {
    /// As soon as it has proven itself once (then it soaks under traffic).
    AfterProve,
    /// Only after the soak.
    AfterSoak,
    /// After the soak where going back would lose writes, else as soon as it has proven itself.
    ByData,
}

/// Whether a new version is first started where it can do no harm, before anything stops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RehearsalRule {
    /// Where that is possible; where it is not, the report says why.
    #[default]
    Auto,
    /// What `Auto` leaves out is a fault.
    Always,
    /// Never.
    Never,
}

impl Hash for RehearsalRule {
    /// What is not said leaves no mark: a state that was written down before there was such a rule is still that state.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Auto => {}
            Self::Always | Self::Never => std::mem::discriminant(self).hash(state),
        }
    }
}

/// When the target's own repair of a configuration that it refuses is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairRule {
    /// Not at all.
    Never,
    /// On a copy, to be told.
    #[default]
    Offer,
    /// In the switch, if it was rehearsed.
    Apply,
}

impl Hash for RepairRule {
    /// What is not said leaves no mark: a state that was written down before there was such a rule is still that state.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self {
            Self::Offer => {}
            Self::Never | Self::Apply => std::mem::discriminant(self).hash(state),
        }
    }
}

/// Where the service's work comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intake {
    /// Only through the front: nothing is written before it is released.
    Front,
    /// It also fetches work itself (channels, timers): writes begin with its start.
    Own,
    /// There is no front; clients reach the service's own port.
    Direct,
}

/// Whether data written after the release may be given up by an automatic rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestoreAfterRelease {
    /// Never: maintenance instead, with both choices laid out.
    Refused,
    /// Yes; the report says that they were, and where what was replaced is kept.
    Allowed,
}

/// Limits and rules of one service. Every wait in the product takes its limit from here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// From TERM to KILL.
    pub stop_grace: Duration,
    /// Start to readiness without observed progress.
    pub start_deadline: Duration,
    /// Upper bound of every act, progress or not.
    pub hard_cap: Duration,
    /// Unbroken proof under traffic before a run is committed.
    pub soak: Duration,
    /// After the commit: how long a failing target is reverted automatically.
    pub watch: Duration,
    /// How long the front holds a request.
    pub hold: Duration,
    /// How long in-flight requests may finish at the stop.
    pub drain: Duration,
    /// Between two rounds of probing.
    pub probe_interval: Duration,
    /// Rounds in a row that prove a process (the first full pass included).
    pub streak: u32,
    /// Crashes within `crash_window` that revert a watched version.
    pub crash_limit: u32,
    /// The window of `crash_limit`.
    pub crash_window: Duration,
    /// First restart delay of a crashed service.
    pub backoff_first: Duration,
    /// Largest restart delay.
    pub backoff_cap: Duration,
    /// Generations kept beside the current one.
    pub keep: u32,
    /// Back, or maintenance.
    pub rollback: RollbackRule,
    /// When traffic is let through.
    pub release: ReleaseRule,
    /// Whether an automatic rollback may give up released writes.
    pub restore_after_release: RestoreAfterRelease,
    /// Whether a new version is rehearsed.
    #[serde(default)]
    pub rehearse: RehearsalRule,
    /// Whether a configuration that a new version refuses is repaired.
    #[serde(default)]
    pub repair: RepairRule,
    /// What an update waits for before anything stops.
    #[serde(default)]
    pub clearance: Clearance,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stop_grace: Duration::from_secs(10),
            start_deadline: Duration::from_secs(60),
            hard_cap: Duration::from_secs(600),
            soak: Duration::from_secs(30),
            watch: Duration::from_secs(900),
            hold: Duration::from_secs(30),
            drain: Duration::from_secs(10),
            probe_interval: Duration::from_millis(200),
            streak: 4,
            crash_limit: 5,
            crash_window: Duration::from_secs(60),
            backoff_first: Duration::from_millis(10),
            backoff_cap: Duration::from_secs(60),
            keep: 2,
            rollback: RollbackRule::Auto,
            release: ReleaseRule::AfterProve,
            restore_after_release: RestoreAfterRelease::Refused,
            rehearse: RehearsalRule::Auto,
            repair: RepairRule::Offer,
            clearance: Clearance::default(),
        }
    }
}

/// Everything about the service that one run needs to know, frozen when it is ordered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// How the restart is done.
    pub strategy: Strategy,
    /// What becomes of declared data.
    pub class: DataClass,
    /// Where its work comes from.
    pub intake: Intake,
    /// Limits and rules.
    pub policy: Policy,
}

impl Settings {
    /// The rules once the target was asked what it does to the data. Only that it leaves them neutral is news; whether it
    /// did is measured before old code meets them.
    #[must_use]
    pub fn told(&self, class: Option<DataClass>) -> Self {
        let mut told = self.clone();
        if self.class == DataClass::Migrated && class == Some(DataClass::Neutral) {
            told.class = DataClass::Neutral;
            if told.policy.release == ReleaseRule::ByData {
                told.policy.release = ReleaseRule::AfterProve;
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts the bytes that it is fed with.
    #[derive(Default)]
    struct Counter(usize);

    impl Hasher for Counter {
        fn finish(&self) -> u64 {
            self.0 as u64
        }

        fn write(&mut self, bytes: &[u8]) {
            self.0 += bytes.len();
        }
    }

    #[test]
    fn a_policy_of_before_there_were_rehearsals_repairs_and_clearances_is_read_and_hashes_as_it_did() {
        let mut written = serde_json::to_value(Policy::default()).unwrap();
        for younger in ["rehearse", "repair", "clearance"] {
            written.as_object_mut().unwrap().remove(younger).unwrap();
        }
        assert_eq!(serde_json::from_value::<Policy>(written).unwrap(), Policy::default());
        fn bytes(rule: impl Hash) -> usize {
            let mut counter = Counter::default();
            rule.hash(&mut counter);
            counter.0
        }
        assert_eq!((bytes(RehearsalRule::Auto), bytes(RepairRule::Offer)), (0, 0));
        assert!(bytes(RehearsalRule::Always) > 0 && bytes(RehearsalRule::Never) > 0);
        assert!(bytes(RepairRule::Apply) > 0 && bytes(RepairRule::Never) > 0);
    }
}
