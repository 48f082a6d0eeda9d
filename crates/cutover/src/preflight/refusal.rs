//! What a program says when it refuses its configuration: which keys, and in which words.
//!
//! Knows the shapes in which programs say it: JSON with issues, and lines that begin with a key. Must not know which
//! program speaks. What has neither shape has no key, which is told so and never guessed.

use serde_json::Value;

/// Of words for one key so much is kept (characters).
const WORDS_MAX: usize = 300;
/// Of what names no key, so many lines at its end are told.
const LINES: usize = 5;

/// Names under which programs write where something is wrong, and what.
const PATHS: [&str; 8] = ["path", "instancePath", "dataPath", "keyPath", "key", "property", "field", "loc"];
const MESSAGES: [&str; 5] = ["message", "msg", "error", "reason", "description"];

/// Marks before a line of a list.
const BULLETS: [char; 10] = ['-', '*', '•', '×', '✖', '✗', '✘', '›', '>', '⚠'];

/// Endings of names that have a dot and are files and no keys.
const FILES: [&str; 13] =
    ["json", "json5", "js", "mjs", "cjs", "ts", "toml", "yaml", "yml", "conf", "ini", "env", "log"];

/// One thing that a configuration is refused for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Issue {
    /// The key, as `gateway.port` or `agents.list.0`, if one was told.
    pub key: Option<String>,
    /// The program's own words.
    pub words: String,
}

/// Reads a refusal. There is always at least one issue; without any key there is one with the last lines.
pub(super) fn issues(stdout: &str, stderr: &str) -> Vec<Issue> {
    let (stdout, stderr) = (plain(stdout), plain(stderr));
    for json in [&stdout, &stderr].into_iter().filter_map(|said| json(said)) {
        let mut found = Vec::new();
        in_list(&json, &mut found);
        if found.is_empty() {
            found.extend(MESSAGES.iter().find_map(|name| Some(keyless(json.get(name)?.as_str()?))));
        }
        if !found.is_empty() {
            return sorted(found);
        }
    }
    let found: Vec<Issue> = [&stdout, &stderr].into_iter().flat_map(|said| in_lines(said)).collect();
    if !found.is_empty() {
        return sorted(found);
    }
    let said: Vec<&str> = [stderr.as_str(), &stdout].into_iter().flat_map(str::lines).collect();
    let said: Vec<&str> = said.into_iter().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = said[said.len().saturating_sub(LINES)..].join(" / ");
    vec![keyless(if last.is_empty() { "nothing was said" } else { &last })]
}

fn keyless(words: &str) -> Issue {
    Issue { key: None, words: shortened(words) }
}

fn sorted(mut issues: Vec<Issue>) -> Vec<Issue> {
    issues.sort();
    issues.dedup();
    issues
}

/// Without colours and other orders to a terminal.
pub(super) fn plain(said: &str) -> String {
    let mut text = String::new();
    let mut rest = said.chars().peekable();
    while let Some(one) = rest.next() {
        if one == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // Up to the letter that ends the order.
            while rest.next().is_some_and(|next| !next.is_ascii_alphabetic()) {}
        } else if one == '\n' || !one.is_control() {
            text.push(one);
        } else {
            text.push(' ');
        }
    }
    text
}

/// The first JSON object or list that begins a line.
pub(super) fn json(said: &str) -> Option<Value> {
    let mut at = 0;
    for line in said.split_inclusive('\n') {
        if line.starts_with(['{', '[']) {
            let first = serde_json::Deserializer::from_str(&said[at..]).into_iter::<Value>().next();
            if let Some(Ok(value)) = first {
                return Some(value);
            }
        }
        at += line.len();
    }
    None
}

/// Every object in a list that says where and what.
fn in_list(value: &Value, found: &mut Vec<Issue>) {
    match value {
        Value::Object(object) => object.values().for_each(|value| in_list(value, found)),
        Value::Array(list) => {
            for one in list {
                let path = PATHS.iter().find_map(|name| dotted(one.get(name)?));
                let words = MESSAGES.iter().find_map(|name| one.get(name)?.as_str());
                match (path, words) {
                    (Some(path), Some(words)) => found.extend(of(&path, words)),
                    (None, Some(words)) => found.extend(of("", words)),
                    _ => in_list(one, found),
                }
            }
        }
        _ => {}
    }
}

