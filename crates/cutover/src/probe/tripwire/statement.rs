//! The statements that node makes when a module or an export is gone, and what logs put before them.

use std::borrow::Cow;

const INDENTS: [char; 2] = [' ', '\t'];
/// How many things may stand before a statement: date, time, subsystem, level, label and a spare.
const PREFIXES_MAX: usize = 6;
/// The longest label or subsystem name, in bytes.
const NAME_BYTES_MAX: usize = 40;
const LEVELS: [&str; 8] = ["trace", "debug", "info", "warn", "warning", "error", "fatal", "critical"];

/// What a line says about a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Saying {
    /// Nothing, or something about other places.
    Nothing,
    /// Something of it is gone.
    Gone,
    /// A relative module is gone; the require stack on the next lines tells from where.
    GoneSomewhere,
}

/// What the line says about what is in `root` (with its trailing slash), if it begins with a statement.
pub(super) fn saying(line: &str, root: &str) -> Saying {
    let line = without_colours(line);
    let mut rest = line.trim_start_matches(INDENTS);
    for _ in 0..=PREFIXES_MAX {
        if let Some(said) = stated(rest, root) {
            return said;
        }
        match without_prefix(rest) {
            Some(shorter) => rest = shorter.trim_start_matches(INDENTS),
            None => return Saying::Nothing,
        }
    }
    Saying::Nothing
}

/// Is the line between a statement and the first path of its require stack?
pub(super) fn opens_require_stack(line: &str) -> bool {
    line.trim() == "Require stack:"
}

/// Does the line name a file in `root` as an entry of a require stack?
pub(super) fn requires_from(line: &str, root: &str) -> bool {
    line.trim_start_matches(INDENTS).strip_prefix("- ").is_some_and(|path| path.starts_with(root))
}

/// What the statement at the beginning says, if one stands there.
fn stated(text: &str, root: &str) -> Option<Saying> {
    let text = text.strip_prefix("Uncaught ").unwrap_or(text);
    let class = ["Error", "SyntaxError", "TypeError"].into_iter().find_map(|class| text.strip_prefix(class));
    let after_class = class.unwrap_or(text);
    let coded = after_class.strip_prefix(" [ERR_MODULE_NOT_FOUND]");
    let text = match coded.or(class) {
        Some(rest) => rest.strip_prefix(": ")?,
        None => text,
    };
    for opening in ["Cannot find module '", "Cannot find package '"] {
        if let Some(rest) = text.strip_prefix(opening) {
            let (missing, rest) = rest.split_once('\'')?;
            let importer = rest.strip_prefix(" imported from ").map(|path| path.trim_start_matches('\''));
            let mut paths = [Some(missing), importer].into_iter().flatten().filter_map(absolute).peekable();
            // Without a path only node's own code tells such a statement from a program's remark.
            return Some(match paths.peek() {
                Some(_) => gone_if(paths.any(|path| path.starts_with(root))),
                None if coded.is_some() => Saying::Gone,
                None if missing.starts_with("./") || missing.starts_with("../") => Saying::GoneSomewhere,
                None => Saying::Nothing,
            });
        }
    }
    if let Some(rest) = text.strip_prefix("The requested module '") {
        let (module, rest) = rest.split_once('\'')?;
        let lacks = rest.starts_with(" does not provide an export named '");
        return Some(gone_if(lacks && absolute(module).is_none_or(|path| path.starts_with(root))));
    }
    text.starts_with("does not provide an export named '").then_some(Saying::Gone)
}

fn gone_if(tells: bool) -> Saying {
    if tells { Saying::Gone } else { Saying::Nothing }
}

fn absolute(path: &str) -> Option<&str> {
    let path = path.strip_prefix("file://").unwrap_or(path);
    path.starts_with('/').then_some(path)
}

/// Without the terminal's colour codes (`ESC [ digits m`).
fn without_colours(line: &str) -> Cow<'_, str> {
    let mut parts = line.split("\x1b[");
    let Some(first) = parts.next().filter(|first| first.len() < line.len()) else {
        return Cow::Borrowed(line);
    };
    let mut plain = first.to_owned();
    for part in parts {
        let after_digits = part.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        plain.push_str(after_digits.strip_prefix('m').unwrap_or(part));
    }
    Cow::Owned(plain)
}

/// Takes one prefix off: a date or time, a name or time in brackets, a level, or a label such as `shutdown error:`.
fn without_prefix(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (name, rest) = rest.split_once(']')?;
        return (is_name(name) || is_time(name)).then(|| rest.strip_prefix(':').unwrap_or(rest));
    }
    let (word, rest) = text.split_once(INDENTS)?;
    if is_time(word) || LEVELS.iter().any(|level| word.trim_end_matches(':').eq_ignore_ascii_case(level)) {
        return Some(rest);
    }
    let (label, rest) = text.split_once(": ")?;
    let is_label = label.len() <= NAME_BYTES_MAX
        && label.chars().all(|c| c.is_ascii_lowercase() || c == ' ')
        && (label.ends_with(" failed") || label.ends_with(" error"));
    is_label.then_some(rest)
}

