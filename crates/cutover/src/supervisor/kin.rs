//! Who belongs to a process: what it started, and what those started.
//!
//! Two marks are looked for, because each alone can be lost: the chain of parents (lost when a parent ends, unless a
//! keeper adopts the orphan) and the inherited `CUTOVER_NONCE` (lost when a child clears its environment).
//! Knows `/proc`. Must not know what anybody does.

use super::error::Error;
use super::process;
use cutover_core::{BootId, Instance};
use cutover_intent::NONCE_VARIABLE;
use cutover_intent::identity::{Stat, boot_id};
use std::collections::{HashMap, HashSet};
use std::io;

/// Finds what descends from any of `roots` or bears `nonce`, zombies, the roots themselves and the caller left out.
///
/// # Errors
/// [`Error::Processes`] if the processes cannot be listed.
pub fn descendants(roots: &[Instance], nonce: &str) -> Result<Vec<Instance>, Error> {
    let census = Census::take()?;
    let rooted = census.below(roots);
    let own = std::process::id();
    let mut found = Vec::new();
    for (&pid, stat) in &census.stats {
        let is_root = roots.iter().any(|root| root.pid == pid && root.start_time == stat.start_time);
        if pid != own && !is_root && (rooted.contains(&pid) || bears(pid, nonce)) {
            found.push(census.instance(pid, stat));
        }
    }
    found.sort_unstable_by_key(|instance| (instance.start_time, instance.pid));
    // Asked of the process and not of its first thread, which may be a zombie while the others run on.
    alive(&found)
}

/// Finds the processes that bear a nonce, oldest first: the successor of a service that restarted itself is one.
///
/// # Errors
/// As [`descendants`].
pub fn bearing(nonce: &str) -> Result<Vec<Instance>, Error> {
    descendants(&[], nonce)
}

struct Census {
    boot_id: BootId,
    stats: HashMap<u32, Stat>,
}

impl Census {
    fn take() -> Result<Self, Error> {
        let stats = pids()?.into_iter().filter_map(|pid| match Stat::read(pid) {
            Ok(stat) => Some(Ok((pid, stat))),
            // It ended since the directory was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(source) => Some(Err(Error::Identify { pid, source })),
        });
        Ok(Self { boot_id: boot_id().map_err(Error::Processes)?, stats: stats.collect::<Result<_, _>>()? })
    }

    fn instance(&self, pid: u32, stat: &Stat) -> Instance {
        Instance { pid, start_time: stat.start_time, boot_id: self.boot_id.clone() }
    }

    /// All pids below those roots that still are who they were.
    fn below(&self, roots: &[Instance]) -> HashSet<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for (&pid, stat) in &self.stats {
            children.entry(stat.parent).or_default().push(pid);
        }
        let is_here = |root: &&Instance| {
            root.boot_id == self.boot_id
                && self.stats.get(&root.pid).is_some_and(|stat| stat.start_time == root.start_time)
        };
        let mut ahead: Vec<u32> = roots.iter().filter(is_here).map(|root| root.pid).collect();
        let mut found = HashSet::new();
        while let Some(parent) = ahead.pop() {
            for &child in children.get(&parent).into_iter().flatten() {
                if found.insert(child) {
                    ahead.push(child);
                }
            }
        }
        found
    }
}

pub(super) fn pids() -> Result<Vec<u32>, Error> {
    let entries = std::fs::read_dir("/proc").map_err(Error::Processes)?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::Processes)?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(found)
}

/// Whether the nonce stands in the environment that the process was started with. One that may not be read belongs to
/// another user and was not started by a service of ours, unless it changed users: then only the chain finds it.
fn bears(pid: u32, nonce: &str) -> bool {
    if nonce.is_empty() {
        return false;
    }
    let wanted = format!("{NONCE_VARIABLE}={nonce}");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|entry| entry == wanted.as_bytes())
}

/// The name that the kernel knows a process by, for people.
pub(super) fn command(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim_end().to_owned())
}

/// Those of `instances` that still live.
pub(super) fn alive(instances: &[Instance]) -> Result<Vec<Instance>, Error> {
    let mut found = Vec::new();
    for instance in instances {
        if process::is_alive(instance)? {
            found.push(instance.clone());
        }
    }
    Ok(found)
}