/// `gateway.port`, `/gateway/port` and `["gateway", "port"]` are the same.
fn dotted(path: &Value) -> Option<String> {
    match path {
        Value::String(path) if path.starts_with('/') => {
            Some(path[1..].replace('/', ".").replace("~1", "/").replace("~0", "~"))
        }
        Value::String(path) => Some(path.clone()),
        Value::Array(steps) => {
            let step = |step: &Value| step.as_str().map_or_else(|| step.to_string(), ToOwned::to_owned);
            Some(steps.iter().map(step).collect::<Vec<_>>().join("."))
        }
        _ => None,
    }
}

/// One issue, or one for each key that its words name as unknown: the path is then that of the object around it.
fn of(path: &str, words: &str) -> Vec<Issue> {
    let path = if is_root(path) { "" } else { path };
    let unknown = unknown_keys(words);
    let words = shortened(words);
    if unknown.is_empty() {
        let key = Some(path.to_owned()).filter(|path| !path.is_empty());
        return vec![Issue { key, words }];
    }
    let whole = |name: &String| if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
    unknown.iter().map(|name| Issue { key: Some(whole(name)), words: words.clone() }).collect()
}

fn is_root(path: &str) -> bool {
    let path = path.trim_matches(['<', '>', '(', ')', '$', '.', '/']);
    path.is_empty() || path.eq_ignore_ascii_case("root")
}

/// `Unrecognized key: "nosuch"`, `unknown field 'x'`: the names in quotes that follow.
fn unknown_keys(words: &str) -> Vec<String> {
    let lower = words.to_lowercase();
    let told = ["unrecognized", "unrecognised", "unknown", "unexpected", "additional"].iter();
    let Some(at) = told.filter_map(|word| lower.find(word)).min() else { return Vec::new() };
    let noun = ["key", "field", "propert", "option", "setting"].iter();
    let Some(noun) = noun.filter_map(|noun| lower[at..].find(noun)).min() else { return Vec::new() };
    let Some(rest) = words.get(at + noun..) else { return Vec::new() };
    let Some(quote) = rest.chars().find(|one| ['"', '`', '\''].contains(one)) else { return Vec::new() };
    // What is expected instead is named too, later.
    let rest = rest.split_once("expected").map_or(rest, |(before, _)| before);
    rest.split(quote).skip(1).step_by(2).filter(|name| is_name(name)).map(ToOwned::to_owned).collect()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.chars().any(|one| one.is_whitespace() || ['/', ',', ':'].contains(&one))
}

/// Lines of a list, or lines that begin with a path; also those whose path follows on a line of its own.
fn in_lines(said: &str) -> Vec<Issue> {
    let mut found = Vec::new();
    let mut before = "";
    for line in said.lines().map(str::trim) {
        if let Some(path) = line.strip_prefix("→ at ").or_else(|| line.strip_prefix("-> at ")) {
            found.extend(of(path.trim(), before.trim_start_matches(BULLETS).trim()));
            before = "";
            continue;
        }
        before = line;
        let bare = line.trim_start_matches(BULLETS).trim_start();
        let is_listed = bare.len() < line.len();
        let Some((path, words)) = bare.split_once(": ") else { continue };
        let quoted = path.trim_matches(['`', '"', '\'']);
        let is_marked = is_listed || quoted.len() < path.len();
        if is_key(quoted) && (is_marked || quoted.contains(['.', '[', '<'])) && !words.trim().is_empty() {
            found.extend(of(quoted, words.trim()));
        }
    }
    found
}

