//! One service's life: who this process is, how ready it is, and whether it is stopping.

use crate::installed::Installed;
use crate::state::State;
use crate::{Knobs, Readiness};
use serde_json::{Value, json};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

/// Everything that a request may need; one per process.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) installed: Installed,
    pub(crate) knobs: Knobs,
    pub(crate) state: Option<State>,
    /// What `connect` must present, if anything.
    pub(crate) token: Option<String>,
    /// WebSockets that are open; a stop waits for them.
    pub(crate) sockets: TaskTracker,
    /// Calls of `/echo` so far.
    echoes: AtomicU64,
    /// SIGUSR1, SIGUSR2 and SIGHUP seen so far.
    pub(crate) signals: [AtomicU64; 3],
    boot_id: String,
    started_ms: u64,
    bound: OnceLock<Instant>,
    stopping: watch::Sender<bool>,
}

impl Service {
    pub(crate) fn new(
        installed: Installed,
        knobs: Knobs,
        state: Option<State>,
        token: Option<String>,
    ) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            installed,
            knobs,
            state,
            token,
            sockets: TaskTracker::new(),
            echoes: AtomicU64::new(0),
            signals: Default::default(),
            boot_id: fresh_boot_id(),
            started_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            bound: OnceLock::new(),
            stopping: watch::Sender::new(false),
        }
    }

    /// Starts the clock that readiness counts from.
    pub(crate) fn bind(&self) {
        let _ = self.bound.set(Instant::now());
    }

    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
    }

    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Comes back when the service stops.
    pub(crate) async fn stopped(&self) {
        // The sender lives in self, so the channel cannot close before the value comes.
        let _ = self.stopping.subscribe().wait_for(|stopping| *stopping).await;
    }

    pub(crate) fn age(&self) -> Duration {
        self.bound.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    pub(crate) fn readiness(&self) -> Readiness {
        if self.bound.get().is_none() { Readiness::Starting } else { self.knobs.readiness(self.age()) }
    }

    /// Whether the knobs have no work under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.knobs.busy_ms.is_none_or(|ms| self.age() >= Duration::from_millis(ms))
    }

    /// Whether the knobs want this call of `/echo` to go wrong.
    pub(crate) fn spoils_echo(&self) -> bool {
        let number = self.echoes.fetch_add(1, Ordering::Relaxed) + 1;
        self.knobs.bad_echo_every.is_some_and(|every| number.is_multiple_of(every.max(1)))
    }

    /// The version as told, which the knobs may falsify.
    pub(crate) fn version(&self) -> &str {
        self.knobs.report_version.as_ref().unwrap_or(&self.installed.manifest.version)
    }

    pub(crate) fn build(&self) -> &str {
        self.knobs.report_build.as_ref().unwrap_or(&self.installed.manifest.build)
    }

    pub(crate) fn boot_id(&self) -> String {
        if self.knobs.wrong_boot_id_each_request {
            return fresh_boot_id();
        }
        let told = self.knobs.boot_id_in.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
        told.unwrap_or_else(|| self.boot_id.clone())
    }

    /// The answer of `/version` and of the `status` method.
    pub(crate) fn identity(&self) -> Value {
        let [usr1, usr2, hup] = [0, 1, 2].map(|n: usize| self.signals[n].load(Ordering::Relaxed));
        json!({
            "version": self.version(),
            "build": self.build(),
            "pid": std::process::id(),
            "bootId": self.boot_id(),
            "startedAt": self.started_ms,
            "uptimeMs": u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX),
            "modulesOpened": self.installed.opened.load(Ordering::Relaxed),
            "modulesMissing": self.installed.missing.load(Ordering::Relaxed),
            "signals": {"usr1": usr1, "usr2": usr2, "hup": hup},
        })
    }
}

fn fresh_boot_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
