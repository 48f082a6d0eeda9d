//! Whether the service's interpreter is one that the packages allow.
//!
//! Knows ranges of versions and how to ask an interpreter for its own. Must not know what else a package needs.

use super::child::{Children, Error};
use super::manifest::Manifest;
use super::{Tree, counted, listed};
use crate::causes::told;
use cutover_core::{Finding, Level};
use nodejs_semver::{Range, Version};
use std::panic::catch_unwind;
use std::path::Path;

const KIND: &str = "engines";

/// Longer ranges are nobody's.
const RANGE_MAX: usize = 512;

/// What an interpreter said to `--version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Interpreter {
    /// As it said it: `v24.16.0`.
    pub said: String,
    version: Version,
}

/// What the service's interpreter said; `None` without one, a finding if it told nothing.
pub(super) type Asked = Option<Result<Interpreter, Finding>>;

impl Interpreter {
    /// Asks the service's interpreter, where it has one.
    pub(super) fn of(children: &Children) -> Asked {
        children.interpreter.as_deref().map(|program| Self::ask(children, program))
    }

    /// Runs the interpreter as the service's user.
    fn ask(children: &Children, program: &Path) -> Result<Self, Finding> {
        let name = program.display();
        let ran = children.run(program, &["--version"]).map_err(|error| {
            let level = if matches!(error, Error::Execute { .. }) { Level::Block } else { Level::Warn };
            let text = format!("the service's {name} does not run: {}", told(&error));
            Finding::new(level, KIND, text)
        })?;
        let said = ran.stdout.trim().to_owned();
        let version = said.strip_prefix('v').and_then(|version| version.parse().ok());
        match (ran.status.is_some_and(|status| status.success()), version) {
            (true, Some(version)) => Ok(Self { said, version }),
            _ => {
                let text = format!("the service's {name} tells no version: {}", ran.how(children.limit));
                Err(Finding::new(Level::Warn, KIND, text))
            }
        }
    }

    /// The first two numbers of its version.
    pub(super) fn major_minor(&self) -> (u32, u32) {
        let number = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
        (number(self.version.major()), number(self.version.minor()))
    }

    /// Whether a range allows it; `None` if the range is not one.
    fn is_allowed(&self, range: &str) -> Option<bool> {
        // An empty alternative means any version, which the parser does not know.
        if range.split("||").any(|alternative| alternative.trim().is_empty()) {
            return Some(true);
        }
        // A nightly build of a version is taken for it, as npm does.
        let (major, minor, patch) = (self.version.major(), self.version.minor(), self.version.patch());
        let release: Version = format!("{major}.{minor}.{patch}").parse().ok()?;
        // The range is anybody's text: a parser that gives up on it must not take the preflight with it.
        if range.len() > RANGE_MAX {
            return None;
        }
        let parsed = catch_unwind(|| Range::parse(range).map(|range| range.satisfies(&release)));
        parsed.ok()?.ok()
    }
}

/// Holds the interpreter against the ranges of the package and of everything installed with it. What runs is no excuse: it
/// may have been started by another node than the one that is configured now.
pub(super) fn look<'a>(
    target: &Tree,
    manifest: &Manifest,
    interpreter: &Interpreter,
    program: &Path,
    installed: impl Iterator<Item = &'a String>,
) -> Vec<Finding> {
    let (title, name, said) = (manifest.title(), program.display(), &interpreter.said);
    let mut findings = Vec::new();
    findings.extend(manifest.node().and_then(|range| match interpreter.is_allowed(range) {
        Some(true) => None,
        Some(false) => {
            let text = format!("{title} needs node {range}, the service's {name} is {said}");
            let advice = format!("give the service a node that {title} runs with (`node` and `command`)");
            Some(Finding::new(Level::Block, KIND, text).advised(advice))
        }
        None => {
            let text = format!("{title} needs node {range:?}, which is not a range; {name} is {said}");
            Some(Finding::new(Level::Warn, KIND, text))
        }
    }));
    let mut others = Vec::new();
    for path in installed.filter(|path| target.root.join(path) != target.package) {
        let Ok(Some(package)) = Manifest::read(&target.root.join(path)) else { continue };
        if let Some(range) = package.node()
            && interpreter.is_allowed(range) == Some(false)
        {
            others.push(format!("{} ({range})", package.title()));
        }
    }
    if !others.is_empty() {
        let count = counted(others.len(), "dependency asks", "dependencies ask");
        let text = format!("{count} for another node than {name}, which is {said}: {}", listed(&others));
        findings.push(Finding::new(Level::Note, KIND, text));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(said: &str, range: &str) -> Option<bool> {
        let version = said.trim_start_matches('v').parse().unwrap();
        Interpreter { said: said.into(), version }.is_allowed(range)
    }

    #[test]
    fn ranges_mean_what_they_mean_to_npm() {
        let allowed =
            [">=22.14.0", "^24.16 || >=26", "", "*", "18 || ", ">= 18", "24", "24.x", ">=20 <25", "<=24.21"];
        for range in allowed {
            assert_eq!(allows("v24.21.0", range), Some(true), "{range}");
        }
        for range in [">=24.22", "^20 || ^22", "<24", "18.x", ">=25"] {
            assert_eq!(allows("v24.21.0", range), Some(false), "{range}");
        }
        assert_eq!(allows("v24.0.0-nightly20260101", ">=24"), Some(true));
    }

    #[test]
    fn what_is_not_a_range_is_no_answer_and_no_crash() {
        for range in ["not a range at all", "~*", ">>1", &"9".repeat(600), "^*", "\u{1f4a5}"] {
            let answer = allows("v24.21.0", range);
            assert_ne!(answer, Some(false), "{range}");
        }
        assert_eq!(allows("v24.21.0", "not a range at all"), None);
    }
}
