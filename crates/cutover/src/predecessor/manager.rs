//! A unit of systemd: of this user's manager, or of the system's. The program is found through PATH; the unit's file is never
//! written to.

use super::Error;
use crate::shell::quoted;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long the manager may take to answer a question.
const ANSWER: Duration = Duration::from_secs(20);

/// Which of systemd's managers a unit is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Manager {
    /// This user's.
    #[default]
    User,
    /// The machine's: only root changes anything there.
    System,
}

impl Manager {
    /// How it is called.
    fn program(self) -> &'static str {
        match self {
            Self::User => "systemctl --user",
            Self::System => "systemctl",
        }
    }

    /// When it starts what is enabled.
    #[must_use]
    pub fn starts(self) -> &'static str {
        match self {
            Self::User => "at login",
            Self::System => "at boot",
        }
    }
}

/// A unit that keeps a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// Its name, with `.service`.
    pub name: String,
    /// Its file.
    pub file: Option<PathBuf>,
    /// Whether it is started at login, or at boot.
    pub is_enabled: bool,
    /// Whose it is.
    #[serde(default)]
    pub manager: Manager,
}

impl Unit {
    /// The unit whose main process is one of `pids`, of those that are worth asking for.
    pub(super) async fn keeping(
        pids: &[u32],
        env: &BTreeMap<String, String>,
        cgroup: &str,
    ) -> Result<Option<Self>, Error> {
        let users = candidates(env, cgroup).into_iter().map(|name| (Manager::User, name));
        let systems = named(env, cgroup).into_iter().map(|name| (Manager::System, name));
        let mut silent = None;
        for (manager, name) in users.chain(systems) {
            if silent == Some(manager) {
                continue;
            }
            let Some(shown) = show(manager, &name).await? else {
                silent = Some(manager);
                continue;
            };
            let main = shown.get("MainPID").and_then(|pid| pid.parse::<u32>().ok());
            if main.is_some_and(|main| is_kept_by(main, pids)) {
                if manager == Manager::System && !rustix::process::geteuid().is_root() {
                    return Err(Error::SystemUnit { pid: pids[0], unit: name });
                }
                let file = shown.get("FragmentPath").filter(|path| !path.is_empty()).map(PathBuf::from);
                let is_enabled = shown.get("UnitFileState").is_some_and(|state| state == "enabled");
                return Ok(Some(Self { name, file, is_enabled, manager }));
            }
        }
        Ok(None)
    }

    /// What a person would type to have its manager do something with it.
    #[must_use]
    pub fn command(&self, verb: &str) -> String {
        format!("{} {verb} {}", self.manager.program(), quoted(&self.name))
    }

    /// What a person would type to see what it says.
    pub(super) fn journal(&self) -> String {
        let whose = if self.manager == Manager::User { " --user" } else { "" };
        format!("journalctl{whose} -u {}", quoted(&self.name))
    }

    /// Stops it. It is still started at the next login: until what takes its place has proven itself, a machine that goes down
    /// comes back with it. Must be idempotent: it may run again after a crash.
    pub(super) async fn stop(&self, limit: Duration) -> Result<(), Error> {
        self.done("stop", limit).await
    }

    /// Takes it out of what is started by itself. Must be idempotent, as above.
    pub(super) async fn disable(&self) -> Result<(), Error> {
        if self.is_enabled {
            self.done("disable", ANSWER).await?;
        }
        Ok(())
    }

    /// Puts it back and starts it. Must be idempotent, as above.
    pub(super) async fn restore(&self, limit: Duration) -> Result<(), Error> {
        if self.is_enabled {
            self.done("enable", ANSWER).await?;
        }
        self.done("start", limit).await
    }

    async fn done(&self, verb: &str, limit: Duration) -> Result<(), Error> {
        called(self.manager, &[verb, &self.name], limit).await.map(drop)
    }

    /// Whether it runs, or is about to: one that is started again after a pause has no process meanwhile.
    pub(super) async fn is_up(&self) -> Result<bool, Error> {
        let shown = show(self.manager, &self.name).await?.unwrap_or_default();
        let state = shown.get("ActiveState").map(String::as_str);
        Ok(matches!(state, Some("active" | "activating" | "reloading" | "deactivating")))
    }