fn is_key(path: &str) -> bool {
    let is_allowed = |one: char| one.is_alphanumeric() || "_$.[]<>-\"'@".contains(one);
    let begins = path.starts_with(|one: char| one.is_alphabetic() || "_$<@".contains(one));
    let ending = path.rsplit('.').next().unwrap_or_default().to_lowercase();
    let is_file = path.contains('.') && FILES.contains(&ending.as_str());
    begins && !is_file && !path.ends_with("Error") && path.chars().all(is_allowed)
}

fn shortened(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(WORDS_MAX) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(stdout: &str, stderr: &str) -> Vec<String> {
        issues(stdout, stderr).into_iter().map(|issue| issue.key.unwrap_or_else(|| "-".into())).collect()
    }

    #[test]
    fn issues_in_json_name_their_keys_also_after_other_words_and_in_every_notation() {
        let said = r#"Config observe anomaly: something
{
  "valid": false, "path": "/etc/openclaw.json",
  "issues": [
    { "path": "gateway.port", "message": "Invalid input: expected number, received string" },
    { "path": "gateway", "message": "Unrecognized key: \"wrong\"" },
    { "path": "<root>", "message": "Unrecognized keys: \"nosuch\", \"other\"" }
  ]
}
"#;
        assert_eq!(keys(said, ""), ["gateway.port", "gateway.wrong", "nosuch", "other"]);
        let first = issues(said, "").swap_remove(0);
        assert_eq!(first.words, "Invalid input: expected number, received string");
        assert_eq!(keys("", r#"[{"instancePath":"/a/b~1c","message":"must be x"}]"#), ["a.b/c"]);
        assert_eq!(keys(r#"{"error":{"issues":[{"path":["a",0,"b"],"message":"no"}]}}"#, ""), ["a.0.b"]);
        assert_eq!(keys(r#"{"detail":[{"loc":["body","x"],"msg":"no"}]}"#, ""), ["body.x"]);
    }

    #[test]
    fn lines_of_a_list_and_lines_that_begin_with_a_path_name_keys() {
        let said = "Config invalid at /etc/openclaw.json:\n  × gateway.port: Invalid input\n  × <root>: Unrecognized key: \"nosuch\"\nRun `doctor` to repair.\n";
        assert_eq!(keys(said, ""), ["gateway.port", "nosuch"]);
        assert_eq!(keys("", "\u{1b}[31m- port: must be a number\u{1b}[0m\n"), ["port"]);
        assert_eq!(
            keys("gateway.auth[0]: missing\n`mode`: unknown variant\n", ""),
            ["gateway.auth[0]", "mode"]
        );
        assert_eq!(keys("✖ Invalid input: expected number\n  → at gateway.port\n", ""), ["gateway.port"]);
    }

    #[test]
    fn what_names_no_key_has_none_and_its_last_lines_are_told() {
        let said = "Error: cannot read\nTypeError: x is not a function\n    at file:///a/b.js:10:3\nserver.json: not found\nNode.js v24.1.0\n";
        let issues = issues("", said);
        assert_eq!(issues.len(), 1);
        assert_eq!(issues[0].key, None);
        assert!(issues[0].words.ends_with("server.json: not found / Node.js v24.1.0"), "{issues:?}");
        assert_eq!(issues_of("").words, "nothing was said");
        assert_eq!(
            issues_of(r#"{"valid":false,"path":"/x.json","error":"file not found"}"#).words,
            "file not found"
        );
        assert_eq!(issues_of(r#"{"valid":false,"path":"/x.json","error":"file not found"}"#).key, None);
    }

    fn issues_of(said: &str) -> Issue {
        let [one] = <[Issue; 1]>::try_from(issues(said, "")).unwrap();
        one
    }

    #[test]
    fn a_root_that_is_no_object_has_no_key_and_long_words_are_cut() {
        let parse = r#"{"issues":[{"path":"<root>","message":"JSON5 parse failed at 2:1"}]}"#;
        assert_eq!(issues_of(parse), Issue { key: None, words: "JSON5 parse failed at 2:1".into() });
        let long = issues_of(&"x ".repeat(1000)).words;
        assert_eq!(long.chars().count(), WORDS_MAX + 2);
    }
}
