//! Values that must not be repeated: they are taken out of what a program says before it is told.
//!
//! Knows an environment and files of configuration, as lines of names and values. Must not know what they mean.

use super::child::PASSED_ON;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use walkdir::WalkDir;

/// What stands in their place.
const HIDDEN: &str = "[hidden]";

/// Shorter ones (bytes) are words that are said for other reasons too.
const SHORT: usize = 8;

/// What the names of secret values have in them.
const NAMES: [&str; 5] = ["token", "secret", "password", "passwd", "key"];

/// How configuration ends, and how much of a file of it (bytes) is looked at.
const ENDINGS: [&str; 8] = ["json", "json5", "toml", "yaml", "yml", "env", "conf", "ini"];
const FILE_MAX: u64 = 1 << 20;

/// The values.
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Those of an environment, but paths of this machine, and those of the given files and of files in the given
    /// directories whose names sound secret.
    pub(crate) fn of<'a>(
        env: &BTreeMap<String, String>,
        configuration: impl Iterator<Item = &'a Path>,
    ) -> Self {
        let own = env.iter().filter(|(name, value)| !PASSED_ON.contains(&name.as_str()) && !is_path(value));
        let mut found: BTreeSet<String> = own.map(|(_, value)| value.clone()).collect();
        let entries = configuration.flat_map(|path| WalkDir::new(path).max_depth(1)).flatten();
        for entry in entries.filter(|entry| is_configuration(entry.path())) {
            if entry.metadata().is_ok_and(|found| found.is_file() && found.len() <= FILE_MAX) {
                let text = fs::read(entry.path()).unwrap_or_default();
                found.extend(String::from_utf8_lossy(&text).lines().flat_map(named).map(ToOwned::to_owned));
            }
        }
        let escaped: Vec<String> = found.iter().map(|value| escaped(value)).collect();
        found.extend(escaped);
        let mut found: Vec<String> = found.into_iter().filter(|value| value.len() >= SHORT).collect();
        // One that contains another must go first.
        found.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(found)
    }

    /// A text without them.
    #[must_use]
    pub fn hidden_in(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, value| text.replace(value.as_str(), HIDDEN))
    }
}

fn is_path(value: &str) -> bool {
    Path::new(value).is_absolute() && Path::new(value).exists()
}

fn is_configuration(path: &Path) -> bool {
    path.extension().and_then(|ending| ending.to_str()).is_some_and(|ending| ENDINGS.contains(&ending))
}

/// As it stands in JSON.
fn escaped(value: &str) -> String {
    let quoted = serde_json::Value::from(value).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// The values of a line whose names sound secret: `"name": "value"`, `name = 'value'`, `name: value`.
fn named(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices([':', '=']).filter_map(|(at, _)| {
        let name = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let begin = name.rfind(|one: char| !(one.is_alphanumeric() || "_-.".contains(one)));
        let name = name[begin.map_or(0, |begin| begin + 1).min(name.len())..].to_lowercase();
        NAMES.iter().any(|secret| name.contains(secret)).then(|| value(line[at + 1..].trim_start()))
    })
}

/// The first value of what follows a name.
fn value(rest: &str) -> &str {
    let Some(quote) = rest.chars().next().filter(|one| ['"', '\''].contains(one)) else {
        return rest.split([',', '}', ' ', '#']).next().unwrap_or_default();
    };
    let mut is_escaped = false;
    let end = rest[1..].find(|one: char| {
        let ends = one == quote && !is_escaped;
        is_escaped = one == '\\' && !is_escaped;
        ends
    });
    end.map_or(&rest[1..], |end| &rest[1..=end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_every_notation_by_the_names_before_them() {
        let of = |line: &str| named(line).map(ToOwned::to_owned).collect::<Vec<_>>();
        assert_eq!(of(r#"{"auth":{"token":"abc\"def","mode":"x"},"apiKey":"ghi"}"#), [r#"abc\"def"#, "ghi"]);
        assert_eq!(of("  botToken: 'a:b', // why"), ["a:b"]);
        assert_eq!(of("client_secret = plain # why"), ["plain"]);
        assert_eq!(of("DB_PASSWORD=x=y"), ["x=y"]);
        assert_eq!(of("port: 80, url: http://é.example"), [""; 0]);
        assert_eq!(of("é=1, étoken: \"open"), ["open"]);
    }

    #[test]
    fn what_is_short_or_a_path_of_this_machine_stays_and_the_longest_goes_first() {
        let env = [
            ("A", "short"),
            ("B", "/usr/bin/"),
            ("C", "longvalue"),
            ("D", "longvalue\nmore"),
            ("PATH", "/a:/b:/c:/d"),
        ];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let secrets = Secrets::of(&env, std::iter::empty());
        let said = "short /usr/bin/ longvalue longvalue\nmore longvalue\\nmore /a:/b:/c:/d";
        assert_eq!(secrets.hidden_in(said), "short /usr/bin/ [hidden] [hidden] [hidden] /a:/b:/c:/d");
    }
}
