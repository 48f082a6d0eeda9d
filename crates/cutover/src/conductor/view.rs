//! What can be seen of a service: the report and what surrounds it. Derived each time, stored nowhere.

use super::chronicle::Chronicle;
use super::inbox::Progress;
use super::offer::Available;
use super::telling::Telling;
use cutover_core::{Alarm, Installed, Notifications, Record, Report, RunId, Settings, State};
use cutover_front::Stats;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How long a prepared run waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// When its next window opens (ms of Unix time), where it has one and none is open.
    pub opens_at: Option<u64>,
    /// When it is given up (ms of Unix time).
    pub gives_up_at: Option<u64>,
}

/// What can be seen of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// The service's name.
    pub service: String,
    /// The run under way, or the last one; the service alone if there never was one.
    pub report: Report,
    /// What the pointer names.
    pub current: Option<Installed>,
    /// How far the act under way is.
    pub progress: Option<Progress>,
    /// What the front counts; `None` without one, or while it cannot be asked.
    pub front: Option<Stats>,
    /// The service process that lives, proven or not.
    pub process: Option<cutover_core::Instance>,
    /// When that process began (ms of Unix time).
    pub since: Option<u64>,
    /// Whether the service shall not run and every process of it was found gone. `false` says nothing: it may not have
    /// been looked yet.
    pub stopped: bool,
    /// Trouble of our own (a journal that takes no entry), in words.
    pub trouble: Option<String>,
    /// The alarm that lasts.
    #[serde(default)]
    pub alarm: Option<Alarm>,
    /// How far the telling of everybody is who is told.
    #[serde(default)]
    pub tellings: Vec<Telling>,
    /// What the followed channel offers and the service does not have, as far as it was looked at.
    #[serde(default)]
    pub available: Option<Available>,
    /// The channel that an update follows unless it names another one, or a version.
    pub channel: String,
    /// The rules that a run would be under that is ordered now.
    pub settings: Settings,
    /// Why each order would be refused now; null for those that would be taken.
    pub orders: BTreeMap<String, Option<String>>,
    /// How long the act under way, or the watch, may last at most (ms).
    pub limit_ms: Option<u64>,
    /// Until when what the run waits for is waited for.
    #[serde(default)]
    pub waiting: Option<Waiting>,
    /// The service's own address.
    pub address: Option<std::net::SocketAddr>,
    /// The front's addresses.
    pub listen: Vec<std::net::SocketAddr>,
    /// Grows with every change.
    pub seq: u64,
    /// What commands are told with, so that they find the daemon's places.
    #[serde(skip)]
    pub(crate) flags: String,
    /// All runs, newest last.
    #[serde(skip)]
    pub(crate) chronicle: Arc<Chronicle>,
}

impl View {
    /// The report of one run.
    #[must_use]
    pub fn run(&self, run: &RunId) -> Option<Report> {
        self.chronicle.record(run).map(|record| self.of(record))
    }

    /// The reports of all runs, newest first.
    #[must_use]
    pub fn runs(&self) -> Vec<Report> {
        self.chronicle.records.iter().rev().map(|record| self.of(record)).collect()
    }

    /// The state behind the view.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.chronicle.state
    }

    pub(crate) fn notifications(&self) -> &Notifications {
        &self.chronicle.notifications
    }

    fn of(&self, record: &Record) -> Report {
        self.chronicle.report(&self.service, Some(record), &self.flags)
    }
}
