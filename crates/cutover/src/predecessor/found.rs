//! Who serves now: everything about a process that can be read from the process.

use super::manager::elsewhere;
use super::{Error, Package, Unit, respawner};
use crate::supervisor::{self, process};
use cutover_core::Instance;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process that serves and is not ours, with everything that brings it back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Predecessor {
    /// Who it is.
    pub instance: Instance,
    /// Its program: what the kernel executed.
    pub program: PathBuf,
    /// Its command line, the program's name first.
    pub command: Vec<String>,
    /// The words that it showed when it was found: those, or a title that it had put over them.
    #[serde(default)]
    pub shown: Vec<String>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// The environment that it was started with. Holds secrets.
    pub env: BTreeMap<String, String>,
    /// Whose process it is.
    pub account: Account,
    /// Where its standard output and its standard error go, where that are files.
    pub output: [Option<PathBuf>; 2],
    /// Where it listens, lowest port first.
    pub addresses: Vec<SocketAddr>,
    /// The script that it runs, with every link resolved.
    pub entry: PathBuf,
    /// The package that the script lies in.
    pub package: Package,
    /// What keeps it; `None`: nothing that is known.
    pub unit: Option<Unit>,
    /// The process that started it, by the name that the kernel knows it by.
    pub parent: Option<String>,
}

/// Whose a process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// What is looked for.
#[derive(Clone, Debug)]
pub struct Search {
    /// This process; whoever listens on `port`, if none is named.
    pub pid: Option<u32>,
    /// The port that clients use.
    pub port: u16,
    /// The command line that starts it, where the process does not tell any more.
    pub command: Vec<String>,
    /// The package that it must run.
    pub package: String,
}

/// Reads the process that serves. Nothing is changed.
///
/// # Errors
/// What cannot be found or read, with what to do about it.
pub async fn find(search: &Search) -> Result<Predecessor, Error> {
    let (instance, addresses) = listener(search)?;
    let pid = instance.pid;
    let account = account(pid)?;
    let own = rustix::process::geteuid();
    if !own.is_root() && own.as_raw() != account.uid {
        return Err(Error::Foreign { pid, uid: account.uid });
    }
    let links = process::links(&instance)?.ok_or(Error::Gone { pid })?;
    if links.exe.file_name().is_some_and(|name| name == "cutover") {
        return Err(Error::Ours { port: search.port });
    }
    let env = variables(pid)?;
    let port = addresses.first().map_or(search.port, SocketAddr::port);
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let (ancestors, parent) = ancestry(pid);
    if let Some(respawner::Respawner { name: by, how }) = respawner::above(&ancestors, &env) {
        return Err(Error::Respawned { pid, by, how });
    }
    let unit = Unit::keeping(&ancestors, &env, &cgroup).await?;
    let own_cgroup = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let we_are_in = unit.as_ref().filter(|unit| own_cgroup == cgroup && cgroup.contains(&unit.name));
    alone(&instance, &ancestors, unit.as_ref(), we_are_in).await?;
    if unit.is_none()
        && let Some(unit) = elsewhere(&cgroup, &own_cgroup)
    {
        return Err(Error::KeptElsewhere { pid, unit });
    }
    let shown = words(&format!("/proc/{pid}/cmdline"))?;
    let command = command(pid, search, port, &links.cwd)?;
    let script = supervisor::script(&command).map(|script| links.cwd.join(script));
    let script = script.ok_or_else(|| Error::NoCommand { pid, said: command.join(" "), port })?;
    let entry = script.canonicalize().map_err(|source| Error::Read { path: script, source })?;
    let package = Package::of(&entry, &search.package)?;
    let output = [1, 2].map(|fd| {
        let path = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
        path.is_file().then_some(path)
    });
    Ok(Predecessor {
        instance,
        program: program(links.exe),
        command,
        shown,
        cwd: links.cwd,
        env,
        account,
        output,
        addresses,
        entry,
        package,
        unit,
        parent,
    })
}

impl Predecessor {
    /// The port that clients use.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.addresses.first().map_or(0, SocketAddr::port)
    }

    /// The value of an option of its command line.
    #[must_use]
    pub fn option(&self, name: &str) -> Option<&str> {
        let with_value = |word: &String| word.strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
        let at = self.command.iter().position(|word| word == name || with_value(word))?;
        match self.command[at].split_once('=') {
            Some((_, value)) => Some(value),
            None => self.command.get(at + 1).map(String::as_str),
        }
    }
}

