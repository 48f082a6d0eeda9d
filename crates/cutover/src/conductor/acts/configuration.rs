//! The target's own validator, asked before anything stops.

use super::house::Purpose;
use super::preflight::tempered;
use super::{Executor, chain, fault};
use crate::conductor::ledger::moment;
use crate::config::{QuestionSettings, found};
use crate::preflight::{self, Conditions, DataTold, Question, Running, Stop, Validation};
use crate::sandbox::Sandbox;
use crate::supervisor::Launch;
use anyhow::Context as _;
use cutover_core::{Fault, Finding, Installed, Level};
use std::path::PathBuf;
use std::time::Duration;

/// Longest time that one version may take to say what it thinks of the configuration. OpenClaw's takes 4 s to 6 s on two
/// busy cores.
const VALIDATION: Duration = Duration::from_secs(60);

/// What the validator may write to its home and the like (bytes, each), and what is read of what it says.
const PRIVATE_MAX: u64 = 64 << 20;
const SAID_MAX: usize = 256 << 10;

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
                Some(Running {
                    command: self.validator(source, &launch, validate)?,
                    version: source.release.version.clone(),
                    seating: self.seating(source)?,
                })
            }
            None => None,
        };
        // Given up with this act, wherever that is: what is begun here ends with it.
        let (_interest, stop) = Stop::pair().map_err(chain("preflight"))?;
        let (scratch, right) = self.copies(Purpose::Validation).await?;
        let conditions = self.conditions(target, scratch, stop)?;
        let target = self.validator(target, launch, validate)?;
        let validation = Validation { target, running, conditions };
        let asked = tokio::task::spawn_blocking(move || {
            let _right = right;
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
        if questions.is_empty() {
            return Ok(None);
        }
        let (_interest, stop) = Stop::pair().map_err(chain("preflight"))?;
        let (scratch, right) = self.copies(Purpose::Validation).await?;
        let conditions = self.conditions(target, scratch, stop)?;
        let asked = tokio::task::spawn_blocking(move || {
            let _right = right;
            preflight::data(&questions, &conditions)
        });
        Ok(Some(asked.await.expect("BUG: asking about the data panicked")))
    }

    /// How commands of a generation are tried.
    pub(super) fn conditions(
        &self,
        installed: &Installed,
        scratch: PathBuf,
        stop: Stop,
    ) -> Result<Conditions, Fault> {
        Ok(Conditions {
            executable: self.site.executable.clone(),
            state: self.site.state_paths(),
            seating: self.seating(installed)?,
            scratch,
            moment: moment(),
            limit: VALIDATION,
            stop,
            tally: self.tally.clone(),
        })
    }

    /// A command of one generation, as the settings have it under a key, in a house in which only its own release and its
    /// interpreter are to be seen of what lies in private places.
    pub(super) fn validator(
        &self,
        installed: &Installed,
        launch: &Launch,
        (key, words): (&str, &[String]),
    ) -> Result<Sandbox, Fault> {
        let root = self.site.store.root(installed.generation).map_err(chain("store"))?;
        let words: Vec<String> = words.iter().map(|word| self.site.filled(word, &root)).collect();
        let (program, args) = words.split_first().expect("a command that is asked has words");
        let program = found(program, launch.env.get("PATH").map(String::as_str))
            .with_context(|| format!("`{program}` in `{key}` is not found in PATH"))
            .map_err(|error| fault("preflight", format!("{error:#}")))?;
        let house = self.house(installed, launch, &program)?;
        Ok(Sandbox {
            args: args.to_vec(),
            private_max: PRIVATE_MAX,
            file_max: PRIVATE_MAX,
            said_max: SAID_MAX,
            program,
            ..house
        })
    }
}
