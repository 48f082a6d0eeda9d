//! Facts. An event is durable before anything that follows from it is done.

use crate::{
    AlarmId, BootId, DataClass, Exchanges, Expectation, Fault, Finding, Generation, Installed, Instance,
    Level, NotificationId, Observations, Order, Outcome, Release, ReleaseRule, RunId, Settings, Setup,
    Target, TargetId, Ticket,
};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum Event {
    /// Somebody asked for something. `run` is the id of the run that it may begin.
    #[serde(rename_all = "camelCase")]
    Ordered {
        /// The id that the run gets if the order begins one.
        run: RunId,
        /// What was asked.
        order: Order,
        /// Who asked, for the record.
        actor: String,
        /// The rules as they stand now.
        settings: Settings,
    },
    /// An act was done.
    #[serde(rename_all = "camelCase")]
    Finished {
        /// Which.
        ticket: Ticket,
        /// With what result.
        done: Done,
        /// Bytes that it copied; not known of one that an older journal tells of.
        #[serde(default)]
        copied: Option<u64>,
    },
    /// An act could not be done.
    #[serde(rename_all = "camelCase")]
    Faulted {
        /// Which.
        ticket: Ticket,
        /// Why.
        fault: Fault,
        /// Bytes that it copied all the same, where that is known.
        #[serde(default)]
        copied: Option<u64>,
    },
    /// Before the target's first start the state no longer was what the snapshot holds, with the source's fingerprint.
    #[serde(rename_all = "camelCase")]
    SnapshotStale {
        /// The Start that noticed.
        ticket: Ticket,
    },
    /// A keeper waits to exec a generation; nothing runs yet.
    #[serde(rename_all = "camelCase")]
    Spawned {
        /// What it will exec.
        generation: Generation,
        /// The keeper.
        keeper: Instance,
    },
    /// A service process ended.
    #[serde(rename_all = "camelCase")]
    Exited {
        /// Which.
        instance: Instance,
        /// How.
        exit: Exit,
        /// Exit codes after which a resting service is not started again by itself, as its settings stand now. Journals
        /// from before this was a setting mean 78.
        #[serde(default = "ex_config")]
        restart_prevent_exit_status: Vec<i32>,
        /// Exit codes by which a process that is in order asks to be started again. Journals from before this was a setting
        /// mean none.
        #[serde(default)]
        restart_force_exit_status: Vec<i32>,
    },
    /// The process of a resting service proved itself once.
    #[serde(rename_all = "camelCase")]
    Ready {
        /// What was required.
        expectation: Expectation,
        /// What was seen.
        observations: Observations,
    },
    /// The watched version fails: crash limit, a confirmed tripwire, or readiness lost.
    #[serde(rename_all = "camelCase")]
    Degraded {
        /// The id that an automatic revert gets.
        run: RunId,
        /// In what way.
        fault: Fault,
    },
    /// From now on the front may let traffic through to the target.
    #[serde(rename_all = "camelCase")]
    Released {
        /// The Release act.
        ticket: Ticket,
    },
    /// The watch window is over.
    #[serde(rename_all = "camelCase")]
    WatchEnded {
        /// The watched run.
        run: RunId,
    },
    /// A sealed tree is not what was sealed.
    #[serde(rename_all = "camelCase")]
    TreeChanged {
        /// The id that a run of resealing gets.
        run: RunId,
        /// Which tree.
        generation: Generation,
        /// What changed, for a person.
        fault: Fault,
        /// The rules as they stand now.
        settings: Settings,
    },
    /// The front died; its successor boots closed.
    FrontLost,
    /// The daemon began again.
    #[serde(rename_all = "camelCase")]
    Recovered {
        /// Whether the machine rebooted since the entry before.
        boot: Boot,
        /// The boot.
        boot_id: BootId,
        /// The service process that lives.
        live: Option<Instance>,
    },
    /// How clients fared with the process that served, in the last moments before its stop.
    #[serde(rename_all = "camelCase")]
    Measured {
        /// The run that stops it.
        run: RunId,
        /// What the front counted.
        exchanges: Exchanges,
    },
    /// Who is told of what happens to this service from now on. Telling never changes the state.
    #[serde(rename_all = "camelCase")]
    Subscribed {
        /// They, and nobody else.
        targets: Vec<Target>,
    },
    /// The resting service has trouble that a person should know of, and that lasts.
    #[serde(rename_all = "camelCase")]
    Alarmed {
        /// The id that the alarm gets.
        alarm: AlarmId,
        /// What is wrong.
        fault: Fault,
    },
    /// That trouble is over.
    #[serde(rename_all = "camelCase")]
    Calmed {
        /// Which.
        alarm: AlarmId,
    },
    /// A target was told, or that was given up.
    #[serde(rename_all = "camelCase")]
    Told {
        /// What.
        notification: NotificationId,
        /// Who.
        target: TargetId,
        /// How it ended.
        outcome: Outcome,
    },
}