/// What ends the process must end neither this program nor anything else that its unit keeps.
async fn alone(
    instance: &Instance,
    ancestors: &[u32],
    unit: Option<&Unit>,
    we_are_in: Option<&Unit>,
) -> Result<(), Error> {
    let pid = instance.pid;
    let (above_us, _) = ancestry(std::process::id());
    let main = match unit {
        Some(unit) => unit.main().await?.filter(|main| *main != pid),
        None => None,
    };
    if above_us.contains(&pid) || main.is_some_and(|main| above_us.contains(&main)) || we_are_in.is_some() {
        return Err(Error::Inside { pid });
    }
    let (Some(unit), Some(main)) = (unit, main) else { return Ok(()) };
    let Some(main) = process::identify(main)? else { return Ok(()) };
    let below = supervisor::descendants(std::slice::from_ref(instance), "")?;
    let others = supervisor::descendants(&[main], "")?;
    let is_other = |other: &&Instance| !ancestors.contains(&other.pid) && !below.contains(other);
    match others.iter().find(is_other) {
        None => Ok(()),
        Some(other) => Err(Error::Shared { pid, unit: unit.name.clone(), other: other.pid }),
    }
}

/// The process that listens, and where: on the port that clients use first.
fn listener(search: &Search) -> Result<(Instance, Vec<SocketAddr>), Error> {
    let instance = match search.pid {
        Some(pid) => process::identify(pid)?.ok_or(Error::Gone { pid })?,
        None => {
            let rows = supervisor::listeners(search.port)?;
            if rows.is_empty() {
                return Err(Error::NobodyListens { port: search.port });
            }
            let owner = rows.iter().find_map(|row| row.owners.first().cloned());
            owner.ok_or(Error::Hidden { port: search.port })?
        }
    };
    let all = supervisor::listening(&instance)?;
    let port = match search.pid {
        None => search.port,
        Some(pid) => all.first().ok_or(Error::Silent { pid })?.port(),
    };
    let (mut public, others): (Vec<_>, Vec<_>) = all.into_iter().partition(|address| address.port() == port);
    public.extend(others);
    Ok((instance, public))
}

fn read(path: &str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::Read { path: path.into(), source })
}

pub(super) fn words(path: &str) -> Result<Vec<String>, Error> {
    let text = read(path)?;
    let text = text.strip_suffix(&[0]).unwrap_or(&text);
    Ok(text.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

/// The file of a program by the name that it is started by again: one that was replaced since it was started is told as deleted.
pub(super) fn program(exe: PathBuf) -> PathBuf {
    let name = exe.to_str().and_then(|name| name.strip_suffix(" (deleted)"));
    match name.filter(|_| !exe.exists()) {
        Some(name) => PathBuf::from(name),
        None => exe,
    }
}

/// The environment that a process was started with.
pub(super) fn variables(pid: u32) -> Result<BTreeMap<String, String>, Error> {
    let words = words(&format!("/proc/{pid}/environ"))?;
    let pairs = words.iter().filter_map(|word| word.split_once('='));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// The command line, as the process was started with it. One that has put a title over it has nothing to tell: its script
/// is not there then.
fn command(pid: u32, search: &Search, port: u16, cwd: &Path) -> Result<Vec<String>, Error> {
    if !search.command.is_empty() {
        return Ok(search.command.clone());
    }
    let words = words(&format!("/proc/{pid}/cmdline"))?;
    match supervisor::script(&words) {
        Some(script) if cwd.join(script).is_file() => Ok(words),
        _ => Err(Error::NoCommand { pid, said: words.join(" ").trim().to_owned(), port }),
    }
}

fn account(pid: u32) -> Result<Account, Error> {
    let path = PathBuf::from(format!("/proc/{pid}/status"));
    let failed = |source| Error::Read { path: path.clone(), source };
    let owner = std::fs::metadata(&path).map_err(failed)?;
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let groups = text.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    let groups = groups.split_ascii_whitespace().filter_map(|group| group.parse().ok()).collect();
    Ok(Account { uid: owner.uid(), gid: owner.gid(), groups })
}

/// A process and those above it, and the name of the one that started it.
pub(super) fn ancestry(pid: u32) -> (Vec<u32>, Option<String>) {
    let parent_of = |pid: u32| {
        let stat = cutover_intent::identity::Stat::read(pid).ok()?;
        (stat.parent > 1).then_some(stat.parent)
    };
    let pids: Vec<u32> = std::iter::successors(Some(pid), |pid| parent_of(*pid)).collect();
    let parent = pids.get(1).and_then(|pid| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{} (pid {pid})", name.trim()))
    });
    (pids, parent)
}