    /// The unit's main process, if one runs.
    pub(super) async fn main(&self) -> Result<Option<u32>, Error> {
        let shown = show(self.manager, &self.name).await?.unwrap_or_default();
        Ok(shown.get("MainPID").and_then(|pid| pid.parse().ok()).filter(|pid| *pid != 0))
    }
}

/// The unit of another manager that a process is in, by its cgroup: one that we are not in ourselves, as somebody who types in
/// a container's shell is in the container's.
pub(super) fn elsewhere(cgroup: &str, own: &str) -> Option<String> {
    let foreign = cgroup.lines().filter(|line| !own.lines().any(|ours| ours == *line));
    let units = foreign.filter_map(|line| line.rsplit('/').find(|name| name.ends_with(".service")));
    units.filter(|name| !name.starts_with("user@")).map(ToOwned::to_owned).next()
}

/// Programs that start other people's work: their units are for that, and not for what they have started.
const LAUNCHERS: [&str; 5] = ["cron", "crond", "atd", "sshd", "systemd"];

/// Whether a unit's main process is there for the first of `pids`, which the others are above: it is that, or a wrapper of
/// the same account.
fn is_kept_by(main: u32, pids: &[u32]) -> bool {
    let Some(kept) = pids.first().filter(|_| pids.contains(&main)) else { return false };
    let account = |pid: u32| std::fs::metadata(format!("/proc/{pid}")).map(|facts| facts.uid()).ok();
    let name = std::fs::read_to_string(format!("/proc/{main}/comm")).unwrap_or_default();
    main == *kept || (account(main) == account(*kept) && !LAUNCHERS.contains(&name.trim()))
}

/// A name of a unit, and nothing that the manager would take for an option or for a pattern: the process chose it.
fn is_unit(name: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":_.@\\-".contains(c);
    name.ends_with(".service")
        && !name.starts_with("user@")
        && !name.starts_with('-')
        && name.chars().all(is_plain)
}

/// Names that the process itself gives.
fn named(env: &BTreeMap<String, String>, cgroup: &str) -> Vec<String> {
    let told = env.get("OPENCLAW_SYSTEMD_UNIT").filter(|name| !name.is_empty());
    let told =
        told.map(|name| if name.ends_with(".service") { name.clone() } else { format!("{name}.service") });
    let mut names: Vec<String> = told.into_iter().filter(|name| is_unit(name)).collect();
    let within = cgroup.lines().flat_map(|line| line.rsplit('/')).filter(|name| is_unit(name));
    names.extend(within.map(Into::into));
    names.dedup();
    names
}

