//! The target's own validator, asked before anything stops: how its house is furnished for a service.

use super::preflight::tempered;
use super::{Executor, chain, fault};
use crate::conductor::ledger::moment;
use crate::config::{QuestionSettings, found};
use crate::preflight::{self, DataTold, Question, Stop, Tree, Validation};
use crate::sandbox::Sandbox;
use crate::supervisor::Launch;
use anyhow::Context as _;
use cutover_core::{Fault, Finding, Installed, Level};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::sync::Mutex;

/// Longest time that one version may take to say what it thinks of the configuration. OpenClaw's takes 4 s to 6 s on two
/// busy cores.
const VALIDATION: Duration = Duration::from_secs(60);

/// What the validator may write to its home and the like (bytes, each), and what is read of what it says.
const PRIVATE_MAX: u64 = 64 << 20;
const SAID_MAX: usize = 256 << 10;

/// Homes that some accounts have and in which the machine's programs lie: those are seen as they are.
const SYSTEM: [&str; 12] =
    ["/", "/bin", "/sbin", "/usr", "/usr/bin", "/usr/sbin", "/lib", "/etc", "/dev", "/proc", "/sys", "/var"];

/// Where copies of the state are validated, below the service's directory.
const COPIES: &str = "validate";

/// A copy of the state takes space: one at a time in a daemon. Held until the asking is really over.
static ONE: Mutex<()> = Mutex::const_new(());

impl Executor {
    /// Asks the target's validator, if one is declared, whether it accepts the real configuration.
    pub(super) async fn validated(
        &self,
        target: &Installed,
        source: Option<&Installed>,
        launch: &Launch,
    ) -> Result<Vec<Finding>, Fault> {
        let validate = ("preflight.validate", self.site.settings.validate.as_slice());
        if validate.1.is_empty() {
            let text = "no `preflight.validate`: whether the target accepts the configuration is not asked";
            return Ok(vec![Finding::new(Level::Note, "configuration", text)]);
        }
        let failed = |error: anyhow::Error| fault("preflight", format!("{error:#}"));
        let running = match source {
            Some(source) => {
                let launch = self.site.launch(source.generation, "preflight".into()).map_err(failed)?;
                Some((self.validator(source, &launch, validate)?, source.release.version.clone()))
            }
            None => None,
        };
        // Given up with this act, wherever that is: what is begun here ends with it.
        let (_interest, stop) =
            Stop::pair().map_err(|error| fault("preflight", format!("opening a pipe: {error}")))?;
        let validation = self.validation(self.validator(target, launch, validate)?, running, stop)?;
        let one = ONE.lock().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _one = one;
            preflight::forget_copies(&validation.scratch);
            preflight::configuration(&validation)
        });
        let findings = asked.await.expect("BUG: asking for the configuration panicked");
        let context = (source.is_some(), true);
        Ok(findings.into_iter().map(|finding| tempered(finding, context)).collect())
    }

    /// Asks the target what it would do to declared data, if the settings have such questions.
    pub(super) async fn asked_about_data(
        &self,
        target: &Installed,
        launch: &Launch,
    ) -> Result<Option<DataTold>, Fault> {
        let mut questions = Vec::new();
        for question in &self.site.settings.questions {
            let QuestionSettings { ask, pointer, neutral, migrated, refused } = question.clone();
            let command = self.validator(target, launch, ("preflight.data", &ask))?;
            questions.push(Question { command, pointer, neutral, migrated, refused });
        }
        let Some(first) = questions.first() else { return Ok(None) };
        let (_interest, stop) =
            Stop::pair().map_err(|error| fault("preflight", format!("opening a pipe: {error}")))?;
        let conditions = self.validation(first.command.clone(), None, stop)?;
        let one = ONE.lock().await;
        let asked = tokio::task::spawn_blocking(move || {
            let _one = one;
            preflight::forget_copies(&conditions.scratch);
            preflight::data(&questions, &conditions)
        });
        Ok(Some(asked.await.expect("BUG: asking about the data panicked")))
    }

    fn validation(
        &self,
        target: Sandbox,
        running: Option<(Sandbox, String)>,
        stop: Stop,
    ) -> Result<Validation, Fault> {
        let scratch = self.site.passable(COPIES);
        Ok(Validation {
            target,
            running,
            executable: self.site.executable.clone(),
            state: self.site.state_paths(),
            scratch: scratch.map_err(|error| fault("preflight", format!("{error:#}")))?,
            moment: moment(),
            limit: VALIDATION,
            stop,
        })
    }

    /// Removes copies that a killed daemon was making. This one must not be making any of this service.
    pub(super) async fn forget_copies(&self) {
        let copies = self.site.directory().join(COPIES);
        let forgotten = tokio::task::spawn_blocking(move || preflight::forget_copies(&copies));
        forgotten.await.expect("BUG: removing copies panicked");
    }

    /// A command of one generation, as the settings have it under a key, in a house in which only its own release and its
    /// interpreter are to be seen of what lies in private places.
    fn validator(
        &self,
        installed: &Installed,
        launch: &Launch,
        (key, words): (&str, &[String]),
    ) -> Result<Sandbox, Fault> {
        let site = &self.site;
        let tree = Tree::sealed(&site.store, installed.generation).map_err(chain("store"))?;
        let words: Vec<String> = words.iter().map(|word| site.filled(word, &tree.package)).collect();
        let (program, args) = words.split_first().expect("a command that is asked has words");
        let program = found(program, launch.env.get("PATH").map(String::as_str))
            .with_context(|| format!("`{program}` in `{key}` is not found in PATH"))
            .map_err(|error| fault("preflight", format!("{error:#}")))?;
        let mut env = launch.env.clone();
        env.remove("CUTOVER_INTENT_FILE");
        let private = self.private(launch);
        // A working directory of its own is seen as it is; one that is private itself is an empty one.
        let mut visible = vec![tree.root];
        visible.extend(Some(launch.cwd.clone()).filter(|cwd| !private.contains(cwd) && cwd.is_dir()));
        for program in std::iter::once(&program).chain(&site.settings.node) {
            visible.extend(around(program, &private));
        }
        Ok(Sandbox {
            args: args.to_vec(),
            env,
            cwd: launch.cwd.clone(),
            identity: site.identity.as_ref().map(crate::store::Identity::from),
            visible: visible.into_iter().filter(|path| is_in(path, &private)).collect(),
            private,
            writable: Vec::new(),
            covers: Vec::new(),
            private_max: PRIVATE_MAX,
            file_max: PRIVATE_MAX,
            said_max: SAID_MAX,
            program,
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
