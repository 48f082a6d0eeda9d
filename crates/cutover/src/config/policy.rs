//! Limits and rules of a service's runs: what is given, and the defaults of the rest.

use super::amount::Span;
use super::fragment::{PolicyFragment, RehearseFragment, ReleaseFragment, RollbackFragment, Service};
use super::repair::repair_rule;
use cutover_core::{Policy, RehearsalRule, ReleaseRule, RestoreAfterRelease, RollbackRule};
use std::time::Duration;

pub(super) fn policy(fragment: &PolicyFragment, service: &Service) -> Policy {
    let default = Policy::default();
    let span = |given: Option<Span>, default: Duration| given.map_or(default, |span| span.0);
    let restore = match fragment.restore_after_release {
        Some(true) => RestoreAfterRelease::Allowed,
        Some(false) | None => RestoreAfterRelease::Refused,
    };
    let loses_writes = !service.state.is_empty() && restore == RestoreAfterRelease::Refused;
    Policy {
        stop_grace: span(fragment.stop_grace, default.stop_grace),
        start_deadline: span(fragment.start_deadline, default.start_deadline),
        hard_cap: span(fragment.hard_cap, default.hard_cap),
        soak: span(fragment.soak, default.soak),
        watch: span(fragment.watch, default.watch),
        hold: span(fragment.hold, default.hold),
        drain: span(fragment.drain, default.drain),
        probe_interval: span(fragment.probe_interval, default.probe_interval),
        streak: fragment.streak.unwrap_or(default.streak),
        crash_limit: fragment.crash_limit.unwrap_or(default.crash_limit),
        crash_window: span(fragment.crash_window, default.crash_window),
        backoff_first: span(fragment.backoff_first, default.backoff_first),
        backoff_cap: span(fragment.backoff_cap, default.backoff_cap),
        keep: fragment.keep.unwrap_or(default.keep),
        rollback: match fragment.rollback {
            Some(RollbackFragment::Never) => RollbackRule::Never,
            Some(RollbackFragment::Auto) | None => RollbackRule::Auto,
        },
        release: match fragment.release {
            Some(ReleaseFragment::AfterProve) => ReleaseRule::AfterProve,
            Some(ReleaseFragment::AfterSoak) => ReleaseRule::AfterSoak,
            None if loses_writes => ReleaseRule::ByData,
            None => ReleaseRule::AfterProve,
        },
        restore_after_release: restore,
        rehearse: match fragment.rehearse {
            Some(RehearseFragment::Never) => RehearsalRule::Never,
            Some(RehearseFragment::Always) => RehearsalRule::Always,
            Some(RehearseFragment::Auto) | None => RehearsalRule::Auto,
        },
        repair: repair_rule(fragment.repair),
        clearance: default.clearance,
    }
}
