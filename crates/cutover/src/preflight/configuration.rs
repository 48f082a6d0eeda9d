//! Whether the target accepts the service's real configuration: its own validator is asked, on a copy, in a sandbox.
//!
//! Knows a command of each version and the state that it looks at. Must not know what a configuration is.

use super::copied::Copied;
use super::listed;
use super::refusal::{Issue, issues};
use super::stop::Stop;
use crate::causes::told;
use crate::sandbox::{self, Exit, Outcome, Sandbox};
use crate::store::Tally;
use crate::store::snapshot::{Moment, Seating, StatePath};
use cutover_core::{Finding, Level};
use rustix::io::Errno;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const KIND: &str = "configuration";

/// How each version is asked whether it accepts the configuration.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The target's command, in a house without covers.
    pub target: Sandbox,
    /// The version that runs.
    pub running: Option<Running>,
    /// How both are tried. The seats are the target's.
    pub conditions: Conditions,
}

/// The version that runs: what the target refuses is held against it.
#[derive(Clone, Debug)]
pub struct Running {
    /// The same command of it.
    pub command: Sandbox,
    /// Its name.
    pub version: String,
    /// Who sits in the state under it.
    pub seating: Seating,
}

/// How a command of a version is tried. The state is copied anew for each, and the copy covers the live paths.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// This program, which runs the sandbox.
    pub executable: PathBuf,
    /// The service's declared state.
    pub state: Vec<StatePath>,
    /// Who sits in each copy of it.
    pub seating: Seating,
    /// Where copies are made, and removed.
    pub scratch: PathBuf,
    /// When.
    pub moment: Moment,
    /// Longest time that one command may take.
    pub limit: Duration,
    /// Ends the asking at once.
    pub stop: Stop,
    /// Counts what is copied.
    pub tally: Tally,
}

impl Conditions {
    /// Copies the state, and counts that.
    pub(super) fn copy(&self) -> Result<Copied, String> {
        let copied = Copied::of(&self.state, &self.scratch, &self.moment)?;
        self.tally.add(copied.bytes());
        copied.seat(&self.seating)?;
        Ok(copied)
    }
}

/// What a version said.
pub(super) enum Answer {
    Accepted {
        after: Duration,
    },
    Refused {
        how: String,
        issues: Vec<Issue>,
    },
    /// No evidence of anything.
    Unknown {
        why: String,
        advice: Option<&'static str>,
    },
}

impl Answer {
    fn unknown(why: String) -> Self {
        Self::Unknown { why, advice: None }
    }
}

/// Asks the target, and the running version too if the target refuses: what both refuse keeps nobody from updating.
#[must_use]
pub fn configuration(validation: &Validation) -> Vec<Finding> {
    let (how, found) = match asked(&validation.target, &validation.conditions) {
        Answer::Unknown { why, advice } => return vec![unknown("the target", &why, advice)],
        Answer::Accepted { after } => {
            let text = format!("the target accepts the configuration ({} ms)", after.as_millis());
            return vec![Finding::new(Level::Note, KIND, text)];
        }
        Answer::Refused { how, issues } => (how, issues),
    };
    let Some(Running { command, version, seating }) = &validation.running else {
        return vec![refused(Level::Block, &how, &found, "")];
    };
    let conditions = Conditions { seating: seating.clone(), ..validation.conditions.clone() };
    let (known, unheard) = match asked(command, &conditions) {
        Answer::Refused { issues, .. } => (issues, None),
        Answer::Accepted { .. } => (Vec::new(), None),
        // Without its word everything is the target's.
        Answer::Unknown { why, advice } => {
            (Vec::new(), Some(unknown(&format!("{version}, which runs,"), &why, advice)))
        }
    };
    let is_known = |issue: &Issue| known.iter().any(|old| is_same(old, issue));
    let (old, new): (Vec<Issue>, Vec<Issue>) = found.into_iter().partition(is_known);
    let both = format!("; {version}, which runs, refuses it too");
    let findings = [(Level::Block, new, ""), (Level::Warn, old, both.as_str())];
    let told = findings.into_iter().filter(|(_, issues, _)| !issues.is_empty());
    told.map(|(level, issues, addition)| refused(level, &how, &issues, addition)).chain(unheard).collect()
}

/// By the key, whatever the words: those change from version to version. Without a key only the words are left.
fn is_same(old: &Issue, new: &Issue) -> bool {
    old.key == new.key && (new.key.is_some() || old.words == new.words)
}

fn refused(level: Level, how: &str, issues: &[Issue], addition: &str) -> Finding {
    let at = |issue: &Issue| match &issue.key {
        Some(key) => format!("refused at `{key}`: {}", issue.words),
        None => format!("refused ({how}) without naming a key: {}", issue.words),
    };
    let all: Vec<String> = issues.iter().map(at).collect();
    let text = format!("the configuration is {}{addition}", listed(&all));
    Finding::new(level, KIND, text).advised(
        "the words are those of the new version's own validator (`preflight.validate`), on a copy of the state: change \
         the configuration so that both versions accept it, or set `preflight.configuration = \"warn\"`",
    )
}