fn is_name(word: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&word.len())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || "_-./:".contains(c))
}

/// Digits with the signs of dates and times: `17:22:27`, `2026-05-04`, `2026-05-04T17:22:27.123+02:00`.
fn is_time(word: &str) -> bool {
    (8..=35).contains(&word.len())
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || "T:.,+Z-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::{Saying, saying};

    const ROOT: &str = "/srv/generations/0007/";

    fn trips(line: &str, root: &str) -> bool {
        saying(line, root) == Saying::Gone
    }

    #[test]
    fn what_node_says_of_its_own_generation_trips_with_any_usual_prefix() {
        let esm = "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/srv/generations/0007/core/dist/server-close-1f.js' imported from /srv/generations/0007/core/dist/server.impl.js";
        let cjs = "Error: Cannot find module '/srv/generations/0007/core/dist/runtime-provider-9a.js'";
        let package = "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'ws' imported from /srv/generations/0007/core/a.js";
        let url = "Error [ERR_MODULE_NOT_FOUND]: Cannot find module 'file:///srv/generations/0007/core/a.js'";
        let export = "SyntaxError: The requested module 'openclaw/plugin-sdk/channel-streaming' does not provide an export named 'formatChannelProgressDraftLineForEntry'";
        let wrapped = "  does not provide an export named 'formatChannelProgressDraftLineForEntry'";
        let unnamed = "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'ws'";
        for statement in [esm, cjs, package, url, export, wrapped, unnamed] {
            for prefix in [
                "",
                "    ",
                "17:25:37 ",
                "2026-05-04T17:25:37.123Z ",
                "2026-05-04 17:25:37,123 ERROR ",
                "[2026-05-04T17:25:37+02:00] [gateway] ",
                "\x1b[31m17:27:35\x1b[0m [gateway] shutdown error: ",
                "17:22:27 [gateway] request handler failed: ",
                "error: ",
                "Uncaught ",
            ] {
                let line = format!("{prefix}{statement}");
                if prefix == "Uncaught " && statement == wrapped {
                    continue;
                }
                assert!(trips(&line, ROOT), "{line}");
            }
        }
        assert!(trips("startup failed: Cannot find module '/srv/generations/0007/core/x.js'", ROOT));
    }

    #[test]
    fn text_that_only_quotes_such_a_statement_does_not_trip() {
        let statement = "Error: Cannot find module '/srv/generations/0007/core/dist/a.js'";
        for line in [
            format!("user alice says {statement}"),
            format!("17:00:00 [chat] alice: {statement}"),
            format!("17:00:00 [chat] message \"{statement}\""),
            format!("> {statement}"),
            format!("{{\"text\":\"{statement}\"}}"),
            format!("17:00:00 [chat] how do I fix this failed: {}", "x ".repeat(40) + statement),
            format!("[alice and bob] {statement}"),
            format!("Why error: {statement}"),
            "see ERR_MODULE_NOT_FOUND in the manual".to_owned(),
            "the module does not provide an export named 'x'".to_owned(),
        ] {
            assert!(!trips(&line, ROOT), "{line}");
        }
    }

    #[test]
    fn a_statement_about_paths_elsewhere_does_not_trip() {
        for line in [
            "Error: Cannot find module '/home/alice/project/a.js'",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/srv/generations/0008/core/a.js'",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find module '/srv/generations/00071/core/a.js'",
            "Error [ERR_MODULE_NOT_FOUND]: Cannot find package 'x' imported from /home/alice/a.js",
            "Error: Cannot find module 'optional-native-thing'",
            "Error: Cannot find module './a.js'",
            "SyntaxError: The requested module '/home/alice/a.js' does not provide an export named 'x'",
            "SyntaxError: The requested module '/srv/generations/0007/a.js' is odd",
            "Error: Cannot find module '/srv/generations/0007/never closed",
            "Error: something else in /srv/generations/0007/core",
            "Error",
            "[",
            "",
        ] {
            assert!(!trips(line, ROOT), "{line}");
        }
    }

    #[test]
    fn odd_bytes_and_endless_prefixes_are_only_text() {
        for line in ["\x1b[", "\x1b[31", "\x1b[31m", "[é] x", "Error [ERR_MODULE_NOT_FOUND]", "é: é"] {
            assert!(!trips(line, ROOT), "{line}");
        }
        let line = format!("{}Error: Cannot find module '{ROOT}a.js'", "error: ".repeat(7));
        assert!(!trips(&line, ROOT));
    }
}
