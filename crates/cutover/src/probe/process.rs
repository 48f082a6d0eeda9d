//! What the system tells of a process without asking it: who it is, which code it runs, who listens on its port and what
//! is left of the process before it. The readings are the supervisor's; here they become facts with time and source.

use super::answers::Clock;
use super::why;
use crate::supervisor::{self, Live, process};
use cutover_core::{Code, Instance, Listener, OldProcess, Owner, Seen};
use std::net::SocketAddr;

/// What the system tells of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Who it is.
    pub identity: Seen<Instance>,
    /// The code it runs.
    pub code: Seen<Code>,
    /// Who listens on the service's port.
    pub listeners: Seen<Vec<Listener>>,
    /// What is left of the process before it.
    pub old: Seen<OldProcess>,
}

/// The process that ran before, which must be gone with all that it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Before {
    /// Who it was.
    pub instance: Instance,
    /// Its keeper, which adopted what it left behind.
    pub keeper: Option<Instance>,
    /// The mark on it and on all that it started.
    pub nonce: String,
}

impl From<&Live> for Before {
    fn from(live: &Live) -> Self {
        Self {
            instance: live.instance().clone(),
            keeper: live.keeper.clone(),
            nonce: live.record.nonce.clone(),
        }
    }
}

/// Reads everything about one process from the kernel. `port` is the service's own, where it has one; `before` what ran
/// before it. Blocks on `/proc`, for milliseconds, in proportion to the number of processes.
#[must_use]
pub fn observe_process(
    live: &Live,
    port: Option<u16>,
    before: Option<&Before>,
    clock: Clock<'_>,
) -> ProcessFacts {
    ProcessFacts {
        identity: seen(identity(live), clock, format!("/proc/{}/stat", live.instance().pid)),
        code: seen(code(live), clock, format!("record of the start; /proc/{}/exe, cwd", live.instance().pid)),
        listeners: match port {
            Some(port) => seen(listeners(live, port), clock, format!("/proc/net/tcp and tcp6, port {port}")),
            None => Seen::NotApplicable { why: "no port is configured for this service".to_owned() },
        },
        old: match before {
            Some(before) => {
                seen(remains(before, live), clock, format!("/proc, from pid {}", before.instance.pid))
            }
            None => Seen::NotApplicable { why: "no process ran before it".to_owned() },
        },
    }
}

fn seen<T>(read: Result<T, String>, clock: Clock<'_>, source: String) -> Seen<T> {
    let at_ms = clock();
    match read {
        Ok(value) => Seen::Yes { value, at_ms, source },
        Err(why) => Seen::Missing { why, at_ms, source },
    }
}

fn gone(instance: &Instance) -> String {
    format!("{instance} has ended")
}

/// Who has the pid now; somebody else is reported as such.
fn identity(live: &Live) -> Result<Instance, String> {
    let recorded = live.instance();
    match process::identify(recorded.pid).map_err(|error| why(&error))? {
        Some(found) if found != *recorded => Ok(found),
        // What has ended keeps its pid until it is reaped.
        Some(found) if live.is_alive().map_err(|error| why(&error))? => Ok(found),
        Some(_) | None => Err(gone(recorded)),
    }
}

fn code(live: &Live) -> Result<Code, String> {
    let links = live.links().map_err(|error| why(&error))?.ok_or_else(|| gone(live.instance()))?;
    let entry = &live.record.entry_file;
    Ok(Code {
        generation: live.record.generation,
        entry: entry.clone(),
        exe: links.exe.to_string_lossy().into_owned(),
        cwd: links.cwd.to_string_lossy().into_owned(),
    })
}

fn listeners(live: &Live, port: u16) -> Result<Vec<Listener>, String> {
    let family = live.family().map_err(|error| why(&error))?;
    let holding = supervisor::holding(port, &family).map_err(|error| why(&error))?;
    let mut found: Vec<(SocketAddr, Owner)> = Vec::new();
    for socket in holding.own {
        let owner = match socket.owners.iter().find(|owner| family.contains(owner)) {
            Some(member) if !socket.owners.contains(live.instance()) => Owner::Descendant { pid: member.pid },
            _ => Owner::Instance,
        };
        found.push((socket.address, owner));
    }
    for holder in holding.foreign {
        let pid = holder.instance.map(|instance| instance.pid);
        found.push((holder.address, Owner::Foreign { pid, command: holder.command }));
    }
    found.sort_by_key(|(address, _)| *address);
    Ok(found.into_iter().map(|(address, owner)| Listener { address: address.to_string(), owner }).collect())
}

/// What still lives of the process before. A successor that descends from it is not among its remains.
fn remains(before: &Before, live: &Live) -> Result<OldProcess, String> {
    let roots: Vec<Instance> = before.keeper.iter().chain([&before.instance]).cloned().collect();
    let descendants = supervisor::descendants(&roots, &before.nonce).map_err(|error| why(&error))?;
    let successors = live.family().map_err(|error| why(&error))?;
    let mut alive = Vec::new();
    if process::is_alive(&before.instance).map_err(|error| why(&error))? {
        alive.push(before.instance.pid);
    }
    let others = descendants.iter().filter(|found| **found != before.instance && !successors.contains(found));
    alive.extend(others.map(|found| found.pid));
    Ok(OldProcess { alive })
}
