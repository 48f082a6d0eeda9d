//! Ending a process and its family: politely, then not, and with proof.
//!
//! Knows signals and budgets. Must not know why it ends.

use super::error::Error;
use super::kin;
use super::live::Live;
use super::process::Handle;
use super::thread;
use cutover_core::Instance;
use rustix::process::Signal;
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// How long a stop may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopBudget {
    /// From TERM to KILL for the process itself.
    pub grace: Duration,
    /// From KILL to giving up for the process; for what it left behind, from TERM to KILL and once more to giving up.
    pub kill_wait: Duration,
}

/// A stop that left nothing alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// How long it took.
    pub took: Duration,
    /// Whether the process itself had to be killed.
    pub forced: bool,
    /// How many others had to be ended after it.
    pub descendants: usize,
}

pub(super) fn stop(live: &Live, budget: StopBudget, extra: &[Instance]) -> Result<Stopped, Error> {
    let begun = Instant::now();
    let forced = end_process(live.instance(), budget)?;
    let descendants = end_rest(budget.kill_wait, || rest(live, extra))?;
    Ok(Stopped { took: begun.elapsed(), forced, descendants })
}

/// Ends a process that no keeper of ours has started, and what descends from it.
///
/// # Errors
/// As [`end_remains`].
pub async fn end(instance: &Instance, budget: StopBudget) -> Result<Stopped, Error> {
    let instance = instance.clone();
    thread::run("end", move || {
        let begun = Instant::now();
        // Orphans have another parent, so they are looked for before they are.
        let family = kin::descendants(std::slice::from_ref(&instance), "")?;
        let forced = end_process(&instance, budget)?;
        let descendants = end_rest(budget.kill_wait, || kin::alive(&family))?;
        Ok(Stopped { took: begun.elapsed(), forced, descendants })
    })
    .await?
}

/// Ends one process and nothing that it started.
///
/// # Errors
/// As [`end_remains`].
pub async fn end_alone(instance: &Instance, budget: StopBudget) -> Result<(), Error> {
    let instance = instance.clone();
    thread::run("end-alone", move || end_process(&instance, budget)).await?.map(drop)
}

/// What may be left of an instance that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remains {
    /// The mark on all that it started.
    pub nonce: String,
    /// Its keeper, which adopts what loses its parent: also what has cleared its environment.
    pub keeper: Option<Instance>,
}

/// Ends everything that is left of instances that have themselves ended. Answers how many there were.
///
/// # Errors
/// [`Error::StillAlive`] names what survived; others say what could not be watched, signalled or listed.
pub async fn end_remains(remains: Vec<Remains>, kill_wait: Duration) -> Result<usize, Error> {
    thread::run("end-remains", move || {
        end_rest(kill_wait, || {
            let mut found = Vec::new();
            for Remains { nonce, keeper } in &remains {
                found.extend(kin::descendants(keeper.as_slice(), nonce)?);
            }
            Ok(found)
        })
    })
    .await?
}

/// Answers whether it took KILL.
fn end_process(instance: &Instance, budget: StopBudget) -> Result<bool, Error> {
    let Some(handle) = Handle::open(instance)? else { return Ok(false) };
    if handle.wait(Duration::ZERO)? {
        return Ok(false);
    }
    handle.signal(Signal::TERM)?;
    if handle.wait(budget.grace)? {
        return Ok(false);
    }
    handle.signal(Signal::KILL)?;
    if handle.wait(budget.kill_wait)? {
        return Ok(true);
    }
    Err(Error::StillAlive { instances: vec![instance.clone()], after: budget.kill_wait })
}

/// Answers how many there were.
fn end_rest(wait: Duration, rest: impl Fn() -> Result<Vec<Instance>, Error>) -> Result<usize, Error> {
    let mut ended = HashSet::new();
    let asked = rest()?;
    ended.extend(asked.iter().cloned());
    signal_all(&asked, Signal::TERM)?;
    wait_all(&asked, wait)?;
    let killing = Instant::now();
    let mut left = rest()?;
    // A new one may be born while the others end, so the search is repeated until it finds nobody.
    while !left.is_empty() {
        ended.extend(left.iter().cloned());
        signal_all(&left, Signal::KILL)?;
        wait_all(&left, wait.saturating_sub(killing.elapsed()))?;
        left = rest()?;
        if !left.is_empty() && killing.elapsed() >= wait {
            return Err(Error::StillAlive { instances: left, after: wait });
        }
    }
    Ok(ended.len())
}

fn rest(live: &Live, extra: &[Instance]) -> Result<Vec<Instance>, Error> {
    let mut rest = live.descendants()?;
    for instance in kin::alive(extra)? {
        if !rest.contains(&instance) {
            rest.push(instance);
        }
    }
    Ok(rest)
}

fn signal_all(instances: &[Instance], signal: Signal) -> Result<(), Error> {
    for instance in instances {
        if let Some(handle) = Handle::open(instance)? {
            handle.signal(signal)?;
        }
    }
    Ok(())
}

/// Waits until all are gone, at most for `limit` in all.
fn wait_all(instances: &[Instance], limit: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    for instance in instances {
        if let Some(handle) = Handle::open(instance)? {
            handle.wait(limit.saturating_sub(begun.elapsed()))?;
        }
    }
    Ok(())
}
