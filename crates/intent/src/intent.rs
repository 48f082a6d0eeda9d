//! The permission itself: what stands in the file.
//!
//! Knows the fields and their limits. Must not know where the file is or who reads it.

use cutover_core::{Instance, RunId};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The only version of the file there is.
pub const VERSION: u32 = 1;

/// How long an intent may live at most; a file that claims more is refused.
pub const LIFETIME: Duration = Duration::from_secs(60);

/// The largest file that is read, in bytes.
pub const SIZE_MAX: u64 = 1024;

/// Permission for one process to restart once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Intent {
    /// [`VERSION`].
    pub version: u32,
    /// The run that asks for the restart.
    pub run_id: RunId,
    /// What a successor must carry as `CUTOVER_NONCE`.
    pub nonce: String,
    /// Name of the service.
    pub service: String,
    /// The one process that may consume it.
    pub instance: Instance,
    /// End of validity: milliseconds on `CLOCK_BOOTTIME` of the instance's boot.
    pub expires_at_ms: u64,
}

impl Intent {
    /// Makes an intent that lives from now on for [`LIFETIME`].
    #[must_use]
    pub fn from_now(run_id: RunId, nonce: String, service: String, instance: Instance) -> Self {
        let lifetime_ms = u64::try_from(LIFETIME.as_millis()).expect("a minute fits");
        Self {
            version: VERSION,
            run_id,
            nonce,
            service,
            instance,
            expires_at_ms: boot_time_ms() + lifetime_ms,
        }
    }
}

/// Reads the boot-time clock in milliseconds: it counts suspended time and no adjustment of the wall clock moves it.
#[must_use]
pub fn boot_time_ms() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).expect("the boot-time clock starts at zero");
    let nanoseconds = u64::try_from(now.tv_nsec).expect("nanoseconds are a fraction of a second");
    seconds * 1000 + nanoseconds / 1_000_000
}
