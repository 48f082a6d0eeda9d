//! Who else runs the same service: units of systemd, and processes that are none of ours.
//!
//! A second supervisor would start the old version again behind an update's back. Nobody is stopped here: a person is
//! told. Must not know why anything runs.

use super::unit;
use crate::supervisor;
use cutover_core::{Finding, Instance, Level};
use std::fs;
use std::path::{Path, PathBuf};

const KIND: &str = "supervisor";

/// Endings that a command may or may not be written with.
const ENDINGS: [&str; 3] = [".js", ".mjs", ".cjs"];

/// Directories of commands.
const COMMANDS: [&str; 3] = ["bin", ".bin", "sbin"];

/// Programs whose arguments name a service without running it: ours.
const OURS: &str = "cutover";

const INTERPRETERS: [&str; 5] = ["node", "bun", "deno", "python", "ruby"];

/// Whose units a directory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The machine's.
    System,
    /// One user's, under `systemd --user`.
    User,
}

/// One directory of unit files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitDirectory {
    /// Where; it need not exist.
    pub path: PathBuf,
    /// Whose.
    pub scope: Scope,
}

/// By what a service is known where others start it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The package's name in its registry, with its scope; `None` where the name says nothing to others.
    pub package: Option<String>,
    /// The package's directory in the target, absolute.
    pub package_root: PathBuf,
    /// The entry file in the target, absolute.
    pub entry: PathBuf,
    /// The service's own store: an entry that runs from there is this service.
    pub store: PathBuf,
    /// Where units may be; [`Service::unit_directories`] names the usual places.
    pub units: Vec<UnitDirectory>,
}

impl Service {
    /// Where systemd looks for units, the user's own among them where there is a home.
    #[must_use]
    pub fn unit_directories(home: Option<&Path>) -> Vec<UnitDirectory> {
        let system = ["/etc/systemd/system", "/run/systemd/system", "/usr/lib/systemd/system"];
        let system = system.map(|path| UnitDirectory { path: path.into(), scope: Scope::System });
        let user =
            home.map(|home| UnitDirectory { path: home.join(".config/systemd/user"), scope: Scope::User });
        system.into_iter().chain(user).collect()
    }

    /// The entry below its package: `dist/index.js`.
    fn entry_below(&self) -> &Path {
        self.entry.strip_prefix(&self.package_root).unwrap_or(&self.entry)
    }

    /// Whether a word of a command line names this service: its entry, its command in a directory of commands, or the
    /// package itself with or without a version.
    fn is_named_by(&self, word: &str) -> bool {
        let path = Path::new(word);
        let Some(package) = &self.package else { return self.is_entry(path) };
        let plain = ENDINGS.iter().find_map(|ending| word.strip_suffix(ending)).unwrap_or(word);
        let is_package =
            plain.strip_prefix(package.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('@'));
        let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
        let is_command = COMMANDS.iter().any(|name| directory == *name)
            && Path::new(plain).file_name().is_some_and(|name| self.command().is_some_and(|own| name == own));
        let is_inside = word.contains(&format!("/node_modules/{package}/"));
        is_package || is_command || is_inside || self.is_entry(path)
    }

    /// The name without its scope, which is what npm calls a package's only command.
    fn command(&self) -> Option<&str> {
        self.package.as_deref()?.rsplit('/').next()
    }

    /// Whether a file is the entry, in a generation of ours or in another place where the package lies.
    fn is_entry(&self, file: &Path) -> bool {
        let below = self.entry_below();
        let in_package = self.package.as_ref().map(|package| Path::new(package).join(below));
        file == self.entry
            || in_package.is_some_and(|entry| file.ends_with(entry))
            || (file.starts_with(&self.store) && file.ends_with(below))
    }
}

/// Finds units and processes that run the same service and are none of `ours`: of this service, or of another one that the
/// same daemon runs.
pub(super) fn look(service: &Service, ours: &[Instance]) -> Vec<Finding> {
    let mut findings: Vec<Finding> =
        service.units.iter().flat_map(|directory| units(service, directory)).collect();
    findings.extend(processes(service, ours));
    findings
}