/// Names that the process itself gives, then its user's own units.
fn candidates(env: &BTreeMap<String, String>, cgroup: &str) -> Vec<String> {
    let mut names = named(env, cgroup);
    let home = env.get("HOME").map(|home| Path::new(home).join(".config/systemd/user"));
    let configured = env.get("XDG_CONFIG_HOME").map(|home| Path::new(home).join("systemd/user"));
    for directory in home.into_iter().chain(configured) {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let mut own: Vec<String> = files.filter_map(|file| file.file_name().into_string().ok()).collect();
        own.retain(|name| is_unit(name));
        own.sort();
        names.extend(own);
    }
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

/// What the manager tells of a unit; `None` where there is no manager to ask.
async fn show(manager: Manager, name: &str) -> Result<Option<BTreeMap<String, String>>, Error> {
    let words = ["show", "--property=MainPID,FragmentPath,UnitFileState,ActiveState", name];
    match called(manager, &words, ANSWER).await {
        Ok(text) => {
            let pairs = text.lines().filter_map(|line| line.split_once('='));
            Ok(Some(pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
        }
        // No program, or no manager behind it: then no unit of it keeps the process.
        Err(Error::Manager { said, .. })
            if said.contains("No such file")
                || said.contains("connect to bus")
                || said.contains("not been booted")
                || said.contains("No medium") =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn called(manager: Manager, words: &[&str], limit: Duration) -> Result<String, Error> {
    let command = format!("{} {}", manager.program(), words.join(" "));
    let failed = |said: String| Error::Manager { command: command.clone(), said };
    let mut systemctl = Command::new("systemctl");
    systemctl.args(manager.program().split(' ').skip(1)).args(words).stdin(Stdio::null()).kill_on_drop(true);
    let output = match tokio::time::timeout(limit, systemctl.output()).await {
        Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("no end within {limit:?}"))),
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_another_manager_is_known_by_its_cgroup() {
        let of = |path: &str| format!("1:name=systemd:/\n0::{path}\n");
        let own = of("/user.slice/user-7.slice/session-1.scope");
        assert_eq!(elsewhere(&of("/system.slice/claw.service"), &own).as_deref(), Some("claw.service"));
        let user = "/user.slice/user-8.slice/user@8.service/app.slice/claw.service";
        assert_eq!(elsewhere(&of(user), &own).as_deref(), Some("claw.service"));
        assert_eq!(elsewhere(&own, &own), None);
        assert_eq!(elsewhere(&of("/user.slice/user-8.slice/user@8.service/app.slice/run.scope"), &own), None);
        let box_ = of("/system.slice/container.service");
        assert_eq!(elsewhere(&box_, &box_), None, "everybody in it is");
    }

    #[test]
    fn a_name_that_is_an_option_or_a_pattern_is_no_unit() {
        for name in
            ["--host=evil/x.service", "[a-o]*.service", "-x.service", "a b.service", "user@1.service", "a"]
        {
            assert!(!is_unit(name), "{name}");
        }
        assert!(is_unit("open-claw@1\\x2d.service"));
        let env = BTreeMap::from([("OPENCLAW_SYSTEMD_UNIT".to_owned(), "--host=evil/x".to_owned())]);
        assert!(named(&env, "0::/system.slice/*.service\n").is_empty());
    }

    #[test]
    fn a_unit_is_kept_for_what_its_main_process_is_or_wraps_and_not_for_what_a_launcher_started() {
        let own = std::process::id();
        let launcher = tempfile::tempdir().unwrap().keep().join("cron");
        std::fs::copy("/bin/sleep", &launcher).unwrap();
        // A process has its new program a moment before it has its name.
        let start = |program: &Path| {
            let child = std::process::Command::new(program).arg("60").spawn().unwrap();
            let name = program.file_name().unwrap().to_string_lossy();
            let comm = format!("/proc/{}/comm", child.id());
            let begun = std::time::Instant::now();
            while std::fs::read_to_string(&comm).unwrap().trim() != name {
                assert!(begun.elapsed() < Duration::from_secs(10), "it is never called {name}");
                std::thread::yield_now();
            }
            child
        };
        let (mut cron, mut wrapper) = (start(&launcher), start(Path::new("/bin/sleep")));
        assert!(is_kept_by(own, &[own]));
        assert!(is_kept_by(wrapper.id(), &[own, wrapper.id()]));
        assert!(!is_kept_by(cron.id(), &[own, cron.id()]), "it starts other work too");
        assert!(!is_kept_by(wrapper.id(), &[own]), "it is not above it");
        for child in [&mut cron, &mut wrapper] {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        std::fs::remove_dir_all(launcher.parent().unwrap()).unwrap();
    }

    #[test]
    fn a_unit_is_looked_for_by_what_the_process_says_and_then_among_its_user_s_own() {
        let home = tempfile::tempdir().unwrap();
        let units = home.path().join(".config/systemd/user");
        std::fs::create_dir_all(&units).unwrap();
        for name in ["b.service", "a.service", "c.timer"] {
            std::fs::write(units.join(name), "").unwrap();
        }
        let env = BTreeMap::from([
            ("HOME".to_owned(), home.path().display().to_string()),
            ("OPENCLAW_SYSTEMD_UNIT".to_owned(), "claw".to_owned()),
        ]);
        let cgroup = "0::/user.slice/user-1.slice/user@1.service/app.slice/gate.service\n";
        assert_eq!(candidates(&env, cgroup), ["claw.service", "gate.service", "a.service", "b.service"]);
    }
}
