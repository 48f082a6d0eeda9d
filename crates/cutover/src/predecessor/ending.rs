//! The predecessor's end: on record before it is begun, proven before it is called one.

use super::{Error, Predecessor, Record, Step};
use crate::supervisor::{self, StopBudget, process};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Between two looks at the address.
const LOOK: Duration = Duration::from_millis(10);

/// How long the end may take.
#[derive(Clone, Copy, Debug)]
pub struct StopLimits {
    /// From TERM to KILL.
    pub budget: StopBudget,
    /// How long its unit may take to stop.
    pub unit: Duration,
    /// How long the address may be held after the process is gone.
    pub address: Duration,
}

/// How the end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How long it took.
    pub took: Duration,
    /// Whether it had to be killed.
    pub forced: bool,
}

impl Record {
    /// Ends the predecessor: stops its unit, or ends the plain process. On return it is gone, nobody has its address, and both is on record. Must be idempotent: it may run
    /// again after a crash.
    ///
    /// # Errors
    /// It could not be ended, or somebody starts it again.
    pub async fn end(&mut self, limits: StopLimits) -> Result<Ended, Error> {
        let begun = Instant::now();
        if !self.is_in_charge() {
            return Ok(Ended { took: Duration::ZERO, forced: false });
        }
        if *self.step() != Step::Ending {
            self.add(Step::Ending)?;
        }
        let old = self.predecessor.clone();
        let mut forced = false;
        if let Some(unit) = &old.unit {
            unit.stop(limits.unit).await?;
            crate::crash_point!("predecessor: unit stopped");
        }
        // A manager that says so is believed only as far as it is so.
        forced |= supervisor::end(&old.instance, limits.budget).await?.forced;
        old.is_vacated(limits.address).await?;
        crate::crash_point!("predecessor: gone");
        self.add(Step::Gone)?;
        Ok(Ended { took: begun.elapsed(), forced })
    }
}

impl Record {
    /// The end of a take-over: what took the predecessor's place has proven itself, so its unit is not started at login any
    /// more. The unit's file stays as it is.
    ///
    /// # Errors
    /// The manager does not do it, or it cannot be put on record.
    pub async fn settle(&mut self, gap_ms: u64) -> Result<(), Error> {
        if let Some(unit) = &self.predecessor.unit {
            unit.disable().await?;
        }
        crate::crash_point!("predecessor: settled");
        self.add(Step::Taken { gap_ms })
    }
}

impl Predecessor {
    /// Waits until nobody listens where it did but this program.
    async fn is_vacated(&self, limit: Duration) -> Result<(), Error> {
        let (begun, own) = (Instant::now(), process::own()?);
        loop {
            let holding = supervisor::holding(self.port(), std::slice::from_ref(&own))?;
            let holder = holding.foreign.into_iter().next();
            let Some(holder) = holder else { return Ok(()) };
            if begun.elapsed() > limit {
                let address: SocketAddr = holder.address;
                let pid =
                    holder.instance.map_or_else(String::new, |instance| format!(" (pid {})", instance.pid));
                let name = holder.command.unwrap_or_else(|| "somebody".into());
                return Err(Error::Held { address, holder: format!("{name}{pid}"), after: limit });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
