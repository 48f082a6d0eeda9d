//! What can be asked of the sample gateway: every way of misbehaving that a test has needed.
//!
//! Knobs stand in `release.json` (so that one version misbehaves and another does not) and may be overridden, key by
//! key, by the JSON object in the environment variable `SAMPLE_KNOBS`.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Behaviour of one release. The default is a good service: quick, ready at once, honest, and gone on SIGTERM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Knobs {
    /// Milliseconds between start and bind. SIGTERM ends the process during this time too (unless `ignore_term`).
    pub boot_delay_ms: u64,
    /// Binds only once this file is there, after the boot delay. SIGTERM ends the process during this time too (unless
    /// `ignore_term`).
    pub boot_after: Option<PathBuf>,
    /// Connects to this address (`127.0.0.1:8125`) when it starts, as a channel of its own would, and says how that went.
    pub dial_at_start: Option<String>,
    /// Appends a line to this file when it starts, and says how that went.
    pub append_at_start: Option<PathBuf>,
    /// Milliseconds between bind and ready; `/startupz` and `/readyz` answer 503 until then.
    pub ready_delay_ms: u64,
    /// `/readyz` and `/startupz` answer 503 for ever.
    pub never_ready: bool,
    /// `/healthz` answers 503 for ever.
    pub never_live: bool,
    /// Ends with this code after the boot delay, before binding.
    pub crash_at_boot: Option<u8>,
    /// Before `crash_at_boot` prints a module-not-found line that names a path inside the install root.
    pub crash_names_module: bool,
    /// Ends abruptly this many milliseconds after becoming ready (counted from the ready delay, even if `never_ready`).
    pub crash_after_ms: Option<u64>,
    /// The code of `crash_after_ms` (otherwise 1) and of a clean stop (otherwise 0).
    pub exit_code: Option<u8>,
    /// Lies: the version told on every channel instead of the real one.
    pub report_version: Option<String>,
    /// Lies: the build told on every channel instead of the real one.
    pub report_build: Option<String>,
    /// `/version` answers 404.
    pub no_version: bool,
    /// Tells a fresh boot id with each answer.
    pub wrong_boot_id_each_request: bool,
    /// Tells the boot id that stands in this file once it is there, as one that began anew in the same process.
    pub boot_id_in: Option<PathBuf>,
    /// SIGTERM and SIGINT are logged and ignored.
    pub ignore_term: bool,
    /// Milliseconds a stop takes after the last exchange was drained.
    pub slow_stop_ms: u64,
    /// Milliseconds a stop waits for exchanges in flight before it cuts them; 5000 when absent.
    pub drain_limit_ms: Option<u64>,
    /// On exit leaves a child of its own session that keeps the listening socket open this many milliseconds.
    pub orphan_on_port_ms: Option<u64>,
    /// When ready, starts a descendant of its own session (setsid) that lives this many milliseconds.
    pub spawn_child_ms: Option<u64>,
    /// SIGUSR1 is logged and ignored, even with a valid intent, which is left untouched.
    pub ignore_usr1: bool,
    /// SIGUSR1 restarts without an intent too.
    pub allow_external: bool,
    /// Migrates the state to this schema at start. The schema of a release without this knob is 1. State of a newer
    /// schema is refused with exit code 78.
    pub migrate_to: Option<u32>,
    /// A configuration (`--config`, `SAMPLE_CONFIG`: a JSON object) with this top-level key is refused with exit code 78.
    pub reject_config_key: Option<String>,
    /// Opens one of its chunks in the background every so many milliseconds; a missing one is logged and counted.
    pub lazy_open_every_ms: Option<u64>,
    /// The number of its WebSocket's protocol; 4 when absent.
    pub protocol: Option<u64>,
    /// Readiness alternates with this period in milliseconds: good for the first half of each, bad for the second.
    pub flapping_ms: Option<u64>,
    /// Readiness is lost for ever this many milliseconds after it was reached.
    pub ready_then_unready_after_ms: Option<u64>,
    /// Listens on `[::1]` too, with the same port.
    pub bind_ipv6: bool,
    /// The event of a WebSocket's first frame; `connect.challenge` when absent.
    pub greeting: Option<String>,
    /// Has found this newer version itself, and says so in the hello of its WebSocket and by an event after it.
    pub own_notice: Option<String>,
    /// Every so many-th `/echo` is answered with 500.
    pub bad_echo_every: Option<u64>,
    /// `/idle` says that work is under way until this many milliseconds after bind.
    pub busy_ms: Option<u64>,
    /// Prints a module-not-found line that names a path inside the install root this many milliseconds after bind.
    pub log_tripwire_after_ms: Option<u64>,
}

