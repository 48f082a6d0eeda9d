//! systemd's unit files, as far as they say what is executed.
//!
//! Knows the format. Must not know what is looked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The command lines of each unit in a directory, its drop-ins among them, by the unit's name. What cannot be read says
/// nothing: a masked unit is an empty file, and other users' directories may be closed.
pub(super) fn commands(directory: &Path) -> BTreeMap<String, Vec<Vec<String>>> {
    let mut units: BTreeMap<String, Vec<Vec<String>>> = BTreeMap::new();
    let Ok(entries) = fs::read_dir(directory) else { return units };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if name.ends_with(".service") {
            units.entry(name).or_default().extend(executed(&path));
        } else if let Some(unit) = name.strip_suffix(".d").filter(|unit| unit.ends_with(".service")) {
            let drop_ins = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            let lines = drop_ins.filter(|path| path.extension().is_some_and(|end| end == "conf"));
            units.entry(unit.to_owned()).or_default().extend(lines.flat_map(|path| executed(&path)));
        }
    }
    units
}

/// Whether a unit is started at boot or login: something in a `.wants` or `.requires` directory names it.
pub(super) fn is_enabled(directory: &Path, unit: &str) -> bool {
    let Ok(entries) = fs::read_dir(directory) else { return false };
    let mut groups = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "wants" || end == "requires"));
    groups.any(|group| fs::symlink_metadata(group.join(unit)).is_ok())
}

fn executed(path: &Path) -> Vec<Vec<String>> {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace("\\\n", " ");
    let lines = text.lines().filter_map(|line| {
        let (key, value) = line.split_once('=')?;
        let command = value.trim().trim_start_matches(['-', '@', ':', '+', '!']);
        (key.trim() == "ExecStart" && !command.is_empty()).then(|| words(command))
    });
    lines.collect()
}

/// Splits at white space outside quotes.
fn words(line: &str) -> Vec<String> {
    let (mut found, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    found.push(std::mem::take(&mut word));
                }
            }
            _ => word.push(c),
        }
    }
    if !word.is_empty() {
        found.push(word);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_read_with_their_quotes_prefixes_and_continuations() {
        let directory = tempfile::tempdir().unwrap();
        let unit =
            "[Service]\n# ExecStart=/no\nExecStart=-/usr/bin/env \"a b\" \\\n  'c' d\nExecStartPre=/x\n";
        fs::write(directory.path().join("a.service"), unit).unwrap();
        fs::create_dir(directory.path().join("a.service.d")).unwrap();
        fs::write(directory.path().join("a.service.d/o.conf"), "[Service]\nExecStart=\nExecStart=/b\n")
            .unwrap();
        std::os::unix::fs::symlink("/dev/null", directory.path().join("masked.service")).unwrap();
        fs::write(directory.path().join("a.timer"), "ExecStart=/c").unwrap();
        let found = commands(directory.path());
        assert_eq!(found["a.service"].len(), 2);
        assert!(found["a.service"].contains(&vec![
            "/usr/bin/env".into(),
            "a b".into(),
            "c".into(),
            "d".into()
        ]));
        assert!(found["a.service"].contains(&vec!["/b".into()]));
        assert!(found["masked.service"].is_empty());
        assert!(!is_enabled(directory.path(), "a.service"));
        fs::create_dir(directory.path().join("multi-user.target.wants")).unwrap();
        std::os::unix::fs::symlink(
            "../a.service",
            directory.path().join("multi-user.target.wants/a.service"),
        )
        .unwrap();
        assert!(is_enabled(directory.path(), "a.service"));
    }
}
