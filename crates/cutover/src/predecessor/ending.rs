//! The predecessor's end: on record before it is begun, proven before it is called one.

use super::{Error, Predecessor, Record, Step};
use crate::supervisor::{self, StopBudget, process};
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
    /// Ends the predecessor: stops its unit, or ends the plain process. On return it is gone, nobody has its address, and both is
    /// on record. Must be idempotent: it may run again after a crash.
    ///
    /// # Errors
    /// It could not be ended, or somebody starts it again; then that is on record.
    pub async fn end(&mut self, limits: StopLimits) -> Result<Ended, Error> {
        let begun = Instant::now();
        if !self.is_in_charge() {
            return Ok(Ended { took: Duration::ZERO, forced: false });
        }
        if *self.step() != Step::Ending {
            self.add(Step::Ending)?;
        }
        let old = self.predecessor.clone();
        self.withdraw_requests().await?;
        let mut forced = false;
        if let Some(unit) = &old.unit {
            unit.stop(limits.unit).await?;
            crate::crash_point!("predecessor: unit stopped");
            self.withdraw_requests().await?;
        }
        // A manager that says so is believed only as far as it is so.
        forced |= supervisor::end(&old.instance, limits.budget).await?.forced;
        // The machine may have gone down since, and have come up with it.
        self.withdraw_requests().await?;
        for again in old.lives()?.into_iter().filter(|again| again.boot_id != old.instance.boot_id) {
            forced |= supervisor::end(&again, limits.budget).await?.forced;
        }
        if let Err(held) = old.is_vacated(limits.address).await {
            // Who holds it may be the same service, started again.
            self.stays_gone().await?;
            return Err(held);
        }
        if old.unit.is_none() {
            self.stays_gone().await?;
        }
        crate::crash_point!("predecessor: gone");
        self.add(Step::Gone)?;
        Ok(Ended { took: begun.elapsed(), forced })
    }

    /// Looks whether it lives again although it was ended. One that came up with its machine or by its unit is to be ended
    /// again, which is on record then: it is in charge. Where somebody else started it again, ending it leads nowhere.
    ///
    /// # Errors
    /// Somebody started it again, who is on record then; or it cannot be told.
    pub async fn stays_gone(&mut self) -> Result<(), Error> {
        if !matches!(self.step(), Step::Ending | Step::Gone) {
            return Ok(());
        }
        let old = &self.predecessor;
        let comes_back = match &old.unit {
            Some(unit) => unit.is_up().await?,
            None => false,
        };
        let again = old.lives()?.into_iter().find(|again| *again != old.instance);
        let after_a_boot = again.as_ref().is_some_and(|again| again.boot_id != old.instance.boot_id);
        if comes_back || after_a_boot {
            return if *self.step() == Step::Gone { self.add(Step::Ending) } else { Ok(()) };
        }
        let Some(again) = again else { return Ok(()) };
        let rival = self.rival_of(again.pid);
        self.add(Step::Revived { by: rival.by.clone() })?;
        Err(Error::Revived(rival))
    }
}

impl Record {
    /// Takes away what asks a process of its to restart, so that a TERM is its end. Must come before whatever ends one.
    async fn withdraw_requests(&self) -> Result<(), Error> {
        let Some(state) = self.terms.state() else { return Ok(()) };
        for instance in self.predecessor.processes().await? {
            if let Err(error) = supervisor::withdraw_request(state, &instance) {
                tracing::warn!(%error, "whether the old process was asked to restart is not known");
            }
        }
        Ok(())
    }

    /// The end of a take-over: what took the predecessor's place has proven itself, so its unit is not started at login any
    /// more. The unit's file stays as it is. Whoever else starts the predecessor again does not change who has its place.
    ///
    /// # Errors
    /// The manager does not do it, or it cannot be put on record.
    pub async fn settle(&mut self, gap_ms: u64, limits: StopLimits) -> Result<(), Error> {
        let old = &self.predecessor;
        if let Some(unit) = &old.unit {
            // A machine that went down meanwhile came up with it.
            if unit.is_up().await? {
                self.withdraw_requests().await?;
                unit.stop(limits.unit).await?;
            }
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
                let (address, holder) = (holder.address, holder.to_string());
                return Err(Error::Held { address, holder, after: limit });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
