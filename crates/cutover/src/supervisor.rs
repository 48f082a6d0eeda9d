//! Keepers, and who the live process is.
//!
//! A service is started in two phases. [`prepare`] makes the instance's directory and spawns a *keeper*, which writes down
//! who it is and waits; [`Prepared::go`] lets it exec the service. Without that word nothing ever runs, so the daemon may
//! journal the keeper's identity in between and never loses or doubles a start. The keeper outlives the daemon and
//! writes down how the service ended; [`adopt`] finds out from the directory alone what became of an instance.
//!
//! Knows keepers, how to make the live process belong to a generation, who the process is and how to prove that it is
//! gone. Must not know versions, health, or why anything is started or stopped.

mod account;
mod adoption;
mod command_line;
mod error;
mod file;
pub mod keeper;
mod kin;
pub mod launch;
mod live;
mod output;
mod port;
pub mod process;
mod record;
mod request;
mod start;
mod stop;
mod thread;

pub use account::Identity;
pub use adoption::{Adopted, adopt, executed, kept};
pub use command_line::script;
pub use error::Error;
pub use file::identify;
pub use kin::{bearing, descendants};
pub use live::Live;
pub use output::OUTPUT_LOST;
pub use port::{Holder, Holding, Listener, holding, listeners, listening, receiving};
pub use record::{ExecRecord, Exit, ExitRecord, KeeperRecord, Launch, LogFile, Moment};
pub use request::withdraw_request;
pub use start::{Prepared, prepare};
pub use stop::{Remains, StopBudget, Stopped, end, end_alone, end_remains};

use std::time::Duration;

/// How long to wait before the next start after `consecutive` failures in a row: nothing after none, `first` after one,
/// then twice as long each time, never more than `cap`.
#[must_use]
pub fn backoff(consecutive: u32, first: Duration, cap: Duration) -> Duration {
    let Some(doublings) = consecutive.checked_sub(1) else { return Duration::ZERO };
    let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
    first.checked_mul(factor).map_or(cap, |wait| wait.min(cap))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap_and_stays_there() {
        let (first, cap) = (Duration::from_millis(10), Duration::from_secs(60));
        let waits: Vec<u128> = (0..16).map(|n| backoff(n, first, cap).as_millis()).collect();
        assert_eq!(
            waits,
            [0, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10240, 20480, 40960, 60000, 60000]
        );
        for consecutive in [31, 32, 33, 64, u32::MAX] {
            assert_eq!(backoff(consecutive, first, cap), cap);
        }
    }
}