fn units(service: &Service, directory: &UnitDirectory) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, lines) in unit::commands(&directory.path) {
        let is_foreign =
            |line: &&Vec<String>| line.first().is_some_and(|program| !Path::new(program).ends_with(OURS));
        // The word alone is told: a command line may hold a secret.
        let mut words = lines.iter().filter(is_foreign).flatten();
        let Some(word) = words.find(|word| service.is_named_by(word)) else { continue };
        let is_enabled = service.units.iter().any(|place| unit::is_enabled(&place.path, &name));
        let enabled = if is_enabled { "is enabled and " } else { "" };
        let (whose, user) = match directory.scope {
            Scope::System => ("the unit", ""),
            Scope::User => ("the user's unit", " --user"),
        };
        let path = directory.path.join(&name);
        let text = format!("{whose} {} {enabled}runs the same service: {word}", path.display());
        let advice = format!("`systemctl{user} disable --now {name}`: only one may start and stop it");
        findings.push(Finding::new(Level::Warn, KIND, text).advised(advice));
    }
    findings
}

fn processes(service: &Service, ours: &[Instance]) -> Vec<Finding> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return vec![Finding::new(Level::Warn, KIND, "who else runs the service cannot be told: no /proc")];
    };
    let own = std::process::id();
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = pids.filter(|pid| *pid != own).filter_map(|pid| {
        let file = run_by(service, pid)?;
        let instance = supervisor::process::identify(pid).ok().flatten()?;
        if ours.contains(&instance) {
            return None;
        }
        let text = format!("pid {pid} runs the same service outside of our hands: {file}");
        let advice = format!("find out who started it (`cat /proc/{pid}/cgroup`), disable that and stop it");
        Some(Finding::new(Level::Warn, KIND, text).advised(advice))
    });
    found.collect()
}

/// What a process was started to run: the script of an interpreter, else its own executable. A program that has put a
/// title over its command line has left nothing else to know it by. Of what may not be read nothing is known.
fn run_by(service: &Service, pid: u32) -> Option<String> {
    let executable = fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let is_interpreter = executable.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        INTERPRETERS.iter().any(|known| name.starts_with(known))
    });
    if !is_interpreter {
        return service.is_entry(&executable).then(|| executable.display().to_string());
    }
    let Some(script) = supervisor::script(&words) else {
        let title = words.first()?.split_whitespace().next()?;
        let rest = title.strip_prefix(service.command()?)?;
        return (rest.is_empty() || rest.starts_with('-')).then(|| words[0].trim().to_owned());
    };
    let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?.join(script);
    let path = path.canonicalize().unwrap_or(path);
    service.is_entry(&path).then(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service {
            package: Some("@claw/gate".into()),
            package_root: "/store/generations/0002/core/node_modules/@claw/gate".into(),
            entry: "/store/generations/0002/core/node_modules/@claw/gate/dist/index.js".into(),
            store: "/store".into(),
            units: Vec::new(),
        }
    }

    #[test]
    fn a_service_is_known_by_its_entry_its_command_and_its_package() {
        let named = [
            "/usr/lib/node_modules/@claw/gate/dist/index.js",
            "/opt/@claw/gate/dist/index.js",
            "/home/a/.npm/bin/gate",
            "/srv/node_modules/.bin/gate.mjs",
            "/store/current/core/node_modules/@claw/gate/dist/index.js",
            "@claw/gate@latest",
            "@claw/gate",
        ];
        for word in named {
            assert!(service().is_named_by(word), "{word}");
        }
        for word in
            ["/home/gate/server.js", "/srv/dist/index.js", "gateway", "@claw/gatekeeper", "--name=gate"]
        {
            assert!(!service().is_named_by(word), "{word}");
        }
        let unnamed = Service { package: None, ..service() };
        assert!(unnamed.is_named_by("/store/current/core/dist/index.js"));
        assert!(!unnamed.is_named_by("/opt/@claw/gate/dist/index.js") && !unnamed.is_named_by("gate"));
    }
}
