//! The exit codes: the one documented place. Derived from the status, never set separately.

use super::client::NoDaemon;
use crate::api::Failure;
use crate::config;
use cutover_core::{Report, Resolution, Status};
use std::process::ExitCode;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ExitStatus {
    /// Verified, already current, or nothing to judge. A `start`, `restart` or `stop` that has come about.
    Done = 0,
    /// A bug of ours.
    Bug = 1,
    /// Usage or configuration.
    Usage = 2,
    /// `package_update_failed`, also cancelled.
    UpdateFailed = 3,
    /// `package_updated_restart_failed`, the old version serves, verified.
    OldVerified = 4,
    /// `package_updated_restart_failed`, not serving or unverified; also what is installed already and not proven, a
    /// `start` or `restart` that does not come up with the same version, a service that does not stop, and a take-over that
    /// is not settled.
    RestartFailed = 5,
    /// Still scheduled.
    Scheduled = 6,
    /// No daemon answers.
    NoDaemon = 7,
    /// Refused.
    Refused = 8,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status as u8)
    }
}

/// The exit code of a run's report.
#[must_use]
pub(super) fn of_report(report: &Report) -> ExitStatus {
    match (report.status, report.resolution) {
        _ if report.ok => ExitStatus::Done,
        // Installed already, and nothing of it has proven itself: nothing is under way that could.
        (None, _) if report.ended.is_some() => ExitStatus::RestartFailed,
        (Some(Status::RestartVerified), _) => ExitStatus::Done,
        (Some(Status::UpdateFailed), _) => ExitStatus::UpdateFailed,
        (Some(Status::RestartFailed), Resolution::OldVerified) => ExitStatus::OldVerified,
        (Some(Status::RestartFailed), _) => ExitStatus::RestartFailed,
        (Some(Status::RestartScheduled) | None, _) => ExitStatus::Scheduled,
    }
}

/// The exit code of an error.
#[must_use]
pub(super) fn of_error(error: &anyhow::Error) -> ExitStatus {
    if error.downcast_ref::<config::Error>().is_some() {
        return ExitStatus::Usage;
    }
    if error.downcast_ref::<NoDaemon>().is_some() {
        return ExitStatus::NoDaemon;
    }
    if let Some(coded) = error.downcast_ref::<Coded>() {
        return coded.status;
    }
    match error.downcast_ref::<Failed>().map(|failed| failed.0.code.as_str()) {
        Some("unknown_service" | "unknown_run" | "invalid_params" | "unknown_method") => ExitStatus::Usage,
        Some("plan_failed") => ExitStatus::UpdateFailed,
        Some(_) => ExitStatus::Refused,
        None => ExitStatus::Bug,
    }
}

/// A method's failure as an error.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.message)]
pub(crate) struct Failed(pub Failure);

/// What was asked for in a way that nobody understands, with what to write instead.
pub(super) fn usage(message: String) -> Failed {
    Failed(Failure { code: "invalid_params".into(), message, refusal: None })
}

/// A name was left out where several would do.
pub(super) fn one_of<'a>(names: impl Iterator<Item = &'a str>) -> Failed {
    usage(choice(names))
}

/// What to write in a name's place.
pub(super) fn choice<'a>(names: impl Iterator<Item = &'a str>) -> String {
    match names.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "there is none yet".to_owned(),
        names => format!("name one of the services: {names}"),
    }
}

/// An error of this program itself that has an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Coded {
    text: String,
    status: ExitStatus,
}

/// An error of a look that came before anything was done: nothing happened, and it is no bug.
pub(super) fn refused(error: anyhow::Error) -> anyhow::Error {
    coded(error, ExitStatus::Refused)
}

/// An error after something was done, of which it is not known that it serves, or as what.
pub(super) fn unsettled(error: anyhow::Error) -> anyhow::Error {
    coded(error, ExitStatus::RestartFailed)
}

fn coded(error: anyhow::Error, status: ExitStatus) -> anyhow::Error {
    match of_error(&error) {
        ExitStatus::Bug => Coded { text: format!("{error:#}"), status }.into(),
        _ => error,
    }
}
