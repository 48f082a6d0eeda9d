//! What the target is asked about declared data: how the file names the command and the words of its answer.

use super::complaint::Complaint;
use schemars::JsonSchema;
use serde::Deserialize;

/// A command of the target that says what it would do to declared data.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct QuestionFragment {
    /// The command, with placeholders as in `command`. Run in a sandbox, on a copy of `state` at the live paths.
    pub ask: Vec<String>,
    /// JSON pointer to the word in what it prints (default "/status").
    pub pointer: Option<String>,
    /// Words that say that the old version can go on with what the target makes of the data.
    #[serde(default)]
    pub neutral: Vec<String>,
    /// Words that say that it cannot.
    #[serde(default)]
    pub migrated: Vec<String>,
    /// Words that say that the target cannot use the data: the update ends before anything stops.
    #[serde(default)]
    pub refused: Vec<String>,
}

/// A question, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuestionSettings {
    /// Program and arguments with placeholders.
    pub ask: Vec<String>,
    /// JSON pointer to the word.
    pub pointer: String,
    /// Words that mean neutral.
    pub neutral: Vec<String>,
    /// Words that mean migrated.
    pub migrated: Vec<String>,
    /// Words that mean that the data cannot be used.
    pub refused: Vec<String>,
}

pub(super) fn questions(fragments: &[QuestionFragment]) -> Result<Vec<QuestionSettings>, Complaint> {
    fragments.iter().enumerate().map(|(at, fragment)| question(at, fragment)).collect()
}

fn question(at: usize, fragment: &QuestionFragment) -> Result<QuestionSettings, Complaint> {
    let key = |name: &str| format!("preflight.data[{at}].{name}");
    if fragment.ask.is_empty() {
        return Err(Complaint::new(key("ask"), "name a program"));
    }
    let pointer = fragment.pointer.clone().unwrap_or_else(|| "/status".into());
    if !pointer.starts_with('/') {
        return Err(Complaint::new(key("pointer"), "a JSON pointer begins with /"));
    }
    let QuestionFragment { ask, neutral, migrated, refused, .. } = fragment.clone();
    if neutral.is_empty() && migrated.is_empty() && refused.is_empty() {
        return Err(Complaint::new(
            key("neutral"),
            "name the words that it answers with: without any, every answer counts as migrated",
        ));
    }
    Ok(QuestionSettings { ask, pointer, neutral, migrated, refused })
}