fn ex_config() -> Vec<i32> {
    vec![78]
}

/// Whether the machine was rebooted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Boot {
    /// The same boot.
    Same,
    /// Another one.
    New,
}

/// How a process ended, as its keeper recorded.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By exit, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody recorded it; the reason stands here.
    Unknown(String),
}

/// The result of an act.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "done")]
pub enum Done {
    /// Resolve: the exact release.
    #[serde(rename_all = "camelCase")]
    Resolved {
        /// Which.
        release: Release,
    },
    /// Resolve: the live process already is that release; nothing is to be done.
    #[serde(rename_all = "camelCase")]
    AlreadyCurrent {
        /// Which.
        release: Release,
    },
    /// Stage: sealed.
    #[serde(rename_all = "camelCase")]
    Staged {
        /// Where.
        installed: Installed,
    },
    /// Preflight: what was found, also where it keeps the release from being switched to.
    Checked(Checked),
    /// Await, Drain: by now the window in which the service may be stopped is closed.
    #[serde(rename_all = "camelCase")]
    Missed {
        /// Which, in words.
        why: String,
    },
    /// Rehearse, Await, Drain: not done, for a reason that the report shows.
    #[serde(rename_all = "camelCase")]
    Skipped {
        /// Why.
        why: String,
    },
    /// Rehearse: it failed in a way that the target's own repair may help. It is looked at again, once; a second time that is
    /// a fault.
    #[serde(rename_all = "camelCase")]
    Mendable {
        /// How it failed.
        fault: Fault,
    },
    /// Start: the process that lives now.
    #[serde(rename_all = "camelCase")]
    Started {
        /// It.
        instance: Instance,
    },
    /// Prove, Soak: what was required and the last round of what was seen. Judged again when it is applied.
    #[serde(rename_all = "camelCase")]
    Observed {
        /// What was required.
        expectation: Expectation,
        /// What was seen.
        observations: Observations,
    },
    /// Every other act: done, with figures for the report.
    #[serde(rename_all = "camelCase")]
    Done {
        /// What was done, in words (`forced after 10 s`, `1,204 files`).
        note: String,
    },
}

/// What a look at a staged release came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checked {
    /// In words. One that blocks ends the run; all of them are for the report.
    pub findings: Vec<Finding>,
    /// What the target says that becomes of the data, if it was asked.
    #[serde(default)]
    pub class: Option<DataClass>,
    /// What the settings said at this look that decides what is started.
    #[serde(default)]
    pub setup: Setup,
    /// What they said of the data; journals from before this was noted do not tell.
    #[serde(default)]
    pub declared: Option<Declared>,
}

impl Checked {
    /// Why the release is not switched to, if it is not: everything that blocks.
    pub(crate) fn refusal(&self) -> Option<Fault> {
        let blocks: Vec<String> = self
            .findings
            .iter()
            .filter(|finding| finding.level == Level::Block)
            .map(|finding| format!("{}: {}", finding.kind, finding.text))
            .collect();
        (!blocks.is_empty()).then(|| Fault { code: "preflight".into(), detail: blocks.join("; ") })
    }
}

/// What settings say of the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Declared {
    /// Whether there is any.
    pub class: DataClass,
    /// When traffic is let through, which may follow from it.
    pub release: ReleaseRule,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_in_an_older_journal_is_read() {
        let old = r#"{"done":"checked","findings":[]}"#;
        assert_eq!(serde_json::from_str::<Done>(old).unwrap(), Done::Checked(Checked::default()));
    }

    #[test]
    fn an_exit_in_an_older_journal_means_what_it_meant_then() {
        let old = r#"{"event":"exited","instance":{"pid":1,"startTime":2,"bootId":"b"},"exit":{"code":78}}"#;
        let Ok(Event::Exited { exit, restart_prevent_exit_status, .. }) = serde_json::from_str(old) else {
            panic!("an older journal is not read");
        };
        assert_eq!((exit, restart_prevent_exit_status), (Exit::Code(78), vec![78]));
    }
}
