//! How a sandbox is furnished for a service, and where the copies lie that are laid over its state.
//!
//! Must not know what is run there.

use super::{Executor, chain, fault};
use crate::preflight;
use crate::sandbox::Sandbox;
use crate::supervisor::Launch;
use cutover_core::{Fault, Installed};
use std::path::{Path, PathBuf};
use tokio::sync::{Mutex, MutexGuard};

/// Homes that some accounts have and in which the machine's programs lie: those are seen as they are.
const SYSTEM: [&str; 12] =
    ["/", "/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/lib", "/etc", "/dev", "/proc", "/sys", "/var"];

/// What a copy of the state is made for. A copy takes space, and a second process memory: one of each at a time in a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Validation,
    Rehearsal,
}

/// The right to make copies for one purpose. To be held until whoever uses them has really ended.
pub(super) type Right = MutexGuard<'static, ()>;

impl Purpose {
    /// Where its copies are made, below the service's directory.
    fn directory(self) -> &'static str {
        match self {
            Self::Validation => "validate",
            Self::Rehearsal => "rehearse",
        }
    }

    fn right(self) -> &'static Mutex<()> {
        static VALIDATION: Mutex<()> = Mutex::const_new(());
        static REHEARSAL: Mutex<()> = Mutex::const_new(());
        match self {
            Self::Validation => &VALIDATION,
            Self::Rehearsal => &REHEARSAL,
        }
    }
}

impl Executor {
    /// Where copies may be made, and the right to make them. What an earlier one left is removed.
    pub(super) async fn copies(&self, purpose: Purpose) -> Result<(PathBuf, Right), Fault> {
        let directory = self.site.passable(purpose.directory());
        let directory = directory.map_err(|error| fault("preflight", format!("{error:#}")))?;
        let right = purpose.right().lock().await;
        self.forget_copies_in(directory.clone()).await;
        Ok((directory, right))
    }

    /// Removes copies that a killed daemon was making. This one must not be making any of this service.
    pub(super) async fn forget_copies(&self) {
        for purpose in [Purpose::Validation, Purpose::Rehearsal] {
            self.forget_copies_in(self.site.directory().join(purpose.directory())).await;
        }
    }

    async fn forget_copies_in(&self, directory: PathBuf) {
        let forgotten = tokio::task::spawn_blocking(move || preflight::forget_copies(&directory));
        forgotten.await.expect("BUG: removing copies panicked");
    }

    /// A house in which a generation, its interpreter and `program` are all that is to be seen of what lies in private
    /// places; with the environment of a start, but nothing that the daemon is told by. What it may take is the caller's
    /// to say.
    pub(super) fn house(
        &self,
        installed: &Installed,
        launch: &Launch,
        program: &Path,
    ) -> Result<Sandbox, Fault> {
        let site = &self.site;
        let generation = site.store.tree(installed.generation).map_err(chain("store"))?;
        let mut env = launch.env.clone();
        env.remove(cutover_intent::FILE_VARIABLE);
        let private = self.private(launch);
        let mut visible = vec![generation];
        // A working directory of its own is seen as it is; one that is private itself is an empty one.
        visible.extend(Some(launch.cwd.clone()).filter(|cwd| !private.contains(cwd) && cwd.is_dir()));
        for program in [program, &launch.program].into_iter().chain(site.settings.node.as_deref()) {
            visible.extend(around(program, &private));
        }
        Ok(Sandbox {
            program: program.to_owned(),
            args: Vec::new(),
            env,
            cwd: launch.cwd.clone(),
            identity: site.identity.as_ref().map(crate::store::Identity::from),
            visible: visible.into_iter().filter(|path| is_in(path, &private)).collect(),
            private,
            writable: Vec::new(),
            covers: Vec::new(),
            private_max: 0,
            file_max: 0,
            said_max: 0,
        })
    }

    /// Where a service leaves things, where sockets are, and what is ours.
    fn private(&self, launch: &Launch) -> Vec<PathBuf> {
        let usual = ["/tmp", "/var/tmp", "/run"].map(PathBuf::from);
        let named = ["HOME", "TMPDIR", "XDG_RUNTIME_DIR"].into_iter();
        let named = named.filter_map(|name| launch.env.get(name)).map(PathBuf::from);
        let ours = [self.site.layout.state.clone(), self.site.layout.runtime.clone()];
        let all = usual.into_iter().chain(named).chain(ours);
        let is_usable =
            |path: &PathBuf| path.is_absolute() && !SYSTEM.iter().any(|system| path == Path::new(system));
        all.map(|path| path.canonicalize().unwrap_or(path)).filter(is_usable).collect()
    }
}

/// Whether a path leads into a private place, by its own name or through links.
fn is_in(path: &Path, private: &[PathBuf]) -> bool {
    let real = path.canonicalize();
    let names = [Ok(path), real.as_deref()];
    private.iter().any(|private| names.iter().flatten().any(|name| name.starts_with(private)))
}

/// What a program needs around it: the installation of an interpreter in `…/bin`, unless all of a private place would be
/// seen with it; in any case itself, under the name that it is called by.
fn around(program: &Path, private: &[PathBuf]) -> Vec<PathBuf> {
    let real = program.canonicalize().unwrap_or_else(|_| program.to_owned());
    let directory = real.parent().filter(|parent| parent.ends_with("bin")).and_then(Path::parent);
    let is_private = |path: &Path| private.iter().any(|private| private.starts_with(path));
    let installation = directory.filter(|directory| !is_private(directory));
    let mut seen: Vec<PathBuf> = installation.map(Path::to_owned).into_iter().collect();
    for name in [real.clone(), program.to_owned()] {
        if !seen.iter().any(|seen| name.starts_with(seen)) {
            seen.push(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interpreter_is_seen_with_its_installation_but_never_with_a_whole_home() {
        let private = [PathBuf::from("/home/web")];
        let seen = |program: &str| around(Path::new(program), &private);
        assert_eq!(seen("/home/web/.nvm/v24/bin/node"), [PathBuf::from("/home/web/.nvm/v24")]);
        assert_eq!(seen("/home/web/bin/node"), [PathBuf::from("/home/web/bin/node")]);
        assert_eq!(seen("/home/web/node"), [PathBuf::from("/home/web/node")]);
    }
}
