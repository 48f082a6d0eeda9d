//! Whether the target's own command can mend a configuration that it refuses: tried on a copy, in a sandbox.
//!
//! Knows a command, the files whose mended content counts, and the validator that says whether it helped. Must not know
//! what a configuration is, or whether anything is done with the answer.

use super::configuration::{Answer, Conditions, Tried, Untried, asked_of, tried_on};
use super::listed;
use crate::causes::told;
use crate::sandbox::{Exit, Sandbox};
use crate::store::snapshot::{self, Mended};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is tried.
#[derive(Clone, Debug)]
pub struct Mending {
    /// The target's command that mends, in a house without covers.
    pub command: Sandbox,
    /// Longest time that it may take.
    pub limit: Duration,
    /// The files of declared state whose mended content counts; whatever else it changes ends with the copy.
    pub files: Vec<PathBuf>,
    /// The target's validator.
    pub validator: Sandbox,
    /// How the validator is tried.
    pub conditions: Conditions,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// The target accepts the configuration with these contents.
    Mended {
        /// What differs.
        files: Vec<Mended>,
        /// Which keys, in words, never with their values.
        how: String,
    },
    /// It cannot, or nobody knows.
    Not {
        /// Why.
        why: String,
    },
}

/// Lets the target's command mend a copy, and asks its validator about another copy with nothing but the mended files in it.
#[must_use]
pub fn mend(mending: &Mending) -> Mend {
    match tried_to_mend(mending) {
        Ok((files, how)) => Mend::Mended { files, how },
        Err(why) => Mend::Not { why },
    }
}

fn tried_to_mend(mending: &Mending) -> Result<(Vec<Mended>, String), String> {
    let files = mended_files(mending)?;
    if files.is_empty() {
        return Err("it left the configuration as it is".into());
    }
    let conditions = &mending.conditions;
    let copied = conditions.copy()?;
    copied.mend(&files)?;
    match asked_of(&mending.validator, &copied, conditions) {
        Answer::Accepted { .. } => {}
        Answer::Refused { how, issues } => {
            let keys: Vec<String> =
                issues.into_iter().map(|issue| issue.key.unwrap_or(issue.words)).collect();
            return Err(format!("what it makes of it is refused as well ({how}): {}", listed(&keys)));
        }
        Answer::Unknown { why, .. } => {
            return Err(format!("whether what it makes of it is accepted is not known: {why}"));
        }
    }
    let how = files.iter().map(changes).collect::<Vec<_>>().join("; ");
    Ok((files, how))
}

/// What the command makes of the files.
fn mended_files(mending: &Mending) -> Result<Vec<Mended>, String> {
    let conditions = &mending.conditions;
    let copied = conditions.copy()?;
    let read = |path: &PathBuf| snapshot::text_of(path, &copied.lying()).map_err(|error| told(&error));
    let mut before = Vec::new();
    for path in &mending.files {
        // By its real name, as the state is known by.
        let path = real(path);
        let text = read(&path)?;
        before.extend(text.map(|text| (path, text)));
    }
    let limited = Conditions { limit: mending.limit, ..conditions.clone() };
    match tried_on(&mending.command, &copied, &limited) {
        Ok(Tried { exit: Exit::Code(0), .. }) => {}
        Ok(Tried { exit: Exit::Code(code), said: [stdout, stderr], .. }) => {
            let said = [stderr, stdout].concat();
            let last =
                said.lines().rev().map(str::trim).find(|line| line.len() > 3).unwrap_or("nothing was said");
            return Err(format!("exit code {code} ({last})"));
        }
        Ok(Tried { exit: Exit::Signal(signal), .. }) => return Err(format!("it ended by signal {signal}")),
        Ok(Tried { exit: Exit::Limit, .. }) => {
            return Err(format!("it did not end within {:?}", mending.limit));
        }
        Err(Untried::NoProgram(why) | Untried::Other { why, .. }) => return Err(why),
    }
    let mut files = Vec::new();
    for (path, before) in before {
        let after = read(&path)?.ok_or_else(|| format!("it removed {}", path.display()))?;
        if after != before {
            files.push(Mended { path, before, after });
        }
    }
    Ok(files)
}

/// A real parent and the name, where the parent is there.
fn real(path: &Path) -> PathBuf {
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    }
}

/// Which keys of a file change, by name alone. What is no JSON is told by its size.
fn changes(file: &Mended) -> String {
    let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parsed = [&file.before, &file.after].map(|text| serde_json::from_str::<Value>(text).ok());
    let [Some(before), Some(after)] = parsed else {
        return format!("{name}: {} bytes become {}", file.before.len(), file.after.len());
    };
    let (before, after) = (leaves(&before), leaves(&after));
    let keys = |of: &BTreeMap<String, &Value>| of.keys().cloned().collect::<BTreeSet<_>>();
    let (then, now) = (keys(&before), keys(&after));
    let removed: Vec<String> = then.difference(&now).cloned().collect();
    let added: Vec<String> = now.difference(&then).cloned().collect();
    let changed: Vec<String> =
        then.intersection(&now).filter(|key| before[*key] != after[*key]).cloned().collect();
    let parts = [("removes", removed), ("changes", changed), ("adds", added)];
    let parts: Vec<String> = parts
        .into_iter()
        .filter(|(_, keys)| !keys.is_empty())
        .map(|(word, keys)| format!("{word} {}", listed(&keys)))
        .collect();
    match parts.is_empty() {
        true => format!("{name}: is written anew"),
        false => format!("{name}: {}", parts.join(", ")),
    }
}

/// Every value that has no keys of its own, by its path.
fn leaves(value: &Value) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    let mut left = vec![(String::new(), value)];
    while let Some((path, value)) = left.pop() {
        match value {
            Value::Object(keys) if !keys.is_empty() => {
                let at = |key: &String| if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                left.extend(keys.iter().map(|(key, value)| (at(key), value)));
            }
            _ => drop(found.insert(path, value)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_told_by_its_keys_and_never_by_its_values() {
        let file = |before: &str, after: &str| Mended {
            path: "/data/service.json".into(),
            before: before.into(),
            after: after.into(),
        };
        let told = changes(&file(
            r#"{"gateway":{"token":"secret","port":1},"old":true}"#,
            r#"{"gateway":{"token":"other","port":1},"meta":{"by":"secret"}}"#,
        ));
        assert_eq!(told, "service.json: removes old, changes gateway.token, adds meta.by");
        assert_eq!(changes(&file("{a: 1}", "{}")), "service.json: 6 bytes become 2");
        assert_eq!(changes(&file("{} ", "{}")), "service.json: is written anew");
    }
}