fn unknown(who: &str, why: &str, advice: Option<&str>) -> Finding {
    let text = format!("whether {who} accepts the configuration is not known: {why}");
    warned(KIND, text, advice)
}

/// A warning, with what to do about it where that is known.
pub(super) fn warned(kind: &str, text: String, advice: Option<&str>) -> Finding {
    let finding = Finding::new(Level::Warn, kind, text);
    match advice {
        Some(advice) => finding.advised(advice),
        None => finding,
    }
}

/// Only a program's own end with a code of its own is its answer, or that there is no such program: one that is killed,
/// by whomever, has not said what it thinks.
fn asked(command: &Sandbox, conditions: &Conditions) -> Answer {
    answer(tried(command, conditions), conditions)
}

/// The same of a copy that is there already.
pub(super) fn asked_of(command: &Sandbox, copied: &Copied, conditions: &Conditions) -> Answer {
    answer(tried_on(command, copied, conditions), conditions)
}

fn answer(tried: Result<Tried, Untried>, conditions: &Conditions) -> Answer {
    match tried {
        Ok(Tried { exit: Exit::Code(0), after, .. }) => Answer::Accepted { after },
        Ok(Tried { exit: Exit::Code(code), said: [stdout, stderr], .. }) => {
            Answer::Refused { how: format!("exit code {code}"), issues: issues(&stdout, &stderr) }
        }
        Ok(Tried { exit: Exit::Signal(signal), .. }) => {
            Answer::unknown(format!("its validator ended by signal {signal}"))
        }
        Ok(Tried { exit: Exit::Limit, .. }) => {
            Answer::unknown(format!("its validator did not end within {:?}", conditions.limit))
        }
        Err(Untried::NoProgram(words)) => {
            Answer::Refused { how: "not executed".into(), issues: vec![Issue { key: None, words }] }
        }
        Err(Untried::Other { why, advice }) => Answer::Unknown { why, advice },
    }
}

/// How a command of a version ended, and what it said on its two outputs, without what may be a secret.
pub(super) struct Tried {
    pub exit: Exit,
    pub said: [String; 2],
    after: Duration,
}

/// Why a command of a version was not tried.
pub(super) enum Untried {
    /// There is none that could be executed; in words.
    NoProgram(String),
    Other {
        why: String,
        advice: Option<&'static str>,
    },
}

/// Tries a command of a version on a copy of the state.
pub(super) fn tried(command: &Sandbox, conditions: &Conditions) -> Result<Tried, Untried> {
    let unknown = |why| Err(Untried::Other { why, advice: None });
    // A copy of the state takes its time and its space.
    if conditions.stop.is_asked() {
        return unknown("given up".into());
    }
    match conditions.copy() {
        Ok(copied) => tried_on(command, &copied, conditions),
        Err(why) => unknown(why),
    }
}

/// Tries a command of a version on this copy.
pub(super) fn tried_on(
    command: &Sandbox,
    copied: &Copied,
    conditions: &Conditions,
) -> Result<Tried, Untried> {
    let unknown = |why| Err(Untried::Other { why, advice: None });
    if conditions.stop.is_asked() {
        return unknown("given up".into());
    }
    let house = copied.furnish(command.clone());
    // Read before the program can write to its copy.
    let secrets = copied.secrets(&command.env);
    let begun = Instant::now();
    let ended = match house.run(&conditions.executable, conditions.limit, conditions.stop.poll()) {
        Ok(Outcome::Ended(ended)) => ended,
        Ok(Outcome::NoIsolation { why }) => {
            let advice = "a command of a version is tried only where it can harm nothing; allow the daemon user \
                          namespaces, or run it as root";
            return Err(Untried::Other { why: format!("no isolation ({why})"), advice: Some(advice) });
        }
        Err(sandbox::Error::NotExecuted { path, source }) if is_no_program(&source) => {
            return Err(Untried::NoProgram(told(&sandbox::Error::NotExecuted { path, source })));
        }
        Err(error) => return unknown(told(&error)),
    };
    let said = [&ended.stdout, &ended.stderr].map(|said| secrets.hidden_in(&said.text()));
    Ok(Tried { exit: ended.exit, said, after: begun.elapsed() })
}

/// Whether there is nothing that could be executed, and not only nobody who could do it now.
fn is_no_program(error: &io::Error) -> bool {
    let errnos = [Errno::NOENT, Errno::NOEXEC, Errno::ACCESS];
    Errno::from_io_error(error).is_some_and(|errno| errnos.contains(&errno))
}
