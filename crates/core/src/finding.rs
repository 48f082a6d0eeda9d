//! What a look at a staged release found, before anything stops.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Good to know.
    Note,
    /// A person should look; nothing is kept from running.
    Warn,
    /// The release would not work: it is not switched to.
    Block,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Note => "note",
            Self::Warn => "warn",
            Self::Block => "block",
        })
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// A stable word for its kind (`import`, `engines`, `native`, `space` …), by which a policy names it.
    pub kind: String,
    /// What was found, with file and line where there are any.
    pub text: String,
    /// What it means and what to do about it.
    pub advice: Option<String>,
    /// What of the operator's own the run changes because of it: an approval is given to exactly this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<String>,
}

impl Finding {
    /// A finding without advice.
    #[must_use]
    pub fn new(level: Level, kind: &str, text: impl Into<String>) -> Self {
        Self { level, kind: kind.to_owned(), text: text.into(), advice: None, changes: None }
    }

    /// The same, with what the run changes because of it.
    #[must_use]
    pub fn changing(mut self, changes: impl Into<String>) -> Self {
        self.changes = Some(changes.into());
        self
    }

    /// Whether any of them keeps a release from being switched to.
    #[must_use]
    pub fn any_blocks(findings: &[Self]) -> bool {
        findings.iter().any(|finding| finding.level == Level::Block)
    }

    /// The same with advice.
    #[must_use]
    pub fn advised(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.level, self.kind, self.text)
    }
}