/// What `/readyz` and `/startupz` say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Was never ready: `/startupz` and `/readyz` answer 503.
    Starting,
    /// Both answer 200.
    Ready,
    /// Was ready: `/startupz` answers 200, `/readyz` 503.
    Unready,
}

impl Knobs {
    /// Readiness at `age` after bind.
    #[must_use]
    pub fn readiness(&self, age: Duration) -> Readiness {
        let Some(ready_for) = age.checked_sub(Duration::from_millis(self.ready_delay_ms)) else {
            return Readiness::Starting;
        };
        if self.never_ready {
            return Readiness::Starting;
        }
        if self.ready_then_unready_after_ms.is_some_and(|ms| ready_for >= Duration::from_millis(ms)) {
            return Readiness::Unready;
        }
        if let Some(period_ms) = self.flapping_ms {
            let half_ms = u128::from((period_ms / 2).max(1));
            if !(ready_for.as_millis() / half_ms).is_multiple_of(2) {
                return Readiness::Unready;
            }
        }
        Readiness::Ready
    }

    /// These knobs with every key of the JSON object `overrides` replaced.
    ///
    /// # Errors
    /// If `overrides` is no JSON object or has a key that is no knob.
    pub fn overridden(&self, overrides: &str) -> Result<Self, serde_json::Error> {
        let mut merged = serde_json::to_value(self)?;
        let changes: serde_json::Map<String, serde_json::Value> = serde_json::from_str(overrides)?;
        let object = merged.as_object_mut().expect("a struct serialises as an object");
        object.extend(changes);
        serde_json::from_value(merged)
    }

    pub(crate) fn drain_limit(&self) -> Duration {
        Duration::from_millis(self.drain_limit_ms.unwrap_or(5_000))
    }

    pub(crate) fn schema_known(&self) -> u32 {
        self.migrate_to.unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(knobs: &Knobs, ms: u64) -> Readiness {
        knobs.readiness(Duration::from_millis(ms))
    }

    #[test]
    fn readiness_follows_its_knobs() {
        let delayed = Knobs { ready_delay_ms: 100, ..Knobs::default() };
        assert_eq!((at(&delayed, 99), at(&delayed, 100)), (Readiness::Starting, Readiness::Ready));
        let never = Knobs { never_ready: true, ..Knobs::default() };
        assert_eq!(at(&never, 1_000_000), Readiness::Starting);
        let lost = Knobs { ready_delay_ms: 10, ready_then_unready_after_ms: Some(50), ..Knobs::default() };
        assert_eq!((at(&lost, 59), at(&lost, 60)), (Readiness::Ready, Readiness::Unready));
        let flapping = Knobs { flapping_ms: Some(100), ..Knobs::default() };
        let seen: Vec<_> = [0, 49, 50, 99, 100].map(|ms| at(&flapping, ms)).into();
        assert_eq!(
            seen,
            [Readiness::Ready, Readiness::Ready, Readiness::Unready, Readiness::Unready, Readiness::Ready]
        );
    }

    #[test]
    fn overrides_replace_key_by_key_and_refuse_what_is_no_knob() {
        let released = Knobs { ready_delay_ms: 7, never_live: true, ..Knobs::default() };
        let merged = released.overridden(r#"{"never_live":false,"crash_at_boot":78}"#).unwrap();
        assert_eq!(merged, Knobs { ready_delay_ms: 7, crash_at_boot: Some(78), ..Knobs::default() });
        let refusal = released.overridden(r#"{"never_alive":true}"#).unwrap_err();
        assert!(refusal.to_string().contains("never_alive"), "{refusal}");
        assert!(released.overridden("[]").is_err());
    }
}
