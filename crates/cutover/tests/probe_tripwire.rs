//! Tripwires in a log that grows and rotates as a keeper's does.
#![allow(clippy::unwrap_used, reason = "a step that fails here fails the test")]

use cutover::probe::{Error, TripwireScanner};
use cutover::supervisor::OUTPUT_LOST;
use cutover_core::Seen;
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const ROOT: &str = "/srv/generations/0007";
const AT_MS: u64 = 7;

struct Log {
    dir: tempfile::TempDir,
    file: File,
}

impl Log {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = Self::open(&dir.path().join("web.log"));
        Self { dir, file }
    }

    fn open(path: &Path) -> File {
        OpenOptions::new().create(true).append(true).open(path).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("web.log")
    }

    fn write(&mut self, text: &str) {
        self.file.write_all(text.as_bytes()).unwrap();
    }

    fn trip(&mut self, name: &str) {
        self.write(&format!("{}\n", gone(name)));
    }

    fn rotate(&mut self, keep: u32) {
        let named = |number: u32| self.dir.path().join(format!("web.log.{number}"));
        for number in (1..keep).rev() {
            if named(number).exists() {
                std::fs::rename(named(number), named(number + 1)).unwrap();
            }
        }
        std::fs::rename(self.path(), named(1)).unwrap();
        self.file = Self::open(&self.path());
    }

    fn scanner(&self) -> TripwireScanner {
        TripwireScanner::whole(self.path(), Path::new(ROOT))
    }
}

fn gone(name: &str) -> String {
    format!("Error [ERR_MODULE_NOT_FOUND]: Cannot find module '{ROOT}/core/{name}'")
}

fn names(seen: &Seen<Vec<String>>) -> Vec<String> {
    let Seen::Yes { value, at_ms: AT_MS, source } = seen else { panic!("{seen:?}") };
    assert!(source.ends_with("web.log"));
    value.iter().map(|line| line.rsplit('/').next().unwrap().trim_end_matches('\'').to_owned()).collect()
}

#[test]
fn a_clean_log_is_seen_to_have_no_tripwires() {
    let mut log = Log::new();
    log.write("17:00:00 [gateway] listening\nuser said: ");
    log.trip("a.js");
    let mut scanner = log.scanner();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
}

#[test]
fn a_line_trips_once_it_is_complete_and_stays_tripped() {
    let mut log = Log::new();
    let mut scanner = log.scanner();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    log.trip("a.js");
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js"]);
    let line = gone("b.js");
    log.write(&line[..40]);
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js"]);
    log.write(&line[40..]);
    log.write("\nall is well\n");
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js", "b.js"]);
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js", "b.js"]);
}

#[test]
fn rotation_between_looks_hides_nothing_and_repeats_nothing() {
    let mut log = Log::new();
    let mut scanner = log.scanner();
    log.trip("1.js");
    assert_eq!(names(&scanner.look(AT_MS)), ["1.js"]);
    log.trip("2.js");
    log.rotate(5);
    log.trip("3.js");
    let line = gone("4.js");
    log.write(&line[..30]);
    log.rotate(5);
    log.write(&line[30..]);
    log.write("\n");
    log.trip("5.js");
    assert_eq!(names(&scanner.look(AT_MS)), ["1.js", "2.js", "3.js", "4.js", "5.js"]);
    log.rotate(5);
    assert_eq!(names(&scanner.look(AT_MS)).len(), 5);
}

#[test]
fn a_whole_log_begins_in_its_oldest_rotated_file() {
    let mut log = Log::new();
    for name in ["1.js", "2.js", "3.js"] {
        log.trip(name);
        log.rotate(5);
    }
    log.trip("4.js");
    assert_eq!(names(&log.scanner().look(AT_MS)), ["1.js", "2.js", "3.js", "4.js"]);
}

#[test]
fn what_stood_before_the_offset_is_not_looked_at() {
    let mut log = Log::new();
    log.trip("before.js");
    let offset = std::fs::metadata(log.path()).unwrap().len();
    let mut scanner = TripwireScanner::from_offset(log.path(), Path::new(ROOT), offset).unwrap();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    log.trip("after.js");
    log.rotate(5);
    assert_eq!(names(&scanner.look(AT_MS)), ["after.js"]);
}

fn why(seen: &Seen<Vec<String>>) -> &str {
    let Seen::Missing { why, .. } = seen else { panic!("{seen:?}") };
    why
}

#[test]
fn a_log_that_was_lost_before_it_was_read_is_missing_for_that_look() {
    let mut log = Log::new();
    log.write("fine\n");
    let mut scanner = log.scanner();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    for _ in 0..3 {
        log.rotate(2);
        log.write("fine\n");
    }
    assert_eq!(why(&scanner.look(AT_MS)), "the log was rotated or cut faster than it was read");
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    log.trip("a.js");
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js"]);
}

