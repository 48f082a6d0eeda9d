//! What the target would do to the service's declared data: a command of its own is asked, on a copy, in a sandbox.
//!
//! Knows a command, where its answer has a word, and which words mean what. Must not know what the data is.

use super::configuration::{Conditions, Tried, Untried, tried, warned};
use super::refusal::{json, plain};
use crate::sandbox::{Exit, Sandbox};
use cutover_core::{DataClass, Finding, Level};

const KIND: &str = "schema";

/// One thing to ask the target.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its command, in a house without covers.
    pub command: Sandbox,
    /// JSON pointer to the word in its answer.
    pub pointer: String,
    /// Words that say that it changes nothing which the old version could not go on with.
    pub neutral: Vec<String>,
    /// Words that say that it migrates.
    pub migrated: Vec<String>,
    /// Words that say that it cannot use the data.
    pub refused: Vec<String>,
}

/// What the target said about the data, all questions together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// For the plan and the report.
    pub findings: Vec<Finding>,
    /// Neutral if every answer says so. Unknown counts as migrated.
    pub class: DataClass,
}

enum Answer {
    Neutral(String),
    Migrated(String),
    Refused(String),
    Unknown { why: String, advice: Option<&'static str> },
}

/// Asks the target.
#[must_use]
pub fn data(questions: &[Question], conditions: &Conditions) -> Told {
    let mut told = Told { findings: Vec::new(), class: DataClass::Neutral };
    for question in questions {
        let (finding, class) = match asked(question, conditions) {
            Answer::Neutral(word) => {
                let text = format!("the target says `{word}` of the data: the old version can go on with it");
                (Finding::new(Level::Note, KIND, text), DataClass::Neutral)
            }
            Answer::Migrated(word) => {
                let text =
                    format!("the target says `{word}` of the data: the old version needs it back as it was");
                (Finding::new(Level::Note, KIND, text), DataClass::Migrated)
            }
            Answer::Refused(word) => {
                let text = format!("the target says `{word}` of the data: it cannot use it");
                let advice = "the word is that of the new version's own command (`preflight.data`), on a copy of the \
                              state: bring the data into a form that it takes, or choose another version";
                (Finding::new(Level::Block, KIND, text).advised(advice), DataClass::Migrated)
            }
            Answer::Unknown { why, advice } => {
                let text = format!(
                    "what the target would do to the data is not known, so it counts as migrated: {why}"
                );
                (warned(KIND, text, advice), DataClass::Migrated)
            }
        };
        told.findings.push(finding);
        told.class = told.class.max(class);
    }
    told
}

/// Its word, whatever code it ended with: many programs end with one of their own for each answer.
fn asked(question: &Question, conditions: &Conditions) -> Answer {
    let unknown = |why| Answer::Unknown { why, advice: None };
    let Tried { exit, said: [stdout, stderr], .. } = match tried(&question.command, conditions) {
        Ok(tried) => tried,
        Err(Untried::NoProgram(why)) => return unknown(why),
        Err(Untried::Other { why, advice }) => return Answer::Unknown { why, advice },
    };
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => return unknown(format!("its command ended by signal {signal}")),
        Exit::Limit => return unknown(format!("its command did not end within {:?}", conditions.limit)),
    };
    let answer = json(&plain(&stdout));
    let word = answer.as_ref().and_then(|answer| answer.pointer(&question.pointer)?.as_str());
    let Some(word) = word else {
        let stderr = plain(&stderr);
        let last = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
        return unknown(format!("exit code {code}, no word at `{}` ({})", question.pointer, last.trim()));
    };
    let (is_in, word) = (|words: &[String]| words.iter().any(|known| known == word), word.to_owned());
    match () {
        () if is_in(&question.refused) => Answer::Refused(word),
        () if is_in(&question.migrated) => Answer::Migrated(word),
        // A failure is never good news, whatever it prints.
        () if is_in(&question.neutral) && code == 0 => Answer::Neutral(word),
        () => unknown(format!("exit code {code}, and its word is `{word}`")),
    }
}
