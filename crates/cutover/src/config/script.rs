//! Programs that are scripts. The kernel runs the interpreter of such a program in its place, so that a process says of
//! itself that it is the interpreter: what was configured could never be proven to run.

use super::settings::ServiceSettings;
use super::template::fill;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Linux reads so much of a script for its first line (bytes).
const FIRST_LINE: u64 = 256;

/// What is wrong with a service's program, if it is a script: key, interpreter and what to write instead. `env` is the
/// service's environment, whose `PATH` finds the program. Of a program below `{root}` nothing is known yet.
#[must_use]
pub fn scripted(service: &ServiceSettings, env: &BTreeMap<String, String>) -> Option<String> {
    let word = service.command.first().filter(|word| !word.contains("{root}"))?;
    // A port is no part of a program's name; any will do.
    let program = found(&fill(word, Path::new(""), 0, service, env), env.get("PATH").map(String::as_str))?;
    run_by(&program).map(|problem| format!("service.{}.command: {problem}", service.name))
}

/// What is wrong with a program that is a script; `None` if it is none, or cannot be read: that is told when it is run.
pub(crate) fn run_by(program: &Path) -> Option<String> {
    let mut head = Vec::new();
    File::open(program).ok()?.take(FIRST_LINE).read_to_end(&mut head).ok()?;
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).trim().to_owned();
    let mut words: Vec<&str> = line.split_ascii_whitespace().collect();
    if words.first().is_some_and(|word| word.ends_with("/env")) {
        words.remove(0);
        words.retain(|word| *word != "-S");
    }
    let first = words.first().copied().unwrap_or("/bin/sh");
    let shown = program.display();
    Some(format!(
        "{shown} is a script run by `{line}`, so the process would be the interpreter and could not be proven; \
         write the interpreter first: command = [\"{first}\", \"{shown}\", …]"
    ))
}

/// The path of a program; one without a slash is looked for in `search`.
pub(crate) fn found(program: &str, search: Option<&str>) -> Option<PathBuf> {
    if program.contains('/') {
        return Some(PathBuf::from(program));
    }
    let mut directories = search.unwrap_or("/usr/local/bin:/usr/bin:/bin").split(':');
    directories.find_map(|directory| Some(Path::new(directory).join(program)).filter(|path| path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(first_line: &str) -> Option<String> {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("server");
        std::fs::write(&program, format!("{first_line}\nmore\n")).unwrap();
        run_by(&program)
    }

    #[test]
    fn a_script_is_told_with_the_interpreter_to_write_first() {
        let node = told("#!/usr/bin/env -S node --enable").unwrap();
        assert!(node.contains("run by `/usr/bin/env -S node --enable`"), "{node}");
        assert!(node.contains("command = [\"node\", "), "{node}");
        assert!(told("#! /bin/sh -e").unwrap().contains("command = [\"/bin/sh\", "));
    }

    #[test]
    fn a_program_of_its_own_and_a_missing_one_are_no_scripts() {
        assert_eq!(told("\u{7f}ELF"), None);
        assert_eq!(run_by(Path::new("/nowhere/at/all")), None);
        assert_eq!(run_by(&std::env::current_exe().unwrap()), None);
    }
}