#[test]
fn a_log_that_was_cut_is_missing_for_that_look() {
    let mut log = Log::new();
    log.write("a rather long line\n");
    let mut scanner = log.scanner();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    log.file.set_len(0).unwrap();
    log.write("short\n");
    assert_eq!(why(&scanner.look(AT_MS)), "the log was rotated or cut faster than it was read");
}

#[test]
fn a_log_that_is_not_there_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.log");
    let mut scanner = TripwireScanner::whole(path.clone(), Path::new(ROOT));
    assert!(why(&scanner.look(AT_MS)).starts_with("reading log "));
    assert!(matches!(TripwireScanner::from_offset(path.clone(), Path::new(ROOT), 0), Err(Error::Log { .. })));
    std::fs::write(&path, gone("a.js") + "\n").unwrap();
    assert_eq!(names(&scanner.look(AT_MS)), ["a.js"]);
}

#[test]
fn floods_are_bounded_in_lines_and_in_length() {
    let mut log = Log::new();
    log.write(&"x".repeat(1 << 20));
    log.write(&format!("\n{}{}\n", gone("long.js"), "y".repeat(1 << 20)));
    for number in 0..1000 {
        log.trip(&format!("{number}.js"));
    }
    let Seen::Yes { value, .. } = log.scanner().look(AT_MS) else { panic!("not seen") };
    assert_eq!(value.len(), 20);
    assert!(value[0].contains("long.js"));
    assert!(value.iter().all(|line| line.len() <= 4096));
}

#[test]
fn bytes_that_are_no_text_do_not_stop_the_scan() {
    let mut log = Log::new();
    log.file.write_all(b"\xff\xfe\x00\x1b[31\n\r\n\n").unwrap();
    log.write(&format!("{}\r\n", gone("a.js")));
    assert_eq!(names(&log.scanner().look(AT_MS)), ["a.js"]);
}

#[test]
fn a_relative_module_trips_only_with_a_require_stack_from_the_generation() {
    let statement = "Error: Cannot find module './gone'\n";
    let mut log = Log::new();
    log.write(&format!("{statement}Require stack:\n- /home/alice/a.js\n- {ROOT}/core/b.js\n"));
    log.write(&format!("{statement}something else\n- {ROOT}/core/b.js\n"));
    log.write(&format!("- {ROOT}/core/b.js\n{statement}"));
    let mut scanner = log.scanner();
    assert_eq!(names(&scanner.look(AT_MS)), [""; 0]);
    log.write(&format!("Require stack:\n- {ROOT}/core/b.js\n    at Module._load\n"));
    assert_eq!(names(&scanner.look(AT_MS)), ["gone"]);
}

/// Programs that miss something of their own, and one that does not.
const PROGRAMS: [(&str, &str, bool); 7] = [
    ("a.mjs", "import './gone.mjs'", true),
    ("b.mjs", "import {nope} from './fine.mjs'", true),
    ("c.mjs", "import('ws-that-is-not-there').catch((e) => console.error(e))", true),
    ("d.cjs", "require('./gone')", true),
    ("e.cjs", "require(__dirname + '/gone.cjs')", true),
    ("f.mjs", "import('./gone.mjs').catch((e) => console.error('shutdown error:', e.message))", true),
    ("g.cjs", "try { require('an-optional-thing') } catch (e) { console.error(e) }", false),
];

#[test]
fn what_node_really_says_trips() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path().canonicalize().unwrap();
    std::fs::write(root.join("fine.mjs"), "export const fine = 1").unwrap();
    for (name, program, trips) in PROGRAMS {
        std::fs::write(root.join(name), program).unwrap();
        let Ok(output) = std::process::Command::new("node").arg(root.join(name)).output() else {
            println!("skipped: no node here");
            return;
        };
        let mut log = Log::new();
        log.file.write_all(&output.stderr).unwrap();
        let seen = TripwireScanner::whole(log.path(), &root).look(AT_MS);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(!names(&seen).is_empty(), trips, "{name}: {said}");
        let elsewhere = TripwireScanner::whole(log.path(), Path::new(ROOT)).look(AT_MS);
        // A missing export names no absolute path, so it cannot be told from another generation's.
        assert_eq!(!names(&elsewhere).is_empty(), name == "b.mjs", "{name}: {said}");
    }
}

#[test]
fn a_log_that_could_not_take_everything_is_no_evidence_that_nothing_was_said() {
    let mut log = Log::new();
    let mut scanner = log.scanner();
    assert!(matches!(scanner.look(AT_MS), Seen::Yes { .. }));
    log.file.set_permissions(Permissions::from_mode(0o600 | OUTPUT_LOST)).unwrap();
    for _ in 0..2 {
        let seen = scanner.look(AT_MS);
        assert!(matches!(&seen, Seen::Missing { why, .. } if why.contains("free space")), "{seen:?}");
    }
    log.trip("a.js");
    assert_eq!(scanner.look(AT_MS).value().map(Vec::len), Some(1), "what did get there counts");
}
